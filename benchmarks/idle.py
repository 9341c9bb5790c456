"""What streams hold while nothing happens, and how soon they are told when something does."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from asgiref.sync import sync_to_async

from . import servers, streams, telling
from .measure import Amount, Plan, Row
from .reading import Connection, open_streams
from .servers import Server
from .streams import Two

#: Streams that wait.
STREAMS = 500

#: Rounds, each with servers that have just been started: what they hold differs little from one to the next.
ROUNDS = 3

#: Seconds for which the processor's time is taken: a comment is sent to each stream in them.
IDLE_SECONDS = 16.0

#: Events of a round whose way is timed, seconds between two on average, and sessions with a stream each.
EVENTS, PAUSE, LISTENED = 40, 0.01, 20

_NUMBER = re.compile(rb'"number": ?(\d+)')


def measure(plan: Plan) -> Iterator[Row | Amount]:
    """Measure both."""
    with asyncio.Runner() as runner:
        yield from runner.run(waiting())
        yield from runner.run(told(plan))


# -------------------------------------------------------------------------------------------------- waiting


async def waiting() -> list[Amount]:
    """Have many streams open, to as many sessions, in which nothing happens."""
    asking = await sync_to_async(streams.asking)()
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    sessions = await asking.opened(STREAMS)
    for number in range(ROUNDS):
        # A pool lets one connection that nobody needs go every ten minutes; here sooner, to see what is needed.
        with streams.two(asking, BENCH_MAX_IDLE="0.5") as both:
            found.append(await _waited(both, sessions, seconds=IDLE_SECONDS if number == 0 else 0))
    work = f"{STREAMS} idle streams"
    amounts = []
    for name, unit in (
        ("memory of the process, for each stream", "KiB"),
        ("memory of the process, without any", "MiB"),
        ("threads of the process, without any", "threads"),
        ("threads of the process", "threads"),
        ("connections to the database, of the process", "connections"),
        ("processor time", "s a minute"),
    ):
        ours, bare = ([round_[which][name] for round_ in found if name in round_[which]] for which in (0, 1))
        amounts.append(Amount(work, name, unit, median(ours), median(bare)))
    return amounts


async def _waited(both: Two, sessions: list[Any], *, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Return what ours and the bare one hold; with seconds, also what they do in them."""
    await streams.remember(both.bare, "idle", [(0.0, b"retry: 1000\n\n")], stays_open=True)
    ours, one = await _opened(both.ours, [both.asking.stream(session) for session in sessions])
    bare, other = await _opened(both.bare, [streams.play("idle")] * STREAMS)
    if seconds:
        before = [server.cpu_seconds for server in (both.ours, both.bare)]
        await asyncio.sleep(seconds)
        for said, server, spent in zip((one, other), (both.ours, both.bare), before, strict=True):
            said["processor time"] = (server.cpu_seconds - spent) / seconds * 60
        held = "connections to the database, of the process"
        one[held], other[held] = await sync_to_async(streams.database_connections)(), 0
    if any(connection.over.done() for connection in [*ours, *bare]):
        raise SystemExit("A stream in which nothing happened was closed.")
    for connection in [*ours, *bare]:
        connection.cut()
    return one, other


async def _opened(server: Server, asked: list[bytes]) -> tuple[list[Connection], dict[str, float]]:
    """Open streams, and return what they hold that the process did not before."""
    # What the first ones need is no stream's own.
    for connection in await open_streams(server.port, asked[:20], [None] * 20):
        connection.cut()
    await asyncio.sleep(1)
    threads, before = server.threads, server.resident_bytes
    connections: list[Connection] = []
    for start in range(0, len(asked), 50):
        part = asked[start : start + 50]
        connections += await open_streams(server.port, part, [None] * len(part))
    await asyncio.sleep(2)
    return connections, {
        "memory of the process, for each stream": (server.resident_bytes - before) / 2**10 / len(asked),
        "memory of the process, without any": before / 2**20,
        "threads of the process, without any": threads,
        "threads of the process": server.threads,
    }


# ----------------------------------------------------------------------------------------------------- told


def listeners() -> list[str]:
    """Return those that there are."""
    return ["postgres", *(["redis"] if os.environ.get("REDIS_URL") else []), "polling"]


async def told(plan: Plan) -> list[Amount]:
    """From the moment when another process has stored an event to its frame at a client."""
    asking = await sync_to_async(streams.asking)()
    with ExitStack() as stack:
        ways = {}
        for listener in listeners():
            server = stack.enter_context(servers.uvicorn("serve:asgi", BENCH_LISTENER=listener))
            writer = stack.enter_context(telling.writer(BENCH_LISTENER=listener))
            ways[listener] = await _Way.opened(server, writer, asking)
        for number in range(plan.rounds + 1):
            for way in ways.values():
                await way.go(plan.calls(EVENTS), counts=number > 0)
        amounts = []
        for listener, way in ways.items():
            centiles = quantiles(way.seconds, n=100)
            for name, value in (("median", centiles[49]), ("99 % within", centiles[98])):
                amounts.append(
                    Amount("from another process's commit to the frame", f"{listener}, {name}", "ms", value * 1e3)
                )
            way.cut()
    return amounts


@dataclass(slots=True)
class _Way:
    """A listener: a server that has it, a writer that tells it, and streams that wait."""

    keys: list[int]
    writer: telling.Writer
    connections: list[Connection] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _arrived: dict[int, float] = field(default_factory=dict)

    @classmethod
    async def opened(cls, server: Server, writer: telling.Writer, asking: streams.Asking) -> _Way:
        """Open the streams."""
        sessions = await asking.opened(LISTENED)
        way = cls([session.pk for session in sessions], writer)
        asked = [asking.stream(session) for session in sessions]
        way.connections = await open_streams(server.port, asked, [way.hear] * LISTENED)
        await asyncio.sleep(1)
        return way

    def hear(self, content: bytes, now: float) -> None:
        """Note which events came."""
        for number in _NUMBER.findall(content):
            self._arrived[int(number)] = now

    async def go(self, events: int, *, counts: bool) -> None:
        """Have so many events written, and note how long each was on its way."""
        self._arrived.clear()
        _, *stored = await self.writer.write(self.keys, events, PAUSE)
        until = asyncio.get_running_loop().time() + 10
        while len(self._arrived) < events:
            if asyncio.get_running_loop().time() > until:
                raise SystemExit(f"{events - len(self._arrived)} of {events} events never came.")
            await asyncio.sleep(0.01)
        if counts:
            self.seconds += [self._arrived[number] - at for number, at in enumerate(stored)]

    def cut(self) -> None:
        """Hang up."""
        for connection in self.connections:
            connection.cut()
