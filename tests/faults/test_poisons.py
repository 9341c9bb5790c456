"""One session that stands against a sweep, or a subscriber that raises: the others have nothing of it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from django_chat_sessions import signals
from django_chat_sessions.choices import EventType, Status
from django_chat_sessions.models import ChatSession, OutboxEntry, SessionEvent
from django_chat_sessions.operations import opening
from django_chat_sessions.operations import sessions as verbs
from django_chat_sessions.operations.sweeps import SWEEPS
from tests.faults.conftest import PATIENCE, assert_sound, events_of, expired, make, make_due, shift, sweep_until_done
from tests.recovery.conftest import Sweep, eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

SESSION, EVENT = "chat_sessions_chatsession", "chat_sessions_sessionevent"


@pytest.fixture
def refuse() -> Iterator[Callable[..., None]]:
    """Return a function that has the database refuse something for one session, as a project's own trigger may."""
    made: list[tuple[str, str]] = []

    def refuse(what: str, session: ChatSession, *, table: str = SESSION, deferred: bool = False) -> None:
        name, row = f"poison_{len(made)}", "NEW" if what == "INSERT" else "OLD"
        which = f"{row}.{'id' if table == SESSION else 'session_id'} = {session.pk}"
        made.append((name, table))
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                then = "BEGIN SELECT RAISE(ABORT, 'poison'); END"
                cursor.execute(f"CREATE TRIGGER {name} BEFORE {what} ON {table} FOR EACH ROW WHEN {which} {then}")
                return
            kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
            when = f"AFTER {what}" if deferred else f"BEFORE {what}"
            later = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
            body = "BEGIN RAISE EXCEPTION 'poison'; END"
            cursor.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
            cursor.execute(
                f"CREATE {kind} {name} {when} ON {table} {later} FOR EACH ROW WHEN ({which}) EXECUTE FUNCTION {name}()"
            )

    yield refuse
    with connection.cursor() as cursor:
        for name, table in made:
            if connection.vendor == "sqlite":
                cursor.execute(f"DROP TRIGGER {name}")
            else:
                cursor.execute(f"DROP TRIGGER {name} ON {table}")
                cursor.execute(f"DROP FUNCTION {name}()")


def counts(task: str) -> int:
    """Sweep, and return how many sessions were dealt with."""
    swept = SWEEPS[task].work()
    assert swept.is_finished
    return swept.count


@pytest.mark.parametrize("place", [0, 3, 11], ids=["first", "inside", "last"])
@pytest.mark.parametrize(("what", "table"), [("UPDATE", SESSION), ("INSERT", EVENT)])
def test_a_session_that_cannot_expire_keeps_no_other_from_it(
    alice: Any,
    configure: Callable[..., None],
    refuse: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    place: int,
    what: str,
    table: str,
) -> None:
    due, others = make_due(alice, 12), make(alice, 1, agent="echo")
    refuse(what, due[place], table=table)
    assert counts("expire") == 11
    assert expired(*due) == 11
    assert expired(due[place], *others) == 0
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert str(due[place].uuid) in warning.getMessage()
    assert "poison" not in warning.getMessage()
    # The next sweep neither stumbles nor does anything twice.
    late = make_due(alice, 6)
    assert counts("expire") == 6
    assert expired(*due, *late) == 17
    assert_sound()


def test_a_session_that_somebody_broke_expires_once_it_is_mended(alice: Any, configure: Callable[..., None]) -> None:
    due = make_due(alice, 12)
    broken = ChatSession.objects.filter(pk=due[3].pk)
    # Its next event has a number that is taken.
    broken.update(last_sequence=F("last_sequence") - 1)
    assert counts("expire") == 11
    broken.update(last_sequence=F("last_sequence") + 1)
    assert counts("expire") == 1
    assert expired(*due) == 12
    assert_sound()


def test_a_session_that_cannot_be_warned_of_keeps_no_other_from_it(
    alice: Any, configure: Callable[..., None], refuse: Callable[..., None]
) -> None:
    near = shift(*make(alice, 12), minutes=27)
    refuse("INSERT", near[0], table=EVENT)
    assert counts("warn") == 11
    assert counts("warn") == 0
    assert [len(events_of(session, EventType.SESSION_EXPIRING)) for session in near] == [0] + [1] * 11
    assert_sound()


@pytest.fixture
def over(alice: Any, configure: Callable[..., None]) -> list[ChatSession]:
    """Return expired sessions, which are not kept."""
    configure(RETENTION={"expired": 0, "ended": 0})
    found = make_due(alice, 12)
    sweep_until_done("expire")
    return found


def test_a_session_that_cannot_be_archived_keeps_no_other_from_it(
    over: list[ChatSession], refuse: Callable[..., None]
) -> None:
    refuse("INSERT", over[3], table=EVENT)
    assert counts("archive") == 11
    assert counts("archive") == 0
    over[3].refresh_from_db()
    assert (over[3].status, over[3].state) == (Status.EXPIRED, {"secret": 1})
    assert ChatSession.objects.filter(status=Status.ARCHIVED).count() == 11
    assert_sound()


