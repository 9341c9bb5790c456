"""Sweeps of a table of a million sessions and ten million events, and what they cost where nothing is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django_chat_sessions import agents
from django_chat_sessions.operations.sweeps import SWEEPS

from . import crowd, floor, meanwhile
from .crowd import Crowd, Set
from .measure import Amount, Plan, Row, compare, say

#: Sessions in the table, and in the small one that it is compared with; at scale 1, and at the least. In fewer there
#: would not be all combinations of agent, application and status, which a sweep goes through.
LARGE, SMALL = 1_000_000, 10_000
LEAST = 5_000

#: How much longer a sweep may take than the floor, how much longer with nothing due in a table a hundred times as
#: large, and how much longer an append may take while a sweep runs.
AIM, IDLE_AIM, APPEND_AIM = 1.5, 1.5, 2.0

#: Sessions that one transaction takes, on both sides.
BATCH = 1000

#: Seconds that no transaction may take.
SECOND = 1.0

#: Seconds for which appends are counted before and after a sweep.
ALONE = 2.0


def measure(plan: Plan) -> Iterator[Row | Amount]:
    """Measure everything; whatever other parts have left in the tables is removed."""
    large, small = (max(least, int(size * plan.scale)) for size, least in ((LARGE, 4 * LEAST), (SMALL, LEAST)))
    with floor.connect() as connection, crowd.settings(crowd.LONG):
        connection.execute(floor.PURGING)
        connection.execute(floor.ERASING)
        table = crowd.Crowd.none(connection)
        table.grow(small)
        before = idle(plan)
        say(f"  loading {large} sessions with {crowd.EVENTS} events each …")
        table.grow(large)
        for name, rounds in idle(plan).items():
            variant = f"{name}, {table.size} sessions; the floor is ours with {small}"
            yield compare("nothing due", variant, rounds, before[name], IDLE_AIM)
        table.fall_due()
        with crowd.settings(crowd.SHORT):
            yield from swept(plan, connection, table)


# ----------------------------------------------------------------------------------------------- nothing due


def idle(plan: Plan) -> dict[str, list[float]]:
    """Return how long each sweep takes that finds nothing, in seconds."""
    found: dict[str, list[float]] = {name: [] for name in SWEEPS}
    for number in range(3 * max(plan.rounds, 5) + 1):
        for name, sweep in SWEEPS.items():
            begin = time.perf_counter()
            done = sweep.work()
            if done.count:
                raise SystemExit(f"{name} found {done.count} where nothing is due.")
            if number:  # the first round only warms up
                found[name].append(time.perf_counter() - begin)
    return found


# ----------------------------------------------------------------------------------------- against the floor


@dataclass(frozen=True, slots=True)
class Work:
    """A sweep, and what somebody would write by hand.

    Attributes:
        name: the sweep's.
        due: what there is to do.
        share: how much of it ours does in rounds, and the floor again as much.
        sql: the floor's batch.
        groups: what it is executed with, in turns, in the order in which ours goes.
        undone: counts sessions of a set that are not as they should be afterwards.
    """

    name: str
    due: Set
    share: float
    sql: str
    groups: list[dict[str, Any]]
    undone: str

    def ours(self, limit: int | None = None) -> int:
        """Sweep."""
        return SWEEPS[self.name].work(limit=limit).count

    def theirs(self, connection: Any, limit: int) -> int:
        """Do the same by hand: as many sessions, in batches of the same size."""
        left = limit
        for given in self.groups:
            done = size = BATCH
            while left and done == size:
                size = min(BATCH, left)
                done = connection.execute(self.sql, {**given, "size": size}).rowcount
                left -= done
        return limit - left


_UNRECORDED = """
    SELECT count(*) FROM chat_sessions_chatsession s WHERE {{sessions}} AND NOT ({column} AND EXISTS (
        SELECT 1 FROM chat_sessions_sessionevent e WHERE e.session_id = s.id AND e.sequence = s.last_sequence
            AND e.type = '{event}' AND e.sequence = 11
    ))
"""
_LEFT = """
    SELECT (SELECT count(*) FROM chat_sessions_chatsession s WHERE {sessions})
        + (SELECT count(*) FROM chat_sessions_sessionevent e WHERE {events})
