"""The scaffold of sweeps: bounded batches, as many as there is work, and one line that says what was done.

One session that stands against what is done to its batch, because of a trigger of the project's own, say, or of a row
that somebody broke, is left and logged: it keeps none of the others from it, neither in its batch nor behind it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections, router

from .. import conf, dialects, log
from ..batches import Due, Taken, take
from ..models import ChatSession

logger = logging.getLogger("django_chat_sessions")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did.

    Attributes:
        task: its name.
        count: sessions, or runs, or chunks, or events, that it dealt with.
        batches: transactions that it took.
        seconds: how long it took.
        held: sessions that would have been dealt with, were they not under legal hold.
        is_finished: whether it left nothing that it could have dealt with.
    """

    task: str
    count: int
    batches: int
    seconds: float = field(default=0.0, compare=False)
    held: int = 0
    is_finished: bool = field(default=True, compare=False)


#: Failures of what all sessions need, one after the other, after which a sweep leaves the rest to the next.
FAILURES = 10

#: Sessions of a sweep's first batch, and seconds that one may take before the next is half of it.
FIRST, LONG = 250, 0.4

#: Is called after every batch with what was done so far; False ends the sweep.
Watch = Callable[[Swept], bool]


@dataclass(slots=True)
class Budget:
    """What a sweep may still do.

    Attributes:
        left: sessions, or whatever it deals with; None is without limit.
        batch: how many one transaction takes at the most.
        pace: how many the next one takes, where that is less: nobody shall wait for long because of it.
        failures: of something that all of them need, such as a storage, one after the other.
    """

    left: int | None
    batch: int
    failures: int = 0
    pace: int = FIRST

    @property
    def size(self) -> int:
        """How many the next batch may take."""
        size = min(self.batch, self.pace)
        return size if self.left is None else min(size, self.left)

    def keep_pace(self, taken: int, seconds: float) -> None:
        """Take fewer next time where this many took long, and more where they did not."""
        if seconds > LONG:
            self.pace = max(1, taken // 2)
        elif taken >= self.pace and seconds < LONG / 4:
            self.pace = min(self.batch, self.pace * 2)


#: Yields after each transaction how many it dealt with, until there is nothing more to do.
Batches = Callable[[str, Budget], Iterator[int]]


def sweep(
    task: str,
    batches: Batches,
    *,
    using: str | None = None,
    limit: int | None = None,
    watch: Watch | None = None,
    held: Callable[[str], int] | None = None,
) -> Swept:
    """Do batches until there is nothing to do, or no more than a limit, or nobody wants more.

    Args:
        task: the sweep's name.
        batches: its work.
        using: the database; the one that sessions are written to by default.
        limit: sessions at the most.
        watch: is told after each batch, and may end the sweep.
        held: counts what is left alone because of a legal hold.
    """
    using = using or router.db_for_write(ChatSession)
    budget = Budget(limit, conf.get().SWEEP_BATCH)
    began = time.monotonic()
    swept = Swept(task, 0, 0, is_finished=False)
    try:
        for done in batches(using, budget):
            seconds = round(time.monotonic() - began, 3)
            swept = Swept(task, swept.count + done, swept.batches + 1, seconds, is_finished=False)
            if budget.left is not None:
                budget.left = max(0, budget.left - done)  # a tree goes whole
            if budget.left == 0 or (watch is not None and not watch(swept)):
                break
        else:
            swept = replace(swept, is_finished=True)
        swept = replace(swept, held=held(using) if held else 0, seconds=round(time.monotonic() - began, 3))
    finally:
        # What was done is done, whatever came of the next batch.
        _tell(using, swept)
    return swept


def _tell(using: str, swept: Swept) -> None:
    """Log the one line; each value is a field of the record, too. Who sweeps every second finds nothing mostly."""
    said = {**asdict(swept), "using": using}
    line = " ".join(f"{name}={value}" for name, value in said.items())
    level = logging.INFO if swept.count else logging.DEBUG
    logger.log(level, "chat_sessions.sweep %s", line, extra={f"sweep_{name}": value for name, value in said.items()})


#: Deals with the locked sessions of those ids, as of an instant; returns how many that were.
Act = Callable[[list[int], datetime], int]


def in_batches(
    using: str, budget: Budget, due: Callable[[datetime], Due], act: Act, *, events: int | None = None
) -> Iterator[int]:
    """Yield, after each transaction, how many sessions were dealt with, until none that is due was left out.

    Args:
        using: the database.
        budget: how many may be.
        due: which are to be, as of an instant.
        act: deals with them.
        events: the events of all that one transaction takes, unless one session alone has more.
    """
    last: Taken | None = None
    apart = 0  # sessions of a failed batch that are still to be dealt with one by one
    while True:
        size = 1 if apart else budget.size
        taken: list[Taken] = []
        began = time.monotonic()
        opened: Any = None
        try:
            with log.begin(using):
                opened = connections[using].connection
                now = dialects.now(using)
                taken += take(using, due(now), size, events=events, after=last)
                done = act([one.id for one in taken], now)
        except Exception as error:
            if not taken or is_lost(using, opened):
                raise
            if len(taken) > 1:
                apart = len(taken)
                continue
            leave(taken[0].uuid, error)
            done = 0
        budget.keep_pace(len(taken), time.monotonic() - began)
        yield done
        # Short of its size it may be because of the events, too.
        if len(taken) < (size if events is None else 1):
            return
        last, apart = taken[-1], max(0, apart - 1)


def is_lost(using: str, opened: Any) -> bool:
    """Tell whether the connection of a transaction that failed is lost; Django may have opened another one by now."""
    connection = connections[using]
    return connection.connection is not opened or not connection.is_usable()


def leave(session: UUID | int, error: Exception) -> None:
    """Log that a session is left to the next sweep; not the error's words, which may quote what was said."""
    logger.warning("Session %s cannot be swept now: %s", session, type(error).__name__, extra={"session": str(session)})
