"""The outbox as who delivers works on it: what is due is claimed, tried, and deleted, put off or set aside.

A session's events are told to a subscriber in their order, so only the first of them that waits, the head, can be
claimed. A claim is a lease: until it is over nobody else claims the entry, and a process that dies loses nothing but
that time. Its instant is its proof: who finds another one in the row has lost it.

Whatever is found due behind a head is parked, so that nobody looks at it again until the head is gone; then the next
one is called. However many wait, a claim looks at no more than it asks for. That the head is not gone already is
certain only under its lock: without it, the next one might be parked after it was called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

from django.db import OperationalError, connections
from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from . import dialects, log
from .models import OutboxEntry

#: How long a claimed entry is left to who claimed it.
LEASE = timedelta(seconds=60)

#: How long what waits behind a head is not looked at, unless it is called.
PARKED = timedelta(hours=6)

#: What is said of an entry whose last attempts ended with their process.
PROCESS_LOST = "ProcessLost"

#: What PostgreSQL says to the victim of a deadlock, and how often such a transaction is tried.
DEADLOCK, TRIES = "40P01", 3


@dataclass(frozen=True, slots=True)
class Clock:
    """The instant that decides, read once and gone on from there."""

    began: datetime
    _at: float = field(default_factory=monotonic)

    def now(self) -> datetime:
        """Return the instant."""
        return self.began + timedelta(seconds=monotonic() - self._at)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim has found.

    Attributes:
        entries: leased, to be told.
        exhausted: tried as often as may be, by processes that were lost; set aside.
        parked: how many were found behind them.
        clock: from the instant of the claim.
    """

    entries: list[OutboxEntry]
    exhausted: list[OutboxEntry]
    parked: int
    clock: Clock


def due_subscribers(using: str) -> list[str]:
    """Return the subscribers for whom something is due."""
    names = subscribers(using)
    now = dialects.now(using) if names else None
    return [name for name in names if now is not None and _due(using, name, now).exists()]


def subscribers(using: str) -> list[str]:
    """Return the subscribers for whom something waits, each found by one look at an index."""
    found: list[str] = []
    last = ""
    while (name := _next_subscriber(using, last)) is not None:
        found.append(name)
        last = name
    return found


def _next_subscriber(using: str, last: str) -> str | None:
    names = _waiting(using).filter(subscriber__gt=last).order_by("subscriber").values_list("subscriber", flat=True)
    return names.first()


def claim(using: str, subscriber: str, size: int, *, attempts: int) -> Claim:
    """Lease heads that are due, those first that have been for longest; who is locked by another is left out.

    Args:
        using: the database.
        subscriber: whose.
        size: entries to look at.
        attempts: how often each may be tried.
    """
    with log.begin(using):
        clock = Clock(dialects.now(using))
        before = _waiting(using).filter(
            session_id=OuterRef("session_id"), subscriber=subscriber, sequence__lt=OuterRef("sequence")
        )
        # In the index's order, of which it reads one row then: PostgreSQL knows no order behind an IS NULL.
        first = Subquery(before.order_by("set_aside_at", "sequence").values("pk")[:1])
        due = _due(using, subscriber, clock.began).annotate(head=first).order_by("next_attempt_at")
        found: list[Any] = list(due.select_for_update(of=("self",), skip_locked=True)[:size])
        heads = [entry for entry in found if entry.head is None]
        parked = _park(using, [entry for entry in found if entry.head is not None], clock.began)
        exhausted = [entry for entry in heads if entry.attempts >= attempts]
        for entry in exhausted:
            entry.error = entry.error or PROCESS_LOST
            set_aside(using, [entry], entry.error, clock.began)
        entries = [entry for entry in heads if entry.attempts < attempts]
        _move(using, entries, clock.began + LEASE)
    return Claim(entries, exhausted, parked, clock)


def _park(using: str, entries: Sequence[Any], now: datetime) -> int:
    """Put out of the way what waits behind a head that is still there."""
    if not entries:
        return 0
    heads = _waiting(using).filter(pk__in={entry.head for entry in entries})
    there = set(heads.select_for_update(of=("self",), skip_locked=True).values_list("pk", flat=True))
    behind = [entry for entry in entries if entry.head in there]
    _move(using, behind, now + PARKED)
    return len(behind)


def _move(using: str, entries: Sequence[OutboxEntry], at: datetime) -> None:
    if entries:
        _rows(using).filter(pk__in=[entry.pk for entry in entries]).update(next_attempt_at=at)
    for entry in entries:
        entry.next_attempt_at = at


def begin(using: str, entry: OutboxEntry, now: datetime) -> bool:
    """Count an attempt and renew the lease; False where the entry is not the caller's any more."""
    lease = now + LEASE
    if not _mine(using, entry).update(attempts=F("attempts") + 1, next_attempt_at=lease):
        return False
    entry.attempts, entry.next_attempt_at = entry.attempts + 1, lease
    return True


def put_off(using: str, entry: OutboxEntry, at: datetime, error: str) -> None:
    """Have an entry tried again at an instant; nothing if it is not the caller's any more."""
    _mine(using, entry).update(next_attempt_at=at, error=error)


