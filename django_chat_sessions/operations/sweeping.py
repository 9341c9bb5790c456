"""The scaffold of sweeps: bounded batches, as many as there is work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.db import router

from .. import conf
from ..models import ChatSession


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did.

    Attributes:
        task: its name.
        count: sessions, or runs, that it dealt with.
        batches: transactions that it took.
    """

    task: str
    count: int
    batches: int


def sweep(task: str, batch: Callable[[str, int], int], using: str | None, limit: int | None) -> Swept:
    """Run batches until one finds less than it may take."""
    using = using or router.db_for_write(ChatSession)
    size = conf.get().SWEEP_BATCH
    count = batches = 0
    while limit is None or count < limit:
        wanted = size if limit is None else min(size, limit - count)
        done = batch(using, wanted)
        count, batches = count + done, batches + 1
        if done < wanted:
            break
    return Swept(task, count, batches)
