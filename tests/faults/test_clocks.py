"""Clocks that jump by an hour: a process's, which decides nothing on PostgreSQL, and the one that decides."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection

from django_chat_sessions import dialects, log
from django_chat_sessions.choices import LIVE, EventType, Status
from django_chat_sessions.exceptions import ChatSessionError
from django_chat_sessions.management.stopping import Stop
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import sessions as verbs
from django_chat_sessions.operations.sweeps import SWEEPS
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import make_session, say
from tests.faults.conftest import are_expired, assert_sound, assert_whole, events_of, expired, make, shift
from tests.recovery.conftest import Sweep, eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

HOUR = 3600


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forwards", "backwards"])
def test_the_clock_of_a_process_is_none_that_decides(
    alice: Any, begin: Callable[..., Sweep], configure: Callable[..., None], seconds: int
) -> None:
    half_an_hour = 0.5 / 24
    configure(RETENTION={"expired": half_an_hour, "action": "delete"})
    sweep = begin("--loop", "--interval", "0.1", TEST_CLOCK=str(seconds))
    sweep.wait_until_up()
    sweep.process.send_signal(signal.SIGUSR1)
    fresh, near = make(alice, 3), shift(*make(alice, 3), minutes=26)
    due, long_due, gone = (shift(*make(alice, 3), minutes=minutes) for minutes in (31, 50, 65))
    eventually(lambda: not ChatSession.objects.filter(pk__in=[one.pk for one in gone]).exists(), "some to be gone")
    eventually(lambda: are_expired(*due, *long_due), "some to be expired")
    eventually(lambda: all(events_of(one, EventType.SESSION_EXPIRING) for one in near), "some to be warned of")
    time.sleep(0.3)  # It does nothing more.
    assert expired(*fresh, *near) == 0
    assert [len(events_of(one, EventType.SESSION_EXPIRING)) for one in (*fresh, *near)] == [0, 0, 0, 1, 1, 1]
    assert_whole(*fresh, *near, *due, *long_due)
    assert_sound()
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.process.wait(10) == 0


def test_a_pause_ends_though_a_signal_took_longer_than_was_left_of_it() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.2))
    rescue = threading.Timer(10, os.kill, (os.getpid(), signal.SIGTERM))
    rescue.start()
    try:
        with Stop() as stop:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            stop.wait(0.1)
            assert not stop.is_asked
            stop.wait(0)
    finally:
        rescue.cancel()
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------------------------- the clock that decides


@dataclass
class Clock:
    """The clock that decides, which can be set."""

    seconds: float = 0
    _travels: list[Any] = field(default_factory=list)

    def jump(self, seconds: float) -> None:
        self.seconds += seconds
        if connection.vendor == "sqlite":
            self.go_back()
            self._travels.append(time_machine.travel(datetime.now(UTC) + timedelta(seconds=self.seconds), tick=True))
            self._travels[-1].start()
            return
        with connection.cursor() as cursor:
            cursor.execute("UPDATE clock.shift SET by = make_interval(secs => %s)", [self.seconds])

    def go_back(self) -> None:
        while self._travels:
            self._travels.pop().stop()

    @property
    def now(self) -> datetime:
        return dialects.now("default")


@contextmanager
def _shadowed() -> Iterator[None]:
    """Have a function of ours called instead of PostgreSQL's, by all that this connection does."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA clock")
        cursor.execute("CREATE TABLE clock.shift (by interval)")
        cursor.execute("INSERT INTO clock.shift VALUES ('0')")
        cursor.execute(
            "CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " 'SELECT pg_catalog.clock_timestamp() + by FROM clock.shift'"
        )
        cursor.execute("SET search_path = clock, pg_catalog, public")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET search_path")
            cursor.execute("DROP SCHEMA clock CASCADE")


@pytest.fixture
def clock(transactional_db: None) -> Iterator[Clock]:
    """Return the clock that decides: the database's, or, on SQLite, this process's."""
    found = Clock()
    if connection.vendor == "sqlite":
        yield found
        found.go_back()
        return
    with _shadowed():
        yield found


def sweep(*tasks: str) -> int:
    return sum(SWEEPS[task].work().count for task in tasks)


