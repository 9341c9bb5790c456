"""A writer in a process of its own, which appends applications' events to sessions that others listen to."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

#: About as much as a message's event.
TEXT = "The budget review was moved to Thursday, and everybody who is invited was told. " * 2


@dataclass(frozen=True, slots=True)
class Writer:
    """The process, as the one who asks sees it."""

    pipe: Connection

    async def write(self, sessions: list[int], events: int, pause: float = 0.0) -> list[float]:
        """Append so many events in all, to one session after another; return when it began and each was stored.

        The pauses are random, and this long on average.
        """
        self.pipe.send((sessions, events, pause))
        answer = await asyncio.get_running_loop().run_in_executor(None, self.pipe.recv)
        if isinstance(answer, str):
            raise SystemExit(f"A writer failed: {answer}")
        return answer


@contextmanager
def writer(**environment: str) -> Iterator[Writer]:
    """Have one wait for work."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=_work, args=(other, environment), daemon=True)
    process.start()
    other.close()  # so that nobody waits for a process that has died
    mine.recv()
    try:
        yield Writer(mine)
    finally:
        mine.send(None)
        process.join(10)


def _work(pipe: Connection, environment: dict[str, str]) -> None:
    """Do what one is told, until it is nothing."""
    import django

    os.environ |= environment
    django.setup()
    pipe.send("ready")
    while (task := pipe.recv()) is not None:
        try:
            pipe.send(_write(*task))
        except Exception as error:  # noqa: BLE001 - told to the one who asked
            pipe.send(f"{type(error).__name__}: {error}")


def _write(keys: list[int], events: int, pause: float) -> list[float]:
    from django_chat_sessions.models import ChatSession
    from django_chat_sessions.operations import messages

    sessions = list(ChatSession.objects.filter(pk__in=keys).order_by("pk"))
    instants = [time.perf_counter()]
    for number in range(events):
        messages.record(sessions[number % len(sessions)], "app.told", {"number": number, "text": TEXT})
        instants.append(time.perf_counter())
        if pause:
            time.sleep(random.uniform(0, 2 * pause))
    return instants
