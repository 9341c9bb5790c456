"""Pages of a log as JSON text, made by the database and passed through (no model, no serializer in between).

What comes back is the JSON of stored values; ``fields.reveal`` has already turned it into that of the given ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import connections

from . import dialects
from .choices import MESSAGE_TYPES
from .dialects import Dialect
from .fields import reveal
from .models import ChatSession

_MESSAGES = ", ".join(f"'{name}'" for name in MESSAGE_TYPES)
_CURRENT = f"e.superseded_by IS NULL AND e.type IN ({_MESSAGES})"
_EVENTS = "chat_sessions_sessionevent e"

#: Events whose data has something for the server alone: the owner's key.
_PRIVATE = "owner"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of messages or events.

    Attributes:
        json: a JSON array, oldest first.
        has_more: whether there is more in the direction walked.
        before: the first one's sequence; None of an empty page.
        after: the last one's.
    """

    json: str
    has_more: bool
    before: int | None
    after: int | None

    def body(self, name: str) -> str:
        """Return the page as the API answers it, its array under ``name``."""
        cursors = f'{{"before": {_null(self.before)}, "after": {_null(self.after)}}}'
        return f'{{"{name}": {self.json}, "has_more": {str(self.has_more).lower()}, "cursors": {cursors}}}'


def _null(number: int | None) -> str:
    return "null" if number is None else str(number)


def messages(session: ChatSession, *, before: int | None = None, after: int | None = None, limit: int = 50) -> Page:
    """Return a page of the conversation as it reads now; without a cursor the latest.

    Args:
        session: live or over.
        before, after: sequences; the page lies between them, both excluded.
        limit: messages at the most.
    """
    return _page(session, "position", _CURRENT, {}, before=before, after=after, limit=limit)


def events(
    session: ChatSession,
    *,
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
    types: tuple[str, ...] = (),
) -> Page:
    """Return a page of the log; without a cursor the latest.

    Args:
        session: live or over.
        before, after: sequences; the page lies between them, both excluded.
        limit: events at the most.
        types: only these.
    """
    names = {f"type{number}": name for number, name in enumerate(types)}
    where = f"e.type IN ({', '.join(f'%({name})s' for name in names)})" if names else "1 = 1"
    return _page(session, "sequence", where, names, before=before, after=after, limit=limit)


def event(session: ChatSession, sequence: int) -> dict[str, Any] | None:
    """Return one event as the API shows it; None where there is none."""
    using = session._state.db or "default"
    dialect = dialects.of(using)
    sql = (
        f"SELECT {_text(dialect, event_object(dialect))} FROM {_EVENTS}"
        " WHERE e.session_id = %(session)s AND e.sequence = %(sequence)s"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {"session": session.pk, "sequence": sequence})
        row = cursor.fetchone()
    found: dict[str, Any] | None = row and json.loads(reveal(row[0]))
    return found


def log_lines(session: ChatSession, *, batch: int = 500) -> Iterator[str]:
    """Yield a whole log, each event as one line of JSON, in bounded batches."""
    using = session._state.db or "default"
    dialect = dialects.of(using)
    sql = (
        f"SELECT e.sequence, {_text(dialect, event_object(dialect))} FROM {_EVENTS}"
        " WHERE e.session_id = %(session)s AND e.sequence > %(after)s ORDER BY e.sequence LIMIT %(batch)s"
    )
    after: int | None = 0
    while after is not None:
        with connections[using].cursor() as cursor:
            cursor.execute(sql, {"session": session.pk, "after": after, "batch": batch})
            rows = cursor.fetchall()
        yield from (reveal(text) for _, text in rows)
        after = rows[-1][0] if len(rows) == batch else None


def _page(
    session: ChatSession,
    key: str,
    where: str,
    parameters: dict[str, Any],
    *,
    before: int | None,
    after: int | None,
    limit: int,
) -> Page:
    using = session._state.db or "default"
    forward = after is not None and before is None
    sql = _statement(using, key, where, limit, before=before is not None, after=after is not None, forward=forward)
    given = {**parameters, "session": session.pk}
    given |= {name: value for name, value in (("before", before), ("after", after)) if value is not None}
    with connections[using].cursor() as cursor:
        cursor.execute(sql, given)
        text, found, first, last = cursor.fetchone()
    return Page(reveal(text), found > limit, first, last)


