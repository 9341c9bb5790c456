"""The examples of what an agent sees do what the page says."""

from __future__ import annotations

from typing import Any

import pytest

from django_chat_sessions import agents, conf
from django_chat_sessions.adapters.tiktoken import count_tokens
from django_chat_sessions.agents import Message, RequestContext, Turn
from django_chat_sessions.operations import compaction, context
from django_chat_sessions.testing import make_session, say
from tests.docs.test_examples import agents_as_they_were, run

__all__ = ["agents_as_they_were"]


@pytest.mark.django_db
@pytest.mark.usefixtures("agents_as_they_were")
def test_agent_of_the_example_remembers(alice: Any) -> None:
    respond = run("context.md", "def summarize")["respond"]
    session = make_session(alice, agent="forgetful")
    for number in range(9):
        say(session, f"question {number}")
    compaction.compact(session)
    window = context.window(session)
    assert window.summary == "question 0; question 1; question 2"
    turn = Turn(RequestContext(), Message("user", "?"), window.messages, {}, summary=window.summary)
    assert respond(turn).startswith("Earlier: question 0; question 1; question 2 | question 3")
    assert agents.find("forgetful").window_messages == 8


def test_counter_of_the_example_is_there(settings: Any) -> None:
    settings.CHAT_SESSIONS = run("context.md", "TOKEN_COUNTER")["CHAT_SESSIONS"]
    assert conf.get().token_counter is count_tokens
