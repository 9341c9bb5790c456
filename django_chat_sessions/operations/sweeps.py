"""All sweeps by name, and what each would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Protocol

from django.db import router

from .. import batches, dialects
from ..batches import Due, Example
from ..choices import RetentionAction
from ..models import ChatSession
from . import archiving, expiry, outbox, pieces, purging, recovery, retention
from .sweeping import Swept, Watch

#: Sessions that a preview names.
SAMPLE = 10


class Work(Protocol):
    """What does a sweep."""

    def __call__(self, *, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
        """Do it."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep.

    Attributes:
        work: does it.
        due: what there is to do, as of an instant; each for itself, and in the order of time.
        noun: what it deals with.
        held: counts what is left alone because of a legal hold.
        waiting: counts what is left alone until subscribers were told of it.
    """

    work: Work
    due: Callable[[str, datetime], list[Due]]
    noun: str = "sessions"
    held: Callable[[str], int] | None = None
    waiting: Callable[[str], int] | None = None


def _retained(work: Work, action: RetentionAction) -> Sweep:
    return Sweep(
        work,
        partial(retention.due, action=action),
        held=partial(retention.held, action=action),
        waiting=partial(retention.waiting, action=action),
    )


#: In the order of a round.
SWEEPS: Mapping[str, Sweep] = MappingProxyType(
    {
        "warn": Sweep(expiry.warn, expiry.due_for_warning),
        "expire": Sweep(expiry.expire, expiry.due_for_expiry),
        "recover": Sweep(recovery.recover, recovery.due, "answers and sessions"),
        "archive": _retained(archiving.archive, RetentionAction.ARCHIVE),
        "purge": _retained(purging.purge, RetentionAction.DELETE),
        "compact": Sweep(pieces.compact, pieces.due, "chunks"),
        "deliver": Sweep(outbox.deliver, outbox.due, "events"),
    }
)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a sweep would do now.

    Attributes:
        task: its name.
        noun: what it would deal with.
        total: how many.
        held: how many it leaves alone because of a legal hold.
        by_status, by_agent, by_age: how many, by the session's status and agent, and by how long they have been due.
        sample: some of them, what has been due for longest first.
        waiting: how many it leaves alone until subscribers were told of all that happened in them.
    """

    task: str
    noun: str
    total: int
    held: int = 0
    by_status: Mapping[str, int] = field(default_factory=dict)
    by_agent: Mapping[str, int] = field(default_factory=dict)
    by_age: Mapping[str, int] = field(default_factory=dict)
    sample: tuple[Example, ...] = ()
    waiting: int = 0


def preview(task: str, *, using: str | None = None) -> Preview:
    """Say what a sweep would do, and do nothing.

    Args:
        task: its name.
        using: the database; the one that sessions are written to by default.
    """
    using = using or router.db_for_write(ChatSession)
    sweep, now = SWEEPS[task], dialects.now(using)
    status, agent, age = Counter[str](), Counter[str](), Counter[str]()
    sample: list[Example] = []
    for due in sweep.due(using, now):
        for found in batches.count(using, due, now):
            status[found.status] += found.number
            agent[found.agent] += found.number
            age[found.age] += found.number
        sample += batches.sample(using, due, SAMPLE)
    sample.sort(key=lambda example: example.since)
    return Preview(
        task,
        sweep.noun,
        sum(age.values()),
        sweep.held(using) if sweep.held else 0,
        dict(status),
        dict(agent),
        {name: age[name] for name in (*batches.AGES, batches.OLDER) if age[name]},
        tuple(sample[:SAMPLE]),
        sweep.waiting(using) if sweep.waiting else 0,
    )
