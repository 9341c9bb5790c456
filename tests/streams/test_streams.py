"""Streams from a real ASGI server, in a process of its own."""

from __future__ import annotations

import time

import pytest

from django_chat_sessions.models import ChatSession, Run, RunChunk
from django_chat_sessions.operations import verification
from tests.streams.conftest import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ENDS = ("run.succeeded", "run.failed", "run.cancelled")


def ask(server: Server, session: str, text: str, delivery: str = "background", **fields):
    return server.call("POST", f"sessions/{session}/messages", json={"content": text, "delivery": delivery, **fields})


def wait_for_run(server: Server, session: str, *, status: str, seconds: float = 15) -> dict:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = server.call("GET", f"sessions/{session}/runs").json()["results"]
        if found and found[0]["status"] == status:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(found)


def test_a_stream_shows_the_answer_as_it_is_written(server: Server) -> None:
    session = server.open("slow_echo")
    stream = server.stream(f"sessions/{session}/stream")
    stream.wait_open()
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "no-store" in stream.headers["cache-control"]
    response = ask(server, session, "one two three four five")
    assert response.status_code == 202
    assert response.json()["run"]["status"] in {"queued", "running"}
    stream.wait_for_type("run.succeeded")
    assert stream.types[:2] == ["message", "run.started"]
    assert stream.types[-2:] == ["message", "run.succeeded"]
    deltas = [frame for frame in stream.frames if frame.type == "message.delta"]
    assert len(deltas) >= 3
    assert stream.text == "one two three four five"
    assert [frame.data["index"] for frame in deltas] == list(range(len(deltas)))
    assert {frame.data["run"] for frame in deltas} == {response.json()["run"]["id"]}
    assert {frame.id.partition(".")[0] for frame in deltas} == {"3"}
    assert stream.frames[-2].data["data"]["content"] == "one two three four five"
    stream.cut()


def test_a_question_that_is_streamed_begins_with_itself_and_ends_with_its_run(server: Server) -> None:
    session = server.open("slow_echo")
    stream = server.stream(
        f"sessions/{session}/messages", method="POST", json={"content": "a b c", "delivery": "stream"}
    )
    stream.wait_closed()
    assert stream.status == 200
    assert stream.types[:2] == ["message", "run.started"]
    assert stream.types[-2:] == ["message", "run.succeeded"]
    assert stream.text == "a b c"


@pytest.mark.parametrize("cut_after", [1, 2, 4])
def test_a_client_that_comes_back_gets_what_it_missed_once_and_in_order(
    server: Server, other_server: Server, cut_after: int
) -> None:
    session = server.open("slow_echo")
    stream = server.stream(f"sessions/{session}/stream")
    stream.wait_open()
    ask(server, session, " ".join("abcdefghijklmnop"))
    stream.wait_for(lambda frames: len(frames) >= cut_after)
    stream.cut()
    seen = list(stream.frames)
    time.sleep(0.5)
    again = other_server.stream(f"sessions/{session}/stream", last=seen[-1].id)
    again.wait_for_type("run.succeeded")
    again.cut()
    frames = seen + again.frames
    assert len({frame.id for frame in frames}) == len(frames)
    places = [tuple(map(int, f"{frame.id}.-1".split(".")[:2])) for frame in frames]
    assert places == sorted(places)
    text = "".join(frame.data["text"] for frame in frames if frame.type == "message.delta")
    assert text == " ".join("abcdefghijklmnop")
    assert [frame.type for frame in frames if frame.type != "message.delta"] == [
        "message", "run.started", "message", "run.succeeded",
    ]  # fmt: skip


def test_without_a_place_a_stream_begins_now_even_in_the_middle_of_an_answer(server: Server) -> None:
    session = server.open("slow_echo")
    ask(server, session, " ".join("abcdefghij"))
    whole = server.stream(f"sessions/{session}/stream?after=0")
    whole.wait_for_type("message.delta")
    late = server.stream(f"sessions/{session}/stream")
    late.wait_for_type("run.succeeded")
    whole.wait_for_type("run.succeeded")
    assert whole.types[0] == "session.created"
    assert whole.text == " ".join("abcdefghij")
    assert late.types[0] == "message.delta"
    assert whole.text.endswith(late.text)
    assert late.text != whole.text