"""


def works() -> list[Work]:
    """Return them, in the order in which they are done."""
    live = [{"agent": name, "minutes": _threshold(name)} for name in crowd.AGENTS]
    expiring = _UNRECORDED.format(column="s.warned_at IS NOT NULL", event="session.expiring")
    expired = _UNRECORDED.format(column="s.status = 'expired'", event="session.expired")
    archived = _UNRECORDED.format(column="s.status = 'archived'", event="session.archived")
    return [
        Work("warn", crowd.WARNED, 1 / 2, floor.WARN, live, expiring),
        Work("expire", crowd.EXPIRED, 1 / 3, floor.EXPIRE, live, expired),
        Work("archive", crowd.ARCHIVED, 1 / 2, floor.ARCHIVE, _kept(crowd.ARCHIVING), archived),
        Work("purge", crowd.PURGED, 1 / 3, floor.PURGE, _kept(crowd.DELETING), _LEFT),
    ]


def _threshold(name: str) -> int:
    return agents.of(name).policy().warning_threshold_minutes


def _kept(applications: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the groups of sessions that are over, and for how many days each is kept."""
    return [
        {
            "status": status,
            "application": application,
            "agent": name,
            "days": agents.of(name).keeps(application).of(status).days,
        }
        for status, application, name in crowd.groups(applications)
    ]


def swept(plan: Plan, connection: Any, table: Crowd) -> Iterator[Row | Amount]:
    """Do what is due: in rounds, against the floor, and then what is left of it while others append."""
    every = works()
    for work in every:
        yield against(plan, connection, table, work)
    yield from under_load([work for work in every if work.share < 1 / 2])
    for work in every:
        sets = {"sessions": table.where(work.due, "s.id"), "events": table.where(work.due, "e.session_id")}
        (undone,) = connection.execute(work.undone.format(**sets)).fetchone()
        if undone:
            raise SystemExit(f"{work.name} left {undone} that are not as they should be.")


def against(plan: Plan, connection: Any, table: Crowd, work: Work) -> Row:
    """Measure a sweep against the floor, of which each has as much to do in each round."""
    rounds = max(plan.rounds, 5)
    part = int(table.count(work.due) * work.share / (rounds + 1))
    sides: dict[str, Callable[[], int]] = {
        "ours": lambda: work.ours(part),
        "floor": lambda: work.theirs(connection, part),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in ("ours", "floor") if number % 2 else ("floor", "ours"):
            begin = time.perf_counter()
            done = sides[name]()
            if done != part:
                raise SystemExit(f"{work.name}: {name} did {done} of {part}.")
            if number:  # the first round only warms up
                found[name].append((time.perf_counter() - begin) / part)
    if work.share == 1 / 2:
        work.ours()  # what is left by the division
    variant = f"{rounds} rounds of {part}, of {table.size} sessions; for each"
    return compare(work.name, variant, found["ours"], found["floor"], AIM)


# ----------------------------------------------------------------------------------------- while others append


def under_load(every: list[Work]) -> Iterator[Row | Amount]:
    """Do what is left, in one sweep each, while other clients append as fast as they can."""
    from django.db import connection

    connection.ensure_connection()
    seen: dict[str, tuple[meanwhile.Watched, int]] = {}
    with meanwhile.appending() as appends:
        for work in every:
            time.sleep(ALONE)
            with meanwhile.watching(connection.connection.info.backend_pid) as watched:
                done = work.ours()
            seen[work.name] = (watched, done)
            time.sleep(ALONE)
    for name, (watched, done) in seen.items():
        alone = appends.pace(watched.start - ALONE, watched.start) + appends.pace(watched.end, watched.end + ALONE)
        during = appends.pace(watched.start, watched.end)
        variant = f"{meanwhile.WRITERS} writers, while {name} runs; the floor is ours without it"
        yield compare("append", variant, during, alone, APPEND_AIM)
        variant = f"of {name} while others append; the floor is a second"
        yield compare("longest transaction", variant, [watched.transaction], [SECOND], 1.0)
        work = f"{name}, {done} in one sweep while others append"
        before, most, after = (size / 2**20 for size in watched.resident)
        yield Amount(work, "sessions", "a second", done / (watched.end - watched.start))
        yield Amount(work, "memory of the process, at the most more than before", "MiB", most - before)
        yield Amount(work, "memory of the process, more afterwards", "MiB", after - before)
