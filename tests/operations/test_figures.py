"""Figures of a session, of a tree, and of everything."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_chat_sessions import dialects
from django_chat_sessions.agents import Message
from django_chat_sessions.exceptions import AgentFailed
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.operations import (
    archiving,
    expiry,
    figures,
    messages,
    privacy,
    purging,
    runs,
    sessions,
)
from django_chat_sessions.testing import age, make_session, say


def test_a_summary_counts_what_reads_now(alice):
    session = make_session(alice, agent="echo")
    runs.ask(session, Message("user", "q", token_count=2))
    say(session, "x", role="system")
    messages.withdraw(session, 6)
    sessions.renew(session)
    found = figures.summarize(session)
    assert found.messages_by_role == {"user": 1, "assistant": 1}
    assert (found.message_count, found.token_count, found.renewal_count, found.sessions) == (2, 2, 1, 1)
    assert found.runs == {"succeeded": 1}
    assert found.events_by_type == {
        "session.created": 1, "message": 3, "run.started": 1, "run.succeeded": 1, "message.deleted": 1,
        "session.renewed": 1,
    }  # fmt: skip
    assert found.first_reply_seconds is not None
    assert found.first_reply_seconds >= 0


def test_a_session_without_an_answer_has_no_first_reply(session):
    assert figures.summarize(session).first_reply_seconds is None
    say(session, "q")
    assert figures.summarize(session).first_reply_seconds is None


def test_a_tree_is_summed_up(alice):
    top = make_session(alice, agent="silent")
    child = make_session(alice, agent="silent", parent=top)
    for session in (top, child, make_session(alice, agent="silent", parent=child)):
        say(session, "x", token_count=1)
    assert figures.summarize(top, tree=True).message_count == 3
    assert figures.summarize(top, tree=True).sessions == 3
    assert figures.summarize(child, tree=True).token_count == 2
    assert figures.summarize(top).sessions == 1


@pytest.mark.parametrize("is_swept", [False, True])
def test_what_is_over_has_stopped_counting(alice, is_swept):
    session = age(make_session(alice), minutes=90)
    if is_swept:
        expiry.expire()
        session.refresh_from_db()
    assert figures.summarize(session).duration_seconds == 1800


def test_measures_say_expired_before_any_sweep(alice):
    age(make_session(alice), hours=1)
    live = make_session(alice, agent="failing")
    with pytest.raises(AgentFailed):
        runs.ask(live, Message("user", "q"))
    sessions.end(make_session(alice))
    found = figures.measure()
    assert {status: number for status, number in found.sessions.items() if number} == {
        "expired": 1, "active": 1, "ended": 1,
    }  # fmt: skip
    assert (found.live, found.due, found.messages, found.runs) == (1, 1, 1, {"failed": 1})
    assert 1790 < found.near_deadline_seconds <= 1800


def test_measures_of_nothing_are_nothing(db):
    found = figures.measure()
    assert (found.live, found.due, found.messages, found.near_deadline_seconds) == (0, 0, 0, None)


def test_measures_say_what_retention_and_subscribers_wait_for(alice, configured, agent):
    configured(
        RETENTION={"ended": 1},
        APPLICATION_RETENTION={"x": {"action": "delete"}},
        SUBSCRIBERS={"session.failed": ["a.b"]},
    )
    agent("lazy", cleanup="lazy")
    for fields in ({}, {}, {"application": "x"}, {"agent": "lazy"}):
        sessions.end(make_session(alice, **{"agent": "silent", **fields}))
    held = sessions.end(make_session(alice, agent="silent"))
    privacy.hold(held)
    ChatSession.objects.update(settled_at=dialects.now("default") - timedelta(days=2))
    sessions.end(make_session(alice, agent="silent"))
    for _ in range(3):
        sessions.fail(make_session(alice, agent="silent"))
    OutboxEntry.objects.filter(pk=OutboxEntry.objects.first().pk).update(set_aside_at=dialects.now("default"))
    found = figures.measure()
    assert (found.archivable, found.purgeable) == (2, 1)
    assert found.undelivered == {"pending": 2, "set_aside": 1}
    assert archiving.archive().count == 2
    assert purging.purge().count == 1
