"""Agents that take no time of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from django_chat_sessions.agents import Agent, Turn, register

#: Pieces of the agent that goes on talking, and the seconds between them: a model that says a hundred tokens a second.
PIECES, PAUSE = 200, 0.01

#: Chunks of the agent whose answers are missed; a chunk each, where ``CHUNK_SECONDS`` is next to nothing.
MISSED = 45


def prompt(turn: Turn) -> Iterator[str]:
    """Answer at once, and be done."""
    yield "The budget review is on Thursday now."


async def prompt_async(turn: Turn) -> AsyncIterator[str]:
    """Answer at once, and be done."""
    yield "The budget review is on Thursday now."


async def talker(turn: Turn) -> AsyncIterator[str]:
    """Go on talking."""
    for number in range(PIECES):
        yield f"word {number} "
        await asyncio.sleep(PAUSE)


def rush(turn: Turn) -> Iterator[str]:
    """Say many pieces at once."""
    for number in range(MISSED):
        yield f"And this is what was said as number {number}. "


for name, respond in {"prompt": prompt, "prompt-async": prompt_async, "talker": talker, "rush": rush}.items():
    register(Agent(name, respond))
