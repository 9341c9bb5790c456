"""Figures of one session or a tree of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import Count, F, Min, Q, Sum

from .. import dialects
from ..choices import LIVE, MESSAGE_TYPES, RetentionAction, Role, Status
from ..models import ChatSession, OutboxEntry, Run, SessionEvent
from . import retention


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a session, or of a tree.

    Attributes:
        duration_seconds: from opening to the end, or until now; of a tree, its root's.
        messages_by_role: current messages by role.
        events_by_type: all events by type.
        message_count, token_count, renewal_count: as on the sessions, summed.
        first_reply_seconds: from the first question to the first answer; None without one.
        runs: answers by status.
        usage: what the answers took: ``input_tokens``, ``output_tokens``, and ``cost`` as a decimal number in text,
            None where no agent has a price.
        sessions: how many sessions are counted.
    """

    duration_seconds: float
    messages_by_role: dict[str, int]
    events_by_type: dict[str, int]
    message_count: int
    token_count: int
    renewal_count: int
    first_reply_seconds: float | None
    runs: dict[str, int]
    usage: dict[str, Any]
    sessions: int


def final(session: ChatSession, now: datetime) -> dict[str, Any]:
    """Return the figures that the event of a session's end keeps."""
    return {
        "duration_seconds": round(max(0.0, (now - session.created_at).total_seconds()), 3),
        "message_count": session.message_count,
        "token_count": session.token_count,
        "renewal_count": session.renewal_count,
    }


def summarize(session: ChatSession, *, tree: bool = False) -> Summary:
    """Count a session, or with ``tree`` it and all its descendants; the number of queries does not grow with them."""
    using = session._state.db or "default"
    sessions = ChatSession.objects.using(using).order_by()
    sessions = sessions.tree(session) if tree else sessions.filter(pk=session.pk)
    ids = list(sessions.values_list("pk", flat=True))
    totals = sessions.aggregate(
        messages=Sum("message_count"), tokens=Sum("token_count"), renewals=Sum("renewal_count"), number=Count("pk")
    )
    events = SessionEvent.objects.using(using).filter(session__in=ids).order_by()
    current = events.current().values_list("role")
    runs = Run.objects.using(using).filter(session__in=ids).order_by().values("status")
    by_status = list(
        runs.annotate(number=Count("pk"), given=Sum("input_tokens"), said=Sum("output_tokens"), paid=Sum("cost"))
    )
    return Summary(
        duration_seconds=duration(session, dialects.now(using)),
        messages_by_role=dict(current.annotate(number=Count("pk"))),
        events_by_type=dict(events.values_list("type").annotate(number=Count("pk"))),
        message_count=totals["messages"] or 0,
        token_count=totals["tokens"] or 0,
        renewal_count=totals["renewals"] or 0,
        first_reply_seconds=_first_reply(session, using),
        runs={row["status"]: row["number"] for row in by_status},
        usage=_usage(by_status),
        sessions=totals["number"],
    )


def _usage(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    paid = [row["paid"] for row in rows if row["paid"] is not None]
    return {
        "input_tokens": sum(row["given"] or 0 for row in rows),
        "output_tokens": sum(row["said"] or 0 for row in rows),
        "cost": str(sum(paid)) if paid else None,
    }


def duration(session: ChatSession, now: datetime) -> float:
    """Return how long a session has lasted, in seconds; one that is over has stopped counting."""
    over = session.ended_at
    if over is None and session.status_at(now) == Status.EXPIRED:
        over = session.expires_at
    return round(max(0.0, ((over or now) - session.created_at).total_seconds()), 3)


def _first_reply(session: ChatSession, using: str) -> float | None:
    events = SessionEvent.objects.using(using).filter(session=session, type__in=MESSAGE_TYPES).order_by("sequence")
    asked = events.filter(role=Role.USER).values_list("sequence", "created_at").first()
    if asked is None:
        return None
    answered = events.filter(role=Role.ASSISTANT, sequence__gt=asked[0]).values_list("created_at", flat=True).first()
    return None if answered is None else round(max(0.0, (answered - asked[1]).total_seconds()), 3)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of all sessions, for operators.

    Attributes:
        sessions: by status as a reader sees it.
        live: sessions that take messages.
        near_deadline_seconds: until the next deadline; None without a live session.
        due: sessions past their deadline that no sweep has recorded yet.
        archivable, purgeable: sessions that the next sweeps archive and delete.
        undelivered: events of which subscribers have yet to be told, ``pending``, and those that were ``set_aside``.
        messages, tokens: of the sessions that are there.
        runs: answers by status.
    """

    sessions: dict[str, int]
    live: int
    near_deadline_seconds: float | None
    due: int
    archivable: int
    purgeable: int
    undelivered: dict[str, int]
    messages: int
    tokens: int
    runs: dict[str, int]


def measure(*, using: str = "default") -> Metrics:
    """Count everything, for staff: reads the whole table of sessions once."""
    now = dialects.now(using)
    sessions = ChatSession.objects.using(using).order_by()
    by_status = dict(sessions.values_list("status").annotate(number=Count("pk")))
    overdue = dict(sessions.due_for_expiry(now).values_list("status").annotate(number=Count("pk")))
    due = sum(overdue.values())
    for status, number in overdue.items():
        by_status[status] -= number
    by_status[Status.EXPIRED] = by_status.get(Status.EXPIRED, 0) + due
    totals = sessions.aggregate(messages=Sum(F("message_count")), tokens=Sum(F("token_count")))
    nearest = sessions.live(now).aggregate(nearest=Min("expires_at"))["nearest"]
    runs = Run.objects.using(using).order_by().values_list("status").annotate(number=Count("pk"))
    retained = retention.count(using, now)
    return Metrics(
        sessions={str(status): by_status.get(status, 0) for status in Status},
        live=sum(by_status.get(status, 0) for status in LIVE),
        near_deadline_seconds=None if nearest is None else round((nearest - now).total_seconds(), 3),
        due=due,
        archivable=retained[RetentionAction.ARCHIVE],
        purgeable=retained[RetentionAction.DELETE],
        undelivered=OutboxEntry.objects.using(using).aggregate(
            pending=Count("pk", filter=Q(set_aside_at__isnull=True)),
            set_aside=Count("pk", filter=Q(set_aside_at__isnull=False)),
        ),
        messages=totals["messages"] or 0,
        tokens=totals["tokens"] or 0,
        runs=dict(runs),
    )


# Thin twins for async code; the synchronous functions are the truth.
asummarize = sync_to_async(summarize)
ameasure = sync_to_async(measure)
