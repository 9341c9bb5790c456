"""Subscribers are told of events: at least once, in order per session, and nobody waits for another session."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_chat_sessions import deliveries, dialects, log
from django_chat_sessions.agents import Message
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.notices import Notice
from django_chat_sessions.operations import expiry, messages, opening, outbox, privacy, sessions, sweeps
from django_chat_sessions.operations.sweeping import Swept
from django_chat_sessions.rules import backoff
from django_chat_sessions.testing import age, deliver, make_session, say
from tests.operations import told

pytestmark = pytest.mark.django_db

HEAR, REFUSE = told.path("hear"), told.path("refuse")


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[Notice]]:
    """Return what was told to the subscribers of this process."""
    told.heard.clear()
    told.then.clear()
    yield told.heard
    told.then.clear()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that failed come due while a test looks, however slow the machine."""
    monkeypatch.setattr(backoff, "SHORTEST", 300.0)


@pytest.fixture
def subscribed(configured: Callable[..., None]) -> Callable[..., None]:
    """Return a function that subscribes ``told.hear``, or another, to types of events."""

    def subscribed(*patterns: str, subscriber: str = "hear", **keys: Any) -> None:
        configured(SUBSCRIBERS={pattern: [told.path(subscriber)] for pattern in patterns}, **keys)

    return subscribed


def waiting(session: ChatSession | None = None) -> list[tuple[int, str]]:
    """Return what waits: sequences and subscribers."""
    rows = OutboxEntry.objects.all() if session is None else OutboxEntry.objects.filter(session=session)
    return list(rows.order_by("sequence", "subscriber").values_list("sequence", "subscriber"))


def sequences(notices: list[Notice], session: ChatSession | None = None) -> list[int]:
    return [notice.sequence for notice in notices if session in {None, notice.session}]


# -------------------------------------------------------------------------------------------- what is put in the outbox


def test_nothing_waits_where_nobody_subscribes(session):
    say(session, "Hello")
    sessions.end(session)
    assert waiting() == []


def test_an_opening_is_told_with_its_first_messages(alice, subscribed):
    subscribed("session.created", "message")
    session = make_session(alice, agent="silent", messages=[Message("user", "a"), Message("user", "b")])
    assert waiting(session) == [(1, HEAR), (2, HEAR), (3, HEAR)]


def test_an_append_is_told_to_each_of_its_subscribers_once(session, configured):
    configured(SUBSCRIBERS={"message": [HEAR, REFUSE], "mess*": [HEAR], "app.x": [REFUSE], "session.*": [HEAR]})
    say(session, "Hello")
    messages.record(session, "app.x", {})
    messages.record(session, "app.y", {})
    assert waiting(session) == [(2, HEAR), (2, REFUSE), (3, REFUSE)]


def test_several_events_of_one_append_are_told_each_to_its_own(session, configured):
    configured(SUBSCRIBERS={"app.*": [HEAR], "app.b": [REFUSE]})
    entries = [log.Entry(type=name) for name in ("app.a", "message", "app.b")]
    assert log.append(session, entries)
    assert waiting(session) == [(2, HEAR), (4, HEAR), (4, REFUSE)]


def test_an_append_that_is_refused_is_not_told(session, subscribed):
    subscribed("*")
    sessions.end(session)
    before = waiting(session)
    assert not log.append(session, [log.Entry(type="message", role="user", content="x")])
    assert waiting(session) == before


def test_changes_and_ends_are_told(session, subscribed):
    subscribed("state.changed", "session.ended", "message.edited", "message.deleted")
    sequence = say(session, "Hello").sequence
    messages.edit(session, sequence, "Good bye")
    messages.withdraw(session, sequence)
    sessions.change_state(session, {"a": 1})
    sessions.end(session)
    types = session.events.filter(sequence__in=[found for found, _ in waiting(session)]).order_by("sequence")
    assert list(types.values_list("type", flat=True)) == [
        "message.edited", "message.deleted", "state.changed", "session.ended",
    ]  # fmt: skip


