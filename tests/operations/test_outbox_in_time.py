"""Who tells subscribers has other things to do: none keeps it for ever, and no failure what it claimed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, connections, transaction

from django_chat_sessions import deliveries, dialects
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.notices import Notice
from django_chat_sessions.operations import calling, outbox
from django_chat_sessions.rules import backoff
from django_chat_sessions.testing import deliver, make_session, say
from tests.operations import told

HEAR, HEAR_TOO = told.path("hear"), told.path("hear_too")

in_transactions = pytest.mark.django_db(transaction=True)


def callers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "chat-caller"]


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Notice]]:
    """Return what was told; what failed does not come due while a test looks."""
    monkeypatch.setattr(backoff, "SHORTEST", 300.0)
    told.heard.clear()
    told.then.clear()
    yield told.heard
    told.then.clear()


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Have a subscriber hang at the content "hang", and return a function that lets it go on."""
    monkeypatch.setattr(outbox, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(outbox, "END_SECONDS", 0.1)
    go_on = threading.Event()
    told.then.append(lambda notice: go_on.wait(60) if notice.data["content"] == "hang" else None)

    def release() -> None:
        go_on.set()
        for thread in callers():
            thread.join(60)

    yield release
    release()


@pytest.fixture
def said(alice: Any, configured: Callable[..., None]) -> Callable[..., list[ChatSession]]:
    """Return a function that says something in a session each, and has ``told.hear`` subscribed to that."""

    def said(*contents: str, subscribers: tuple[str, ...] = (HEAR,)) -> list[ChatSession]:
        configured(SUBSCRIBERS={"message": list(subscribers)})
        sessions = [make_session(alice, agent="silent") for _ in contents]
        for session, content in zip(sessions, contents, strict=True):
            say(session, content)
        return sessions

    return said


# ------------------------------------------------------------------------------------------------ who does not return


@in_transactions
def test_a_subscriber_that_hangs_fails_at_its_time_and_other_sessions_are_told(said, heard, release):
    said("hang", "a", "b")
    assert outbox.deliver().count == 2
    assert [notice.data["content"] for notice in heard] == ["hang", "a", "b"]
    entry = OutboxEntry.objects.get()
    assert (entry.attempts, entry.error) == (1, "TimedOut")
    assert entry.next_attempt_at > dialects.now("default")
    release()
    assert deliver() == 1


@in_transactions
def test_what_hangs_is_not_called_without_end_and_keeps_nobody_else(said, heard, release, monkeypatch, caplog):
    monkeypatch.setattr(calling, "LEFT_BEHIND", 2)
    said(*["hang"] * 5)
    assert outbox.deliver().count == 0
    assert len(heard) == len(callers()) == 2
    assert f"2 calls of {HEAR} have not returned" in caplog.text
    assert list(OutboxEntry.objects.order_by("pk").values_list("attempts", flat=True)) == [1, 1, 0, 0, 0]
    said("a", subscribers=(HEAR, HEAR_TOO))
    assert outbox.deliver().count == 1
    assert deliver() == 0
    assert len(heard) == 3
    release()
    assert callers() == []
    assert deliver() == 6


@in_transactions
def test_a_turn_is_one_thread_whose_connections_are_closed_with_it(said, heard):
    threads, opened = set(), []

    def act(notice: Notice) -> None:
        threads.add(threading.get_ident())
        get_user_model().objects.count()
        opened.append(connections["default"].connection)
        if notice.data["content"] == "raise":
            raise ValueError

    told.then.append(act)
    said("a", "raise", "b", "c")
    assert outbox.deliver().count == 3
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert callers() == []
    if connection.vendor == "postgresql":
        assert all(one.closed for one in opened)


@pytest.mark.django_db
def test_within_a_transaction_a_subscriber_is_called_in_its_thread_and_sees_it(said, heard):
    seen = []
    told.then.append(lambda notice: seen.append((threading.get_ident(), ChatSession.objects.count())))
    said("a")
    assert outbox.deliver().count == 1
    assert seen == [(threading.get_ident(), 1)]


@in_transactions
def test_what_ends_a_process_is_heard_from_a_thread_too(said, heard):
    def end(notice: Notice) -> None:
        raise SystemExit

    told.then.append(end)
    said("a", "b")
    with pytest.raises(SystemExit):
        outbox.deliver()
    assert callers() == []
    told.then.clear()
    assert outbox.deliver().count == 1  # the other one, which was given back
    assert deliver() == 1


# --------------------------------------------------------------------------------------------------------- short sweeps


@pytest.mark.django_db
def test_sweeps_that_end_after_one_turn_give_each_subscriber_its_own(said, monkeypatch):
    monkeypatch.setattr(outbox, "TURN_SECONDS", 0)
    names = []
    call = outbox._call
    monkeypatch.setattr(outbox, "_call", lambda who, notice: (names.append(who.__name__), call(who, notice)))
    said("a", "b", "c", subscribers=(HEAR, HEAR_TOO))
    for _ in range(4):
        assert outbox.deliver(watch=lambda swept: False).count == 1
    assert sorted(names[:2]) == sorted(names[2:]) == ["hear", "hear_too"]


# ------------------------------------------------------------------------------------------------------------- failures


@pytest.mark.django_db
def test_what_was_not_begun_is_given_back_though_what_was_told_cannot_be_settled(said, heard, monkeypatch):
    def fail(*_: Any) -> None:
        raise OperationalError

    monkeypatch.setattr(outbox, "TURN_SECONDS", 0)
    monkeypatch.setattr(deliveries, "settle", fail)
    said("a", "b", "c")
    with pytest.raises(OperationalError):
        outbox.deliver()
    assert len(heard) == 1
    assert OutboxEntry.objects.filter(next_attempt_at__lte=dialects.now("default")).count() == 2


@pytest.mark.postgres
@in_transactions
@pytest.mark.parametrize("work", ["settle", "set_aside"])
def test_the_victim_of_a_deadlock_tries_again(said, work):
    said("a", "b")
    first, second = OutboxEntry.objects.order_by("pk")
    now = dialects.now("default")
    failures: list[Exception] = []

    def act() -> None:
        try:
            with connection.cursor() as cursor:
                # It is the first to look for a deadlock, and so its victim.
                cursor.execute("SET deadlock_timeout = '200ms'")
            given = [second, first]
            if work == "settle":
                deliveries.settle("default", given, now)
            else:
                deliveries.set_aside("default", given, "error", now)
        except Exception as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=act)
    with transaction.atomic():
        OutboxEntry.objects.filter(pk=second.pk).update(error="mine")
        thread.start()
        _wait_for_a_waiting_lock()
        OutboxEntry.objects.filter(pk=first.pk).update(error="mine")
    thread.join(60)
    assert failures == []
    assert OutboxEntry.objects.filter(set_aside_at=None).count() == 0


def _wait_for_a_waiting_lock() -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("Nobody waits.")
