"""Streams under load: the first frame of an answer, frames through one process, and clients that all come back at once.

Each is measured against a bare ASGI view that sends the same bytes from memory, in a process of the same kind at the
side of ours, with which it takes turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from asgiref.sync import sync_to_async
from django.test import override_settings

from . import chat_agents, data, servers, telling
from .measure import Amount, Plan, Row, compare, say
from .reading import Connection, Counter, all_of, open_streams
from .servers import Server
from .web import request

#: Sessions with listeners, listeners of each, and events of a round.
SESSIONS, LISTENERS, EVENTS = 20, 10, 600

#: Answers that are given at the same time.
ANSWERS = 20

#: Clients that come back at once, and the frames that each has missed.
CLIENTS = 200

_DELTA = b"message.delta"
_ASK = {"content": data.TEXT, "delivery": "stream"}

Pieces = Sequence[tuple[float | None, bytes]]


@dataclass(frozen=True, slots=True)
class Asking:
    """Somebody with a token, and what they ask our server."""

    owner: Any
    token: str

    async def opened(self, count: int, agent: str = "") -> list[Any]:
        """Open sessions."""
        return await sync_to_async(data.opened)(self.owner, count, agent=agent)

    def stream(self, session: Any, after: int | None = None) -> bytes:
        """Return the request for a session's stream; with what the client had last, as one that comes back."""
        asked = request("GET", f"/api/chat/sessions/{session.uuid}/stream", token=self.token)
        return asked if after is None else asked[:-2] + f"Last-Event-ID: {after}\r\n\r\n".encode()

    def question(self, session: Any) -> bytes:
        """Return the request that asks something."""
        return request("POST", f"/api/chat/sessions/{session.uuid}/messages", token=self.token, body=_ASK)


def asking() -> Asking:
    """Return somebody."""
    from rest_framework.authtoken.models import Token

    owner = data.user("listener")
    return Asking(owner, Token.objects.get_or_create(user=owner)[0].key)


@dataclass(frozen=True, slots=True)
class Two:
    """Our server and the bare one, and who asks ours."""

    ours: Server
    bare: Server
    asking: Asking


@contextmanager
def two(asking: Asking, **environment: str) -> Iterator[Two]:
    """Have both run."""
    with (
        servers.uvicorn("serve:asgi", **environment) as ours,
        servers.uvicorn("bare:application", lifespan="off") as bare,
    ):
        yield Two(ours, bare, asking)


