"""The agents of the example: one that does something, and one for each thing that a client has to cope with."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, NoReturn

from django_chat_sessions.agents import Agent, ToolCall, ToolResult, Turn, register
from django_chat_sessions.choices import Strategy, TimeoutMode
from django_chat_sessions.rules.timeouts import TimeoutOverrides

from . import (
    model_agent,  # noqa: F401 - registers itself
    task_list,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from django_chat_sessions.agents import Piece

SECONDS_A_WORD = 0.1

BOOK = "The Long Evening, page 12"
STORY = """Once upon a time, when stories were still told by lamplight, there was one about {subject}. Nobody in the \
village could say where it came from, and nobody had ever thought of asking.

One evening, when the last boat was in and the lamps were lit one after the other, a girl with a paper lantern came \
down the hill. She sat down on the wall, put the lantern beside her, and said: “I have walked all day, and I am not \
tired. Tell me something that you have never told anybody.”

For a while there was only the wind. Then, very quietly, an answer came, one word after the other, as if each of them \
had to be fetched from far away. It spoke of ships that had passed without a light, of a winter in which the sea stood \
still, and of all the things that one sees when everybody else is asleep.

The girl listened until the candle was gone. “That was a good story,” she said in the end. “You should have told it \
long ago.” And from that evening on, whoever passed by and had a little time sat down on the wall and listened."""


def echo(turn: Turn) -> str:
    return turn.question.content


def slow_echo(turn: Turn) -> Iterator[str]:
    """Say the same, word by word."""
    for word in re.findall(r"\s*\S+\s*$|\s*\S+", turn.question.content):
        time.sleep(SECONDS_A_WORD)
        yield word


async def storyteller(turn: Turn) -> AsyncIterator[Piece]:
    """Look into a book and tell a story, which takes about twenty seconds; long enough to stop it, reload or share."""
    words = turn.question.content.strip().rstrip(".!?") or "a lighthouse that was afraid of the dark"
    subject = words[:1].lower() + words[1:]
    yield ToolCall("1", "open_book", {"about": subject})
    yield ToolResult("1", BOOK, name="open_book")
    for word in re.findall(r"\s*\S+", STORY.format(subject=subject)):
        await asyncio.sleep(SECONDS_A_WORD)
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
register(
    Agent(
        "storyteller",
        storyteller,
        description="Tells a long story, to be stopped, reloaded or read in two tabs.",
        # It does nothing that cannot be done twice: where its process is lost, another one begins anew.
        max_attempts=2,
    )
)
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