@pytest.mark.parametrize("deferred", [False, pytest.param(True, marks=pytest.mark.postgres)])
def test_a_session_that_cannot_be_deleted_keeps_no_other_from_it(
    over: list[ChatSession], configure: Callable[..., None], refuse: Callable[..., None], deferred: bool
) -> None:
    configure(RETENTION={"expired": 0, "action": "delete"})
    refuse("DELETE", over[3], deferred=deferred)
    assert counts("purge") == 11
    assert counts("purge") == 0
    assert list(ChatSession.objects.all()) == [over[3]]
    assert_sound()


def test_a_child_that_cannot_be_deleted_keeps_its_parents_only(
    alice: Any, configure: Callable[..., None], refuse: Callable[..., None]
) -> None:
    configure(RETENTION={"ended": 0, "action": "delete"})
    alone = make(alice, 6)
    trees = [(root := make(alice, 1)[0], *_children(alice, root)) for _ in range(3)]
    for session in [*alone, *(tree[0] for tree in trees)]:
        verbs.end(session)
    root, child, _, grandchild, _ = trees[1]
    refuse("DELETE", grandchild)
    assert counts("purge") == 6 + 5 + 5 + 2
    assert set(ChatSession.objects.all()) == {root, child, grandchild}
    assert_sound()


def _children(owner: Any, root: ChatSession) -> list[ChatSession]:
    """Open two children and, below the first, two more."""
    first, second = (opening.open(owner, agent="silent", parent=root).session for _ in range(2))
    return [first, second, *(opening.open(owner, agent="silent", parent=first).session for _ in range(2))]


def test_a_child_that_cannot_end_keeps_no_other_orphan_from_it(
    alice: Any, configure: Callable[..., None], refuse: Callable[..., None]
) -> None:
    configure(CASCADE_BOUND=1)
    trees = [(root := make(alice, 1)[0], *_children(alice, root)) for _ in range(3)]
    for tree in trees:
        verbs.end(tree[0])
    refuse("UPDATE", trees[0][2])
    counts("recover")
    left = ChatSession.objects.exclude(status=Status.ENDED)
    assert {session.root_id for session in left} == {trees[0][0].pk}
    assert_sound()


def test_a_receiver_that_raises_keeps_nobody_from_anything(alice: Any, configure: Callable[..., None]) -> None:
    heard: list[ChatSession] = []

    def raises(session: ChatSession, **_: Any) -> None:
        raise RuntimeError("a secret")

    def hears(session: ChatSession, **_: Any) -> None:
        heard.append(session)

    near, due = shift(*make(alice, 12), minutes=27), make_due(alice, 12)
    both = (signals.session_expiring, signals.session_expired)
    for announcement in both:
        announcement.connect(raises)
        announcement.connect(hears)
    try:
        assert (counts("warn"), counts("expire")) == (12, 12)
    finally:
        for announcement in both:
            announcement.disconnect(raises)
            announcement.disconnect(hears)
    assert sorted(session.pk for session in heard) == sorted(session.pk for session in [*near, *due])
    assert expired(*due) == 12
    assert_sound()


@pytest.mark.slow
def test_a_subscriber_that_always_raises_for_one_session_keeps_nobody_from_anything(
    alice: Any,
    begin: Callable[..., Sweep],
    configure: Callable[..., None],
    tmp_path: Path,
) -> None:
    both = [f"tests.faults.subscribers.{name}" for name in ("raises", "remembers")]
    configure(SUBSCRIBERS={"session.exp*": both}, DELIVERY_ATTEMPTS=3, WARNING_THRESHOLD_MINUTES=[15, 5])
    near = [*make(alice, 5), *make(alice, 1, tags=["poison"]), *make(alice, 6)]
    shift(*near, minutes=20)
    loop = begin("--loop", "--interval", "0.2", "warn", "expire", "deliver", TEST_TOLD=str(tmp_path))
    eventually(lambda: SessionEvent.objects.filter(type=EventType.SESSION_EXPIRING).count() == 12, "warnings", PATIENCE)
    due = shift(*near, minutes=11)
    poison = due[5]
    aside = OutboxEntry.objects.filter(set_aside_at__isnull=False)
    eventually(lambda: aside.count() == 2, "what nobody can be told of to be set aside", PATIENCE)
    eventually(lambda: OutboxEntry.objects.count() == 2, "all others to be told of everything")
    loop.process.send_signal(signal.SIGTERM)
    assert loop.process.wait(10) == 0
    assert "a secret" not in loop.log.read_text()
    assert expired(*due) == 12
    assert_sound()

    def told(name: str, session: ChatSession) -> list[str]:
        lines = (tmp_path / name).read_text().splitlines()
        return [line.split(" ", 2)[2] for line in lines if line.startswith(str(session.uuid))]

    # At least once would do; with nobody killed it is once, and in order.
    for session in due:
        assert told("remembers", session) == ["session.expiring", "session.expired"]
        assert told("raises", session) == ([] if session == poison else ["session.expiring", "session.expired"])
    assert told("raised", poison) == ["session.expiring"] * 3 + ["session.expired"] * 3
    assert {(entry.session_id, entry.subscriber, entry.attempts) for entry in aside} == {(poison.pk, both[0], 3)}