def test_what_sweeps_record_in_many_sessions_is_told(alice, configured):
    configured(SUBSCRIBERS={"session.expir*": [HEAR], "session.expired": [REFUSE]})
    near, over = (age(make_session(alice, agent="silent"), minutes=minutes) for minutes in (27, 31))
    make_session(alice, agent="silent")
    expiry.warn()
    expiry.expire()
    assert waiting(near) == [(2, HEAR)]
    assert waiting(over) == [(2, HEAR), (2, REFUSE)]
    assert len(waiting()) == 3


def test_a_fork_is_told_of_what_it_takes_over(session, subscribed):
    subscribed("message", "session.forked")
    say(session, "Hello")
    fork = opening.fork(session)
    assert len(waiting(fork)) == 2


def test_an_expiry_that_an_opening_records_is_told(alice, subscribed):
    subscribed("session.expired")
    old = age(make_session(alice, agent="single"), minutes=31)
    make_session(alice, agent="single")
    assert waiting() == waiting(old) == [(2, HEAR)]


def test_what_is_rolled_back_is_not_told(alice, session, subscribed):
    subscribed("*")
    with transaction.atomic():
        say(session, "Hello")
        sessions.end(session)
        make_session(alice, agent="silent")
        assert len(waiting()) == 3
        transaction.set_rollback(True)
    assert waiting() == []


def test_a_webhook_is_a_subscriber_of_its_events(session, configured):
    configured(WEBHOOK_URL="https://example.com/", WEBHOOK_SECRET="x")
    say(session, "Hello")
    expiry.warn()
    assert waiting(session) == []
    age(session, minutes=27)
    expiry.warn()
    assert waiting(session) == [(3, "webhook")]


def test_an_append_costs_nothing_more_where_nobody_subscribes(session, subscribed):
    def statements() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            say(session, "Hello")
        return [query["sql"] for query in queries]

    alone = statements()
    subscribed("session.*")
    unconcerned = statements()
    assert len(unconcerned) == len(alone)
    assert not any("outboxentry" in sql for sql in alone + unconcerned)
    subscribed("message")
    # On PostgreSQL it is the same statement.
    assert len(statements()) == len(alone) + (connection.vendor == "sqlite")


def test_whoever_delivers_hears_of_it_after_the_commit(session, subscribed, django_capture_on_commit_callbacks):
    heard = []

    def receive(**given):
        heard.append(given["using"])

    log.outbox_filled.connect(receive)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            say(session, "Hello")
        assert heard == []
        subscribed("*")
        with django_capture_on_commit_callbacks(execute=True):
            say(session, "Hello")
            assert heard == []
        assert heard == ["default"]
    finally:
        log.outbox_filled.disconnect(receive)


# ------------------------------------------------------------------------------------------------------- what is told


def test_a_notice_shows_an_event_as_the_api_does(session, subscribed, heard, api_of, alice):
    subscribed("*")
    asked = Message("user", "a\0\ud800", metadata={"a\0": "\ud800"}, external_id="x")
    message = messages.append(session, asked).message
    messages.record(session, "app.x", {"owner": 7, "n": [1, None]})
    sessions.end(session, reason="done")
    assert outbox.deliver().count == 3
    shown = api_of(alice).get(f"/api/chat/sessions/{session.uuid}/events").json()["events"][1:]
    assert [
        {"sequence": n.sequence, "type": n.type, "created_at": log.iso(n.created_at), "data": n.data} for n in heard
    ] == shown
    assert heard[0].data["content"] == message.content == "a\0\ud800"
    assert [(notice.session, notice.attempt) for notice in heard] == [(session, 1)] * 3
    assert heard[0].session.status == "ended"
    assert waiting() == []


