"""Sweeps at the same instant as others, and as everybody else: nothing twice, nothing lost, nobody in a circle."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.models import F

from django_chat_sessions import dialects, log, logs
from django_chat_sessions.agents import Message
from django_chat_sessions.batches import Due
from django_chat_sessions.choices import LIVE
from django_chat_sessions.exceptions import SessionNotFound, SessionNotLive
from django_chat_sessions.models import ChatSession, OutboxEntry, Run, RunChunk, SessionEvent
from django_chat_sessions.operations import (
    archiving,
    cascades,
    cleaning,
    endings,
    expiry,
    messages,
    opening,
    pieces,
    privacy,
    purging,
    recovery,
    retention,
    sessions,
    sweeping,
)
from django_chat_sessions.testing import age, make_session
from tests.concurrency.conftest import PATIENCE, at_once, unexpected
from tests.operations.reading import fresh, types

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("transactions"), pytest.mark.slow]

ROUNDS = 6


@pytest.fixture(autouse=True)
def small(configured: Any) -> None:
    """Work in small batches, so that sweeps meet."""
    configured(SWEEP_BATCH=7, RETENTION={"ended": 1, "expired": 1})


def over(*found: ChatSession) -> None:
    """Let sessions have been over for some days."""
    for session in found:
        sessions.end(session)
    settled_at = dialects.now("default") - timedelta(days=2)
    ChatSession.objects.filter(pk__in=[session.pk for session in found]).update(settled_at=settled_at)


def locked(session: ChatSession, meanwhile: Any) -> Any:
    """Do something while somebody else holds a session's row; return what came of it."""
    holds, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                log.lock(session)
                holds.set()
                assert may_go.wait(PATIENCE)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert holds.wait(PATIENCE)
    try:
        return meanwhile()
    finally:
        may_go.set()
        thread.join(PATIENCE)


def test_sweeps_at_the_same_instant_share_the_work(alice: Any) -> None:
    found = [age(make_session(alice, agent="silent"), hours=1) for _ in range(60)]
    outcomes = at_once(*[expiry.expire] * 4)
    assert unexpected(outcomes) == []
    assert sum(swept.count for swept in outcomes) == 60
    assert Counter(kind for session in found for kind in types(session)) == {
        "session.created": 60, "session.expired": 60,
    }  # fmt: skip


def test_nobody_is_warned_twice_by_sweeps_at_the_same_instant(alice: Any) -> None:
    found = [age(make_session(alice, agent="silent"), minutes=27) for _ in range(60)]
    outcomes = at_once(*[expiry.warn] * 4)
    assert unexpected(outcomes) == []
    assert sum(swept.count for swept in outcomes) == 60
    assert all(types(session) == ["session.created", "session.expiring"] for session in found)


@pytest.mark.parametrize("work", [archiving.archive, purging.purge])
def test_retention_is_done_once_by_sweeps_at_the_same_instant(alice: Any, configured: Any, work: Any) -> None:
    action = "archive" if work is archiving.archive else "delete"
    configured(RETENTION={"ended": 1, "action": action})
    found = [make_session(alice, agent="silent") for _ in range(40)]
    over(*found)
    outcomes = at_once(*[work] * 4)
    assert unexpected(outcomes) == []
    assert sum(swept.count for swept in outcomes) == 40
    if action == "archive":
        assert {types(session).count("session.archived") for session in found} == {1}
    else:
        assert not ChatSession.objects.exists()


def test_trees_are_purged_once_by_sweeps_at_the_same_instant(alice: Any, configured: Any) -> None:
    configured(RETENTION={"ended": 1, "action": "delete"}, CASCADE_BOUND=2)
    everything = []
    for _ in range(6):
        top = make_session(alice, agent="silent")
        children = [make_session(alice, agent="silent", parent=top) for _ in range(2)]
        everything += [make_session(alice, agent="silent", parent=children[0]), *reversed(children), top]
    over(*everything)
    outcomes = at_once(*[purging.purge] * 3)
    assert unexpected(outcomes) == []
    # What changes under the eyes of one is left by it to the next time.
    purging.purge()
    assert not ChatSession.objects.exists()
    assert not SessionEvent.objects.exists()


