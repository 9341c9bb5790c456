"""Streams of a real ASGI server are their owner's alone, and of one session each."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest

from django_chat_sessions.api.openapi.calls import FRAME_ID
from django_chat_sessions.models import ChatSession, Run, SessionEvent
from tests.isolation.test_strangers import MALFORMED, PRIVATE, keys_of
from tests.streams.conftest import Reader, Server, _lasting, server, servers  # noqa: F401 - the last three are fixtures

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

#: What may differ from answer to answer.
PASSING = {"date", "content-length", "connection"}


@pytest.fixture
def hers(server: Server) -> Server:  # noqa: F811 - the fixture
    """Return a server, as Alice calls it."""
    return server


@pytest.fixture
def his(hers: Server, bob: Any) -> Server:
    """Return the same server, as Bob calls it."""
    from rest_framework.authtoken.models import Token

    return replace(hers, token=Token.objects.create(user=bob).key)


def told(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in response.headers.items() if name not in PASSING}
    return response.status_code, headers, response.content


def streams(session: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return every call of a session that may be answered with a stream."""
    return [
        ("GET", f"sessions/{session}/stream", {}),
        ("GET", f"sessions/{session}/stream/", {"params": {"after": "0"}}),
        ("GET", f"sessions/{session}/stream", {"params": {"after": "x"}}),
        ("GET", f"sessions/{session}/stream", {"headers": {"Last-Event-ID": "1", "Accept": "text/event-stream"}}),
        ("POST", f"sessions/{session}/messages", {"json": {"content": "mine", "delivery": "stream"}}),
        ("POST", f"sessions/{session}/runs", {"json": {"delivery": "stream"}}),
    ]


def written() -> tuple[int, int]:
    return SessionEvent.objects.count(), Run.objects.count()


@pytest.mark.parametrize("condition", ["live", "ended"])
def test_stream_of_somebody_else_is_that_of_a_session_that_never_was(condition: str, hers: Server, his: Server) -> None:
    session = hers.open("echo")
    assert hers.call("POST", f"sessions/{session}/messages", json={"content": "hers"}).status_code == 201
    if condition == "ended":
        assert hers.call("POST", f"sessions/{session}/end").status_code == 200
    before = written()
    for strange, never in zip(streams(session), streams(str(uuid4())), strict=True):
        (method, path, sent), (_, unknown, _) = strange, never
        answers = [told(his.call(method, address, **sent)) for address in (path, unknown)]
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
        assert b"session_not_found" in answers[0][2]
    assert written() == before


def test_stream_of_a_malformed_id_is_that_of_a_session_that_never_was(his: Server) -> None:
    never = told(his.call("GET", f"sessions/{uuid4()}/stream"))
    assert never[0] == 404
    for malformed in [name for name in MALFORMED if ".." not in name and len(name) < 3000]:
        status, _, content = told(his.call("GET", f"sessions/{malformed}/stream"))
        assert (status, content) == (404, never[2]), malformed


@pytest.mark.parametrize("token", ["", "Token of-nobody"])
def test_stream_is_for_nobody_who_does_not_say_who_they_are(token: str, hers: Server) -> None:
    session = hers.open("echo")
    before = written()
    for id_ in (session, str(uuid4()), "x"):
        for method, path, sent in streams(id_):
            headers = {**sent.get("headers", {}), **({"Authorization": token} if token else {})}
            response = httpx.request(method, f"{hers.url}/{path}", **{**sent, "headers": headers})
            assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
            assert response.headers["content-type"] == "application/problem+json"
    assert written() == before


def test_every_stream_shows_its_own_session_alone_while_others_are_written(hers: Server, his: Server) -> None:
    words = {"a": "apple acorn almond", "b": "birch bark beech", "c": "cedar cone copper"}
    callers = {"a": hers, "b": hers, "c": his}
    ids = {name: caller.open("slow_echo", title=f"title {name}") for name, caller in callers.items()}
    followed = {name: callers[name].stream(f"sessions/{ids[name]}/stream", last="1") for name in ids}
    for stream in followed.values():
        stream.wait_open()
    asked = {
        name: callers[name].stream(
            f"sessions/{ids[name]}/messages", method="POST", json={"content": text, "delivery": "stream"}
        )
        for name, text in words.items()
    }
    for stream in followed.values():
        stream.wait_for_type("run.succeeded")
    for name, stream in asked.items():
        stream.wait_closed()
        for reader in (stream, followed[name]):
            shows_only(reader, ids[name], words[name])
            reader.cut()


def shows_only(reader: Reader, session: str, text: str) -> None:
    row = ChatSession.objects.get(uuid=session)
    runs = {str(run.uuid) for run in row.runs.all()}
    logged = list(row.events.filter(sequence__gt=1).order_by("sequence").values_list("sequence", "type"))
    assert [(int(frame.id), frame.type) for frame in reader.frames if "." not in frame.id] == logged
    assert reader.text == text
    for frame in reader.frames:
        assert frame.data.get("run", frame.data.get("data", {}).get("run")) in {None, *runs}
        assert not keys_of(frame.data) & PRIVATE
        assert re.fullmatch(FRAME_ID, frame.id)
        if frame.type == "message":
            assert frame.data["data"]["content"] == text


def test_place_in_one_stream_is_only_a_number_in_another(hers: Server, his: Server) -> None:
    session, other = hers.open("echo"), his.open("echo")
    for number in range(3):
        assert hers.call("POST", f"sessions/{session}/messages", json={"content": f"hers {number}"}).status_code == 201
    last = ChatSession.objects.get(uuid=session).last_sequence
    stream = his.stream(f"sessions/{other}/stream", last=f"{last}.0")
    stream.wait_open()
    begun = his.stream(f"sessions/{other}/stream?after=0")
    begun.wait_for(lambda frames: frames)
    assert hers.call("POST", f"sessions/{session}/messages", json={"content": "hers, later"}).status_code == 201
    assert his.call("POST", f"sessions/{other}/messages", json={"content": "his"}).status_code == 201
    begun.wait_for_type("run.succeeded")
    assert "hers" not in str([frame.data for frame in (*begun.frames, *stream.frames)])
    assert stream.frames == []
    for reader in (stream, begun):
        reader.cut()
