"""Agents that do what the question says, word by word, so that a test decides where they are when their process goes.

A word is said. ``slow`` takes a third of a second, ``stay`` stays there for as long as nobody stops the first attempt,
``stay!`` any attempt; ``call``, ``result`` and ``state`` are pieces of those kinds, ``event`` an event.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from django_chat_sessions.agents import Agent, Piece, StateChange, ToolCall, ToolResult, Turn, register

#: Longer than any test.
AGES = 100.0


def trace(turn: Turn, what: str) -> None:
    """Leave a line for the test to find."""
    if folder := os.environ.get("TEST_TRACES"):
        with (Path(folder) / str(turn.run)).open("a") as file:
            file.write(f"{what}\n")


PIECES: dict[str, Callable[[Turn], Piece]] = {
    "call": lambda turn: ToolCall("1", "look", {"where": "everywhere"}),
    "result": lambda turn: ToolResult("1", "found", "look"),
    "state": lambda turn: StateChange({"attempt": turn.attempt}),
}


def stays(turn: Turn, word: str) -> bool:
    return word == "stay!" or (word == "stay" and turn.attempt == 1)


def piece(turn: Turn, word: str) -> Piece:
    made = PIECES.get(word)
    return f"{word} " if made is None else made(turn)


def script(turn: Turn) -> Iterator[Piece]:
    trace(turn, f"attempt {turn.attempt}")
    try:
        for word in turn.question.content.split():
            if word == "event":
                turn.record("app.progress", {"attempt": turn.attempt})
            elif word == "slow":
                time.sleep(0.3)
            elif stays(turn, word):
                until = time.monotonic() + AGES
                while time.monotonic() < until:
                    time.sleep(0.05)
            elif not word.startswith("stay"):
                yield piece(turn, word)
    finally:
        trace(turn, "finally")


async def script_async(turn: Turn) -> AsyncIterator[Piece]:
    trace(turn, f"attempt {turn.attempt}")
    try:
        for word in turn.question.content.split():
            if word == "event":
                await turn.arecord("app.progress", {"attempt": turn.attempt})
            elif word == "slow":
                await asyncio.sleep(0.3)
            elif stays(turn, word):
                await asyncio.sleep(AGES)
            elif not word.startswith("stay"):
                yield piece(turn, word)
    except asyncio.CancelledError:
        trace(turn, "cancelled")
        raise
    finally:
        trace(turn, "finally")


def waiting(turn: Turn) -> str:
    """Block until it is told to stop, as one does that waits for a machine."""
    trace(turn, "waiting")
    trace(turn, "told" if turn.cancellation.wait(AGES) else "forgotten")
    return "too late"


def computing(turn: Turn) -> str:
    """Keep the processor busy, and look neither left nor right."""
    trace(turn, "computing")
    try:
        until = time.monotonic() + AGES
        while time.monotonic() < until:
            pass
    finally:
        trace(turn, "finally")
    return "too late"


def stubborn(turn: Turn) -> str:
    """Go on, whatever is raised."""
    trace(turn, "stubborn")
    until = time.monotonic() + AGES
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                time.sleep(0.01)
        except BaseException:  # noqa: BLE001 - on purpose
            trace(turn, "interrupted")
    return "too late"


for responder in (script, script_async):
    register(Agent(f"{responder.__name__}_once", responder, time_limit_seconds=AGES))
    register(Agent(f"{responder.__name__}_thrice", responder, time_limit_seconds=AGES, max_attempts=3))
for responder in (waiting, computing, stubborn):
    register(Agent(responder.__name__, responder, time_limit_seconds=AGES))
register(Agent("hasty_script", script, time_limit_seconds=1))
