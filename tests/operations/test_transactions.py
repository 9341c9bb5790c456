"""Signals after the commit, and operations within a host's own transaction."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from django_chat_sessions import signals
from django_chat_sessions.agents import Message
from django_chat_sessions.exceptions import AgentFailed, ExternalIdConflict, SessionEnded, SessionExpired
from django_chat_sessions.models import ChatSession, SessionEvent
from django_chat_sessions.operations import expiry, messages, opening, runs, sessions
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, texts, types

pytestmark = pytest.mark.django_db(transaction=True)


def names(heard):
    return [name for name, _ in heard]


# -------------------------------------------------------------------------------------------------------------- signals


def test_each_operation_announces_what_it_did(alice, heard):
    session = make_session(alice, agent="silent")
    say(session, "hi")
    age(session, minutes=6)
    say(session, "back")
    sessions.end(session, reason="why")
    assert names(heard) == [
        "session_opened", "events_appended", "session_resumed", "events_appended", "session_ended", "events_appended",
    ]  # fmt: skip
    said = dict(heard)
    assert said["session_ended"]["reason"] == "why"
    assert said["session_ended"]["session"].status == "ended"
    assert said["session_resumed"]["idle_seconds"] >= 360
    assert {given["sender"] for _, given in heard} == {ChatSession}


def test_appended_events_are_announced_with_their_last_sequence(session, heard):
    say(session, "hi")
    (_, given), *_ = heard
    assert [entry.content for entry in given["entries"]] == ["hi"]
    assert given["last_sequence"] == 2


def test_sweeps_announce_too(alice, heard):
    expired, near = age(make_session(alice), hours=1), age(make_session(alice), minutes=26)
    failed = make_session(alice)
    heard.clear()
    expiry.expire()
    expiry.warn()
    sessions.fail(failed, reason="broken")
    assert [(name, given["session"]) for name, given in heard if name.startswith("session_")] == [
        ("session_expired", expired), ("session_expiring", near), ("session_failed", failed),
    ]  # fmt: skip


def test_a_repeat_and_a_refusal_announce_nothing(session, heard):
    say(session, "hi", external_id="x")
    heard.clear()
    say(session, "hi", external_id="x")
    with pytest.raises(ExternalIdConflict):
        say(session, "ho", external_id="x")
    sessions.change_state(session, {})
    assert heard == []


def test_signals_come_after_the_commit_and_see_what_was_written(session, heard):
    seen: list[int] = []

    def look(session, **given):
        seen.append(ChatSession.objects.get(pk=session.pk).last_sequence)
        assert not connection.in_atomic_block

    signals.events_appended.connect(look)
    try:
        with transaction.atomic():
            say(session, "one")
            sessions.change_state(session, {"a": 1})
            assert (seen, heard) == ([], [])
        say(session, "two")
    finally:
        signals.events_appended.disconnect(look)
    assert seen == [3, 3, 4]


def test_a_rollback_announces_nothing(session, heard):
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012
        say(session, "one")
        sessions.end(session)
        raise ZeroDivisionError
    assert heard == []


def test_a_receiver_that_raises_disturbs_nobody(session, heard):
    def break_(**given):
        raise ZeroDivisionError

    signals.events_appended.connect(break_)
    try:
        assert say(session, "one").sequence == 2
        sessions.end(session)
    finally:
        signals.events_appended.disconnect(break_)
    assert names(heard) == ["events_appended", "session_ended", "events_appended"]


# -------------------------------------------------------------------------------------------------- a host's own atomic


OPERATIONS = {
    "message": lambda s: say(s, "x"),
    "named message": lambda s: say(s, "x", external_id="new"),
    "event": lambda s: messages.record(s, "app.x"),
    "edit": lambda s: messages.edit(s, 2, "edited"),
    "withdrawal": lambda s: messages.withdraw(s, 2),
    "state": lambda s: sessions.change_state(s, {"a": 1}),
    "change": lambda s: sessions.change(s, title="T"),
    "renewal": sessions.renew,
    "timeout": lambda s: sessions.change_timeout(s, {"timeout_minutes": 60}),
    "heartbeat": sessions.heartbeat,
    "resumption": sessions.resume,
    "end": sessions.end,
    "fork": opening.fork,
    "opening": lambda s: opening.open(s.owner),
    "child": lambda s: opening.open(s.owner, parent=s),
    "question": lambda s: runs.ask(s, Message("user", "q")),
    "deletion": sessions.delete,
    "sweep": lambda s: age(s, hours=1) and expiry.expire(),
}


@pytest.fixture
def talk(alice):
    session = make_session(alice, agent="echo")
    say(session, "first")
    return session


def everything():
    return (
        list(ChatSession.objects.order_by("pk").values()),
        list(SessionEvent.objects.order_by("pk").values()),
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_hosts_rollback_leaves_nothing(talk, name):
    before = everything()
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012
        OPERATIONS[name](fresh(talk))
        assert everything() != before
        raise ZeroDivisionError
    assert everything() == before


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_hosts_transaction_commits_an_operation_with_the_hosts_own(talk, bob, name):
    before = everything()
    with transaction.atomic():
        bob.first_name = name
        bob.save()
        OPERATIONS[name](fresh(talk))
    bob.refresh_from_db()
    assert bob.first_name == name
    assert everything() != before


@pytest.mark.parametrize("name", ["message", "named message", "edit", "state", "end", "question", "child"])
def test_a_refusal_leaves_the_hosts_transaction_usable(talk, name):
    sessions.end(talk)
    with transaction.atomic():
        with pytest.raises(SessionEnded):
            OPERATIONS[name](talk)
        sessions.change(talk, title="still")
    assert fresh(talk).title == "still"


@pytest.mark.parametrize("minutes", [0, 7])
def test_a_repeat_within_a_hosts_transaction_is_found_and_the_transaction_goes_on(talk, minutes):
    given = Message("user", "hi", external_id="x")
    messages.append(talk, given)
    age(talk, minutes=minutes)
    with transaction.atomic():
        assert not messages.append(talk, given).created
        with pytest.raises(ExternalIdConflict):
            messages.append(talk, Message("user", "ho", external_id="x"))
        assert say(talk, "next")
        assert not runs.ask(talk, given).created
    assert texts(talk) == ["first", "hi", "next"]


def test_a_place_that_is_taken_is_found_within_a_hosts_transaction(alice):
    with transaction.atomic():
        first = opening.open(alice, agent="single")
        second = opening.open(alice, agent="single")
    assert (first.created, second.created) == (True, False)


def test_an_agent_that_fails_leaves_the_hosts_transaction_usable(alice):
    session = make_session(alice, agent="failing")
    with transaction.atomic():
        with pytest.raises(AgentFailed):
            runs.ask(session, Message("user", "q"))
        say(session, "next")
    assert types(session) == ["session.created", "message", "run.started", "run.failed", "message"]


def test_an_expiry_recorded_on_the_way_to_a_refusal_is_not_half_of_one(alice, configured):
    """Opening records the expiry that stood in its way; where it is then refused, nothing happened at all."""
    session = age(make_session(alice, agent="single"), hours=1)
    make_session(alice)
    configured(MAX_LIVE_SESSIONS=1)
    with pytest.raises(Exception, match="1 live sessions"):
        opening.open(alice, agent="single")
    assert types(session) == ["session.created"]
    with pytest.raises(SessionExpired):
        say(session, "x")


def test_what_the_database_refuses_is_told_as_it_is(session):
    """An integrity error of something else is nobody's repeat."""
    with transaction.atomic():
        row = (
            ChatSession.objects.select_for_update().get(pk=session.pk) if connection.vendor == "postgresql" else session
        )
        ChatSession.objects.filter(pk=row.pk).update(last_sequence=0)
    try:
        with pytest.raises(IntegrityError):
            say(session, "x", external_id="y")
    finally:
        ChatSession.objects.filter(pk=session.pk).update(last_sequence=1)
