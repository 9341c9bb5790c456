"""What sweeps in another process record reaches whoever follows a session, while it happens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from django_chat_sessions import signals
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import expiry, verification
from django_chat_sessions.testing import age, make_session
from tests.streams.conftest import ROOT, Frame, Reader, Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

#: Does sweeps by their names, a line each.
SWEEPER = """
import sys, django
django.setup()
from django_chat_sessions.operations.sweeps import SWEEPS
for line in sys.stdin:
    print(SWEEPS[line.strip()].work().count, flush=True)
"""

Sweep = Callable[[str], int]


@pytest.fixture(scope="module")
def _sweepers() -> Iterator[list[subprocess.Popen[str]]]:
    """Keep the process for all tests; starting one takes seconds."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.communicate(timeout=10)


@pytest.fixture
def sweep(
    transactional_db: None, subprocess_environment: dict[str, str], _sweepers: list[subprocess.Popen[str]]
) -> Sweep:
    """Return what has another process do a sweep, and tells how many sessions it dealt with."""
    if not _sweepers:
        several = json.dumps({"WARNING_THRESHOLD_MINUTES": [15, 5, 1]})
        environment = {**subprocess_environment, "TEST_CHAT_SESSIONS": several}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        _sweepers.append(
            subprocess.Popen([sys.executable, "-c", SWEEPER], cwd=ROOT, env=environment, text=True, **pipes)
        )
    [process] = _sweepers

    def sweep(name: str) -> int:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    return sweep


def pass_time(*sessions: str, **duration: float) -> None:
    for session in sessions:
        age(ChatSession.objects.get(uuid=session), **duration)


def follow(server: Server, session: str, query: str = "") -> Reader:
    stream = server.stream(f"sessions/{session}/stream{query}")
    stream.wait_open()
    return stream


def seconds_since(frame: Frame) -> float:
    """How long ago the event of a frame was recorded."""
    recorded: datetime = datetime.fromisoformat(frame.data["created_at"])
    return (datetime.now(UTC) - recorded).total_seconds()


def test_a_warning_reaches_a_stream_within_a_second(server: Server, sweep: Sweep) -> None:
    delays = []
    for _ in range(3):  # a busy machine may be late; the fallback, a look every 15 seconds, always is
        session = server.open("echo")
        stream = follow(server, session)
        pass_time(session, minutes=26)
        assert sweep("warn") == 1
        frame = stream.wait_for_type("session.expiring", 5)
        delays.append(seconds_since(frame))
        stream.cut()
        told = server.call("GET", f"sessions/{session}").json()
        assert frame.data["data"] == {"expires_at": told["expires_at"], "threshold_minutes": 5}
        assert (frame.id, told["last_sequence"], told["is_near_expiration"]) == ("2", 2, True)
    assert min(delays) < 1


def test_each_warning_is_an_event_of_its_own_and_comes_once(server: Server, sweep: Sweep) -> None:
    session = server.open("echo")
    stream = follow(server, session)
    for minutes in (16, 10, 3.5):
        pass_time(session, minutes=minutes)
        assert sweep("warn") == 1
        assert sweep("warn") == 0
    stream.wait_for(lambda frames: len(frames) == 3)
    assert [frame.data["data"]["threshold_minutes"] for frame in stream.frames] == [15, 5, 1]
    stream.cut()
    late = follow(server, session, f"?after={stream.frames[0].id}")
    late.wait_for(lambda frames: len(frames) == 2)
    late.cut()
    assert [frame.id for frame in late.frames] == [frame.id for frame in stream.frames[1:]]


def test_a_warning_after_the_deadline_moved_tells_the_new_one(server: Server, sweep: Sweep) -> None:
    session = server.open("echo")
    stream = follow(server, session)
    pass_time(session, minutes=26)
    sweep("warn")
    renewed = server.call("POST", f"sessions/{session}/renew").json()
    assert sweep("warn") == 0
    pass_time(session, minutes=26)
    sweep("warn")
    stream.wait_for(lambda frames: len(frames) == 4)
    stream.cut()
    assert stream.types == ["session.expiring", "session.resumed", "session.renewed", "session.expiring"]
    before, _, moved, after = (frame.data["data"].get("expires_at") for frame in stream.frames)
    assert moved == renewed["expires_at"]
    assert len({before, moved, after}) == 3


def test_one_sweep_tells_all_who_listen_on_whichever_server(server: Server, other_server: Server, sweep: Sweep) -> None:
    warned, expired = ([server.open("echo") for _ in range(2)] for _ in range(2))
    everybody = {
        session: [follow(which, session) for which in (server, other_server)] for session in (*warned, *expired)
    }
    pass_time(*warned, minutes=26)
    pass_time(*expired, minutes=31)
    assert sweep("warn") == 2
    assert sweep("expire") == 2
    for session in warned:
        for stream in everybody[session]:
            stream.wait_for_type("session.expiring", 5)
            stream.cut()
            assert stream.types == ["session.expiring"]
    for session in expired:
        for stream in everybody[session]:
            stream.wait_closed(5)
            assert stream.types == ["session.expired"]


def test_a_stream_closes_when_a_sweep_records_the_expiry_and_is_not_worth_coming_back_to(
    server: Server, other_server: Server, sweep: Sweep
) -> None:
    session = server.open("echo")
    stream = follow(server, session)
    pass_time(session, minutes=31)
    assert sweep("expire") == 1
    stream.wait_closed(5)
    assert stream.types == ["session.expired"]
    assert stream.frames[0].data["data"]["reason"] == "idle_timeout"
    for which in (server, other_server):
        back = which.stream(f"sessions/{session}/stream", last=stream.frames[-1].id)
        back.wait_closed(5)
        assert back.status == 204
    missed = other_server.stream(f"sessions/{session}/stream", last="1")
    missed.wait_closed(5)
    assert missed.types == ["session.expired"]
    assert verification.verify(ChatSession.objects.get(uuid=session)) == []


@pytest.fixture
def heard() -> Iterator[list[ChatSession]]:
    """Collect the sessions of which a signal says that they expire soon."""
    found: list[ChatSession] = []

    def receive(sender: type[ChatSession], session: ChatSession, **_: object) -> None:
        found.append(session)

    signals.session_expiring.connect(receive)
    yield found
    signals.session_expiring.disconnect(receive)


def test_the_signal_is_sent_once_a_warning_with_the_session_as_it_then_was(alice, settings, heard) -> None:
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "WARNING_THRESHOLD_MINUTES": [15, 5]}
    session = make_session(alice, agent="echo")
    deadlines = []
    for minutes in (16, 10):
        deadlines.append(age(session, minutes=minutes).expires_at)
        for _ in range(2):
            expiry.warn()
    assert [(found.last_sequence, found.expires_at) for found in heard] == list(zip((2, 3), deadlines, strict=True))
    assert all(found.pk == session.pk and found.warned_at is not None for found in heard)
    assert heard[0].warned_at < heard[1].warned_at