def test_a_notice_of_an_opening_does_not_say_the_owners_key(alice, subscribed, heard):
    subscribed("session.created")
    session = make_session(alice, agent="silent")
    outbox.deliver()
    assert "owner" not in heard[0].data
    assert heard[0].session.owner == alice
    assert session.events.get().data["owner"] == str(alice.pk)


def test_a_notice_shows_no_content_when_it_is_printed(session, subscribed, heard):
    subscribed("message")
    say(session, "confidential")
    outbox.deliver()
    assert heard[0].data["content"] == "confidential"
    assert "confidential" not in repr(heard[0])


def test_content_that_was_erased_meanwhile_is_not_told(session, subscribed, heard):
    subscribed("message")
    messages.withdraw(session, say(session, "confidential").sequence)
    outbox.deliver()
    assert heard[0].data["content"] == ""
    assert "confidential" not in json.dumps(dict(heard[0].data))


def test_what_is_deleted_meanwhile_is_not_told(session, alice, subscribed, heard):
    subscribed("*")
    other = make_session(alice, agent="silent")
    say(session, "Hello")
    told.then.append(lambda notice: sessions.delete(session) if notice.session == other else None)
    OutboxEntry.objects.filter(session=session).update(next_attempt_at=dialects.now("default"))
    assert outbox.deliver().count >= 1
    assert sequences(heard, session) == []
    assert waiting() == []


def test_an_asynchronous_subscriber_is_awaited(session, subscribed, heard):
    subscribed("message", subscriber="ahear")
    say(session, "Hello")
    assert outbox.deliver().count == 1
    assert sequences(heard) == [2]


def test_an_asynchronous_subscriber_has_its_time(session, subscribed, heard, monkeypatch):
    monkeypatch.setattr(outbox, "CALL_SECONDS", 0.02)
    subscribed("message", subscriber="dawdle")
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert len(heard) == 1
    assert OutboxEntry.objects.get().error.startswith("TimeoutError")


def test_subscribers_work_outside_of_any_transaction_of_ours(subscribed, session, heard):
    subscribed("message")
    say(session, "Hello")
    depth = len(connection.savepoint_ids)
    depths = []
    told.then.append(lambda notice: depths.append(len(connection.savepoint_ids)))
    outbox.deliver()
    assert depths == [depth]


def test_a_subscriber_may_write_to_the_session(session, subscribed, heard):
    subscribed("message")
    told.then.append(lambda notice: messages.record(notice.session, "app.seen", {"sequence": notice.sequence}))
    say(session, "Hello")
    outbox.deliver()
    assert session.events.order_by("-sequence").first().type == "app.seen"


# ----------------------------------------------------------------------------------------------- order, and who waits


def test_a_session_is_told_in_the_order_of_its_log(session, subscribed, heard):
    subscribed("*")
    for number in range(12):
        say(session, str(number))
    assert outbox.deliver().count == 12
    assert sequences(heard) == list(range(2, 14))


def test_a_subscriber_that_raises_keeps_back_its_next_events_of_that_session_alone(session, alice, configured, heard):
    configured(SUBSCRIBERS={"message": [HEAR, told.path("hear_too")]})
    other = make_session(alice, agent="silent")

    def refuse(notice: Notice) -> None:
        if notice.session == session:
            raise ValueError

    told.then.append(refuse)
    for name in ("a", "b"):
        say(session, name)
        say(other, name)
    assert outbox.deliver().count == 4
    assert sequences(heard, session) == [2, 2]
    assert sequences(heard, other) == [2, 2, 3, 3]
    told.then.clear()
    heard.clear()
    assert deliver() == 4
    assert sorted(sequences(heard, session)) == [2, 2, 3, 3]
    assert {notice.attempt for notice in heard if notice.sequence == 2} == {2}
    assert {notice.attempt for notice in heard if notice.sequence == 3} == {1}