@lru_cache(maxsize=256)
def _statement(using: str, key: str, where: str, limit: int, *, before: bool, after: bool, forward: bool) -> str:
    """Build the page's statement: one row more than asked for tells whether there is more.

    The limit is a literal: PostgreSQL, not knowing a parameter's value, would plan a prepared statement anew each time.
    """
    dialect = dialects.of(using)
    direction = "ASC" if forward else "DESC"
    bounds = (f" AND e.{key} < %(before)s" if before else "") + (f" AND e.{key} > %(after)s" if after else "")
    made = message_object(dialect) if key == "position" else event_object(dialect)
    inner = (
        f"SELECT e.*, row_number() OVER (ORDER BY e.{key} {direction}) AS n FROM {_EVENTS}"
        f" WHERE e.session_id = %(session)s AND {where}{bounds} ORDER BY e.{key} {direction} LIMIT {limit + 1}"
    )
    kept = f"FILTER (WHERE e.n <= {limit})"
    if dialects.is_postgresql(using):
        collected = f"COALESCE(json_agg({made} ORDER BY e.{key}) {kept}, '[]')::text"
        return f"SELECT {collected}, count(*), min(e.{key}) {kept}, max(e.{key}) {kept} FROM ({inner}) e"
    collected = f"json_group_array({made}) {kept}"
    ordered = f"SELECT * FROM ({inner}) ORDER BY {key}"
    return f"SELECT {collected}, count(*), min(e.{key}) {kept}, max(e.{key}) {kept} FROM ({ordered}) e"


def _text(dialect: Dialect, value: str) -> str:
    return f"({value})::text" if dialect.now else value


def _data(dialect: Dialect, name: str, default: str) -> str:
    """Return one value of an event's data, as JSON."""
    if dialect.now:
        return f"COALESCE(e.data->'{name}', '{default}'::jsonb)"
    return f"COALESCE(json_extract(e.data, '$.{name}'), json('{default}'))"


def _data_text(dialect: Dialect, name: str) -> str:
    return f"e.data->>'{name}'" if dialect.now else f"json_extract(e.data, '$.{name}')"


def message_object(dialect: Dialect) -> str:
    """Return the SQL of a message as a JSON object, over an event ``e``."""
    instant = dialect.iso.format(at="e.created_at")
    pairs = {
        "sequence": "e.position",
        "external_id": f"COALESCE(e.external_id, {_data_text(dialect, 'external_id')})",
        "role": "e.role",
        "content": "e.content",
        "parts": _data(dialect, "parts", "[]"),
        "metadata": _data(dialect, "metadata", "{}"),
        "run": _data_text(dialect, "run"),
        "token_count": "e.token_count",
        "created_at": f"COALESCE({_data_text(dialect, 'created_at')}, {instant})",
        "edited_at": f"CASE WHEN e.type = 'message.edited' THEN {instant} END",
    }
    return _object(dialect, pairs)


def event_object(dialect: Dialect) -> str:
    """Return the SQL of an event as a JSON object, over an event ``e``."""
    private = f"e.data - '{_PRIVATE}'" if dialect.now else f"json_remove(e.data, '$.{_PRIVATE}')"
    data = "e.data" if dialect.now else "json(e.data)"
    whole = f"CASE WHEN e.type LIKE 'session.%%' THEN {private} ELSE {data} END"
    message = message_object(dialect)
    if dialect.now:
        message = f"{message}::jsonb"
    pairs = {
        "sequence": "e.sequence",
        "type": "e.type",
        "created_at": dialect.iso.format(at="e.created_at"),
        "data": f"CASE WHEN e.type IN ({_MESSAGES}) THEN {message} ELSE {whole} END",
    }
    if not dialect.now:
        pairs["data"] = f"json({pairs['data']})"
    return _object(dialect, pairs)


def _object(dialect: Dialect, pairs: dict[str, str]) -> str:
    members = ", ".join(f"'{name}', {value}" for name, value in pairs.items())
    return f"{dialect.build}({members})"
