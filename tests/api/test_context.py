"""The summary, as clients see it."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent
from django_chat_sessions.operations import compaction

from .conftest import row


@pytest.fixture
def session(api):
    """Return a session with eight messages, the first three of which are summarized."""
    silent = agents.find("silent")
    agents.register(Agent("silent", window_messages=7, summarize=lambda said, so_far: "The beginning."))
    session = api.open()
    for number in range(8):
        api.say(session, f"number {number}")
    assert compaction.compact(row(session)).messages == 3
    yield session
    agents.register(silent)


def test_context_and_resume_bring_the_summary_and_what_came_after(api, session):
    path = f"sessions/{session['id']}"
    for context in (api.reads(f"{path}/context"), api.post(f"{path}/resume").json()["context"]):
        assert (context["summary"], context["truncated"]) == ("The beginning.", True)
        assert [message["content"] for message in context["messages"]] == [f"number {n}" for n in range(3, 8)]
    assert api.reads(f"{path}/context?max_messages=8")["summary"] is None


def test_a_summary_is_an_event_that_a_withdrawal_empties(api, session):
    path = f"sessions/{session['id']}"
    event = api.reads(f"{path}/events?type=context.compacted")["events"][0]
    assert event["data"] == {"summary": "The beginning.", "up_to": 4, "messages": 3, "tokens": 6}
    assert api.delete(f"{path}/messages/2").status_code == 204
    event = api.reads(f"{path}/events?type=context.compacted")["events"][0]
    assert event["data"] == {"erased": True}
    assert b"The beginning." not in api.get(f"{path}/export").content
    assert api.reads(f"{path}/context")["summary"] is None


def test_a_summary_costs_a_context_one_statement(api, session):
    counts = []
    for most in (8, 7):
        with CaptureQueriesContext(connection) as captured:
            api.reads(f"sessions/{session['id']}/context?max_messages={most}")
        counts.append(len(captured))
    assert counts == [3, 4]