def give_back(using: str, entries: Sequence[OutboxEntry], now: datetime) -> None:
    """Let others have what was claimed and not begun."""
    if not entries:
        return
    lease = entries[0].next_attempt_at
    with log.begin(using):
        _waiting(using).filter(pk__in=_locked(using, entries), next_attempt_at=lease).update(next_attempt_at=now)


def settle(using: str, entries: Sequence[OutboxEntry], now: datetime) -> None:
    """Delete what was told, and call what waits behind it."""
    if entries:
        _insist(using, partial(_settle, using, entries, now))


def _settle(using: str, entries: Sequence[OutboxEntry], now: datetime) -> None:
    with log.begin(using):
        _rows(using).filter(pk__in=_locked(using, entries)).delete()
        _call_next(using, entries, now)


def set_aside(using: str, entries: Sequence[OutboxEntry], error: str, now: datetime) -> None:
    """Keep entries that are not to be tried any more, and call what waits behind them."""
    _insist(using, partial(_set_aside, using, entries, error, now))


def _set_aside(using: str, entries: Sequence[OutboxEntry], error: str, now: datetime) -> None:
    with log.begin(using):
        _waiting(using).filter(pk__in=_locked(using, entries)).update(set_aside_at=now, error=error)
        _call_next(using, entries, now)


def _locked(using: str, entries: Sequence[OutboxEntry]) -> list[int]:
    """Return the keys of those that are there, locked in the order of their keys, as everybody does who locks many."""
    rows = _rows(using).filter(pk__in=[entry.pk for entry in entries]).order_by("pk")
    return list(rows.select_for_update(of=("self",)).values_list("pk", flat=True))


def _insist(using: str, work: Callable[[], None]) -> None:
    """Do a transaction again that was the victim of a deadlock: whole trees are deleted in an order of their own."""
    for left in reversed(range(TRIES)):
        try:
            work()
        except OperationalError as error:
            is_deadlock = getattr(error.__cause__, "sqlstate", None) == DEADLOCK
            if not is_deadlock or not left or connections[using].in_atomic_block:
                raise
        else:
            break


def try_again(using: str, keys: Collection[int]) -> list[int]:
    """Have entries tried now, as if for the first time; return which.

    Those that are tried within a lease anyway, or at this moment, are left as they are.
    """
    with log.begin(using):
        now = dialects.now(using)
        is_far = Q(set_aside_at__isnull=False) | Q(next_attempt_at__gt=now + LEASE)
        far = _rows(using).filter(is_far, pk__in=keys).order_by("pk").select_for_update(of=("self",))
        found = [entry.pk for entry in far]
        anew = {"attempts": 0, "next_attempt_at": now, "error": "", "set_aside_at": None}
        _rows(using).filter(pk__in=found).update(**anew)
        if found:
            log.tell_outbox(using)
    return found


def drop(using: str, keys: Collection[int]) -> list[int]:
    """Delete entries, so that their subscriber is not told; return which."""
    with log.begin(using):
        entries = list(_rows(using).filter(pk__in=keys))
        settle(using, entries, dialects.now(using))
    return [entry.pk for entry in entries]


def _call_next(using: str, entries: Sequence[OutboxEntry], now: datetime) -> None:
    """Make the heads of these entries' sessions due where they are parked; a lease is shorter than that."""
    for subscriber in {entry.subscriber for entry in entries}:
        sessions = [entry.session_id for entry in entries if entry.subscriber == subscriber]
        among = dialects.of(using).among.format(column="s.id", name="sessions")
        given = {
            "sessions": dialects.integers(using, sessions),
            "subscriber": subscriber,
            "now": dialects.instant(connections[using], now),
            "lease": dialects.instant(connections[using], now + LEASE),
        }
        with connections[using].cursor() as cursor:
            cursor.execute(_CALL.format(among=among), given)


_CALL = (
    "UPDATE chat_sessions_outboxentry SET next_attempt_at = %(now)s WHERE set_aside_at IS NULL"
    " AND next_attempt_at > %(lease)s AND id IN (SELECT (SELECT o.id FROM chat_sessions_outboxentry o"
    " WHERE o.session_id = s.id AND o.subscriber = %(subscriber)s AND o.set_aside_at IS NULL"
    " ORDER BY o.set_aside_at, o.sequence LIMIT 1) FROM chat_sessions_chatsession s WHERE {among})"
)


def _rows(using: str) -> QuerySet[OutboxEntry]:
    return OutboxEntry.objects.using(using)


def _waiting(using: str) -> QuerySet[OutboxEntry]:
    return _rows(using).filter(set_aside_at__isnull=True).order_by()


def _due(using: str, subscriber: str, now: datetime) -> QuerySet[OutboxEntry]:
    return _waiting(using).filter(subscriber=subscriber, next_attempt_at__lte=now)


def _mine(using: str, entry: OutboxEntry) -> QuerySet[OutboxEntry]:
    return _waiting(using).filter(pk=entry.pk, next_attempt_at=entry.next_attempt_at)
