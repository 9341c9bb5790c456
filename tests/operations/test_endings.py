"""The end of sessions: ending, failing, cascades, deletion, and what a legal hold keeps."""

from __future__ import annotations

import pytest

from django_chat_sessions import log
from django_chat_sessions.agents import Message
from django_chat_sessions.choices import EventType
from django_chat_sessions.exceptions import (
    IllegalTransition,
    LegalHold,
    SequenceConflict,
    SessionEnded,
    SessionNotFound,
)
from django_chat_sessions.models import ChatSession, Run, SessionEvent
from django_chat_sessions.operations import expiry, messages, opening, privacy, runs, sessions
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, types


@pytest.fixture
def tree(alice):
    """Return a top, its child, and the child's child."""
    top = make_session(alice, agent="silent")
    child = make_session(alice, agent="silent", parent=top)
    return top, child, make_session(alice, agent="silent", parent=child)


# --------------------------------------------------------------------------------------------------------------- ending


@pytest.mark.parametrize(("operation", "status"), [(sessions.end, "ended"), (sessions.fail, "failed")])
def test_the_end_keeps_the_reason_the_final_state_and_the_figures(session, operation, status):
    say(session, "hi", token_count=5)
    sessions.change_state(session, {"a": 1})
    sessions.renew(session)
    age(session, minutes=2)
    operation(session, reason="done \ud800")
    found, event = fresh(session), last(session)
    assert (found.status, found.end_reason, event.type) == (status, "done \ud800", f"session.{status}")
    assert event.data["state"] == {"a": 1}
    figures = event.data["figures"]
    assert (figures["message_count"], figures["token_count"], figures["renewal_count"]) == (1, 5, 1)
    assert 120 <= figures["duration_seconds"] < 130
    assert log.iso(found.ended_at) == event.data["ended_at"]


def test_ending_twice_is_refused_and_tells_the_status(session):
    sessions.fail(session)
    for again in (sessions.end, sessions.fail):
        with pytest.raises(SessionEnded) as refusal:
            again(session)
        assert refusal.value.status == "failed"
    assert types(session) == ["session.created", "session.failed"]


def test_ending_cancels_a_running_answer(alice, agent):
    def end(turn):
        sessions.end(fresh(session), reason="enough")
        return "too late"

    agent("slow", end)
    session = make_session(alice, agent="slow")
    asked = runs.ask(session, Message("user", "q"))
    assert asked.reply is None
    assert asked.run.status == Run.objects.get().status == "cancelled"
    assert types(session) == ["session.created", "message", "run.started", "run.cancelled", "session.ended"]


@pytest.mark.parametrize("target", ["session.resumed", "message", "session.ended", "session.expired", "session.failed"])
@pytest.mark.parametrize("how", [sessions.end, sessions.fail])
def test_an_illegal_transition_raises_and_writes_nothing(session, how, target):
    how(session)
    with log.begin("default"):
        row = log.lock(session)
        entry = log.Entry(type=target, data={"ended_at": log.iso(row.ended_at), "reason": ""})
        if target == f"session.{row.status}":
            return
        with pytest.raises(IllegalTransition):
            log.write(row, [entry], now=row.ended_at)
    assert fresh(session).last_sequence == 2


def test_the_system_may_always_record(session):
    sessions.end(session)
    with log.begin("default"):
        log.write(log.lock(session), [log.Entry(type=EventType.SESSION_ARCHIVED)], now=session.ended_at)
    assert fresh(session).status == "archived"
    with pytest.raises(SessionEnded) as refusal:
        say(session, "x")
    assert refusal.value.status == "archived"


# -------------------------------------------------------------------------------------------------------------- cascade


@pytest.mark.parametrize("how", [sessions.end, sessions.fail])
def test_ending_a_parent_ends_its_live_descendants(tree, how):
    top, child, grandchild = tree
    how(top)
    for below in (child, grandchild):
        found = fresh(below)
        assert (found.status, found.end_reason) == ("ended", "parent_ended")
        assert types(below) == ["session.created", "session.ended"]


def test_ending_a_child_leaves_its_parent(tree):
    top, child, grandchild = tree
    sessions.end(child)
    assert fresh(top).status == "created"
    assert fresh(grandchild).status == "ended"


def test_children_may_be_left_by_policy(tree, configured):
    configured(END_CHILDREN=False)
    sessions.end(tree[0])
    assert fresh(tree[1]).status == "created"


def test_children_that_are_over_stay_what_they_were(alice, tree):
    top, child, _ = tree
    sessions.end(child, reason="mine")
    expired = age(make_session(alice, agent="silent", parent=top), hours=1)
    sessions.end(top)
    assert fresh(child).end_reason == "mine"
    assert (fresh(expired).status, fresh(expired).end_reason) == ("expired", "idle_timeout")