def test_a_poison_session_does_not_hold_up_a_thousand_behind_it(alice, configured, heard, monkeypatch):
    monkeypatch.setattr(outbox, "CLAIM", 10)
    configured(SUBSCRIBERS={"message": [HEAR]})
    poison = make_session(alice, agent="silent")
    told.then.append(lambda notice: 1 / (notice.session.pk - poison.pk))
    for number in range(60):
        say(poison, str(number))
    healthy = [make_session(alice, agent="silent") for _ in range(5)]
    for session in healthy:
        say(session, "Hello")
    assert outbox.deliver().count == 5
    assert sequences(heard, poison) == [2]
    # What waits behind it is not looked at any more: the next sweep finds nothing to do.
    with CaptureQueriesContext(connection) as queries:
        assert outbox.deliver().batches == 0
    assert not any("UPDATE" in query["sql"] and "outboxentry" in query["sql"] for query in queries)


def test_what_nobody_is_due_for_costs_the_same_however_much_waits(session, subscribed, heard):
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert outbox.deliver() == Swept("deliver", 0, 0)
        return len(queries)

    subscribed("*", subscriber="refuse")
    say(session, "Hello")
    outbox.deliver()
    before = cost()
    for number in range(30):
        say(session, str(number))
    outbox.deliver()
    assert cost() == before <= 4


def test_a_subscriber_that_is_slow_has_a_turn_no_longer_than_others(alice, configured, heard, monkeypatch):
    monkeypatch.setattr(outbox, "TURN_SECONDS", 0)
    configured(SUBSCRIBERS={"message": [HEAR, told.path("hear_too")]})
    for _ in range(3):
        say(make_session(alice, agent="silent"), "Hello")
    names = []
    call = outbox._call
    monkeypatch.setattr(outbox, "_call", lambda who, notice: (names.append(who.__name__), call(who, notice)))
    assert outbox.deliver().count == 6
    assert names == ["hear", "hear_too"] * 3


def test_a_limit_and_who_watches_end_the_sweep(alice, subscribed, heard):
    subscribed("message")
    for _ in range(5):
        say(make_session(alice, agent="silent"), "Hello")
    assert outbox.deliver(limit=2).count == 2
    swept = outbox.deliver(limit=2, watch=lambda swept: False)
    assert (swept.count, swept.is_finished) == (2, False)
    assert len(waiting()) == 1


def test_the_preview_says_what_is_due(alice, subscribed):
    subscribed("message")
    for _ in range(3):
        say(make_session(alice, agent="silent"), "Hello")
    OutboxEntry.objects.filter(pk=OutboxEntry.objects.first().pk).update(
        next_attempt_at=dialects.now("default") + timedelta(minutes=1)
    )
    preview = sweeps.preview("deliver")
    assert (preview.total, preview.by_agent) == (2, {"silent": 2})


# -------------------------------------------------------------------------------------------------- failures, set aside


def test_each_attempt_comes_later_than_the_one_before(session, subscribed, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.0)
    subscribed("message", subscriber="refuse")
    say(session, "Hello")
    for attempt, seconds in enumerate([300, 600, 1200, 2400], 1):
        OutboxEntry.objects.update(next_attempt_at=dialects.now("default"))
        before = dialects.now("default")
        outbox.deliver()
        entry = OutboxEntry.objects.get()
        delay = entry.next_attempt_at - before
        assert timedelta(seconds=seconds) <= delay <= timedelta(seconds=seconds) + (dialects.now("default") - before)
        assert entry.attempts == attempt


def test_a_subscriber_may_ask_for_more_time(session, subscribed):
    def refuse(notice: Notice) -> None:
        error = ValueError()
        error.retry_after = 900
        raise error

    subscribed("message")
    told.then.append(refuse)
    say(session, "Hello")
    before = dialects.now("default")
    outbox.deliver()
    assert OutboxEntry.objects.get().next_attempt_at - before >= timedelta(seconds=900)