def test_a_cancelled_answer_stops_within_a_second_and_keeps_what_it_said(server: Server) -> None:
    session = server.open("slow_echo")
    stream = server.stream(f"sessions/{session}/stream")
    stream.wait_open()
    run = ask(server, session, " ".join("abcdefghijklmnopqrstuvwxyz")).json()["run"]["id"]
    stream.wait_for(lambda frames: sum(frame.type == "message.delta" for frame in frames) >= 2)
    response = server.call("POST", f"sessions/{session}/runs/{run}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    stream.wait_for_type("run.cancelled", 1)
    message = stream.frames[-2].data["data"]
    assert message["content"] == stream.text
    assert message["metadata"] == {"cut_short": "cancelled"}
    time.sleep(1)
    assert stream.types[-1] == "run.cancelled"
    again = server.call("POST", f"sessions/{session}/runs/{run}/cancel")
    assert (again.status_code, again.json()["status"]) == (202, "cancelled")
    assert verification.verify(ChatSession.objects.get(uuid=session)) == []
    assert ask(server, session, "go on", "wait").status_code == 201


def test_a_stream_ends_with_its_session_and_is_not_worth_coming_back_to(server: Server) -> None:
    session = server.open("echo")
    stream = server.stream(f"sessions/{session}/stream")
    stream.wait_open()
    server.call("POST", f"sessions/{session}/end")
    stream.wait_closed(3)
    assert stream.types == ["session.ended"]
    for query in ("", f"?after={stream.frames[-1].id}"):
        assert server.call("GET", f"sessions/{session}/stream{query}").status_code == 204
    missed = server.stream(f"sessions/{session}/stream?after=1")
    missed.wait_closed(3)
    assert missed.types == ["session.ended"]


def test_a_stream_ends_when_its_session_is_deleted(server: Server) -> None:
    session = server.open("echo")
    stream = server.stream(f"sessions/{session}/stream")
    stream.wait_open()
    server.call("DELETE", f"sessions/{session}")
    stream.wait_closed(3)
    assert server.call("GET", f"sessions/{session}/stream").status_code == 404


@pytest.mark.parametrize("place", ["x", "1.", ".1", "-1", "1.2.3", "1e3", "\u0661", "1" * 40])
def test_a_malformed_place_is_refused(server: Server, place: str) -> None:
    session = server.open("echo")
    assert server.call("GET", f"sessions/{session}/stream", params={"after": place}).status_code == 400
    if place.isascii():
        headers = {"Last-Event-ID": place}
        assert server.call("GET", f"sessions/{session}/stream?after=1", headers=headers).status_code == 400


def test_regenerating_supersedes_the_old_answer(server: Server) -> None:
    session = server.open("slow_echo")
    first = ask(server, session, "a b", "wait").json()
    response = server.call("POST", f"sessions/{session}/runs", json={})
    assert response.status_code == 201
    told = response.json()
    assert told["reply"]["content"] == "a b"
    assert told["message"]["sequence"] == first["message"]["sequence"]
    page = server.call("GET", f"sessions/{session}/messages").json()["messages"]
    assert [message["sequence"] for message in page] == [first["message"]["sequence"], told["reply"]["sequence"]]
    assert told["session"]["message_count"] == 2
    assert verification.verify(ChatSession.objects.get(uuid=session)) == []
    runs = server.call("GET", f"sessions/{session}/runs").json()["results"]
    assert [run["id"] for run in runs] == [told["run"]["id"], first["run"]["id"]]


def test_an_earlier_question_is_answered_again_in_its_place(server: Server) -> None:
    session = server.open("slow_echo")
    for text in ("a", "b"):
        ask(server, session, text, "wait")
    response = server.call("POST", f"sessions/{session}/runs", json={"input_sequence": 2, "delivery": "background"})
    assert response.status_code == 202
    wait_for_run(server, session, status="succeeded")
    page = server.call("GET", f"sessions/{session}/messages").json()["messages"]
    assert [message["content"] for message in page] == ["a", "a", "b", "b"]
    assert RunChunk.objects.filter(run=Run.objects.latest("pk")).exists()
    for wrong in (1, 3, 999):
        response = server.call("POST", f"sessions/{session}/runs", json={"input_sequence": wrong})
        assert (response.status_code, list(response.json()["errors"])) == (400, ["input_sequence"])