def database_connections() -> int:
    """Return how many connections the server that is measured has, as the database sees it."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [servers.NAME])
        return int(cursor.fetchone()[0])


def play(name: str) -> bytes:
    """Return the request for what the bare view remembers."""
    return request("GET", f"/play/{name}")


async def remember(bare: Server, name: str, pieces: Pieces, *, stays_open: bool = False) -> None:
    """Let the bare view remember something to play."""
    told = {"pieces": [(pause, content.decode()) for pause, content in pieces], "stays_open": stays_open}
    await _done(bare, request("PUT", f"/memory/{name}", body=told))


async def _done(server: Server, asked: bytes) -> None:
    connection = await Connection.open(server.port)
    connection.ask(asked)
    await all_of([connection.over], "A request")
    connection.cut()


async def recorded(server: Server, asked: bytes, frames: int = 0) -> list[tuple[float, bytes]]:
    """Return what a stream sends and when: to its end, or until there were so many frames."""
    heard: list[tuple[float, bytes]] = []
    counter = Counter()
    counter.expect(frames or 1_000_000)

    def hear(content: bytes, now: float) -> None:
        heard.append((now, content))
        counter(content, now)

    (connection,) = await open_streams(server.port, [asked], [hear])
    await all_of([counter.reached if frames else connection.over], "A recording")
    connection.cut()
    return heard


def measure(plan: Plan) -> Iterator[Row | Amount]:
    """Measure all of them."""
    with two(asking()) as both, asyncio.Runner() as runner:
        for part in (first_frame, flood, answers, storm):
            rows = runner.run(_collected(part(plan, both)))
            yield from rows


async def _collected(rows: AsyncIterator[Row | Amount]) -> list[Row | Amount]:
    return [row async for row in rows]


# ------------------------------------------------------------------------------------------- the first frame


async def first_frame(plan: Plan, both: Two) -> AsyncIterator[Row | Amount]:
    """From the question to the first words; the agent says them at once, so that all of it is over its own time."""
    for agent, variant in (("prompt", "an agent that answers at once"), ("prompt-async", "the same, asynchronous")):
        rounds: tuple[list[float], list[float]] = ([], [])
        same = [
            (0.0, content)
            for _, content in await recorded(both.ours, both.asking.question((await both.asking.opened(1, agent))[0]))
        ]
        await remember(both.bare, agent, same)
        asked = request("POST", f"/play/{agent}", body=_ASK)
        connections = [await Connection.open(server.port) for server in (both.ours, both.bare)]
        for number in range(plan.rounds + 1):
            requests = (both.asking.question((await both.asking.opened(1, agent))[0]), asked)
            for which in (0, 1) if number % 2 else (1, 0):
                times = [await _first(connections[which], requests[which]) for _ in range(plan.calls(20))]
                if number:  # the first round only warms up
                    rounds[which].append(sorted(times)[len(times) // 2])
        for connection in connections:
            connection.cut()
        yield compare("first frame", variant, *rounds, None)


async def _first(connection: Connection, asked: bytes) -> float:
    """Ask, and return how long the first words took; wait until the answer is over."""
    counter = Counter()
    counter.expect(1, of=_DELTA)
    start = time.perf_counter()
    connection.ask(asked, counter)
    await all_of([connection.over], "An answer")
    if not counter.at:
        raise SystemExit("An answer said nothing.")
    return counter.at - start


# -------------------------------------------------------------------------------------------------- frames


async def flood(plan: Plan, both: Two) -> AsyncIterator[Row | Amount]:
    """Another process writes as fast as it can to sessions, to each of which several listen."""
    sessions, frames = await both.asking.opened(SESSIONS), EVENTS // SESSIONS
    with telling.writer() as writer:
        asked = [both.asking.stream(session) for session in sessions for _ in range(LISTENERS)]
        counters = [[Counter() for _ in asked] for _ in range(2)]
        ours = await open_streams(both.ours.port, asked, counters[0])
        first = await _sample(both, sessions[0], frames, writer)
        script: list[tuple[float | None, bytes]] = []
        for _ in range(plan.rounds + 1):
            script += [(None, first[0]), *((0.0, frame) for frame in first[1:])]
        await remember(both.bare, "flood", script, stays_open=True)
        bare = await open_streams(both.bare.port, [play("flood")] * len(asked), counters[1])
        keys = [session.pk for session in sessions]

        async def write() -> None:
            await writer.write(keys, EVENTS)

        async def go() -> None:
            await _done(both.bare, request("POST", "/go/flood"))

        await asyncio.sleep(1)
        rounds: tuple[list[float], list[float]] = ([], [])
        spent: tuple[list[float], list[float]] = ([], [])
        for number in range(plan.rounds + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                server, begin = (both.ours, both.bare)[which], (write, go)[which]
                took, cpu = await _flooded(server, begin, counters[which], frames)
                if number:
                    rounds[which].append(took / (frames * len(asked)))
                    spent[which].append(cpu / (frames * len(asked)))
        for connection in [*ours, *bare]:
            connection.cut()
    variant = f"{len(asked)} streams of {SESSIONS} sessions, another process writes"
    yield compare("a frame", variant, *rounds, None)
    yield compare("a frame, the server's processor time", variant, *spent, None)


async def _sample(both: Two, session: Any, frames: int, writer: telling.Writer) -> list[bytes]:
    """Return as many frames as the writer's, one by one."""
    heard: list[bytes] = []
    (other,) = await both.asking.opened(1)
    recording = asyncio.ensure_future(recorded(both.ours, both.asking.stream(other), frames))
    await asyncio.sleep(0.5)
    await writer.write([other.pk], frames)
    for _, content in await recording:
        heard += [frame + b"\n\n" for frame in content.split(b"\n\n") if b"\nevent: " in frame]
    return heard


async def _flooded(
    server: Server, begin: Callable[[], Any], counters: Sequence[Counter], frames: int
) -> tuple[float, float]:
    """Let it begin, and return the seconds until all have all, and the server's of processor time."""
    for counter in counters:
        counter.expect(frames)
    cpu, start = server.cpu_seconds, time.perf_counter()
    beginning = asyncio.ensure_future(begin())
    await all_of([counter.reached for counter in counters], "Listeners")
    await beginning
    return max(counter.at for counter in counters) - start, server.cpu_seconds - cpu


