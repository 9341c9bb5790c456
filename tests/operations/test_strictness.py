"""Where Python's idea of sameness, or of nobody, is not the one that is meant."""

from __future__ import annotations

from typing import Any

import pytest

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent, Message, Turn
from django_chat_sessions.exceptions import InvalidRequest
from django_chat_sessions.operations import opening, runs, sessions, verification
from django_chat_sessions.rules import merge

pytestmark = pytest.mark.django_db


def test_one_becoming_true_is_a_change_of_row_and_log(alice: Any) -> None:
    session = opening.open(alice, state={"n": 1}, metadata={"n": 0}).session
    sessions.change_state(session, {"n": True})
    sessions.change(session, metadata={"n": False})
    session.refresh_from_db()
    assert session.state["n"] is True
    assert session.metadata["n"] is False
    assert verification.verify(session) == []


def test_nobodys_sessions_are_never_found_by_another_nobody() -> None:
    first = opening.open(None, external_id="shared")
    second = opening.open(None, external_id="shared")
    assert second.created
    assert first.session.pk != second.session.pk


def test_history_with_one_external_id_twice_is_refused_by_its_field(alice: Any) -> None:
    history = [Message("user", "a", external_id="x"), Message("user", "b", external_id="x")]
    with pytest.raises(InvalidRequest) as refused:
        opening.open(alice, messages=history)
    assert list(refused.value.errors) == ["messages.1.external_id"]
    assert alice.chat_sessions.count() == 0


def test_null_in_a_state_that_the_agent_leaves_alone_is_no_change(alice: Any) -> None:
    def silent(turn: Turn) -> str:
        return "ok"

    agents.register(Agent("leaves-alone", silent))
    session = opening.open(alice, agent="leaves-alone", state={"a": None}).session
    runs.ask(session, Message("user", "?"))
    assert session.state == {"a": None}
    assert not session.events.filter(type="state.changed").exists()


def test_difference_says_only_what_changed() -> None:
    assert merge.difference({"a": None, "b": 1}, {"a": None}) == {"b": None}
    assert merge.difference({"a": None}, {}) == {"a": None}
    assert merge.difference({"a": 1}, {"a": None}) == {"a": None}
