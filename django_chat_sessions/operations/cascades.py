"""What the end of a session does to its descendants: in one transaction up to a bound, batch by batch beyond it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial

from .. import batches, conf
from ..batches import Due
from ..models import ChatSession
from . import endings
from .sweeping import Budget, in_batches


def end_below(using: str, parents: Sequence[int], now: datetime, *, waits: bool = True) -> int:
    """End the live descendants of sessions that are over, whose rows the caller has locked; return how many.

    Of more than ``CASCADE_BOUND`` the rest stays for recovery, which finds their parents marked.

    Args:
        using: the database.
        parents: the sessions that are over.
        now: when.
        waits: whether to wait for descendants that somebody else has locked; if not, they stay for recovery, too.
    """
    left = bound = conf.get().CASCADE_BOUND
    # Again until there are none: who was waited for may have opened one more.
    while left and (below := batches.live_below(using, parents, left, waits=waits)):
        _end(using, below, now)
        left -= len(below)
    if not left or not waits:
        batches.mark(using, parents)
    return bound - left


def expire_below(using: str, parents: Sequence[int], now: datetime) -> int:
    """End the live descendants of locked sessions that have expired, where ``EXPIRE_CHILDREN`` says so."""
    if not parents or not conf.get().EXPIRE_CHILDREN:
        return 0
    # Two sweeps that each hold sessions of one tree, in the order of their deadlines, would wait in a circle.
    return end_below(using, parents, now, waits=False)


def _end(using: str, ids: Sequence[int], now: datetime) -> None:
    """End locked sessions, and record the expiry of those whose deadline had passed before."""
    rows = ChatSession.objects.using(using).filter(pk__in=ids, expires_at__lte=now)
    expired = {session.pk: session for session in rows.order_by("pk")}
    endings.record_ends(using, [pk for pk in ids if pk not in expired], now)
    for session in expired.values():
        endings.record_expiry(session, now)


def due(using: str, now: datetime) -> list[Due]:
    """Return the sessions whose end has yet to reach some of their live descendants."""
    return [Due(batches.flag(using, "s.is_cascading", is_set=True), "s.settled_at")]


def go_on(using: str) -> Iterator[int]:
    """Yield, after each transaction, how many orphaned descendants it ended, until there are none."""
    is_over = False
    while not is_over:
        is_over = True
        for ended in in_batches(using, Budget(None, 1), lambda now: due(using, now)[0], partial(_go_on, using)):
            if ended:
                is_over = False
                yield ended


def _go_on(using: str, parents: list[int], now: datetime) -> int:
    """End what is below a session, as far as the bound goes."""
    # The mark comes back where something is left.
    ChatSession.objects.using(using).filter(pk__in=parents).update(is_cascading=False)
    # Nobody who holds a descendant keeps recovery from the answers that are lost.
    return end_below(using, parents, now, waits=False)
