"""Bodies, queries, paths and headers that nobody should send are answered, and soon."""

from __future__ import annotations

import json
import time
from uuid import uuid4

import pytest

from .conftest import problem

pytestmark = pytest.mark.django_db


HOSTILE = {
    "nothing but an opening": b"{",
    "a trailing comma": b'{"title": "x",}',
    "two values": b"{} {}",
    "words": b"hello",
    "nan": b'{"metadata": {"a": NaN}}',
    "infinity": b'{"metadata": {"a": -Infinity}}',
    "an infinite number": b'{"metadata": {"a": 1e999}}',
    "ten thousand digits": b'{"metadata": {"a": ' + b"9" * 10_000 + b"}}",
    "invalid UTF-8": b'{"title": "\xff\xfe"}',
    "an encoded surrogate": b'{"title": "\xed\xa0\x80"}',
    "UTF-16": '{"title": "x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"title": "x"}',
    "deep arrays": b'{"metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "unclosed arrays": b"[" * 200_000,
    "deep objects": b'{"metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
    "one level too many": b'{"metadata": ' + b'{"a":' * 101 + b"1" + b"}" * 102,
    "a raw control character": b'{"title": "a\x00b"}',
    "a list": b"[]",
    "a string": b'"x"',
    "a number": b"5",
    "null": b"null",
    "true": b"true",
    "white space": b"   ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_body_is_a_problem_and_never_a_failure(name, api):
    session = api.open()
    own = f"sessions/{session['id']}"
    for method, path in (("post", "sessions"), ("post", f"{own}/messages"), ("patch", f"{own}/state"), ("patch", own)):
        problem(api.call(method, path, raw=HOSTILE[name]), 400, "invalid_request")
    assert api.reads(f"sessions/{session['id']}")["last_sequence"] == 1


def test_nesting_as_deep_as_allowed_comes_back(api):
    deep = {"a": 1}
    for _ in range(90):
        deep = {"a": deep}
    session = api.open(metadata=deep, state=deep)
    assert session["metadata"] == deep
    assert api.reads(f"sessions/{session['id']}/state")["state"] == deep
    assert api.reads(f"sessions/{session['id']}/export?as=json")["session"]["metadata"] == deep


def test_of_a_repeated_key_the_last_one_counts(api):
    response = api.post("sessions", raw=b'{"agent": "silent", "title": "a", "title": "b"}')
    assert response.json()["title"] == "b"


def test_empty_body_is_an_empty_object(api):
    assert api.post("sessions").status_code == 201
    session = api.open()
    for path in ("resume", "heartbeat", "renew", "fork", "end"):
        assert api.post(f"sessions/{session['id']}/{path}").status_code in {200, 201}


@pytest.mark.parametrize(
    "query",
    ["%00", "%FF", "%ED%A0%80", "%", "%zz", "\\", "'", '"', "%25", "_", "a" * 50_000, "%00" * 999],
    ids=lambda text: text[:12],
)
def test_hostile_query_is_never_a_failure(query, api):
    session = api.open()
    names = (
        "agent",
        "application",
        "tag",
        "parent",
        "external_id",
        "search",
        "status",
        "created_after",
        "cursor",
        "owner",
    )
    for name in names:
        assert api.get(f"sessions?{name}={query}").status_code in {200, 400, 403}
    for path in ("events?type=", "messages?before=", "export?as=", "summary?tree=", "context?max_tokens="):
        assert api.get(f"sessions/{session['id']}/{path}{query}").status_code in {200, 400}


@pytest.mark.parametrize("sequence", ["0", "-1", "x", "%00", "٣", "1.0", "9" * 18, "9" * 19, "9" * 5000, "2%0A", "%20"])
def test_message_that_never_was_is_not_found(sequence, api):
    session = api.open()
    for method in ("get", "patch", "delete"):
        body = {"content": "x"} if method == "patch" else None
        response = api.call(method, f"sessions/{session['id']}/messages/{sequence}", body)
        problem(response, 404, "message_not_found")


@pytest.mark.parametrize("length", [1000, 100_000])
def test_very_long_path_is_not_found(length, api):
    problem(api.get(f"sessions/{'a' * length}"), 404, "session_not_found")
    problem(api.get(f"sessions/{uuid4()}/{'a' * length}"), 404, "session_not_found")


def test_hostile_headers_are_never_a_failure(api):
    session = api.open()
    for value in ("\x00", "\xff" * 64, "'" * 64, "é", " "):
        for name in ("X-Chat-Client", "If-Match", "Idempotency-Key", "Accept-Language"):
            response = api.post(f"sessions/{session['id']}/messages", {"content": "x"}, **{name: value})
            assert response.status_code in {200, 201, 400, 409, 412}, response.content


@pytest.mark.parametrize(
    "cursor", ["e30=", "fA==", "MjAyNnx4", "!!!!", "é", "%00", "MDAwMS0wMS0wMVQwMDowMDowMCswMDowMHww"]
)
def test_cursor_that_no_page_gave_is_refused(cursor, api):
    problem(api.get(f"sessions?cursor={cursor}"), 400, "invalid_request")


@pytest.mark.parametrize(
    ("field", "code"),
    [("tags", "invalid_request"), ("messages", "message_limit_reached"), ("parts", "invalid_request")],
)
def test_million_wrong_items_are_refused_in_no_time_and_not_one_by_one(field, code, api):
    path = f"sessions/{api.open()['id']}/messages" if field == "parts" else "sessions"
    started = time.thread_time()
    response = api.post(path, raw=b'{"content": "x", "%s": [%s1]}' % (field.encode(), b"1," * 1_000_000))
    assert time.thread_time() - started < 3
    problem(response, 409 if code == "message_limit_reached" else 400, code)
    assert len(response.content) < 1000


def test_thousands_of_unknown_fields_are_refused_in_no_time(api):
    started = time.thread_time()
    response = api.post("sessions", raw=json.dumps({f"field{n}": n for n in range(50_000)}).encode())
    assert len(problem(response, 400, "invalid_request")["errors"]) == 50_000
    assert time.thread_time() - started < 5
