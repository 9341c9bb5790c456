"""What is done to many logs at once: the same event recorded in each, their content erased, they themselves removed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models.signals import post_delete, pre_delete

from . import conf, dialects, notifications
from .batches import SESSIONS
from .choices import APP_PREFIX, MESSAGE_TYPES, EventType
from .log import erasing, tell_outbox
from .models import Archive, ChatSession, OutboxEntry, Run, RunChunk, SessionEvent
from .statements import INSERT_ENTRY, INSERT_EVENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """One event that is recorded in each of many sessions, and what it changes in their rows; in SQL of ours alone.

    Attributes:
        type: the event's.
        data: its JSON object, over the row ``s`` as it is afterwards.
        columns: what changes in a row besides ``last_sequence``, over the row as it was.
        parameters: of both, by name.
    """

    type: str
    data: str
    columns: Mapping[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def record(using: str, ids: Sequence[int], event: Same, *, now: datetime) -> None:
    """Record the same event in many sessions whose rows the caller has locked: one statement, on SQLite two.

    The caller has seen to it that each of them may go where the event moves it (``rules.lifecycle``).

    Args:
        using: the database.
        ids: of the sessions.
        event: the event.
        now: its instant.
    """
    if not ids:
        return
    connection = connections[using]
    subscribers = conf.get().subscribers(event.type)
    parameters = {
        **event.parameters,
        "ids": dialects.integers(using, ids),
        "type": event.type,
        "now": dialects.instant(connection, now),
        "subscribers": list(subscribers) if dialects.is_postgresql(using) else json.dumps(subscribers),
    }
    with connection.cursor() as cursor:
        for sql in _recording(using, event.data, event.columns, told=bool(subscribers)):
            cursor.execute(sql, parameters)
        uuids = [row[0] if isinstance(row[0], UUID) else UUID(row[0]) for row in cursor.fetchall()]
    tell_each(using, uuids)
    if subscribers:
        tell_outbox(using)


def tell_each(using: str, sessions: Sequence[UUID]) -> None:
    """Wake who listens to any of these sessions, once the transaction has committed."""

    def tell() -> None:
        for uuid in sessions:
            notifications.tell(using, uuid)

    transaction.on_commit(tell, using=using)


def erase(using: str, ids: Sequence[int]) -> None:
    """Remove the content of locked sessions: what was said, recorded and worked with; the skeleton stays.

    Their answers lose what was asked with them, and the chunks in which they were said.
    """
    given = {"ids": dialects.integers(using, ids)}
    with erasing(using), connections[using].cursor() as cursor:
        for sql in _erasing(using):
            cursor.execute(sql, given)


def remove(using: str, ids: Sequence[int]) -> None:
    """Delete locked sessions with all that is theirs; none of them is held, nor has children that stay.

    Where the project's own tables refer to ours, or somebody listens to Django's signals of deletion, Django does it.

    Raises:
        django.db.IntegrityError, ProtectedError, RestrictedError: the project's own tables refuse it; nothing went.
    """
    _lock_entries(using, ids)
    if _is_referred_to():
        ChatSession.objects.using(using).filter(pk__in=ids).delete()
        return
    given = {"ids": dialects.integers(using, ids)}
    with connections[using].cursor() as cursor:
        for sql in _removing(using):
            cursor.execute(sql, given)


def _lock_entries(using: str, ids: Sequence[int]) -> None:
    """Lock what these sessions have in the outbox in the order in which deliveries do; SQLite locks all there is."""
    if dialects.is_postgresql(using):
        entries = "SELECT id FROM chat_sessions_outboxentry WHERE session_id = ANY(%s) ORDER BY id FOR UPDATE"
        with connections[using].cursor() as cursor:
            cursor.execute(entries, [list(ids)])


_OURS = (ChatSession, SessionEvent, Run, RunChunk, OutboxEntry, Archive)


def _is_referred_to() -> bool:
    """Tell whether the deletion of our rows concerns anybody else."""
    # Those without a name of their own on our side, too, as Django's deletion sees them.
    fields = (field for model in _OURS for field in model._meta.get_fields(include_hidden=True))
    related = (field.related_model for field in fields if field.auto_created and not field.concrete)
    signals = (sender.has_listeners(model) for sender in (pre_delete, post_delete) for model in _OURS)
    return any(model not in _OURS for model in related) or any(signals)


def _recording(using: str, data: str, columns: Mapping[str, str], *, told: bool) -> list[str]:
    """Return the statements that record one event in each of many locked sessions; the last one returns public ids.

    Their parameters are ``ids``, ``type``, ``now`` and ``subscribers``, besides those of what is given.

    Args:
        using: the database.
        data: the event's JSON object, over the row ``s`` as it is afterwards.
        columns: what changes in a row besides its last sequence, over the row as it was.
        told: whether anybody subscribes to the event.
    """
    dialect = dialects.of(using)
    sets = ", ".join(f"{name} = {value}" for name, value in {"last_sequence": "s.last_sequence + 1", **columns}.items())
    among = dialect.among.format(column="s.id", name="ids")
    update = f"UPDATE chat_sessions_chatsession AS s SET {sets} WHERE {among}"
    now = dialect.instant.format(name="now")
    if not dialects.is_postgresql(using):
        entry = f"{INSERT_ENTRY} SELECT s.id, s.last_sequence, t.value, 0, {now}, '', {now}"
        entry += f" FROM {SESSIONS}, json_each(%(subscribers)s) t WHERE {among}"
        event = f"{INSERT_EVENT} SELECT s.id, s.last_sequence, %(type)s, '', '', {data}, NULL, NULL, NULL, NULL, {now}"
        event += f" FROM {SESSIONS} WHERE {among}"
        return [update, event, *([entry] if told else []), f"SELECT s.uuid FROM {SESSIONS} WHERE {among}"]
    moved = f"{update} RETURNING s.id, s.uuid, s.last_sequence, {data}::jsonb AS data"
    event = (
        f"{INSERT_EVENT} SELECT s.id, s.last_sequence, %(type)s::text, '', '', s.data, NULL, NULL, NULL, NULL, {now}"
    )
    event += " FROM s"
    entry = f"{INSERT_ENTRY} SELECT s.id, s.last_sequence, t.name, 0, {now}, '', {now}"
    entry += " FROM s, unnest(%(subscribers)s::text[]) t(name)"
    posted = f", posted AS ({entry})" if told else ""
    return [f"WITH s AS ({moved}), added AS ({event}){posted} SELECT s.uuid FROM s"]


#: What is left of a message, and of another event that was all content.
_ERASED_MESSAGE = '{"erased": true, "metadata": {"erased": true}}'
_ERASED = '{"erased": true}'

_CONTENT = (EventType.STATE_CHANGED, EventType.CONTEXT_COMPACTED)
_WITH_STATE = (
    EventType.SESSION_CREATED,
    EventType.SESSION_ENDED,
    EventType.SESSION_FAILED,
    EventType.SESSION_RESTORED,
)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _erasing(using: str) -> list[str]:
    """Return the statements that remove the content of many locked sessions (``ids``); the skeletons stay."""
    dialect = dialects.of(using)
    is_message = f"type IN ({_listed(MESSAGE_TYPES)})"
    is_content = f"(type IN ({_listed(_CONTENT)}) OR type LIKE '{APP_PREFIX}%%')"
    has_state = f"type IN ({_listed(_WITH_STATE)})"
    as_json = "::jsonb" if dialects.is_postgresql(using) else ""
    stateless = "data - 'state'" if dialects.is_postgresql(using) else "json_remove(data, '$.state')"
    data = (
        f"CASE WHEN {is_message} THEN '{_ERASED_MESSAGE}'{as_json} WHEN {is_content} THEN '{_ERASED}'{as_json}"
        f" ELSE {stateless} END"
    )
    among = dialect.among.format(column="session_id", name="ids")
    events = f"UPDATE chat_sessions_sessionevent SET content = '', external_id = NULL, data = {data}"
    return [
        f"{events} WHERE {among} AND ({is_message} OR {is_content} OR {has_state})",
        f"DELETE FROM chat_sessions_runchunk WHERE {among}",
        f"UPDATE chat_sessions_run SET context = '{{}}' WHERE {among} AND context <> '{{}}'",
    ]


def _removing(using: str) -> list[str]:
    """Return the statements that delete many locked sessions (``ids``), and all that is theirs."""
    dialect = dialects.of(using)
    among = dialect.among.format(column="session_id", name="ids")
    forked = dialect.among.format(column="forked_from_id", name="ids")
    forks = f"UPDATE chat_sessions_chatsession SET forked_from_id = NULL WHERE {forked}"
    sessions = f"DELETE FROM chat_sessions_chatsession WHERE {dialect.among.format(column='id', name='ids')}"
    if dialects.is_postgresql(using):
        # What is theirs goes by the foreign keys, in the database; the trigger need not look at each event.
        door = "SELECT set_config('chat_sessions.purging', '{}', true)"
        return [forks, door.format("on"), sessions, door.format("")]
    theirs = ("runchunk", "run", "outboxentry", "sessionevent")
    archives = f"UPDATE chat_sessions_archive SET session_id = NULL WHERE {among}"
    return [forks, archives, *(f"DELETE FROM chat_sessions_{table} WHERE {among}" for table in theirs), sessions]