def test_after_the_last_attempt_an_event_is_set_aside_and_the_next_ones_go_on(session, subscribed, heard, caplog):
    subscribed("message", DELIVERY_ATTEMPTS=3)
    told.then.append(lambda notice: 1 / (notice.sequence - 2))
    say(session, "confidential")
    say(session, "Hello")
    for _ in range(2):
        deliver()
    assert sequences(heard) == [2, 2]
    caplog.clear()
    assert deliver() == 1
    assert sequences(heard) == [2, 2, 2, 3]
    entry = OutboxEntry.objects.get()
    assert (entry.sequence, entry.attempts, entry.set_aside_at is None) == (2, 3, False)
    assert entry.error.startswith(f"ZeroDivisionError at {__name__}:")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"Subscriber {HEAR} is not told of event 2 of session {session.uuid}: set aside after 3")
    caplog.clear()
    assert deliver() == 0
    assert sequences(heard) == [2, 2, 2, 3]
    assert not caplog.records


def test_what_a_subscriber_says_is_neither_kept_nor_logged(session, subscribed, caplog):
    caplog.set_level(logging.DEBUG)
    subscribed("message", subscriber="refuse", DELIVERY_ATTEMPTS=2)
    say(session, "confidential")
    deliver()
    deliver()
    assert "ValueError at tests.operations.told:" in OutboxEntry.objects.get().error
    assert "confidential" not in OutboxEntry.objects.get().error
    assert "ValueError" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("django_chat_sessions")]
    assert ours
    assert not any("confidential" in text for text in ours)


def test_what_was_set_aside_can_be_delivered_again(session, subscribed, heard):
    subscribed("message", DELIVERY_ATTEMPTS=1)
    told.then.append(lambda notice: 1 / (notice.sequence - 2))
    say(session, "a")
    say(session, "b")
    assert outbox.deliver().count == 1
    told.then.clear()
    entry = OutboxEntry.objects.get()
    assert outbox.redeliver([entry.pk]) == [entry.pk]
    assert outbox.deliver().count == 1
    assert sequences(heard) == [2, 3, 2]
    assert heard[-1].attempt == 1
    assert waiting() == []


def test_what_is_put_off_for_long_can_be_delivered_now_but_not_what_is_about_to_be(session, subscribed, heard):
    subscribed("message")
    say(session, "Hello")
    (entry,) = OutboxEntry.objects.all()
    for seconds, expected in ((30, []), (300, [entry.pk])):
        OutboxEntry.objects.update(next_attempt_at=dialects.now("default") + timedelta(seconds=seconds))
        assert outbox.redeliver([entry.pk]) == expected
    assert outbox.deliver().count == 1


def test_what_is_dropped_is_never_told_and_the_next_ones_go_on(session, subscribed, heard):
    subscribed("message")
    told.then.append(lambda notice: 1 / (notice.sequence - 2))
    for name in ("a", "b", "c"):
        say(session, name)
    assert outbox.deliver().count == 0
    heard.clear()
    first = OutboxEntry.objects.order_by("sequence").first()
    assert outbox.drop([first.pk]) == [first.pk]
    assert outbox.deliver().count == 2
    assert sequences(heard) == [3, 4]


def test_who_is_not_subscribed_any_more_is_not_told(session, subscribed, configured, heard):
    subscribed("message")
    say(session, "Hello")
    configured(SUBSCRIBERS={})
    assert outbox.deliver().count == 0
    assert heard == []
    assert OutboxEntry.objects.get().error == "NotSubscribed"
    subscribed("message")
    assert deliver() == 1


@pytest.mark.parametrize("name", ["nobody", "uncallable"])
def test_a_subscriber_that_is_not_there_is_tried_again(session, subscribed, name):
    subscribed("message", subscriber=name)
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert OutboxEntry.objects.get().error.startswith(("ImportError", "TypeError"))


# ----------------------------------------------------------------------------------------------- leases, lost processes


