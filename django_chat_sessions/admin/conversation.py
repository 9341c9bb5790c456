"""A conversation as people had it, in pages, and the log behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db.models import Exists, OuterRef, Subquery

from ..choices import EventType, Role
from ..models import ChatSession, SessionEvent
from ..operations import messages, writing
from .display import event_label, pretty, summary, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from ..querysets import SessionEventQuerySet

PAGE = 100

#: Characters of one event's data in a timeline; the event's own page has the rest.
DATA_LENGTH = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of many. ``older`` and ``newer`` are the sequences before and after which there is more."""

    items: tuple[T, ...]
    older: int | None
    newer: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """What a message has besides its text. ``href`` is set where following it is safe."""

    type: str
    name: str
    note: str
    href: str
    json: str


@dataclass(frozen=True, slots=True)
class Bubble:
    """A message, or the place of one that was withdrawn."""

    sequence: int
    role: str
    role_label: str
    content: str
    created_at: datetime | None
    edited_at: datetime | None
    withdrawn_at: datetime | None
    is_gone: bool
    is_withdrawn: bool
    parts: tuple[Part, ...]
    metadata: str
    external_id: str
    token_count: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """One event of the log."""

    key: int
    sequence: int
    type: str
    label: str
    kind: str
    role: str
    created_at: datetime
    text: str
    brief: str
    data: str


def conversation(session: ChatSession, *, before: int | None = None, after: int | None = None) -> Page[Bubble]:
    """Return a page of a conversation, oldest first: the latest, or what is next to a sequence.

    A fixed number of queries, each along an index: the current messages, then the withdrawn ones between them.
    """
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session)
    found = _current(events, before, after)
    found += _withdrawn(events, *_span(found, before, after))
    forward = before is None and after is not None
    found.sort(key=lambda event: event.position or 0, reverse=not forward)
    chosen = sorted(found[:PAGE], key=lambda event: event.position or 0)
    more = len(found) > PAGE
    slots = events.filter(type=EventType.MESSAGE).order_by()
    if forward:
        is_older, is_newer = slots.filter(sequence__lte=after).exists(), more
    else:
        is_older, is_newer = more, before is not None and slots.filter(sequence__gte=before).exists()
    first = (chosen[0].position or 0) if chosen else (after or 0) + 1
    last = (chosen[-1].position or 0) if chosen else (before or 1) - 1
    items = tuple(_bubble(event) for event in chosen)
    return Page(items, first if is_older else None, last if is_newer else None)


def _current(events: SessionEventQuerySet, before: int | None, after: int | None) -> list[SessionEvent]:
    current = events.current()
    if before is not None:
        return list(current.filter(position__lt=before).order_by("-position")[: PAGE + 1])
    if after is not None:
        return list(current.filter(position__gt=after).order_by("position")[: PAGE + 1])
    return list(current.order_by("-position")[: PAGE + 1])


def _span(found: list[SessionEvent], before: int | None, after: int | None) -> tuple[int | None, int | None, str]:
    """Return between which sequences, exclusive, withdrawn messages belong to this page, and their order."""
    end = found[-1].position if len(found) > PAGE else None
    if before is None and after is not None:
        return after, end, "sequence"
    return end, before, "-sequence"


def _withdrawn(events: SessionEventQuerySet, above: int | None, below: int | None, order: str) -> list[SessionEvent]:
    """Find messages that have no current version, at the places where they stood."""
    same_place = events.current().filter(position=OuterRef("position")).order_by()
    withdrawal = events.filter(sequence=OuterRef("superseded_by"), type=EventType.MESSAGE_DELETED)
    slots = events.filter(type=EventType.MESSAGE, superseded_by__isnull=False)
    slots = slots.filter(~Exists(same_place))
    if above is not None:
        slots = slots.filter(sequence__gt=above)
    if below is not None:
        slots = slots.filter(sequence__lt=below)
    when = Subquery(withdrawal.order_by().values("created_at")[:1])
    return list(slots.annotate(withdrawn_at=when).order_by(order)[: PAGE + 1])


def _bubble(event: SessionEvent) -> Bubble:
    message = messages.read(event)
    is_withdrawn = event.superseded_by is not None
    return Bubble(
        sequence=event.position or event.sequence,
        role=message.role,
        role_label=str(Role(message.role).label) if message.role in Role.values else visible(message.role),
        content=visible(message.content),
        created_at=message.created_at,
        edited_at=message.edited_at,
        withdrawn_at=getattr(event, "withdrawn_at", None),
        is_gone=is_withdrawn or bool(event.data.get("erased")),
        is_withdrawn=is_withdrawn,
        parts=tuple(_parts(message.parts)),
        metadata=pretty(dict(message.metadata)) if message.metadata else "",
        external_id=visible(message.external_id or ""),
        token_count=message.token_count,
    )


def _parts(parts: Any) -> Iterator[Part]:
    """Yield what the message's text does not say already."""
    for part in parts:
        kind = str(part.get("type", "")) if isinstance(part, dict) else ""
        if kind == "file":
            yield _file(part)
        elif kind != "text":
            yield Part(visible(kind), "", "", "", pretty(part))


def _file(part: Mapping[str, Any]) -> Part:
    url = str(part.get("url", ""))
    # Only what a browser fetches as a document: a javascript: or data: address would run in the admin's own origin.
    is_safe = url.startswith(("https://", "http://")) and visible(url) == url
    name = str(part.get("name") or url)
    return Part("file", visible(name), visible(part.get("media_type") or ""), url if is_safe else "", "")


def timeline(session: ChatSession, *, before: int | None = None) -> Page[Line]:
    """Return a page of a session's log, newest first. Sequences have no gaps, so the page is a range of them."""
    top = min(session.last_sequence, session.last_sequence if before is None else before - 1)
    bottom = max(top - PAGE, 0)
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session)
    page = events.filter(sequence__gt=bottom, sequence__lte=top).order_by("-sequence")
    newer = top + PAGE + 1 if top < session.last_sequence else None
    return Page(tuple(_line(event) for event in page), bottom + 1 if bottom else None, newer)


def _line(event: SessionEvent) -> Line:
    data = pretty(event.data) if event.data else ""
    return Line(
        key=event.pk,
        sequence=event.sequence,
        type=visible(event.type),
        label=event_label(event.type),
        kind=event.type.partition(".")[0] if event.type in EventType.values else "app",
        role=event.role,
        created_at=event.created_at,
        text=summary(event.content),
        brief=summary(data),
        data=data if len(data) <= DATA_LENGTH else f"{data[:DATA_LENGTH]}…",
    )
