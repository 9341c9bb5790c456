"""The proof that a row is what its log says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from asgiref.sync import sync_to_async

from .. import dialects, log
from ..choices import LIVE, MESSAGE_TYPES, EventType
from ..exceptions import IllegalTransition
from ..models import ChatSession, SessionEvent
from ..rules import lifecycle
from ..rules import merge as patches
from . import writing


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a row says and its log does not.

    Attributes:
        session: the public id.
        field: what differs.
        row: what the row says.
        log: what the log says.
    """

    session: str
    field: str
    row: Any
    log: Any


def verify(session: ChatSession) -> list[Difference]:
    """Fold a session's log and return where the row differs from it; empty is proof.

    The row and its log are read under a lock, so that a writer meanwhile makes no difference.
    """
    using = writing.alias(session)
    with log.begin(using):
        row = log.lock(session)
        events = list(SessionEvent.objects.using(using).filter(session=row).defer("content").order_by("sequence"))
        now = dialects.now(using)
    return [Difference(str(row.uuid), *found) for found in (*_gaps(events), *_folded(row, events), *_odd(row, now))]


def _gaps(events: list[SessionEvent]) -> Iterator[tuple[str, Any, Any]]:
    for number, event in enumerate(events, 1):
        if event.sequence != number:
            yield "sequence", event.sequence, number
            return
    current = [event.position for event in events if event.type in MESSAGE_TYPES and not event.superseded_by]
    for event in events:
        if event.superseded_by and not _replaces(events[event.superseded_by - 1 :][:1], event):
            yield "superseded_by", event.superseded_by, event.sequence
        if event.type == EventType.MESSAGE_DELETED and event.position in current:
            yield "withdrawn", event.position, event.sequence
    types = [event.type for event in events]
    said = types.count(EventType.MESSAGE) - types.count(EventType.MESSAGE_DELETED)
    said -= sum(len(event.data.get("supersedes", ())) for event in events if event.type == EventType.RUN_STARTED)
    if len(current) != said:
        yield "conversation", len(current), said


def _replaces(later: list[SessionEvent], event: SessionEvent) -> bool:
    return any(event.sequence < other.sequence == event.superseded_by and _concerns(other, event) for other in later)


def _concerns(other: SessionEvent, event: SessionEvent) -> bool:
    """Tell whether an event may replace a message, or set aside a summary, which covers all places to its own."""
    started = other.type == EventType.RUN_STARTED
    places = other.data.get("supersedes", ()) if started else (other.position or 0,)
    if event.type == EventType.CONTEXT_COMPACTED:
        return (started or other.type in _CHANGING) and any(place <= (event.position or 0) for place in places)
    return (started or other.type in _REPLACING) and event.position in places


_REPLACING = (EventType.MESSAGE_EDITED, EventType.MESSAGE_DELETED)
_CHANGING = (EventType.MESSAGE, *_REPLACING)


def _folded(row: ChatSession, events: list[SessionEvent]) -> Iterator[tuple[str, Any, Any]]:
    try:
        said = lifecycle.fold(lifecycle.Event(event.type, event.data, event.token_count) for event in events)
    except (IllegalTransition, AttributeError, KeyError, TypeError, ValueError) as error:
        yield "log", None, str(error)
        return
    written = log.projection_of(row)
    for field in fields(said):
        left, right = getattr(written, field.name), getattr(said, field.name)
        if not patches.same(left, right):
            yield field.name, left, right


def _odd(row: ChatSession, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Check for plausibility what no event tells."""
    if not row.created_at <= row.last_activity_at:
        yield "last_activity_at", row.last_activity_at, row.created_at
    if not row.created_at <= row.renewed_at <= max(row.last_activity_at, now):
        yield "renewed_at", row.renewed_at, row.created_at
    if row.expires_at <= row.created_at:
        yield "expires_at", row.expires_at, row.created_at
    if (row.status in LIVE) != (row.ended_at is None):
        yield "ended_at", row.ended_at, row.status


# Thin twins for async code; the synchronous functions are the truth.
averify = sync_to_async(verify)
