"""Sessions that are due for this and that, processes that can be killed meanwhile, and the proof after it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F

from django_chat_sessions import log
from django_chat_sessions.choices import EventType, Status
from django_chat_sessions.models import ChatSession, Run, RunChunk, SessionEvent
from django_chat_sessions.operations.sweeps import SWEEPS, preview
from django_chat_sessions.testing import make_session, say
from tests.celery.conftest import broker, start
from tests.operations.reading import differences
from tests.recovery.conftest import Sweep, eventually, sweeping

__all__ = ["broker", "start", "sweeping"]

#: Seconds that processes may take to come up, on a machine that is busy.
PATIENCE = 90

#: Sessions that one transaction takes, here.
BATCH = 5

INSTANTS = ("created_at", "last_activity_at", "renewed_at", "expires_at", "warned_at")


@pytest.fixture
def configure(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that adds to the settings, of this process and of those that it starts after that."""

    def configure(**keys: Any) -> None:
        settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, **keys}
        monkeypatch.setenv("TEST_CHAT_SESSIONS", json.dumps(settings.CHAT_SESSIONS))

    configure(SWEEP_BATCH=BATCH)
    return configure


@pytest.fixture
def subprocess_environment(
    configure: Callable[..., None], subprocess_environment: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    """Return an environment with the settings of here."""
    ours = {"DJANGO_SETTINGS_MODULE": "tests.faults.settings", "TEST_STAY_FILE": str(tmp_path / "stays")}
    return {**subprocess_environment, **ours}


@dataclass
class Stay:
    """Where a process stays, if one does."""

    file: Path

    def wait(self) -> int:
        """Wait until a process stays, and return its number."""
        eventually(lambda: self.file.exists() and self.file.read_text(), "somebody to stay", PATIENCE)
        return int(self.file.read_text())

    def end(self) -> None:
        """Let it go on, if it still can."""
        self.file.unlink()


@pytest.fixture
def stay(tmp_path: Path) -> Stay:
    """Return where the processes that are started with ``TEST_STAY`` stay."""
    return Stay(tmp_path / "stays")


@pytest.fixture
def begin(sweeping: Callable[..., Sweep], configure: Callable[..., None]) -> Callable[..., Sweep]:
    """Return a function that starts `chat_sessions sweep`, with the settings as they are then."""

    def begin(*arguments: str, **environment: str) -> Sweep:
        return sweeping(
            *arguments, "--skip-checks", **{"TEST_CHAT_SESSIONS": os.environ["TEST_CHAT_SESSIONS"], **environment}
        )

    return begin


def sweep_until_done(*tasks: str) -> None:
    """Sweep in this process, as often as it takes: what a dead process has locked is free a moment later."""

    def is_done(task: str) -> bool:
        SWEEPS[task].work()
        return not preview(task).total

    for task in tasks:
        eventually(partial(is_done, task), f"nothing to {task}")


# ---------------------------------------------------------------------------------------------------------- sessions


def shift(*sessions: ChatSession, **duration: float) -> list[ChatSession]:
    """Let time pass for live sessions; return them as they are now."""
    passed, ids = timedelta(**duration), [session.pk for session in sessions]
    ChatSession.objects.filter(pk__in=ids).update(**{name: F(name) - passed for name in INSTANTS})
    return list(ChatSession.objects.filter(pk__in=ids).order_by("pk"))


def make(owner: Any, count: int, **fields: Any) -> list[ChatSession]:
    """Open sessions with something of everything: messages, state, a run and its chunks."""
    with transaction.atomic():
        return [_make(owner, **fields) for _ in range(count)]


def _make(owner: Any, **fields: Any) -> ChatSession:
    session = make_session(owner, state={"secret": 1}, **{"agent": "silent", **fields})
    say(session, "a secret")
    at = session.created_at
    run = Run.objects.create(
        session=session,
        status="succeeded",
        input_sequence=2,
        created_at=at,
        started_at=at,
        finished_at=at,
        heartbeat_at=at,
        expires_at=at,
    )
    for index in range(2):
        RunChunk.objects.create(session=session, run=run, sequence=2, index=index, text="secret", created_at=at)
    return session


def make_due(owner: Any, count: int, **fields: Any) -> list[ChatSession]:
    """Open sessions whose deadlines have passed."""
    return shift(*make(owner, count, **fields), hours=1)


# ------------------------------------------------------------------------------------------------------------- proof


def events_of(session: ChatSession, *types: str) -> list[SessionEvent]:
    return list(session.events.filter(type__in=types).order_by("sequence"))


def are_expired(*sessions: ChatSession) -> bool:
    """Tell whether all are, while others may be at it."""
    rows = ChatSession.objects.filter(pk__in=[session.pk for session in sessions])
    return rows.filter(status=Status.EXPIRED).count() == len(sessions)


def expired(*sessions: ChatSession) -> int:
    """Return how many of the sessions are expired, when nobody is at it; hold each to its deadline, and to once."""
    count = 0
    for session in sessions:
        row = ChatSession.objects.get(pk=session.pk)
        found = events_of(session, EventType.SESSION_EXPIRED)
        assert [event.data["ended_at"] for event in found] == [log.iso(session.expires_at)] * (
            row.status == Status.EXPIRED
        )
        if found:
            assert (row.ended_at, row.settled_at) == (session.expires_at, session.expires_at)
        count += len(found)
    return count


def assert_sound() -> None:
    """Hold every session to its log, and have no piece of any that is gone."""
    assert differences() == []
    for table in ("sessionevent", "run", "runchunk", "outboxentry"):
        orphans = f"SELECT count(*) FROM chat_sessions_{table} t LEFT JOIN chat_sessions_chatsession s"
        with connection.cursor() as cursor:
            cursor.execute(f"{orphans} ON s.id = t.session_id WHERE s.id IS NULL")
            assert cursor.fetchone() == (0,), table


def assert_whole(*sessions: ChatSession) -> None:
    """Have everything that ``make`` made."""
    for session in sessions:
        row = ChatSession.objects.get(pk=session.pk)
        assert row.state == {"secret": 1}
        assert list(session.events.filter(type=EventType.MESSAGE).values_list("content", flat=True)) == ["a secret"]
        assert session.runs.count() == 1
        assert RunChunk.objects.filter(session=session).count() == 2


@contextmanager
def meanwhile(act: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Do something again and again in a thread; yield what it raises."""
    stop, raised = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not stop.is_set():
                act()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(60)
