"""Processes that deliver, several at once, and die at the worst moment; each is a real one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_chat_sessions import dialects
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.testing import make_session, say
from tests.operations import told
from tests.operations.reading import fresh

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]

#: Delivers what waits, once.
DELIVER = """
import django
django.setup()
from django_chat_sessions.operations import outbox
print(outbox.deliver().count)
"""

#: Delivers until the file of that name is there and nothing waits any more.
DELIVER_ON = """
import sys, time
from pathlib import Path
import django
django.setup()
from django_chat_sessions.models import OutboxEntry
from django_chat_sessions.operations import outbox
until = time.monotonic() + 60
while time.monotonic() < until:
    is_over = Path(sys.argv[1]).exists()
    if not outbox.deliver().count and is_over and not OutboxEntry.objects.exists():
        sys.exit(0)
    time.sleep(0.005)
sys.exit(1)
"""

#: Says something, and is gone before anybody is told of it.
SAY_AND_DIE = """
import os, sys
import django
django.setup()
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import say
say(ChatSession.objects.get(uuid=sys.argv[1]), "Hello")
os._exit(9)
"""


@dataclass(frozen=True, slots=True)
class Line:
    """What a subscriber wrote down: that it began, or ended, with an event."""

    moment: str
    session: str
    sequence: int
    attempt: int


@dataclass
class Processes:
    """Processes in which ``told``'s subscribers are told of messages."""

    folder: Path
    environment: dict[str, str]

    def start(self, code: str, *arguments: object, subscriber: str = "write_down", **keys: Any) -> Any:
        settings = {"SUBSCRIBERS": {"message": [told.path(subscriber)]}, **keys}
        given = {"TEST_CHAT_SESSIONS": json.dumps(settings), "TEST_HEARD": str(self.folder / "heard")}
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            env={**self.environment, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, *arguments: object, **keys: Any) -> tuple[int, str]:
        process = self.start(code, *arguments, **keys)
        said, complaint = process.communicate(timeout=60)
        assert process.returncode in {0, 9}, complaint
        return process.returncode, said.strip()

    @property
    def lines(self) -> list[Line]:
        path = self.folder / "heard"
        words = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [Line(moment, session, int(sequence), int(attempt)) for moment, session, sequence, attempt in words]

    def ended(self, session: ChatSession) -> list[int]:
        return [line.sequence for line in self.lines if line.moment == "end" and line.session == str(session.uuid)]


@pytest.fixture
def processes(tmp_path: Path, subprocess_environment: dict[str, str]) -> Processes:
    return Processes(tmp_path, subprocess_environment)


@pytest.fixture
def subscribed(configured: Callable[..., None]) -> Callable[[str], None]:
    """Return a function that has this process write for a subscriber, too."""
    return lambda subscriber: configured(SUBSCRIBERS={"message": [told.path(subscriber)]})


def let_leases_pass() -> None:
    """Have what a lost process had claimed due now; what is parked behind it stays so."""
    leased = OutboxEntry.objects.filter(attempts__gt=0)
    leased.update(next_attempt_at=dialects.now("default"))


def test_what_was_committed_is_told_although_its_process_was_gone_at_once(processes, session):
    assert processes.run(SAY_AND_DIE, session.uuid)[0] == 9
    assert fresh(session).last_sequence == 2
    assert processes.run(DELIVER) == (0, "1")
    assert processes.ended(session) == [2]
    assert not OutboxEntry.objects.exists()


def test_what_was_told_by_a_process_that_died_before_it_said_so_is_told_again(processes, alice, session, subscribed):
    subscribed("die")
    other = make_session(alice, agent="silent")
    say(session, "deadly")
    say(session, "after it")
    say(other, "Hello")
    assert processes.run(DELIVER, subscriber="die")[0] == 9
    assert processes.ended(session) == [2]
    assert OutboxEntry.objects.filter(session=session).count() == 2
    # Who comes next tells the others, and nobody what the dead one had claimed, as long as its lease lasts.
    (processes.folder / "heard.enough").touch()
    let_leases_pass()
    OutboxEntry.objects.filter(session=other).update(next_attempt_at=dialects.now("default"))
    assert processes.run(DELIVER, subscriber="die")[0] == 0
    assert processes.ended(session) == [2, 2, 3]
    assert [line.attempt for line in processes.lines if line.session == str(session.uuid)] == [1, 1, 2, 2, 1, 1]
    assert processes.ended(other) == [2]
    assert not OutboxEntry.objects.exists()


def test_an_event_that_kills_each_process_is_set_aside_and_takes_nothing_with_it(processes, alice, session, subscribed):
    subscribed("die")
    say(session, "deadly")
    say(session, "after it")
    others = [make_session(alice, agent="silent") for _ in range(3)]
    for other in others:
        say(other, "Hello")
    deaths = 0
    for _ in range(3):
        deaths += processes.run(DELIVER, subscriber="die", DELIVERY_ATTEMPTS=2)[0] == 9
        # All leases, those of events that the process had claimed and not begun, too.
        OutboxEntry.objects.filter(set_aside_at=None).update(next_attempt_at=dialects.now("default"))
    assert deaths == 2
    aside = OutboxEntry.objects.get()
    assert (aside.session, aside.sequence, aside.error) == (session, 2, "ProcessLost")
    assert aside.set_aside_at is not None
    assert processes.ended(session) == [2, 2, 3]
    # They may have been told again, but none of them was taken for the one that kills.
    assert [set(processes.ended(other)) for other in others] == [{2}] * 3


def test_two_processes_tell_each_session_in_order_while_others_write(processes, alice, subscribed, tmp_path):
    """And what is parked behind a head that two processes are busy with is called in every case."""
    subscribed("write_down")
    busy = [make_session(alice, agent="silent") for _ in range(3)]
    several = [processes.start(DELIVER_ON, tmp_path / "over") for _ in range(2)]
    threads = [threading.Thread(target=_talk, args=(session, 40)) for session in busy]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (tmp_path / "over").touch()
    for process in several:
        _, complaint = process.communicate(timeout=90)
        assert process.returncode == 0, complaint
    for session in busy:
        lines = [line for line in processes.lines if line.session == str(session.uuid)]
        expected = [(moment, sequence) for sequence in range(2, 42) for moment in ("begin", "end")]
        assert [(line.moment, line.sequence) for line in lines] == expected
        assert {line.attempt for line in lines} == {1}


def _talk(session: ChatSession, times: int) -> None:
    try:
        mine = fresh(session)
        for number in range(times):
            say(mine, str(number))
            if number % 10 == 9:
                time.sleep(0.05)
    finally:
        connections.close_all()
