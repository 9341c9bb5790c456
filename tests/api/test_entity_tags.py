"""``ETag`` and ``If-Match``: a write succeeds only on what its caller has seen."""

from __future__ import annotations

import pytest

from django_chat_sessions.testing import age

from .conftest import problem, row

pytestmark = pytest.mark.django_db

#: Each call that writes to a session, on one with two messages (last sequence 3).
WRITES = [
    ("patch", "", {"title": "x"}),
    ("delete", "", None),
    ("post", "/resume", None),
    ("post", "/heartbeat", None),
    ("post", "/renew", None),
    ("patch", "/timeout", {"timeout_minutes": 60}),
    ("post", "/end", None),
    ("post", "/fork", None),
    ("patch", "/state", {"a": 1}),
    ("post", "/messages", {"content": "x", "delivery": "store"}),
    ("post", "/messages", {"content": "x", "delivery": "wait"}),
    ("patch", "/messages/2", {"content": "x"}),
    ("delete", "/messages/2", None),
    ("post", "/events", {"type": "app.x"}),
]
each_write = pytest.mark.parametrize("write", WRITES, ids=lambda write: f"{write[0]} {write[1]} {write[2] or ''}")


@pytest.fixture
def path(api):
    session = api.open(agent="echo")
    api.say(session, "one")
    api.say(session, "two")
    return f"sessions/{session['id']}"


def send(api, path, write, tag: str):
    method, below, body = write
    return api.call(method, path + below, body, If_Match=tag)


@each_write
@pytest.mark.parametrize(
    "tag", ['"3"', "*", ' "3" ', '"3","4"', '"1", "3"', '"1" , "3"', 'W/"3", "3"', '"x", "3"', " * "]
)
def test_write_on_what_was_seen_succeeds(write, tag, path, api):
    assert send(api, path, write, tag).status_code in {200, 201, 204}


@each_write
@pytest.mark.parametrize(
    "tag",
    [
        '"2"',
        '"4"',
        'W/"3"',
        "3",
        "'3'",
        '"03"',
        '" 3"',
        '"3',
        '"1", "2"',
        "",
        "x",
        '""',
        '"+3"',
        '"3.0"',
        '"' + "3" * 99 + '"',
        '"٣"',
    ],
)
def test_write_on_anything_else_is_412_and_writes_nothing(write, tag, path, api):
    try:
        tag.encode("latin-1")
    except UnicodeEncodeError:
        tag = tag.encode().decode("latin-1")
    told = problem(send(api, path, write, tag), 412, "sequence_conflict")
    assert told["last_sequence"] == 3
    read = api.reads(path)
    assert (read["last_sequence"], read["message_count"]) == (3, 2)


def test_every_session_is_tagged_with_its_last_sequence(path, api):
    for below in ("", "/state", "/messages", "/events", "/export"):
        assert api.get(path + below)["ETag"] == '"3"'
    assert api.patch(path, {"title": "x"})["ETag"] == '"4"'
    assert api.post(f"{path}/events", {"type": "app.x"})["ETag"] == '"5"'


@pytest.mark.parametrize("below", ["", "/messages", "/events", "/state"])
def test_reading_never_answers_304_nor_412(below, path, api):
    tag = api.get(path + below)["ETag"]
    assert api.get(path + below, If_None_Match=tag).status_code == 200
    assert api.get(path + below, If_Match='"99"').status_code == 200


def test_tag_of_a_session_that_was_idle_still_fits_its_log(path, api):
    age(row({"id": path.partition("/")[2]}), minutes=10)
    response = api.post(f"{path}/messages", {"content": "x", "delivery": "store"}, If_Match='"3"')
    assert (response.status_code, response["ETag"]) == (201, '"5"')
