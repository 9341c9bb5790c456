"""The only code that writes events. A write is one transaction: a session's row and its events change together.

There are two ways in. ``append`` adds messages and application events to a live session in one statement on
PostgreSQL (two on SQLite) and answers None where something stands against it. ``write`` works on a row that the
caller has locked, computes the row anew by folding the new events onto it, and so can record anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.models import Q
from django.dispatch import Signal
from django.utils import timezone

from . import agents, conf, dialects, notifications, statements
from .choices import MESSAGE_TYPES, EventType
from .exceptions import SessionNotFound
from .fields import hide
from .models import ChatSession, OutboxEntry, SessionEvent
from .rules import lifecycle
from .rules.concurrency import ANY, Client
from .rules.merge import same

#: A statement's events; more are inserted in several statements of one transaction.
BATCH = 200

#: Is sent when events that subscribers are to be told of have been committed. Argument: ``using``.
outbox_filled = Signal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event to be written.

    Attributes:
        type: an ``EventType`` or a name under ``app.``.
        data: its JSON object.
        role, content, external_id, token_count: of a message.
        position: the place in the conversation, where that is not the event's own sequence.
        created_at: an instant to keep, for copies; None is now.
    """

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    role: str = ""
    content: str = ""
    external_id: str | None = None
    token_count: int | None = None
    position: int | None = None
    created_at: datetime | None = None

    @property
    def is_message(self) -> bool:
        """Whether it is a message of its own place."""
        return self.type == EventType.MESSAGE

    def place(self, sequence: int) -> int | None:
        """Return its place in the conversation, if it has one."""
        return self.position or (sequence if self.type in MESSAGE_TYPES else None)


@contextmanager
def begin(using: str) -> Iterator[None]:
    """Open a transaction whose first statement writes, or a savepoint in the caller's own.

    On SQLite a transaction that reads first and writes later fails with "database is locked" where another wrote in
    between (SQLITE_BUSY_SNAPSHOT). An UPDATE that matches no row takes the write lock and waits for it.
    """
    connection = connections[using]
    outermost = not connection.in_atomic_block
    with transaction.atomic(using=using):
        if outermost and not dialects.is_postgresql(using):
            with connection.cursor() as cursor:
                cursor.execute("UPDATE chat_sessions_chatsession SET id = id WHERE 0")
        yield


def lock(session: ChatSession) -> ChatSession:
    """Return the session's row as it is now, locked until the transaction ends.

    Raises:
        SessionNotFound: it is gone.
    """
    using = session._state.db or "default"
    rows = ChatSession.objects.using(using).filter(pk=session.pk).order_by()
    if dialects.is_postgresql(using):
        rows = rows.select_for_update(of=("self",))
    found = rows.first()
    if found is None:
        raise SessionNotFound
    return found