# ------------------------------------------------------------------------------------------------------------- deletion


def test_deleting_removes_a_session_with_all_its_descendants(tree):
    assert sessions.delete(tree[0]) == 3
    assert not ChatSession.objects.exists()
    assert not SessionEvent.objects.exists()


def test_deleting_leaves_everything_else(tree, alice):
    other = make_session(alice)
    assert sessions.delete(tree[1]) == 2
    assert set(ChatSession.objects.all()) == {tree[0], other}


def test_deleting_takes_the_runs_along(alice):
    session = make_session(alice, agent="echo")
    runs.ask(session, Message("user", "q"))
    sessions.delete(session)
    assert not Run.objects.exists()


def test_what_was_deleted_is_not_found(session):
    gone = fresh(session)
    sessions.delete(session)
    for attempt in (sessions.end, sessions.delete, sessions.resume, privacy.hold, lambda s: say(s, "x")):
        with pytest.raises(SessionNotFound):
            attempt(gone)


def test_a_deletion_that_expects_another_sequence_is_refused(session):
    say(session, "x")
    with pytest.raises(SequenceConflict):
        sessions.delete(session, expected_sequence=1)
    assert sessions.delete(session, expected_sequence=2) == 1


# ----------------------------------------------------------------------------------------------------------- legal hold


def test_a_hold_is_an_event_and_a_second_one_changes_nothing(session):
    privacy.hold(session, reason="case 7")
    privacy.hold(session)
    assert (fresh(session).is_held, types(session)) == (True, ["session.created", "session.held"])
    privacy.release(session)
    privacy.release(session)
    assert (fresh(session).is_held, types(session)[2:]) == (False, ["session.released"])


def test_a_session_that_is_over_can_be_held(session):
    sessions.end(session)
    assert privacy.hold(session).is_held


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_hold_anywhere_below_outranks_deletion(tree, which):
    privacy.hold(tree[which])
    with pytest.raises(LegalHold):
        sessions.delete(tree[0])
    assert ChatSession.objects.count() == 3
    privacy.release(tree[which])
    assert sessions.delete(tree[0]) == 3


def test_a_hold_above_does_not_keep_what_is_below(tree):
    privacy.hold(tree[0])
    assert sessions.delete(tree[1]) == 2


def test_a_hold_outranks_deletion_by_the_orm(session):
    privacy.hold(session)
    stale = fresh(session)
    stale.is_held = False
    for attempt in (session.delete, stale.delete, ChatSession.objects.all().delete):
        with pytest.raises(LegalHold):
            attempt()
    assert fresh(session).is_held


def test_deleting_by_the_orm_is_possible_without_a_hold(session, alice):
    other = make_session(alice)
    session.delete()
    assert ChatSession.objects.filter(pk=other.pk).delete()[0] >= 1
    assert not ChatSession.objects.exists()


def test_deleting_a_user_deletes_their_sessions(alice, tree):
    alice.delete()
    assert not ChatSession.objects.exists()
    assert not SessionEvent.objects.exists()


@pytest.mark.parametrize("how", ["instance", "queryset"])
def test_deleting_a_user_leaves_their_held_sessions_without_an_owner_and_the_log_says_so(alice, bob, how):
    held = make_session(alice, agent="silent")
    say(held, "evidence")
    privacy.hold(held)
    make_session(alice)
    theirs = make_session(bob)
    alice.delete() if how == "instance" else type(alice).objects.filter(pk=alice.pk).delete()
    found = fresh(held)
    assert set(ChatSession.objects.all()) == {held, theirs}
    assert (found.owner, found.is_held, messages.find(found, 2).content) == (None, True, "evidence")
    assert last(held).type == "session.changed"
    assert last(held).data == {"owner": None}


def test_a_held_child_outlives_its_tree_when_its_user_is_deleted(alice, tree):
    privacy.hold(tree[1])
    alice.delete()
    found = ChatSession.objects.get()
    assert (found, found.owner, found.parent, found.root) == (tree[1], None, None, None)


def test_an_expired_session_that_is_held_outlives_its_user_and_its_expiry_is_still_recorded(alice):
    session = make_session(alice)
    privacy.hold(session)
    age(session, hours=1)
    alice.delete()
    expiry.expire()
    assert fresh(session).status == "expired"


def test_nobody_finds_what_a_deleted_user_left(alice):
    session = make_session(alice, agent="single", external_id="x")
    privacy.hold(session)
    alice.delete()
    assert opening.open(None, agent="single", external_id="x").created
