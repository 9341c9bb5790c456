"""What is done to the messages of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError

from .. import chunks, log, signals
from ..agents import Message
from ..choices import APP_PREFIX, EventType, Role
from ..exceptions import ExternalIdConflict, InvalidRequest, MessageNotFound, PermissionRefused
from ..models import ChatSession, SessionEvent
from ..rules import merge as patches
from ..rules.concurrency import ANY, Client
from . import limits, writing

_APP_TYPE = re.compile(re.escape(APP_PREFIX) + r"[A-Za-z0-9_.:/-]{1,60}")


@dataclass(frozen=True, slots=True)
class Appended:
    """A stored message, and whether this call stored it (or a repeat found it)."""

    message: Message
    created: bool


def entry(message: Message) -> log.Entry:
    """Return the event that stores a message."""
    data = {"parts": list(message.parts), "metadata": dict(message.metadata), "run": message.run}
    return log.Entry(
        type=EventType.MESSAGE,
        data={name: value for name, value in data.items() if value},
        role=str(message.role),
        content=message.content,
        external_id=message.external_id,
        token_count=message.token_count,
        created_at=message.created_at,
    )


def copy(event: SessionEvent) -> log.Entry:
    """Return the event that stores a current message in another session: without run reference and external id."""
    message = read(event)
    data = {"parts": list(message.parts), "metadata": dict(message.metadata)}
    return log.Entry(
        type=EventType.MESSAGE,
        data={name: value for name, value in data.items() if value},
        role=message.role,
        content=message.content,
        token_count=message.token_count,
        created_at=message.created_at,
    )


def read(event: SessionEvent) -> Message:
    """Return the message that an event carries."""
    data: dict[str, Any] = event.data
    edited = event.type == EventType.MESSAGE_EDITED
    created = data.get("created_at")
    return Message(
        role=event.role,
        content=event.content,
        parts=tuple(data.get("parts", ())),
        metadata=data.get("metadata", {}),
        external_id=data.get("external_id") if event.external_id is None else event.external_id,
        token_count=event.token_count,
        sequence=event.position,
        run=data.get("run"),
        created_at=datetime.fromisoformat(created) if created else event.created_at,
        edited_at=event.created_at if edited else None,
    )


def append(
    session: ChatSession, message: Message, *, client: Client = ANY, expected_sequence: int | None = None
) -> Appended:
    """Store a message in a live session. One whose ``external_id`` is there already, with the same payload, is found.

    Args:
        session: refreshed in place.
        message: who says what.
        client: the tab that writes.
        expected_sequence: refuse unless this is the session's last sequence.

    Returns:
        The message as it now reads, with its sequence.

    Raises:
        MessageTooLong, MetadataTooLarge: too much of something.
        ExternalIdConflict: its ``external_id`` was used with another payload.
        SessionExpired, SessionEnded, ClientConflict, MessageLimitReached, SequenceConflict: as for every write.
    """
    limits.check_message(message)
    stored = entry(message)
    try:
        sequence = add(session, [stored], client=client, expected_sequence=expected_sequence)
    except IntegrityError as error:
        if not log.violated(error, "chat_sessions_event_external_id"):
            raise
        found = repeated(session, message)
        if found is None:
            raise
        return Appended(found, created=False)
    if sequence is None:
        found = repeated(session, message)
        if found is None:
            raise MessageNotFound
        return Appended(found, created=False)
    return Appended(_stored(message, sequence, session.last_activity_at), created=True)


def _stored(message: Message, sequence: int, instant: datetime) -> Message:
    return Message(
        role=message.role,
        content=message.content,
        parts=message.parts,
        metadata=message.metadata,
        external_id=message.external_id,
        token_count=message.token_count,
        sequence=sequence,
        run=message.run,
        created_at=message.created_at or instant,
    )


def add(
    session: ChatSession, entries: Sequence[log.Entry], *, client: Client, expected_sequence: int | None
) -> int | None:
    """Add messages or application events, adjacent; return the first one's sequence, or None for a repeat.

    The usual case is one statement; what stands against that is found out, and a coming back recorded, under a lock.
    """
    if log.append(session, entries, client=client, expected_sequence=expected_sequence):
        writing.announce(signals.events_appended, session, entries=tuple(entries), last_sequence=session.last_sequence)
        return session.last_sequence - len(entries) + 1
    return _add_under_lock(session, entries, client=client, expected_sequence=expected_sequence)


def _add_under_lock(
    session: ChatSession, entries: Sequence[log.Entry], *, client: Client, expected_sequence: int | None
) -> int | None:
    names = [entry.external_id for entry in entries if entry.external_id is not None]
    if (
        names
        and SessionEvent.objects.using(writing.alias(session)).filter(session=session, external_id__in=names).exists()
    ):
        return None
    with writing.writing(session, client=client) as draft:
        limits.check_count(draft.session.message_count, sum(entry.is_message for entry in entries))
        writing.check_sequence(draft.session, expected_sequence)
        draft.come_back()
        first = draft.next_sequence
        draft.entries += entries
        draft.touch()
    return first


def repeated(session: ChatSession, message: Message) -> Message | None:
    """Return the message that was stored under this one's ``external_id``; None where there is none.

    Raises:
        ExternalIdConflict: it had another payload, or was withdrawn and has none any more.
    """
    if message.external_id is None:
        return None
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session)
    first = events.filter(external_id=message.external_id).first()
    if first is None:
        return None
    now = first if first.superseded_by is None else events.current().filter(position=first.position).first()
    if now is None or not _same(read(first), message):
        raise ExternalIdConflict
    return read(now)


def _same(stored: Message, given: Message) -> bool:
    texts = (stored.role, stored.content) == (str(given.role), given.content)
    parts = patches.same(list(stored.parts), list(given.parts))
    return texts and parts and patches.same(dict(stored.metadata), dict(given.metadata))


def record(
    session: ChatSession,
    type: str,  # noqa: A002 - the field's word
    data: Mapping[str, Any] | None = None,
    *,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> int:
    """Record an application's own event, ``app.…``, in a live session; return its sequence.

    Raises:
        InvalidRequest: the type is not the application's to write.
        MetadataTooLarge: the data is.
        SessionExpired, SessionEnded, ClientConflict, SequenceConflict: as for every write.
    """
    if not _APP_TYPE.fullmatch(type):
        hint = f"An application's event is {APP_PREFIX} and up to 60 letters, digits and any of _ . : / -"
        raise InvalidRequest({"type": [hint]})
    limits.check_json("data", data or {})
    event = log.Entry(type=type, data=data or {})
    sequence = add(session, [event], client=client, expected_sequence=expected_sequence)
    if sequence is None:
        raise ExternalIdConflict
    return sequence


def find(session: ChatSession, sequence: int) -> Message:
    """Return one message as it reads now.

    Raises:
        MessageNotFound: there never was one, or it was withdrawn.
    """
    return read(_current(session, sequence))


def everything(session: ChatSession) -> Iterator[Message]:
    """Yield the whole conversation as it reads now, oldest first, without holding it in memory."""
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session)
    yield from map(read, events.conversation().iterator(chunk_size=500))


def _current(session: ChatSession, sequence: int) -> SessionEvent:
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session)
    event = events.current().filter(position=sequence).first() if sequence < 2**63 else None
    if event is None:
        raise MessageNotFound
    return event


def edit(
    session: ChatSession,
    sequence: int,
    content: str,
    *,
    own_only: bool = False,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> Message:
    """Replace a message's text: a later event at its place, which keeps its sequence for readers.

    Args:
        session: a live session.
        sequence: which message.
        content: the new text.
        own_only: refuse to edit what the user did not say.
        client, expected_sequence: as for every write.

    Raises:
        MessageNotFound: there never was one, or it was withdrawn.
        PermissionRefused: it is somebody else's.
        MessageTooLong, SessionExpired, SessionEnded, ClientConflict, SequenceConflict: as for every write.
    """
    limits.check_message(Message(Role.USER, content))
    _current(session, sequence)
    with writing.writing(session, client=client) as draft:
        event = _mine(draft.session, sequence, own_only=own_only)
        writing.check_sequence(draft.session, expected_sequence)
        if event.content != content:
            draft.come_back()
            draft.touch()
            by = draft.record(
                EventType.MESSAGE_EDITED, _kept(event, content), role=event.role, content=content, position=sequence
            )
            log.supersede(draft.session, event, by=by)
    return find(session, sequence)


def _mine(session: ChatSession, sequence: int, *, own_only: bool) -> SessionEvent:
    event = _current(session, sequence)
    if own_only and event.role != Role.USER:
        raise PermissionRefused
    return event


def _kept(event: SessionEvent, content: str) -> dict[str, Any]:
    """Return what an edited message keeps of its earlier version; a text part becomes the new text."""
    message = read(event)
    others = [part for part in message.parts if part.get("type") != "text"]
    had_text = len(others) < len(message.parts)
    parts = [{"type": "text", "text": content}, *others] if had_text else others
    kept = {"parts": parts, "metadata": dict(message.metadata), "run": message.run, "external_id": message.external_id}
    instant = message.created_at and log.iso(message.created_at)
    return {name: value for name, value in kept.items() if value or value == ""} | {"created_at": instant}


def withdraw(
    session: ChatSession,
    sequence: int,
    *,
    own_only: bool = False,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> None:
    """Take a message back: its content is erased in every version, and an event says that there was one.

    Raises:
        MessageNotFound: there never was one, or it was withdrawn.
        PermissionRefused: it is somebody else's.
        SessionExpired, SessionEnded, ClientConflict, SequenceConflict: as for every write.
    """
    _current(session, sequence)
    with writing.writing(session, client=client) as draft:
        event = _mine(draft.session, sequence, own_only=own_only)
        writing.check_sequence(draft.session, expected_sequence)
        draft.come_back()
        draft.touch()
        by = draft.record(EventType.MESSAGE_DELETED, {"sequence": sequence}, role=event.role, position=sequence)
        log.supersede(draft.session, event, by=by)
        log.erase(draft.session, sequence)
        if run := event.data.get("run"):
            chunks.erase(draft.session, [run])


# Thin twins for async code; the synchronous functions are the truth.
aappend = sync_to_async(append)
arecord = sync_to_async(record)
afind = sync_to_async(find)
aedit = sync_to_async(edit)
awithdraw = sync_to_async(withdraw)
