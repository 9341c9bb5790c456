"""Deleting what was kept for long enough: whole sessions, with everything that is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from asgiref.sync import sync_to_async

from .. import batches, conf, logs
from ..choices import RetentionAction
from . import retention, trees
from .retention import Group
from .sweeping import Budget, Swept, Watch, in_batches, sweep


def purge(*, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
    """Delete the sessions whose retention is over, where it says so; those under legal hold stay.

    A session with children goes when they may go, too, in one transaction with them (``CASCADE_BOUND``), or takes them
    along (``PURGE_CHILDREN``). What the project's own tables refuse to let go is left and logged, and
    what is above it stays, too.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: sessions at the most, trees whole.
        watch: is told after each batch, and may end the sweep.
    """
    held = partial(retention.held, action=RetentionAction.DELETE)
    return sweep("purge", _batches, using=using, limit=limit, watch=watch, held=held)


def _batches(using: str, budget: Budget) -> Iterator[int]:
    for group in retention.groups_to_sweep(using, RetentionAction.DELETE):
        yield from purge_group(using, group, budget)


def purge_group(using: str, group: Group, budget: Budget) -> Iterator[int]:
    """Yield, after each transaction, how many sessions of a group it deleted, until none is due."""
    roots: set[int] = set()

    def act(ids: list[int], now: datetime) -> int:
        """Delete the sessions that stand alone, and note the trees of the others."""
        found = batches.roots(using, ids)
        roots.update(found.values())
        alone = [pk for pk in ids if pk not in found]
        staying = batches.untold(using, alone) | batches.held_forks(using, alone)
        alone = [pk for pk in alone if pk not in staying]
        if alone:
            logs.remove(using, alone)
        return len(alone)

    for done in in_batches(using, budget, partial(group.due, using), act, events=conf.get().SWEEP_EVENTS):
        yield done
        yield from trees.purge_all(using, sorted(roots))
        roots.clear()


# Thin twins for async code; the synchronous functions are the truth.
apurge = sync_to_async(purge)
