"""Agents by what they are for in a test. The example's own (tasks, slow_echo, …) are there as well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from django_chat_sessions.agents import Agent, Message, Turn, register
from django_chat_sessions.choices import Strategy, TimeoutMode
from django_chat_sessions.rules.timeouts import TimeoutOverrides


class Broken(Exception):
    """What the failing agents raise."""


def echo(turn: Turn) -> str:
    return turn.question.content


async def echo_async(turn: Turn) -> str:
    return turn.question.content


def pieces(turn: Turn) -> Iterator[str]:
    yield from turn.question.content


async def pieces_async(turn: Turn) -> AsyncIterator[str]:
    for character in turn.question.content:
        yield character


def several(turn: Turn) -> Iterator[Message]:
    yield Message("assistant", "First.")
    yield Message("assistant", "Second.")


def count(turn: Turn) -> str:
    """Count the questions in the session's state."""
    turn.state["asked"] = turn.state.get("asked", 0) + 1
    return str(turn.state["asked"])


def failing(turn: Turn) -> str:
    raise Broken("on purpose")


def failing_midway(turn: Turn) -> Iterator[str]:
    yield "So far "
    raise Broken("on purpose")


register(Agent("echo", echo))
register(Agent("echo_async", echo_async))
register(Agent("pieces", pieces))
register(Agent("pieces_async", pieces_async))
register(Agent("several", several))
register(Agent("count", count))
register(Agent("silent", description="Only stores."))
register(Agent("failing", failing))
register(Agent("failing_midway", failing_midway))
register(Agent("unavailable", echo, available=lambda: False))
register(Agent("single", echo, strategy=Strategy.SINGLE))
register(Agent("per_tab", echo, strategy=Strategy.PER_TAB))
register(Agent("active_tab_wins", echo, strategy=Strategy.ACTIVE_TAB_WINS))
register(Agent("hasty", echo, timeouts=TimeoutOverrides(mode=TimeoutMode.AGGRESSIVE)))
