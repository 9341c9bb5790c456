"""What a caller sees of sessions, in hand-written statements: one by its public id, and pages of the latest.

``VISIBLE`` says in SQL what ``ChatSession.objects.visible_to`` says in the ORM, and every statement here has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import connections, models, router
from django.utils import timezone

from . import dialects
from .choices import LIVE, MESSAGE_TYPES, Status
from .exceptions import SessionNotFound
from .fields import AnyJSONField, AnyTextField, hide, load, unhide
from .models import ChatSession

VISIBLE = "s.owner_id = %(owner)s"

_FIELDS = ChatSession._meta.concrete_fields
_NAMES = [field.attname for field in _FIELDS]
_TABLE = "chat_sessions_chatsession"
_RELATED = ", ".join(
    f"(SELECT r.uuid FROM {_TABLE} r WHERE r.id = s.{column})" for column in ("parent_id", "root_id", "forked_from_id")
)
_LIVE = ", ".join(f"'{status}'" for status in LIVE)
_MESSAGES = ", ".join(f"'{name}'" for name in MESSAGE_TYPES)


@dataclass(frozen=True, slots=True)
class Seen:
    """A session, and the instant at which it was read."""

    session: ChatSession
    now: datetime


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the list of latest sessions."""

    last_activity_at: datetime
    uuid: UUID


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of sessions, latest activity first.

    Attributes:
        sessions: the page.
        now: the instant at which it was read.
        next: where the following page begins, if there is one.
    """

    sessions: list[ChatSession]
    now: datetime
    next: Position | None


def session(user: Any, public_id: str | UUID, *, using: str | None = None) -> Seen:
    """Return one session that the user may see, in one statement.

    Raises:
        SessionNotFound: there is none for them; a malformed id is one that was never given out.
    """
    if user is None or not user.is_authenticated:
        raise SessionNotFound
    using = using or router.db_for_write(ChatSession)
    sql = f"{_select(using)} WHERE s.uuid = %(uuid)s AND {VISIBLE}"
    rows = _rows(using, sql, {"uuid": _uuid(using, parsed(public_id)), "owner": _key(using, user)})
    if not rows:
        raise SessionNotFound
    return Seen(_sessions(using, rows)[0], _instant(rows[0][-1]))


def parsed(public_id: str | UUID) -> UUID:
    """Read a public id in its one canonical form; another spelling was never given out."""
    if isinstance(public_id, UUID):
        return public_id
    try:
        found = UUID(public_id)
    except ValueError as error:
        raise SessionNotFound from error
    if str(found) != public_id.lower():
        raise SessionNotFound
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a list is narrowed to; None narrows nothing.

    Attributes:
        status: as a reader sees it.
        agent, application, external_id: exactly.
        tag: one that it carries.
        parent: the parent's public id.
        created_after, created_before: instants, both excluded.
        search: text in the title or the conversation, taken literally, in any case.
    """

    status: str | None = None
    agent: str | None = None
    application: str | None = None
    external_id: str | None = None
    tag: str | None = None
    parent: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    search: str | None = None


def latest(
    user: Any,
    filters: Filters,
    *,
    limit: int = 20,
    after: Position | None = None,
    everybody: bool = False,
    using: str | None = None,
) -> Listed:
    """Return a page of a user's sessions, or with ``everybody`` of all, latest activity first.

    Args:
        user: whose sessions.
        filters: what to narrow the list to.
        limit: sessions at the most.
        after: where the page begins; None is the top.
        everybody: whether to list everybody's; the caller has checked the permission.
        using: the database.
    """
    using = using or router.db_for_write(ChatSession)
    where, parameters = _narrowed(using, filters)
    if not everybody:
        where.append(VISIBLE)
        parameters["owner"] = _key(using, user)
    if after is not None:
        where.append("(s.last_activity_at, s.uuid) < (%(at)s, %(uuid)s)")
        parameters["at"] = dialects.instant(connections[using], after.last_activity_at)
        parameters["uuid"] = _uuid(using, after.uuid)
    sql = (
        f"{_select(using)} WHERE {' AND '.join(where) or '1 = 1'}"
        # A literal: with a parameter, PostgreSQL would plan the prepared statement anew each time.
        f" ORDER BY s.last_activity_at DESC, s.uuid DESC LIMIT {int(limit) + 1}"
    )
    rows = _rows(using, sql, parameters)
    sessions = _sessions(using, rows[:limit])
    last = sessions[-1] if len(rows) > limit else None
    now = _instant(rows[0][-1]) if rows else dialects.now(using)
    return Listed(sessions, now, None if last is None else Position(last.last_activity_at, last.uuid))


def _narrowed(using: str, filters: Filters) -> tuple[list[str], dict[str, Any]]:
    connection = connections[using]
    where: list[str] = []
    parameters: dict[str, Any] = {}
    for name in ("agent", "application", "external_id"):
        value = getattr(filters, name)
        if value is not None:
            where.append(f"s.{name} = %({name})s")
            parameters[name] = hide(value)
    for name, sign in (("created_after", ">"), ("created_before", "<")):
        value = getattr(filters, name)
        if value is not None:
            where.append(f"s.created_at {sign} %({name})s")
            parameters[name] = dialects.instant(connection, value)
    _narrow_more(using, filters, where, parameters)
    return where, parameters


