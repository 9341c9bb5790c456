"""The agents of the example: one that does something, and one for each thing that a client has to cope with."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NoReturn

from django_chat_sessions.agents import Agent, Turn, register
from django_chat_sessions.choices import Strategy, TimeoutMode
from django_chat_sessions.rules.timeouts import TimeoutOverrides

from . import model_agent as model_agent
from . import task_list

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS_A_WORD = 0.1


def echo(turn: Turn) -> str:
    return turn.question.content


def slow_echo(turn: Turn) -> Iterator[str]:
    """Say the same, word by word."""
    for word in re.findall(r"\s*\S+\s*$|\s*\S+", turn.question.content):
        time.sleep(SECONDS_A_WORD)
        yield word


def broken(turn: Turn) -> NoReturn:
    raise RuntimeError("The agent “broken” fails at whatever it is asked.")


def companion(turn: Turn) -> str:
    told = sum(message.role == "user" for message in turn.messages)
    things = "the first thing" if told == 1 else f"thing number {told}"
    return f"That is {things} you told me, in whichever tab: {turn.question.content}"


def notebook(turn: Turn) -> str:
    return f"Noted, in this tab's own notebook: {turn.question.content}"


def kiosk(turn: Turn) -> str:
    return f"You have the screen. You said: {turn.question.content}"


def vault(turn: Turn) -> str:
    return f"Kept for as long as you stay: {turn.question.content}"


register(Agent("tasks", task_list.answer, description="Keeps a list of tasks and remembers which one you mean."))
register(Agent("echo", echo, description="Says what you say."))
register(Agent("slow_echo", slow_echo, description="Says what you say, a word every 100 ms."))
register(Agent("broken", broken, description="Fails, so that you see what happens then."))
register(Agent("unavailable", echo, description="Cannot answer now.", available=lambda: False))
register(
    Agent(
        "companion",
        companion,
        description="One conversation, the same in all your tabs and devices.",
        strategy=Strategy.SINGLE,
    )
)
register(
    Agent(
        "notebook",
        notebook,
        description="A conversation of its own for each tab.",
        strategy=Strategy.PER_TAB,
    )
)
register(
    Agent(
        "kiosk",
        kiosk,
        description="One conversation, held by the tab that came last.",
        strategy=Strategy.ACTIVE_TAB_WINS,
    )
)
register(
    Agent(
        "vault",
        vault,
        description="Forgets you quickly: sessions expire after five idle minutes.",
        timeouts=TimeoutOverrides(mode=TimeoutMode.AGGRESSIVE),
    )
)
