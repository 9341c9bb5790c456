"""What a real ASGI server streams as the answer to a question, and to a question again."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from django_chat_sessions.models import Run, SessionEvent
from tests.streams.conftest import Reader, Server, _lasting, server, servers  # noqa: F401 - the last three are fixtures

# ruff: noqa: F811 - fixtures are arguments

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ANSWER = ["run.started", "message.delta", "message", "run.succeeded"]


def streamed(server: Server, path: str, **body: Any) -> Reader:
    """Post something that is answered with a stream, and read it to its end."""
    reader = server.stream(path, method="POST", json={"delivery": "stream", **body})
    reader.wait_closed()
    assert reader.status == 200
    assert reader.headers["content-type"] == "text/event-stream"
    assert reader.headers["cache-control"].startswith("no-store")
    assert "content-length" not in reader.headers
    return reader


def written() -> tuple[int, int]:
    return SessionEvent.objects.count(), Run.objects.count()


def test_repeat_of_a_streamed_question_is_streamed_again_and_writes_nothing(server: Server) -> None:
    path = f"sessions/{server.open('echo')}/messages"
    first = streamed(server, path, content="hello", external_id="e")
    assert first.types == ["message", *ANSWER]
    before = written()
    again = streamed(server, path, content="hello", external_id="e")
    assert again.frames == first.frames
    told = server.call("POST", path, json={"content": "hello", "external_id": "e", "delivery": "background"})
    assert (told.status_code, told.json()["run"]["status"]) == (200, "succeeded")
    server.call("POST", f"{path.removesuffix('/messages')}/end")
    assert streamed(server, path, content="hello", external_id="e").frames == first.frames
    assert written() == (before[0] + 1, before[1])


def test_repeat_of_a_message_that_was_only_stored_is_all_that_is_streamed(server: Server) -> None:
    path = f"sessions/{server.open('echo')}/messages"
    stored = server.call("POST", path, json={"content": "hello", "external_id": "e", "delivery": "store"})
    before = written()
    again = streamed(server, path, content="hello", external_id="e")
    assert [frame.data["data"] for frame in again.frames] == [stored.json()["message"]]
    assert written() == before


def test_question_that_is_answered_again_is_streamed_from_the_beginning_of_the_run(server: Server) -> None:
    session = server.open("echo")
    first = streamed(server, f"sessions/{session}/messages", content="hello")
    again = streamed(server, f"sessions/{session}/runs")
    assert again.types == ANSWER
    assert again.frames[0].data["data"]["supersedes"] == [first.frames[-2].data["sequence"]]
    assert again.text == "hello"


def test_streamed_answer_that_fails_ends_with_its_failure(server: Server) -> None:
    session = server.open("failing_midway")
    reader = streamed(server, f"sessions/{session}/messages", content="hello")
    assert reader.types == ["message", "run.started", "message.delta", "message", "run.failed"]
    assert reader.frames[-2].data["data"]["metadata"] == {"cut_short": "failed"}
    assert reader.frames[-1].data["data"]["error"] == "Broken"
    assert "on purpose" not in str(reader.frames)


def test_stream_that_is_only_asked_about_leaves_the_connection_free(server: Server) -> None:
    session = server.open("echo")
    started = time.monotonic()
    with httpx.Client(headers=server.headers, timeout=10) as client:
        for after in ("", "?after=0"):
            head = client.head(f"{server.url}/sessions/{session}/stream{after}")
            assert (head.status_code, head.headers["content-type"], head.content) == (200, "text/event-stream", b"")
            assert client.get(f"{server.url}/sessions/{session}").json()["id"] == session
    assert time.monotonic() - started < 8