async def answers(plan: Plan, both: Two) -> AsyncIterator[Row | Amount]:
    """Several agents answer at the same time, each as fast as chunks are stored."""
    rounds: tuple[list[float], list[float]] = ([], [])
    spent: tuple[list[float], list[float]] = ([], [])
    held: tuple[list[int], list[int]] = ([], [])
    (session,) = await both.asking.opened(1, "talker")
    heard = await recorded(both.ours, both.asking.question(session))
    paced = chat_agents.PIECES * chat_agents.PAUSE / max(1, sum(_DELTA in content for _, content in heard) - 1)
    await remember(both.bare, "answer", [(paced if _DELTA in content else 0.0, content) for _, content in heard])
    for number in range(max(3, plan.rounds // 2)):
        asked = [
            [both.asking.question(session) for session in await both.asking.opened(ANSWERS, "talker")],
            [play("answer")] * ANSWERS,
        ]
        for which in (0, 1) if number % 2 else (1, 0):
            server = (both.ours, both.bare)[which]
            took, cpu = await _answered(server, asked[which], held[which])
            rounds[which].append(took)
            spent[which].append(cpu)
    variant = f"{ANSWERS} agents answer at once"
    yield compare("a frame", variant, *rounds, None)
    yield compare("a frame, the server's processor time", variant, *spent, None)
    yield Amount(variant, "connections to the database, of the process", "connections", median(held[0]), 0)


async def _answered(server: Server, asked: Sequence[bytes], held: list[int]) -> tuple[float, float]:
    """Return the seconds between two frames of all streams together, and the server's processor time for each."""
    instants: list[float] = []

    def hear(content: bytes, now: float) -> None:
        instants.extend([now] * content.count(b"\nevent: " + _DELTA))

    cpu = server.cpu_seconds
    connections = await open_streams(server.port, asked, [hear] * len(asked))
    await asyncio.sleep(1)
    held.append(await sync_to_async(database_connections)())
    await all_of([connection.over for connection in connections], "Answers")
    for connection in connections:
        connection.cut()
    return (max(instants) - min(instants)) / len(instants), (server.cpu_seconds - cpu) / len(instants)


# --------------------------------------------------------------------------------------------------- storms


async def storm(plan: Plan, both: Two) -> AsyncIterator[Row | Amount]:
    """All clients come back at once, each to another session, where it has missed an answer."""
    say(f"  letting {CLIENTS} clients miss something …")
    sessions = await both.asking.opened(CLIENTS, "rush")
    await sync_to_async(_answer)(sessions)
    asked = [both.asking.stream(session, 1) for session in sessions]
    frames = sessions[0].last_sequence - 1 + chat_agents.MISSED
    heard = b"".join(content for _, content in await recorded(both.ours, asked[0], frames))
    await remember(both.bare, "missed", [(0.0, heard)], stays_open=True)
    requests = (asked, [play("missed")] * CLIENTS)
    rounds: tuple[list[float], list[float]] = ([], [])
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(plan.rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            server = (both.ours, both.bare)[which]
            took, cpu = await _caught_up(server, requests[which], frames)
            if number:
                rounds[which].append(took)
                spent[which].append(cpu)
    variant = f"{CLIENTS} clients come back at once, {frames} frames each"
    yield compare("reconnect storm", variant, *rounds, None)
    yield compare("reconnect storm, the server's processor time", variant, *spent, None)


def _answer(sessions: Sequence[Any]) -> None:
    """Have something asked and answered in each."""
    from django_chat_sessions.agents import Message
    from django_chat_sessions.models import Run, RunChunk
    from django_chat_sessions.operations import runs

    with override_settings(CHAT_SESSIONS={"LISTENER": "polling"}):
        for session in sessions:
            runs.ask(session, Message("user", data.TEXT))
    # How many pieces go together is a matter of time; here each is one, so that all have missed as much.
    RunChunk.objects.filter(session__in=sessions).delete()
    RunChunk.objects.bulk_create(
        RunChunk(
            session_id=run.session_id,
            run=run,
            sequence=run.spoken_sequence - 1,
            index=index,
            text=f"word {index} ",
            created_at=run.created_at,
        )
        for run in Run.objects.filter(session__in=sessions)
        for index in range(chat_agents.MISSED)
    )
    data.settle()


async def _caught_up(server: Server, asked: Sequence[bytes], frames: int) -> tuple[float, float]:
    """Return the seconds until all have got what they missed, and the server's of processor time."""
    counters = [Counter() for _ in asked]
    for counter in counters:
        counter.expect(frames)
    cpu, start = server.cpu_seconds, time.perf_counter()
    connections = await open_streams(server.port, asked, counters)
    await all_of([counter.reached for counter in counters], "Clients that came back")
    took = max(counter.at for counter in counters) - start
    spent = server.cpu_seconds - cpu
    if any(counter.count != frames for counter in counters):
        raise SystemExit("A client got a frame twice.")
    for connection in connections:
        connection.cut()
    await asyncio.sleep(0.3)
    return took, spent
