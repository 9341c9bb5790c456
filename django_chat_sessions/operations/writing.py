"""The scaffold of every operation that writes to a session: lock, check, record, announce."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from .. import conf, dialects, log, signals
from ..choices import EventType
from ..exceptions import SequenceConflict
from ..models import ChatSession
from ..rules import concurrency, lifecycle, timeouts
from ..rules.concurrency import ANY, Client


def alias(session: ChatSession) -> str:
    """Return the database that a session came from."""
    return session._state.db or "default"


def announce(signal: Signal, session: ChatSession, **arguments: Any) -> None:
    """Send a signal when the transaction has committed; costs nothing where nobody listens."""
    if signal.has_listeners(ChatSession):
        send = partial(signal.send_robust, sender=ChatSession, session=session, **arguments)
        transaction.on_commit(send, using=alias(session))


def announce_each(signal: Signal, using: str, ids: Sequence[int], **arguments: Any) -> None:
    """Send a signal for each of many sessions when the transaction has committed, where somebody listens."""
    if ids and signal.has_listeners(ChatSession):
        for session in ChatSession.objects.using(using).filter(pk__in=ids).order_by("pk"):
            announce(signal, session, **arguments)


@dataclass(slots=True)
class Draft:
    """What one operation is about to record of one locked session.

    Attributes:
        session: the locked row, as it was before.
        now: the instant of the operation.
        entries: the events to be.
        columns: columns of the row that no event tells.
    """

    session: ChatSession
    now: datetime
    entries: list[log.Entry] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    announcements: list[Callable[[], None]] = field(default_factory=list)

    @property
    def next_sequence(self) -> int:
        """The sequence of the event that is recorded next."""
        return self.session.last_sequence + len(self.entries) + 1

    def record(self, type: str, data: dict[str, Any] | None = None, **fields: Any) -> int:  # noqa: A002 - the field's word
        """Add an event and return its sequence."""
        sequence = self.next_sequence
        self.entries.append(log.Entry(type=type, data=data or {}, **fields))
        return sequence

    def announce(self, signal: Signal, **arguments: Any) -> None:
        """Send a signal after the commit."""
        self.announcements.append(lambda: announce(signal, self.session, **arguments))

    def come_back(self) -> float:
        """Record a coming back where the session was idle for long enough; return the idle seconds."""
        idle = (self.now - self.session.last_activity_at).total_seconds()
        if idle > conf.get().resume_after.total_seconds():
            self.record(EventType.SESSION_RESUMED, {"idle_seconds": round(idle, 3)})
            self.announce(signals.session_resumed, idle_seconds=idle)
        return max(idle, 0.0)

    def touch(self, until: datetime | None = None) -> None:
        """Note the activity: the clock always, the deadline only forward and only where it renews."""
        session, policy = self.session, self.session.policy
        self.columns["last_activity_at"] = max(session.last_activity_at, self.now)
        deadline = session.expires_at
        if policy.auto_renew:
            self.columns["renewed_at"] = max(session.renewed_at, self.now)
            deadline = max(deadline, timeouts.deadline(policy, session.created_at, self.now))
        self.extend(max(deadline, until or deadline))

    def extend(self, deadline: datetime) -> None:
        """Move the deadline; one that moved forward is warned of anew."""
        self.columns["expires_at"] = deadline
        if deadline > self.session.expires_at:
            self.columns["warned_at"] = None


def check(
    session: ChatSession,
    now: datetime,
    *,
    client: Client = ANY,
    expected_sequence: int | None = None,
    live: bool = True,
) -> None:
    """Refuse what stands against a write, in the order in which a caller is told.

    Raises:
        InvalidRequest: the client gave no name and the strategy needs one.
        SessionExpired, SessionEnded: the session is over.
        ClientConflict: another client holds it.
        SequenceConflict: it has moved on.
    """
    if live:
        if client is not ANY:
            concurrency.check_named(session.strategy, client)
        lifecycle.check_live(session.status, session.expires_at, now)
        concurrency.check_control(session.strategy, session.client, client)
    check_sequence(session, expected_sequence)


def check_sequence(session: ChatSession, expected: int | None) -> None:
    """Refuse where something was logged since the caller looked; the last thing that a caller is told.

    Raises:
        SequenceConflict: with the last sequence.
    """
    if expected is not None and expected != session.last_sequence:
        raise SequenceConflict(last_sequence=session.last_sequence)


@contextmanager
def writing(
    session: ChatSession, *, client: Client = ANY, expected_sequence: int | None = None, live: bool = True
) -> Iterator[Draft]:
    """Lock a session, check it, and write what the block records, in one transaction.

    Args:
        session: any instance of it; refreshed in place.
        client: who acts; checked against the strategy where a live session is needed.
        expected_sequence: refuse unless this is the last sequence.
        live: whether a live session is needed.

    Raises:
        ChatSessionError: as ``check`` says; or it is gone (SessionNotFound).
    """
    using = alias(session)
    with log.begin(using):
        row = log.lock(session)
        now = dialects.now(using)
        check(row, now, client=client, expected_sequence=expected_sequence, live=live)
        draft = Draft(row, now)
        yield draft
        if draft.entries or draft.columns:
            log.write(row, draft.entries, now=max(now, row.last_activity_at), **draft.columns)
        refresh(session, row)
        for send in draft.announcements:
            send()
        if draft.entries:
            entries = tuple(draft.entries)
            announce(signals.events_appended, row, entries=entries, last_sequence=row.last_sequence)


def refresh(session: ChatSession, row: ChatSession) -> None:
    """Give an instance the values of another."""
    if session is not row:
        for column in ChatSession._meta.concrete_fields:
            setattr(session, column.attname, getattr(row, column.attname))
