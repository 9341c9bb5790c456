"""Checks of the agents that the apps registered; they run after all apps are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from django_chat_sessions import agents, conf
from django_chat_sessions.agents import Agent
from django_chat_sessions.choices import Cleanup, Strategy
from django_chat_sessions.exceptions import InvalidRequest, InvalidTimeout
from django_chat_sessions.models import NAME_LENGTH
from django_chat_sessions.rules import retention, timeouts

from .configuration import TAG, check_timeouts, is_sound


@register(TAG)
def check_default_agent(**_: Any) -> list[CheckMessage]:
    """Check that the default agent is one that was found."""
    if not is_sound():
        return []
    name = conf.get().DEFAULT_AGENT
    known = agents.registered()
    if not name or name in known:
        return []
    hint = "Register it in the module chat_agents of an installed app"
    hint += f"; registered are {', '.join(sorted(known))}." if known else "; none is registered."
    return [Error(f"DEFAULT_AGENT, {name!r}, is not there.", hint=hint, id="chat_sessions.E006")]


@register(TAG)
def check_agents(**_: Any) -> list[CheckMessage]:
    """Check what each agent was registered with."""
    return [
        Error(f"The agent {name!r} {problem}.", hint=hint, id="chat_sessions.E007")
        for name, agent in agents.registered().items()
        for problem, hint in _odd(agent)
    ]


@register(TAG)
def check_agents_timeouts(**_: Any) -> list[CheckMessage]:
    """Check that each agent's timeouts are within the bounds; where the global ones are not, they come first."""
    if not is_sound() or check_timeouts():
        return []
    settings = conf.get()
    problems: list[CheckMessage] = []
    for name, agent in agents.registered().items():
        try:
            # Its own tier last: what it says itself, and contradicts, must not give way silently.
            timeouts.check(timeouts.merge(settings.timeouts, agent.timeouts), settings.bounds)
        except (InvalidRequest, InvalidTimeout, AttributeError, TypeError) as error:
            hint = "Change its `timeouts`, or the bounds in CHAT_SESSIONS."
            text = f"The timeouts of the agent {name!r}: {error}"
            problems.append(Error(text, hint=hint, id="chat_sessions.E008"))
    return problems


@register(TAG)
def check_touch_interval(**_: Any) -> list[CheckMessage]:
    """Check that a user who looks at pages in good time keeps the shortest session alive."""
    if not is_sound() or check_timeouts() or check_agents_timeouts():
        return []
    shortest = timedelta(minutes=_shortest_timeout_minutes())
    interval = conf.get().touch_interval
    # A page view just before the interval is over is not noted; the next one comes up to as much later.
    if interval <= shortest / 2:
        return []
    text = f"TOUCH_INTERVAL, {interval}, is more than half of the shortest timeout, {shortest}."
    hint = f"Set it to {shortest / 2} or less, or a session expires under its user's eyes."
    return [Warning(text, hint=hint, id="chat_sessions.W003")]


def _shortest_timeout_minutes() -> int:
    everybody = [Agent(""), *agents.registered().values()]
    # What is in force somewhere, and what any session may ask for.
    least = min(agent.policy().timeout_minutes for agent in everybody)
    return min(least, conf.get().MIN_TIMEOUT_MINUTES)


#: What an agent may be registered with: the attribute, whether a value will do, what is wrong otherwise, and a hint.
_SOUND: tuple[tuple[str, Callable[[Any], bool], str, str], ...] = (
    ("name", lambda name: 0 < len(name) <= NAME_LENGTH, "has an impossible name",
     f"Give it one of 1 to {NAME_LENGTH} characters."),
    ("respond", lambda hook: hook is None or callable(hook), "cannot respond",
     "`respond` has to be callable, or None."),
    ("available", lambda hook: hook is None or callable(hook), "cannot say whether it is available",
     "`available` has to be callable, or None."),
    ("summarize", lambda hook: hook is None or callable(hook), "cannot summarize",
     "`summarize` has to be callable, or None."),
    ("strategy", lambda name: name is None or name in Strategy.values, "has an unknown strategy",
     f"Choose one of {', '.join(Strategy.values)}."),
    ("time_limit_seconds", lambda seconds: seconds > 0, "has no time to answer",
     "`time_limit_seconds` has to be above zero."),
    ("max_attempts", lambda number: number >= 1, "is never asked", "`max_attempts` has to be at least 1."),
    ("window_messages", lambda number: number is None or number >= 1, "sees no message",
     "`window_messages` has to be at least 1, or None."),
    ("window_tokens", lambda number: number is None or number >= 1, "sees no token",
     "`window_tokens` has to be at least 1, or None."),
    ("retention", lambda tier: not list(retention.problems(tier)), "is kept for an impossible time",
     f"`retention` is a dict of days by status ({', '.join(retention.KEPT)}), None for ever, and of the `action`."),
    ("cleanup", lambda name: name is None or name in Cleanup.values, "has an unknown cleanup",
     f"Choose one of {', '.join(Cleanup.values)}."),
)  # fmt: skip


def _odd(agent: Any) -> Iterator[tuple[str, str]]:
    for name, is_sound_value, problem, hint in _SOUND:
        if not is_sound_value(getattr(agent, name)):
            yield problem, hint