@pytest.mark.postgres
def test_what_somebody_holds_is_left_and_taken_the_next_time(alice: Any, configured: Any) -> None:
    configured(RETENTION={"ended": 1, "action": "delete"})
    for work, prepare in (
        (expiry.warn, lambda session: age(session, minutes=27)),
        (expiry.expire, lambda session: age(session, hours=1)),
        (purging.purge, over),
    ):
        found = [make_session(alice, agent="silent") for _ in range(3)]
        for session in found:
            prepare(session)
        assert locked(found[1], work).count == 2
        assert work().count == 1
        ChatSession.objects.all().delete()


def until_somebody_waits() -> None:
    """Wait until somebody waits for a lock."""
    until = time.monotonic() + PATIENCE
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)")
            if cursor.fetchone()[0]:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


@pytest.mark.postgres
@pytest.mark.parametrize("action", ["archive", "delete"])
def test_what_is_said_while_a_sweep_takes_it_is_told_before_it_goes(
    alice: Any, configured: Any, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """The sweep has read the outbox before, and the row after."""
    configured(RETENTION={"ended": 1, "action": action}, SUBSCRIBERS={"session.changed": ["tests.nowhere.x"]})
    session = make_session(alice, agent="silent")
    over(session)
    original = retention.Group.due

    def due(*args: Any) -> Due:
        found = original(*args)
        # A gate, behind which the question has begun.
        return replace(found, where=f"{found.where} AND pg_advisory_xact_lock_shared(4711) IS NOT NULL")

    monkeypatch.setattr(retention.Group, "due", due)

    def change() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(4711)")
            gate.wait(PATIENCE)
            until_somebody_waits()
            sessions.change(fresh(session), title="new")
            cursor.execute("SELECT pg_advisory_unlock(4711)")

    def sweep() -> int:
        gate.wait(PATIENCE)
        return work().count

    gate = threading.Barrier(2)
    work = archiving.archive if action == "archive" else purging.purge
    outcomes = at_once(change, sweep)
    assert unexpected(outcomes) == []
    assert (outcomes[1], OutboxEntry.objects.count(), fresh(session).status) == (0, 1, "ended")
    OutboxEntry.objects.all().delete()
    assert work().count == 1


@pytest.mark.postgres
def test_what_is_said_while_a_purge_waits_for_a_tree_is_told_before_it_goes(alice: Any, configured: Any) -> None:
    configured(RETENTION={"ended": 1, "action": "delete"}, SUBSCRIBERS={"session.changed": ["tests.nowhere.x"]})
    top = make_session(alice, agent="silent")
    over(make_session(alice, agent="silent", parent=top), top)
    changed = threading.Barrier(2)

    def change() -> None:
        with transaction.atomic():
            sessions.change(fresh(top), title="new")
            changed.wait(PATIENCE)
            until_somebody_waits()

    def purge() -> int:
        changed.wait(PATIENCE)
        return purging.purge().count

    outcomes = at_once(change, purge)
    assert unexpected(outcomes) == []
    assert (outcomes[1], OutboxEntry.objects.count(), ChatSession.objects.count()) == (0, 1, 2)
    assert purging.purge().count == 1
    OutboxEntry.objects.all().delete()
    assert purging.purge().count == 1


@pytest.mark.postgres
@pytest.mark.parametrize("is_child", [False, True])
def test_a_purge_waits_for_nobody_who_holds_a_fork(alice: Any, configured: Any, is_child: bool) -> None:
    configured(RETENTION={"ended": 1, "action": "delete"})
    top = make_session(alice, agent="silent")
    source = make_session(alice, agent="silent", parent=top if is_child else None)
    fork = opening.fork(source)
    others = [make_session(alice, agent="silent") for _ in range(3)]
    over(source, top, *others)
    left = {source, top, fork} if is_child else {source, fork}
    assert locked(fork, purging.purge).count == 6 - len(left)
    assert set(ChatSession.objects.all()) == left
    assert purging.purge().count == len(left) - 1
    assert fresh(fork).forked_from is None


@pytest.mark.postgres
def test_purges_that_hold_each_others_forks_wait_in_no_circle(
    alice: Any, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(RETENTION={"ended": 1, "action": "delete"}, SWEEP_BATCH=2)
    first = make_session(alice, agent="silent")
    fork = opening.fork(first)
    again, last = opening.fork(fork), make_session(alice, agent="silent")
    # One takes the source and the fork of its fork, the other the fork between.
    for minutes, session in enumerate((first, again, fork, last)):
        over(session)
        ChatSession.objects.filter(pk=session.pk).update(settled_at=F("settled_at") + timedelta(minutes=minutes))
    both, takes, errors = threading.Barrier(2), [None, None], []

    def take(*args: Any, **options: Any) -> Any:
        found = original_take(*args, **options)
        if takes:
            takes.pop()
            both.wait(PATIENCE)
        return found

    def remove(*args: Any) -> None:
        try:
            original_remove(*args)
        except Exception as error:
            errors.append(error)
            raise

    original_take, original_remove = sweeping.take, logs.remove
    monkeypatch.setattr(sweeping, "take", take)
    monkeypatch.setattr(logs, "remove", remove)
    assert unexpected(at_once(purging.purge, purging.purge)) == []
    assert errors == []
    purging.purge()
    assert not ChatSession.objects.exists()


@pytest.mark.postgres
def test_a_deletion_and_deliveries_wait_in_no_circle(alice: Any) -> None:
    """Both lock what is in the outbox in its own order, not in that of the sessions."""
    found = [make_session(alice, agent="silent") for _ in range(2)]
    now = dialects.now("default")
    entries = [
        OutboxEntry.objects.create(session=session, sequence=1, subscriber="x", next_attempt_at=now, created_at=now)
        for session in reversed(found)
    ]
    one_is_locked = threading.Barrier(2)

    def deliver() -> None:
        with transaction.atomic():
            for entry in entries:
                OutboxEntry.objects.select_for_update(of=("self",)).get(pk=entry.pk)
                if entry is entries[0]:
                    one_is_locked.wait(PATIENCE)
                    until_somebody_waits()
            OutboxEntry.objects.all().delete()

    def delete() -> None:
        one_is_locked.wait(PATIENCE)
        with log.begin("default"):
            logs.remove("default", [log.lock(session).pk for session in found])

    assert unexpected(at_once(deliver, delete)) == []
    assert not ChatSession.objects.exists()


@pytest.mark.postgres
def test_recovery_waits_for_nobody_who_holds_what_is_below_an_end(alice: Any, configured: Any) -> None:
    configured(CASCADE_BOUND=1)
    top = make_session(alice, agent="silent")
    below = [make_session(alice, agent="silent", parent=top) for _ in range(3)]
    sessions.end(top)
    live = [session for session in below if fresh(session).status in LIVE]
    assert len(live) == 2
    assert locked(live[0], recovery.recover).count == 1
    assert fresh(live[0]).status in LIVE
    assert fresh(top).is_cascading
    assert recovery.recover().count == 1
    assert not fresh(top).is_cascading
    assert not ChatSession.objects.filter(status__in=LIVE).exists()


def test_a_message_that_comes_before_the_sweep_keeps_its_session(alice: Any) -> None:
    """Whichever comes first: a session that took a message has not expired, and one that has took none."""
    for _ in range(ROUNDS):
        session = make_session(alice, agent="silent")
        soon = dialects.now("default") + timedelta(milliseconds=30)
        ChatSession.objects.filter(pk=session.pk).update(expires_at=soon)
        outcomes = at_once(
            *[partial(messages.append, fresh(session), Message("user", "x"))] * 2,
            lambda: [expiry.expire() for _ in range(20)],
        )
        assert unexpected(outcomes, SessionNotLive) == []
        kinds = types(session)
        assert ("session.expired" in kinds) == (fresh(session).status == "expired")
        assert kinds[-1] == "session.expired" or "session.expired" not in kinds


def test_a_hold_races_the_purge(alice: Any, configured: Any) -> None:
    configured(RETENTION={"ended": 1, "action": "delete"})
    for _ in range(ROUNDS):
        session = make_session(alice, agent="silent")
        over(session)
        held, purged = at_once(partial(privacy.hold, fresh(session)), purging.purge)
        assert unexpected([held], SessionNotFound) == []
        assert unexpected([purged]) == []
        is_there = ChatSession.objects.filter(pk=session.pk).exists()
        assert is_there == (not isinstance(held, SessionNotFound))
        assert purged.count == (0 if is_there else 1)


def test_a_fork_races_the_purge_of_its_source(alice: Any, configured: Any) -> None:
    configured(RETENTION={"ended": 1, "action": "delete"})
    for _ in range(ROUNDS):
        session = make_session(alice, agent="silent")
        over(session)
        forked, purged = at_once(partial(opening.fork, fresh(session)), purging.purge)
        assert unexpected([forked], SessionNotFound) == []
        assert unexpected([purged]) == []
        purging.purge()
        assert not ChatSession.objects.filter(pk=session.pk).exists()
        if not isinstance(forked, SessionNotFound):
            assert fresh(forked).forked_from_id is None


@pytest.mark.postgres
def test_sweeps_that_hold_each_others_children_wait_in_no_circle(alice: Any, configured: Any) -> None:
    """One took the top and the lowest, the other what is between: by their deadlines, not by who is above whom."""
    configured(EXPIRE_CHILDREN=True)
    top = make_session(alice, agent="silent")
    middle = make_session(alice, agent="silent", parent=top)
    low = make_session(alice, agent="silent", parent=middle)
    for session in (top, middle, low):
        age(session, hours=1)
    both = threading.Barrier(2)

    def sweep(*taken: ChatSession) -> None:
        with log.begin("default"):
            ids = [log.lock(session).pk for session in taken]
            both.wait(PATIENCE)
            now = dialects.now("default")
            endings.record_expiries("default", "silent", ids, now)
            cascades.expire_below("default", ids, now)

    assert unexpected(at_once(partial(sweep, top, low), partial(sweep, middle))) == []
    while recovery.recover().count:
        continue
    assert {fresh(session).end_reason for session in (top, middle, low)} == {"idle_timeout"}
    assert not ChatSession.objects.filter(is_cascading=True).exists()


def test_an_expiry_of_parents_and_children_at_once_leaves_nothing_alive(alice: Any, configured: Any) -> None:
    configured(EXPIRE_CHILDREN=True, SWEEP_BATCH=1)
    for _ in range(ROUNDS):
        chain = [make_session(alice, agent="silent")]
        for _ in range(3):
            chain.append(make_session(alice, agent="silent", parent=chain[-1]))
        for number, session in enumerate(chain):
            age(session, hours=1, seconds=(number % 2) * 10 + number)
        outcomes = at_once(*[expiry.expire] * 4)
        assert unexpected(outcomes) == []
        recovery.recover()
        expiry.expire()
        assert not ChatSession.objects.filter(status__in=LIVE).exists()
        assert not ChatSession.objects.filter(is_cascading=True).exists()


def test_ends_above_and_below_and_an_opening_between_leave_nothing_alive(alice: Any, configured: Any) -> None:
    configured(CASCADE_BOUND=2)
    for _ in range(ROUNDS):
        top = make_session(alice, agent="silent")
        middle = make_session(alice, agent="silent", parent=top)
        low = make_session(alice, agent="silent", parent=middle)
        outcomes = at_once(
            partial(sessions.end, fresh(top)),
            partial(sessions.end, fresh(middle)),
            partial(opening.open, alice, agent="silent", parent=fresh(low)),
            recovery.recover,
        )
        assert unexpected(outcomes, SessionNotLive) == []
        while recovery.recover().count:
            continue
        assert not ChatSession.objects.filter(status__in=LIVE).exists()
        assert not ChatSession.objects.filter(is_cascading=True).exists()


def test_many_who_come_at_once_clean_up_once(alice: Any, configured: Any) -> None:
    configured(CLEANUP="lazy")
    session = make_session(alice, agent="silent")
    over(session)
    outcomes = at_once(*[lambda: cleaning.on_access(fresh(session)).status] * 4)
    assert outcomes == ["archived"] * 4
    assert types(session).count("session.archived") == 1


def test_many_who_come_at_once_delete_once(alice: Any, configured: Any) -> None:
    configured(CLEANUP="lazy", RETENTION={"ended": 1, "action": "delete"})
    session = make_session(alice, agent="silent")
    over(session)
    stale = [fresh(session) for _ in range(4)]
    outcomes = at_once(*[partial(cleaning.on_access, found) for found in stale])
    assert [type(outcome) for outcome in outcomes] == [SessionNotFound] * 4


def test_chunks_are_counted_once_by_sweeps_at_the_same_instant(alice: Any, configured: Any) -> None:
    configured(KEEP_CHUNKS=0, SWEEP_BATCH=5)
    session, now = make_session(alice, agent="silent"), dialects.now("default")
    run = Run.objects.create(
        session=session, input_sequence=1, status="succeeded", created_at=now, heartbeat_at=now, finished_at=now,
        expires_at=now,
    )  # fmt: skip
    RunChunk.objects.bulk_create(
        RunChunk(session=session, run=run, sequence=1, index=n, text="x", created_at=now) for n in range(60)
    )
    outcomes = at_once(*[pieces.compact] * 4)
    assert unexpected(outcomes) == []
    assert sum(swept.count for swept in outcomes) == 60
    assert not RunChunk.objects.exists()