def claimed(size: int = 100, attempts: int = 16) -> list[OutboxEntry]:
    return deliveries.claim("default", HEAR, size, attempts=attempts).entries


def test_what_one_process_has_claimed_another_does_not(session, subscribed, heard):
    subscribed("message")
    say(session, "a")
    say(session, "b")
    (entry,) = claimed()
    assert entry.sequence == 2
    assert claimed() == []
    assert outbox.deliver().count == 0
    OutboxEntry.objects.update(next_attempt_at=dialects.now("default"))
    assert outbox.deliver().count == 2
    assert sequences(heard) == [2, 3]


def test_who_has_lost_a_lease_neither_tells_nor_puts_off(session, subscribed):
    subscribed("message")
    say(session, "a")
    (mine,) = claimed()
    OutboxEntry.objects.update(next_attempt_at=dialects.now("default"))
    (theirs,) = claimed()
    now = dialects.now("default")
    assert not deliveries.begin("default", mine, now)
    deliveries.put_off("default", mine, now, "late")
    assert OutboxEntry.objects.get().error == ""
    assert deliveries.begin("default", theirs, now)


def test_an_attempt_renews_the_lease(session, subscribed):
    subscribed("message")
    say(session, "a")
    (entry,) = claimed()
    later = entry.next_attempt_at
    assert deliveries.begin("default", entry, later)
    assert OutboxEntry.objects.get().next_attempt_at == later + deliveries.LEASE


def test_attempts_that_ended_with_their_process_count(session, subscribed, heard, caplog):
    subscribed("message", DELIVERY_ATTEMPTS=2)
    say(session, "a")
    say(session, "b")
    for _ in range(2):
        (entry,) = claimed()
        assert deliveries.begin("default", entry, dialects.now("default"))
        OutboxEntry.objects.filter(pk=entry.pk).update(next_attempt_at=dialects.now("default"))
    assert outbox.deliver().count == 1
    assert sequences(heard) == [3]
    assert OutboxEntry.objects.get().error == "ProcessLost"
    assert "set aside after 2 attempts: ProcessLost" in caplog.text


def test_who_is_interrupted_keeps_what_was_told_and_gives_the_rest_back(alice, subscribed, heard):
    subscribed("message")
    several = [make_session(alice, agent="silent") for _ in range(3)]
    for session in several:
        say(session, "a")

    def interrupt(notice: Notice) -> None:
        if len(heard) == 2:
            raise KeyboardInterrupt

    told.then.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        outbox.deliver()
    assert len(waiting()) == 2
    told.then.clear()
    assert outbox.deliver().count == 1
    assert deliver() == 1
    assert len({notice.session.pk for notice in heard}) == 3


def test_what_was_told_leaves_the_outbox_before_long(alice, subscribed, heard, monkeypatch):
    monkeypatch.setattr(outbox, "SETTLE_SECONDS", 0)
    subscribed("message")
    left = []
    told.then.append(lambda notice: left.append(len(waiting())))
    for _ in range(3):
        say(make_session(alice, agent="silent"), "a")
    outbox.deliver()
    assert left == [3, 2, 1]


def test_what_is_behind_a_set_aside_one_is_told_however_many_those_are(session, subscribed, heard):
    subscribed("message", DELIVERY_ATTEMPTS=1)
    told.then.append(lambda notice: 1 / max(0, notice.sequence - 6))
    for number in range(7):
        say(session, str(number))
    assert outbox.deliver().count == 2
    assert sequences(heard) == [2, 3, 4, 5, 6, 7, 8]
    assert OutboxEntry.objects.filter(set_aside_at__isnull=False).count() == 5


def test_held_sessions_are_told(session, subscribed, heard):
    subscribed("session.held")
    privacy.hold(session, reason="court")
    assert outbox.deliver().count == 1
    assert isinstance(heard[0].created_at, datetime)
