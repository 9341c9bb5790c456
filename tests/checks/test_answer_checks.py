"""Checks of who gives the answers, and of how streams learn of them."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from django.db import connection

from django_chat_sessions import notifications
from tests.checks.test_project_checks import ids


def test_what_is_asked_for_by_default_can_be_had() -> None:
    assert ids() == []


def test_celery_has_to_be_there_to_give_answers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CHAT_SESSIONS = {"RUNNER": "celery"}
    assert ids() == []
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "django_chat_sessions.checks.answers.find_spec", lambda name: None if name == "celery" else find(name)
    )
    assert ids() == ["E012"]


@pytest.mark.parametrize(("beat", "stale", "expected"), [(5, 15, []), (5, 14.9, ["W010"]), (0.1, 0.3, [])])
def test_a_process_that_is_alive_is_not_taken_to_be_lost(
    settings: Any, beat: float, stale: float, expected: Any
) -> None:
    settings.CHAT_SESSIONS = {"HEARTBEAT_SECONDS": beat, "STALE_AFTER": stale}
    assert ids() == expected


@pytest.mark.parametrize("given", [{"LISTENER": "redis"}, {"LISTENER": "postgres"}])
def test_a_listener_that_cannot_be_had_is_said(settings: Any, given: dict[str, str]) -> None:
    settings.CHAT_SESSIONS = given
    notifications.reset()
    is_there = given["LISTENER"] == connection.vendor.removesuffix("ql")
    assert ids() == ([] if is_there else ["W011"])


def test_streams_need_an_asgi_server(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    assert "W012" in ids(include_deployment_checks=True)
    assert "W012" not in ids()


@pytest.mark.parametrize(
    "odd", [{"max_attempts": 0}, {"summarize": "text"}, {"window_tokens": 0}], ids=lambda odd: next(iter(odd))
)
def test_an_agent_with_something_impossible_is_found(odd: dict[str, Any]) -> None:
    from django_chat_sessions import agents
    from django_chat_sessions.agents import Agent

    agents.register(Agent("odd", **odd))
    try:
        assert ids() == ["E007"]
    finally:
        agents.unregister("odd")
