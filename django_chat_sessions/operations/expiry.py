"""What the clock does to sessions, one at a time and in sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import islice

from asgiref.sync import sync_to_async
from django.db import connections

from .. import batches, dialects, logs, signals
from ..batches import Due
from . import cascades, cleaning, endings, warnings, writing
from .sweeping import Budget, Swept, Watch, in_batches, sweep


def expire(*, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
    """Record the expiry of every session whose deadline has passed, in bounded batches.

    Safe in any number of workers at once: on PostgreSQL they share the work (SKIP LOCKED), on SQLite they take
    turns. A worker that dies loses the batch it was in, and the next sweep takes it up. What its agent's ``cleanup``
    wants done at once is archived or deleted, too.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: sessions at the most.
        watch: is told after each batch, and may end the sweep.
    """
    return sweep("expire", _expire_batches, using=using, limit=limit, watch=watch)


def warn(*, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
    """Record ``session.expiring`` in every live session that is within a warning threshold, once for each and deadline.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: sessions at the most.
        watch: is told after each batch, and may end the sweep.
    """
    return sweep("warn", _warn_batches, using=using, limit=limit, watch=watch)


def due_for_expiry(using: str, now: datetime) -> list[Due]:
    """Return what ``expire`` deals with."""
    return [_overdue(using, agent, now) for agent in batches.live_agents(using, until=now)]


def due_for_warning(using: str, now: datetime) -> list[Due]:
    """Return what ``warn`` deals with."""
    return [due for agent in batches.live_agents(using) for due in warnings.due(using, agent, now)]


def _overdue(using: str, agent: str, now: datetime) -> Due:
    where = f"{batches.LIVE_SESSIONS} AND s.agent = %(agent)s AND s.expires_at <= %(now)s"
    return Due(where, "s.expires_at", {"agent": agent, "now": dialects.instant(connections[using], now)})


def _expire_batches(using: str, budget: Budget) -> Iterator[int]:
    for agent in batches.live_agents(using, until=dialects.now(using)):
        for done in in_batches(using, budget, partial(_overdue, using, agent), partial(_expire, using, agent)):
            if budget.left is not None and done >= budget.left:
                # Nobody asks for more after these. Of what earlier sweeps have left, not all is taken along, either.
                yield done + sum(islice(cleaning.at_once(using, budget, agent=agent), done))
            else:
                yield done
                # Before the next ones: if the time is over soon, then not always before this is done.
                yield from cleaning.at_once(using, budget, agent=agent)
    # What is left of earlier sweeps.
    yield from cleaning.at_once(using, budget)


def _expire(using: str, agent: str, ids: list[int], now: datetime) -> int:
    endings.record_expiries(using, agent, ids, now)
    cascades.expire_below(using, ids, now)
    return len(ids)


def _warn_batches(using: str, budget: Budget) -> Iterator[int]:
    for agent in batches.live_agents(using):
        for kind in warnings.kinds(using, agent):
            yield from in_batches(using, budget, partial(kind.due, using), partial(_warn, using, agent))


def _warn(using: str, agent: str, ids: list[int], now: datetime) -> int:
    logs.record(using, ids, warnings.event(using, agent, now), now=now)
    writing.announce_each(signals.session_expiring, using, ids)
    return len(ids)


# Thin twins for async code; the synchronous functions are the truth.
aexpire = sync_to_async(expire)
awarn = sync_to_async(warn)
