"""Deleting sessions that have parents or children: a parent never goes without what is below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import Exists, OuterRef, Q

from .. import batches, conf, dialects, log, logs
from ..choices import LIVE, Cleanup, RetentionAction
from ..fields import hide
from ..models import ChatSession, OutboxEntry
from .retention import Group
from .sweeping import is_lost, leave


@dataclass(frozen=True, slots=True)
class Member:
    """A session of a tree, as far as its deletion needs it."""

    id: int
    parent: int | None
    status: str
    application: str
    agent: str
    settled_at: datetime | None
    is_held: bool
    is_told: bool
    last_sequence: int

    @property
    def is_closed(self) -> bool:
        """Whether it may go with its parent at all."""
        return self.status not in LIVE and not self.is_held and self.is_told

    @property
    def group(self) -> Group:
        """What retention says of it."""
        return Group(self.status, hide(self.application), self.agent)

    def is_due(self, now: datetime) -> bool:
        """Tell whether its own retention is over."""
        group = self.group
        if not self.is_closed or group.action != RetentionAction.DELETE:
            return False
        return self.settled_at is not None and group.is_over(self.settled_at, now)


#: Trees that are dealt with in one transaction, where they are small.
TOGETHER = 100

_NAMES = ("pk", "parent_id", "status", "application", "agent", "settled_at", "is_held", "is_told", "last_sequence")


def purge_all(using: str, tops: Sequence[int]) -> Iterator[int]:
    """Yield, after each transaction, how many sessions of the trees below those it deleted; small ones go together."""
    for start in range(0, len(tops), TOGETHER):
        some = tops[start : start + TOGETHER]
        done = _purge_together(using, some)
        if done is not None:
            yield done
            continue
        for top in some:
            yield from purge(using, top)


def _purge_together(using: str, tops: Sequence[int]) -> int | None:
    """Delete what may go of several trees; None, and nothing done, where that is too much at once, or fails."""
    opened: Any = None
    try:
        with log.begin(using):
            opened = connections[using].connection
            members = _members(using, Q(pk__in=tops) | Q(root__in=tops))
            going = _going(members, dialects.now(using), None)
            if _first(members, going) != going:
                return None
            # Trees that wait have nothing that may go.
            if not going or not _lock(using, members, going):
                return 0
            if batches.held_forks(using, going):
                return None
            logs.remove(using, going)
            return len(going)
    except Exception:
        # The project's own listeners raise what they like.
        if is_lost(using, opened):
            raise
        return None  # one by one, which tells what it is


def purge(using: str, root: int, *, asked: int | None = None) -> Iterator[int]:
    """Yield, after each transaction, how many sessions of a tree it deleted: all that may go, at once if they fit.

    Args:
        using: the database.
        root: the session at the top.
        asked: a session that goes although its agent leaves it to whoever comes (``lazy``): somebody came.
    """
    while True:
        opened = connections[using].connection
        try:
            done, is_all = _purge(using, root, asked)
        except Exception as error:
            if is_lost(using, opened):
                raise
            leave(root, error)
            return
        yield done
        if is_all or not done:
            return


def _purge(using: str, root: int, asked: int | None) -> tuple[int, bool]:
    """Delete what may go of a tree, what is deepest first, as far as the bound goes; tell whether that was all."""
    with log.begin(using):
        members = _members(using, Q(pk=root) | Q(root=root))
        going = _going(members, dialects.now(using), asked)
        first = _first(members, going)
        # Only what goes is locked, however large the tree. What has changed since it was read is left to the next time.
        if not _lock(using, members, first):
            return 0, False
        held = batches.held_forks(using, first)
        free = _without(members, first, held)
        return _remove(using, members, free), len(first) == len(going) or not free


def _first(members: Mapping[int, Member], going: Sequence[int]) -> list[int]:
    """Return what one transaction deletes of that: up to a number of sessions and of events, but one in any case."""
    settings = conf.get()
    events, first = 0, list[int]()
    for pk in going[: settings.CASCADE_BOUND]:
        events += members[pk].last_sequence
        if first and events > settings.SWEEP_EVENTS:
            break
        first.append(pk)
    return first


def _lock(using: str, members: Mapping[int, Member], going: Sequence[int]) -> bool:
    """Lock sessions, the oldest first, as everybody does; tell whether they are still as they were read.

    They are read anew once they are locked: of what it waited for, PostgreSQL looks again at the locked row alone, and
    not at what subscribers have yet to be told of it.
    """
    if dialects.is_postgresql(using):
        rows = ChatSession.objects.using(using).filter(pk__in=going).order_by("pk").select_for_update(of=("self",))
        list(rows.values_list("pk"))
    return _members(using, Q(pk__in=going)) == {pk: members[pk] for pk in going}


def _without(members: Mapping[int, Member], going: Sequence[int], staying: Set[int]) -> list[int]:
    """Return those that may go, deepest first, where some have to stay, and so has what is above these."""
    kept, free = set[int | None](staying), list[int]()
    for pk in going:
        if pk in kept:
            kept.add(members[pk].parent)
        else:
            free.append(pk)
    return free


def _remove(using: str, members: Mapping[int, Member], going: Sequence[int]) -> int:
    """Delete sessions, whole, what is deepest first; return how many went."""
    opened = connections[using].connection
    try:
        with log.begin(using):
            logs.remove(using, going)
        return len(going)
    except Exception:
        if is_lost(using, opened):
            raise
        return _remove_apart(using, members, going)


def _remove_apart(using: str, members: Mapping[int, Member], going: Sequence[int]) -> int:
    """Delete sessions one by one; one that refuses is left, and so is what is above it."""
    done, waiting = 0, set[int | None]()
    opened = connections[using].connection
    for pk in going:
        try:
            if pk not in waiting:
                with log.begin(using):
                    logs.remove(using, [pk])
                done += 1
                continue
        except Exception as error:
            if is_lost(using, opened):
                raise
            leave(pk, error)
        waiting.add(members[pk].parent)
    return done


def _members(using: str, which: Q) -> dict[int, Member]:
    """Read sessions of a tree."""
    waiting = OutboxEntry.objects.using(using).filter(session=OuterRef("pk"), set_aside_at__isnull=True)
    rows = ChatSession.objects.using(using).filter(which).annotate(is_told=~Exists(waiting)).order_by("pk")
    return {row[0]: Member(*row) for row in rows.values_list(*_NAMES)}


def _going(members: Mapping[int, Member], now: datetime, asked: int | None) -> list[int]:
    """Return what may go, what is deepest first: of each session all that is below it, or not the session."""
    children: dict[int | None, list[int]] = {}
    for member in members.values():
        children.setdefault(member.parent, []).append(member.id)
    ordered = [member.id for member in members.values() if member.parent not in members]
    for pk in ordered:
        ordered += children.get(pk, ())
    takes_along = conf.get().PURGE_CHILDREN
    due = {pk for pk in ordered if members[pk].is_due(now)}
    free: set[int] = set()
    for pk in reversed(ordered):
        may_go = members[pk].is_closed if takes_along else pk in due
        if may_go and free.issuperset(children.get(pk, ())):
            free.add(pk)
    going: set[int | None] = set()
    for pk in ordered:
        is_wanted = pk in due and (members[pk].group.cleanup != Cleanup.LAZY or pk == asked)
        if pk in free and (is_wanted or members[pk].parent in going):
            going.add(pk)
    return [pk for pk in reversed(ordered) if pk in going]