def test_what_expired_by_a_clock_that_was_wrong_stays_so_and_nothing_expires_twice(alice: Any, clock: Clock) -> None:
    before, others = make(alice, 3), make(alice, 3, timeout=TimeoutOverrides(timeout_minutes=120))
    clock.jump(HOUR)
    # By this clock their deadlines have passed: whoever asks is told so, and the sweep records it.
    assert sweep("warn", "expire") == 3
    after = make(alice, 3)
    clock.jump(-HOUR)
    assert sweep("warn", "expire") == 0
    assert expired(*before) == 3
    assert expired(*others, *after) == 0
    # These were opened later than now. They can be talked in, and their deadlines do not come nearer.
    for session in (*others, *after):
        said = say(session, "and now")
        verbs.heartbeat(session)
        row = ChatSession.objects.get(pk=session.pk)
        assert (said.sequence, row.last_sequence) == (3, 3)
        assert row.expires_at >= session.expires_at
        assert row.status_at(clock.now) == Status.ACTIVE
    clock.jump(3 * HOUR)
    assert sweep("expire") == 6
    rows = ChatSession.objects.filter(pk__in=[session.pk for session in (*others, *after)])
    assert expired(*rows) == 6
    assert_sound()


def test_a_warning_by_a_clock_that_was_wrong_is_not_given_again(alice: Any, clock: Clock) -> None:
    sessions = make(alice, 3)
    clock.jump(27 * 60)
    assert sweep("warn") == 3
    clock.jump(-HOUR)
    assert sweep("warn") == 0
    clock.jump(HOUR)
    assert sweep("warn") == 0
    # A deadline that moves is warned of anew.
    for session in sessions:
        say(session, "still here")
    clock.jump(27 * 60)
    assert sweep("warn") == 3
    assert sweep("warn") == 0


def test_a_session_that_ends_before_it_began_has_lasted_no_time(alice: Any, clock: Clock) -> None:
    clock.jump(HOUR)
    session = make_session(alice, agent="silent")
    child = make_session(alice, agent="silent", parent=session)
    clock.jump(-HOUR)
    verbs.end(session)
    for one in (session, child):
        (end,) = events_of(one, EventType.SESSION_ENDED)
        assert end.data["figures"]["duration_seconds"] >= 0
    assert_sound()


VERBS: list[Callable[[ChatSession], Any]] = [
    lambda session: say(session, "a word"),
    lambda session: say(session, "a word"),
    verbs.heartbeat,
    verbs.resume,
    verbs.renew,
    lambda session: verbs.change_state(session, {"at": session.last_sequence}),
    verbs.end,
]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_clock_does_sessions_expire_once_and_deadlines_only_go_forward(
    alice: Any, clock: Clock, configure: Callable[..., None], seed: int
) -> None:
    configure(RETENTION={"expired": 0.2})
    chance = random.Random(seed)
    sessions = [make_session(alice, agent="silent") for _ in range(3)]
    for _ in range(80):
        deadlines = {row.pk: row for row in ChatSession.objects.all()}
        match chance.randrange(10):
            case 0:
                clock.jump(chance.choice([HOUR, -HOUR]))
            case 1 | 2:
                clock.jump(60 * chance.randrange(25))
            case 3:
                sessions.append(make_session(alice, agent="silent"))
            case 4 | 5:
                sweep("warn", "expire", "archive")
            case _:
                with suppress(ChatSessionError):
                    chance.choice(VERBS)(ChatSession.objects.get(pk=chance.choice(sessions).pk))
        for row in ChatSession.objects.filter(pk__in=deadlines):
            held = _held_to_its_deadline(row, deadlines[row.pk], clock.now)
            assert held, (row, seed)
    assert_sound()
    for session in sessions:
        assert len(events_of(session, EventType.SESSION_EXPIRED)) <= 1
        assert len(events_of(session, EventType.SESSION_ARCHIVED)) <= 1


def _held_to_its_deadline(row: ChatSession, before: ChatSession, now: datetime) -> bool:
    """Tell whether its deadline has only gone forward, and whether it had passed where it has just expired."""
    if row.status == Status.EXPIRED and before.status in LIVE:
        (event,) = events_of(row, EventType.SESSION_EXPIRED)
        return row.ended_at == before.expires_at <= now and event.data["ended_at"] == log.iso(before.expires_at)
    return row.expires_at >= before.expires_at