def append(
    session: ChatSession,
    entries: Sequence[Entry],
    *,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> bool:
    """Append messages or application events to a live session, adjacent, and note the activity.

    Without any, the activity alone.

    The session's counters and instants are refreshed in place.

    Returns:
        False where nothing was written: the session is over, has been idle long enough to come back, is full, is
        held by another client or has moved on. The caller finds out which under a lock.

    Raises:
        django.db.IntegrityError: an ``external_id`` was used before; nothing was written.
    """
    using = session._state.db or "default"
    settings = conf.get()
    describe = statements.shape if len(entries) == 1 else statements.anything
    told = [(len(entries) - n, name) for n, entry in enumerate(entries, 1) for name in settings.subscribers(entry.type)]
    statement = statements.append(
        using,
        agents.base_policy(session.agent),
        tuple(map(describe, entries)),
        resume_after=settings.resume_after,
        limit=settings.MAX_MESSAGES,
        bound=client is not ANY,
        expected=expected_sequence is not None,
        alone=not connections[using].in_atomic_block,
    )
    parameters = {
        "id": session.pk,
        "tokens": sum(entry.token_count or 0 for entry in entries),
        "client": hide(client) if isinstance(client, str) else None,
        "expected": expected_sequence,
    }
    row = statement.run(using, parameters, entries, told)
    if row is None:
        return False
    for name, value in zip(statements.MOVED, row, strict=True):
        setattr(session, name, value)
    if entries:
        tell(using, session)
    if told:
        tell_outbox(using)
    return True


def write(session: ChatSession, entries: Sequence[Entry], *, now: datetime, **columns: Any) -> None:
    """Record events of a session whose row the caller has locked, and what else changes in the row.

    Args:
        session: the locked row; refreshed in place.
        entries: the events, in order; the row's folded columns follow from them.
        now: the instant of the events that bring none.
        columns: columns of the row that no event tells, such as ``expires_at``.

    Raises:
        IllegalTransition: an event moves the session where it can't go.
        django.db.IntegrityError: an ``external_id`` was used before.
    """
    before = projection_of(session)
    events = (lifecycle.Event(entry.type, entry.data, entry.token_count) for entry in entries)
    after = lifecycle.fold(events, before)
    changed = {**_columns(before, after), **columns}
    for name, value in changed.items():
        setattr(session, name, value)
    using = session._state.db or "default"
    ChatSession.objects.using(using).filter(pk=session.pk).update(**changed)
    insert(using, ((session.pk, before.last_sequence + n, entry) for n, entry in enumerate(entries, 1)), now=now)
    if entries:
        tell(using, session)


def create(session: ChatSession, entries: Sequence[Entry], *, using: str) -> None:
    """Insert a new session and its first events, the first of which is ``session.created``."""
    events = (lifecycle.Event(entry.type, entry.data, entry.token_count) for entry in entries)
    for name, value in _columns(lifecycle.Projection(), lifecycle.fold(events)).items():
        setattr(session, name, value)
    session.save(using=using, force_insert=True)
    insert(using, ((session.pk, n, entry) for n, entry in enumerate(entries, 1)), now=session.created_at)


def tell(using: str, session: ChatSession) -> None:
    """Wake who listens to a session, once the transaction has committed."""
    if connections[using].in_atomic_block:
        transaction.on_commit(partial(notifications.tell, using, session.uuid), using=using)
    else:
        notifications.tell(using, session.uuid)


def tell_outbox(using: str) -> None:
    """Say that something waits in the outbox, once the transaction has committed."""
    if connections[using].in_atomic_block:
        transaction.on_commit(partial(outbox_filled.send_robust, sender=OutboxEntry, using=using), using=using)
    else:
        outbox_filled.send_robust(sender=OutboxEntry, using=using)


def insert(using: str, rows: Iterable[tuple[int, int, Entry]], *, now: datetime) -> None:
    """Insert events whose sessions' rows, locked by the caller, already count them, and whom to tell of them."""
    rows = list(rows)
    events = [
        SessionEvent(
            session_id=session_id,
            sequence=sequence,
            type=entry.type,
            role=entry.role,
            content=entry.content,
            data=dict(entry.data),
            external_id=entry.external_id,
            position=entry.place(sequence),
            token_count=entry.token_count,
            created_at=entry.created_at or now,
        )
        for session_id, sequence, entry in rows
    ]
    SessionEvent._base_manager.using(using).bulk_create(events, batch_size=BATCH)
    _post(using, rows, now=now)


def _post(using: str, rows: Sequence[tuple[int, int, Entry]], *, now: datetime) -> None:
    subscribers = conf.get().subscribers
    # Now at the latest: an event may bear the instant of a clock that was set back since.
    at = min(now, timezone.now())
    waiting = [
        OutboxEntry(session_id=session_id, sequence=sequence, subscriber=name, next_attempt_at=at, created_at=at)
        for session_id, sequence, entry in rows
        for name in subscribers(entry.type)
    ]
    if waiting:
        OutboxEntry.objects.using(using).bulk_create(waiting, batch_size=BATCH)
        tell_outbox(using)


def supersede(session: ChatSession, event: SessionEvent, *, by: int) -> None:
    """Set the one pointer of an event that may be set, once: what replaced it. With a message go its summaries."""
    using = session._state.db or "default"
    events = SessionEvent._base_manager.using(using).filter(session=session)
    events.filter(sequence=event.sequence, superseded_by__isnull=True).update(superseded_by=by)
    outdate(session, event.position or 0, by=by)


def outdate(session: ChatSession, position: int, *, by: int) -> None:
    """Set aside the summaries that cover a place in the conversation which reads otherwise from now on."""
    using = session._state.db or "default"
    made = SessionEvent._base_manager.using(using).filter(session=session, type=EventType.CONTEXT_COMPACTED)
    made.filter(position__gte=position, superseded_by__isnull=True).update(superseded_by=by)


def erase(session: ChatSession, position: int) -> None:
    """Remove the content of every version of one message, and of every summary of it; the skeleton stays.

    The log's one private door.
    """
    using = session._state.db or "default"
    with erasing(using):
        versions = Q(position=position, type__in=MESSAGE_TYPES)
        summaries = Q(position__gte=position, type=EventType.CONTEXT_COMPACTED)
        events = SessionEvent._base_manager.using(using).filter(versions | summaries, session=session)
        events.update(content="", data={"erased": True})


@contextmanager
def erasing(using: str) -> Iterator[None]:
    """Let the content of events be changed, in this transaction and as long as this lasts."""
    if not dialects.is_postgresql(using):
        yield
        return
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT set_config('chat_sessions.erasing', 'on', true)")
        yield
        cursor.execute("SELECT set_config('chat_sessions.erasing', '', true)")


def projection_of(session: ChatSession) -> lifecycle.Projection:
    """Return what the row says where the log has its own word."""
    return lifecycle.Projection(
        status=session.status,
        owner=None if session.owner_id is None else str(session.owner_id),
        timeout=session.overrides.as_dict(),
        ended_at=None if session.ended_at is None else iso(session.ended_at),
        **{name: getattr(session, name) for name in _PLAIN},
    )


_PLAIN = (
    "client", "title", "tags", "metadata", "state", "last_sequence", "message_count", "token_count",
    "renewal_count", "end_reason", "is_held",
)  # fmt: skip

_TIMEOUT = {
    "mode": "timeout_mode",
    "timeout_minutes": "timeout_minutes",
    "max_duration_minutes": "max_duration_minutes",
    "warning_threshold_minutes": "warning_threshold_minutes",
    "auto_renew": "auto_renew",
}


def _columns(before: lifecycle.Projection, after: lifecycle.Projection) -> dict[str, Any]:
    names = ("status", *_PLAIN)
    changed = {name: getattr(after, name) for name in names if not same(getattr(after, name), getattr(before, name))}
    if after.timeout != before.timeout:
        changed |= {column: after.timeout.get(name) for name, column in _TIMEOUT.items()}
    if after.ended_at != before.ended_at:
        changed["ended_at"] = changed["settled_at"] = after.ended_at and datetime.fromisoformat(after.ended_at)
    if after.owner != before.owner:
        changed["owner_id"] = after.owner
    return changed


def iso(value: datetime) -> str:
    """Return an instant as the log and the API write it: ISO 8601, UTC, microseconds, ``Z``."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def violated(error: DatabaseError, constraint: str) -> bool:
    """Tell whether an integrity error comes from that unique constraint; SQLite names its columns instead."""
    diagnosis = getattr(error.__cause__, "diag", None)
    if diagnosis is not None:
        # In a partition, which a host may have made of the table of events, the index has a name of its own.
        is_of_events = constraint == "chat_sessions_event_external_id"
        found = is_of_events and "(session_id, external_id)=(" in (diagnosis.message_detail or "")
        return bool(found or diagnosis.constraint_name == constraint)
    last_field = {
        "chat_sessions_event_external_id": "chat_sessions_sessionevent.external_id",
        "chat_sessions_external_id": "chat_sessions_chatsession.external_id",
        "chat_sessions_slot": "chat_sessions_chatsession.slot",
        "chat_sessions_one_run_alive": "chat_sessions_run.session_id",
    }[constraint]
    return str(error).endswith(last_field)
