"""Removing the chunks of finished answers: their messages say it whole, and only streams want the pieces."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from asgiref.sync import sync_to_async

from .. import chunks, conf, dialects
from ..batches import Due
from .sweeping import Budget, Swept, Watch, sweep


def compact(*, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
    """Delete the chunks of the answers that were finished longer than ``KEEP_CHUNKS`` ago; its count is of chunks.

    A stream that comes back later finds whole messages instead of the pieces in which they were said.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: chunks at the most.
        watch: is told after each batch, and may end the sweep.
    """
    return sweep("compact", _batches, using=using, limit=limit, watch=watch)


def due(using: str, now: datetime) -> list[Due]:
    """Return the chunks that ``compact`` deletes."""
    return [chunks.finished(using, before=now - conf.get().keep_chunks)]


def _batches(using: str, budget: Budget) -> Iterator[int]:
    last: int | None = 0
    while last is not None:
        before = dialects.now(using) - conf.get().keep_chunks
        done, last = chunks.compact(using, before=before, after=last, limit=budget.size)
        yield done


# Thin twins for async code; the synchronous functions are the truth.
acompact = sync_to_async(compact)
