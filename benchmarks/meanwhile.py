"""What goes on while something else runs: other clients append, and somebody looks how long transactions take.

Nothing here is imported before Django is set up.
"""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from multiprocessing.connection import Connection

from . import crew, floor

#: Processes that append, and sessions of each: none gets as many messages as a session may have.
WRITERS, SESSIONS = 4, 25

#: Seconds between two looks.
PAUSE = 0.02


@dataclass(slots=True)
class Appends:
    """When somebody appended something, by ``time.time``."""

    instants: list[float] = field(default_factory=list)

    def pace(self, start: float, end: float, *, slices: int = 8) -> list[float]:
        """Return the seconds for an append, in so many parts of a time."""
        width = (end - start) / slices
        edges = [bisect_left(self.instants, start + number * width) for number in range(slices + 1)]
        return [width / max(1, after - before) for before, after in pairwise(edges)]


@contextmanager
def appending() -> Iterator[Appends]:
    """Have other clients append to sessions of their own; it is known when they did, after the block."""
    from . import data

    owner = data.user("meanwhile")
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for writer in range(WRITERS):
        mine, other = context.Pipe()
        keys = [session.pk for session in data.opened(owner, SESSIONS)]
        process = context.Process(target=_append, args=(other, writer, keys), daemon=True)
        process.start()
        pipes.append(mine)
        processes.append(process)
    for pipe in pipes:
        pipe.recv()
    appends = Appends()
    for pipe in pipes:
        pipe.send("go")
    try:
        time.sleep(1)
        yield appends
    finally:
        for pipe in pipes:
            pipe.send("stop")
        appends.instants += sorted(instant for pipe in pipes for instant in pipe.recv())
        for process in processes:
            process.join(10)


def _append(pipe: Connection, writer: int, keys: list[int]) -> None:
    """Append until one is told to stop, and say when one did."""
    import django

    django.setup()
    calls = cycle([crew.ours(key, writer) for key in keys])
    pipe.send("ready")
    pipe.recv()
    instants = []
    while not pipe.poll():
        next(calls)()
        instants.append(time.time())
    pipe.send(instants)


@dataclass(slots=True)
class Watched:
    """What was seen while something ran.

    Attributes:
        start, end: when, by ``time.time``.
        transaction: the longest transaction of this process's connection, in seconds.
        resident: the memory of this process, in bytes: before, at the most, and after.
    """

    start: float = 0.0
    end: float = 0.0
    transaction: float = 0.0
    resident: tuple[int, int, int] = (0, 0, 0)


_SINCE = "SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8 FROM pg_stat_activity WHERE pid = %s"


@contextmanager
def watching(pid: int) -> Iterator[Watched]:
    """Watch this process and its connection to the database, whose process there is known."""
    import psutil

    process, seen, over = psutil.Process(), Watched(), threading.Event()
    gc.collect()
    before = process.memory_info().rss
    most = [before]

    def look() -> None:
        with floor.connect() as connection:
            while not over.wait(PAUSE):
                (lasts,) = connection.execute(_SINCE, (pid,)).fetchone()
                seen.transaction = max(seen.transaction, lasts or 0.0)
                most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    seen.start = time.time()
    try:
        yield seen
    finally:
        seen.end = time.time()
        over.set()
        thread.join()
        gc.collect()
        seen.resident = (before, most[0], process.memory_info().rss)
