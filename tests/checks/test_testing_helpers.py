"""What `django_chat_sessions.testing` gives to host projects."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_chat_sessions.choices import Role, Status
from django_chat_sessions.operations import expiry, sessions
from django_chat_sessions.operations.verification import verify
from django_chat_sessions.testing import age, make_session, say

pytestmark = pytest.mark.django_db


def instants(session) -> dict:
    names = ("created_at", "last_activity_at", "renewed_at", "expires_at", "warned_at", "ended_at")
    return {name: getattr(session, name) for name in names}


def test_a_session_is_made_as_the_host_would(alice):
    session = make_session(alice, agent="silent", title="Budget", metadata={"a": 1})
    assert (session.owner, session.agent, session.title, session.metadata) == (alice, "silent", "Budget", {"a": 1})


def test_saying_something_stores_a_message(alice):
    session = make_session(alice, agent="silent")
    message = say(session, "hello")
    assert (message.role, message.content, session.message_count) == (Role.USER, "hello", 1)
    assert say(session, "hi", Role.ASSISTANT, external_id="x").external_id == "x"


def test_time_passes_for_all_instants_alike(alice):
    session = make_session(alice, agent="silent")
    before = instants(session)
    assert age(session, minutes=27) is session
    expiry.warn()
    session.refresh_from_db()
    warned_at = session.warned_at
    age(session, minutes=2, seconds=30)
    passed = timedelta(minutes=29, seconds=30)
    assert session.warned_at == warned_at - timedelta(minutes=2, seconds=30)
    after = {**instants(session), "warned_at": None}
    assert after == {name: value and value - passed for name, value in before.items()}
    assert verify(session) == []


def test_a_session_expires_by_ageing(alice):
    session = make_session(alice, agent="silent")
    assert age(session, minutes=29).status_at(expiry.dialects.now(session._state.db)) == Status.CREATED
    assert age(session, minutes=1).status_at(expiry.dialects.now(session._state.db)) == Status.EXPIRED


def test_one_that_is_over_ages_too(alice):
    session = sessions.end(make_session(alice, agent="silent"))
    ended_at = session.ended_at
    assert age(session, days=100).ended_at == ended_at - timedelta(days=100)