def _narrow_more(using: str, filters: Filters, where: list[str], parameters: dict[str, Any]) -> None:
    if filters.parent is not None:
        where.append(f"s.parent_id = (SELECT p.id FROM {_TABLE} p WHERE p.uuid = %(parent)s)")
        parameters["parent"] = _uuid(using, filters.parent)
    if filters.status is not None:
        where.append(_in_status(using, filters.status))
        parameters |= {"status": filters.status, "now": _now(using)}
    if filters.tag is not None:
        where.append(_tagged(using))
        parameters["tag"] = hide(filters.tag) if not dialects.is_postgresql(using) else dialects.as_json([filters.tag])
    if filters.search is not None:
        where.append(_mentioning(using))
        parameters["search"] = f"%{_literal(hide(filters.search))}%"


def _in_status(using: str, status: str) -> str:
    now = "statement_timestamp()" if dialects.is_postgresql(using) else "%(now)s"
    if status == Status.EXPIRED:
        return f"(s.status = %(status)s OR (s.status IN ({_LIVE}) AND s.expires_at <= {now}))"
    if status in LIVE:
        return f"s.status = %(status)s AND s.expires_at > {now}"
    return "s.status = %(status)s"


def _tagged(using: str) -> str:
    if dialects.is_postgresql(using):
        return "s.tags @> %(tag)s::jsonb"
    return "EXISTS (SELECT 1 FROM json_each(s.tags) t WHERE t.value = %(tag)s)"


def _mentioning(using: str) -> str:
    like = "ILIKE" if dialects.is_postgresql(using) else "LIKE"
    said = (
        "SELECT 1 FROM chat_sessions_sessionevent e WHERE e.session_id = s.id AND e.superseded_by IS NULL"
        f" AND e.type IN ({_MESSAGES}) AND e.content {like} %(search)s ESCAPE '\\'"
    )
    return f"(s.title {like} %(search)s ESCAPE '\\' OR EXISTS ({said}))"


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


@lru_cache
def _select(using: str) -> str:
    """Return a session's columns, its relatives' public ids and the instant, without the condition."""
    if dialects.is_postgresql(using):
        columns = [dialects.microseconds(f"s.{f.column}") if _is_instant(f) else f"s.{f.column}" for f in _FIELDS]
        clock = dialects.microseconds("statement_timestamp()")
    else:
        columns, clock = [f"s.{field.column}" for field in _FIELDS], "NULL"
    return f"SELECT {', '.join(columns)}, {_RELATED}, {clock} FROM {_TABLE} s"


def _is_instant(field: models.Field[Any, Any]) -> bool:
    return isinstance(field, models.DateTimeField)


def _now(using: str) -> Any:
    return None if dialects.is_postgresql(using) else dialects.instant(connections[using], timezone.now())


def _instant(value: int | None) -> datetime:
    return dialects.from_microseconds(value) or timezone.now()


def _uuid(using: str, value: UUID) -> Any:
    return value if dialects.is_postgresql(using) else value.hex


def _key(using: str, user: Any) -> Any:
    return ChatSession._meta.get_field("owner").get_db_prep_value(user.pk, connections[using])


def _rows(using: str, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {name: value for name, value in parameters.items() if f"%({name})s" in sql})
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _sessions(using: str, rows: Sequence[Sequence[Any]]) -> list[ChatSession]:
    converters = _POSTGRESQL if dialects.is_postgresql(using) else _SQLITE
    return [_session(using, row, converters) for row in rows]


def _session(using: str, row: Sequence[Any], converters: Sequence[tuple[int, Any]]) -> ChatSession:
    values = list(row[: len(_NAMES)])
    for index, convert in converters:
        value = values[index]
        if value is not None and value != "":
            values[index] = convert(value)
    made = ChatSession.from_db(using, _NAMES, values)
    parent, root, source = (_read_uuid(value) for value in row[len(_NAMES) : len(_NAMES) + 3])
    made.__dict__.update(parent_uuid=parent, root_uuid=root or made.uuid, source_uuid=source)
    return made


def _read_uuid(value: Any) -> UUID | None:
    return value if value is None or isinstance(value, UUID) else UUID(value)


def _sqlite_instant(value: str | datetime) -> datetime:
    """Read an instant: Django's converters have read a declared column's, and no other's."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=UTC)


def _load(text: str) -> Any:
    """Read JSON; most of a session's is empty."""
    return {} if text == "{}" else [] if text == "[]" else load(text)


_ANY: list[tuple[int, Any]] = [
    (number, _load if isinstance(field, AnyJSONField) else unhide)
    for number, field in enumerate(_FIELDS)
    if isinstance(field, AnyJSONField | AnyTextField)
]

_SQLITE_READS: dict[type[models.Field[Any, Any]], Any] = {
    models.DateTimeField: _sqlite_instant,
    models.UUIDField: UUID,
    models.BooleanField: bool,
}

_POSTGRESQL = _ANY + [
    (number, dialects.from_microseconds) for number, field in enumerate(_FIELDS) if _is_instant(field)
]

_SQLITE = _ANY + [
    (number, _SQLITE_READS[type(field)]) for number, field in enumerate(_FIELDS) if type(field) in _SQLITE_READS
]
