"""Checks of agents, and of the touch interval against their timeouts."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.core.checks import run_checks

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent
from django_chat_sessions.rules.timeouts import TimeoutOverrides


def found() -> dict[str, str]:
    messages = run_checks(tags=["chat_sessions"])
    assert all(message.hint for message in messages)
    return {message.id.removeprefix("chat_sessions."): message.msg for message in messages}


@contextmanager
def registered(agent: Agent):
    agents.register(agent)
    try:
        yield
    finally:
        agents.unregister(agent.name)


@pytest.fixture(autouse=True)
def _nothing_set(settings):
    settings.CHAT_SESSIONS = {}


def test_a_default_agent_that_nobody_registered_is_refused(settings):
    settings.CHAT_SESSIONS = {"DEFAULT_AGENT": "nobody"}
    assert "nobody" in found()["E006"]


def test_a_default_agent_that_is_registered_passes(settings):
    settings.CHAT_SESSIONS = {"DEFAULT_AGENT": "somebody"}
    with registered(Agent("somebody")):
        assert found() == {}


@pytest.mark.parametrize(
    "agent",
    [
        Agent("n" * 65),
        Agent(""),
        Agent("odd", "not callable"),  # type: ignore[arg-type]
        Agent("odd", available="not callable"),  # type: ignore[arg-type]
        Agent("odd", strategy="shared"),
        Agent("odd", time_limit_seconds=0),
        Agent("odd", window_messages=0),
        Agent("odd", retention={"ended": -1}),
        Agent("odd", retention={"live": 3}),
        Agent("odd", retention=30),  # type: ignore[arg-type]
        Agent("odd", cleanup="never"),
    ],
)
def test_impossible_agents_are_refused(agent):
    with registered(agent):
        assert set(found()) == {"E007"}


@pytest.mark.parametrize(
    "timeouts",
    [
        TimeoutOverrides(timeout_minutes=4),
        TimeoutOverrides(timeout_minutes=2000),
        TimeoutOverrides(timeout_minutes=60, max_duration_minutes=30),
        TimeoutOverrides(timeout_minutes=60, warning_threshold_minutes=60),
        TimeoutOverrides(timeout_minutes=60, warning_threshold_minutes=[60, 5]),
        TimeoutOverrides(timeout_minutes=60, warning_threshold_minutes=[5, -1]),
        TimeoutOverrides(mode="relaxed"),
        TimeoutOverrides(timeout_minutes="60"),  # type: ignore[arg-type]
        {"timeout_minutes": 60},
    ],
)
def test_timeouts_out_of_bounds_are_refused(timeouts):
    with registered(Agent("hurried", timeouts=timeouts)):
        assert set(found()) == {"E008"}
        assert "hurried" in found()["E008"]


def test_timeouts_within_bounds_pass():
    with registered(Agent("patient", timeouts=TimeoutOverrides(mode="persistent"))):
        assert found() == {}


def test_a_touch_interval_of_half_the_shortest_timeout_passes(settings):
    settings.CHAT_SESSIONS = {"TOUCH_INTERVAL": 150}
    assert found() == {}


def test_a_longer_touch_interval_is_warned_of(settings):
    settings.CHAT_SESSIONS = {"TOUCH_INTERVAL": 151}
    assert "0:05:00" in found()["W003"]


def test_the_shortest_timeout_may_be_an_agents(settings, monkeypatch):
    monkeypatch.setattr(agents, "_registry", {})
    settings.CHAT_SESSIONS = {"TOUCH_INTERVAL": 700, "MIN_TIMEOUT_MINUTES": 24}
    assert found() == {}
    settings.CHAT_SESSIONS = {"TOUCH_INTERVAL": 700, "MIN_TIMEOUT_MINUTES": 20}
    with registered(Agent("hurried", timeouts=TimeoutOverrides(timeout_minutes=22))):
        assert "0:20:00" in found()["W003"]


def test_impossible_settings_do_not_break_the_other_checks(settings):
    settings.CHAT_SESSIONS = {"TIMEOUT_MODE": "relaxed", "TOUCH_INTERVAL": "often"}
    assert set(found()) == {"E003"}
