"""The hot statements, written by hand: each is built once for a shape of call and then only given its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.utils import timezone

from . import conf, dialects
from .choices import LIVE, Strategy
from .dialects import Dialect, PolicySQL
from .fields import hide
from .rules.timeouts import TimeoutPolicy

if TYPE_CHECKING:
    from .log import Entry

#: Columns that activity moves, as a statement gives them back.
MOVED = (
    "status", "last_sequence", "message_count", "token_count", "last_activity_at", "renewed_at", "expires_at",
    "warned_at",
)  # fmt: skip

_LIVE = ", ".join(f"'{status}'" for status in LIVE)
_ANY_CLIENT = f"('{Strategy.MULTIPLE}', '{Strategy.SINGLE}')"
_INSERT = (
    "INSERT INTO chat_sessions_sessionevent (session_id, sequence, type, role, content, data, external_id, position,"
    " superseded_by, token_count, created_at)"
)


@dataclass(frozen=True, slots=True)
class Append:
    """The append of a number of events, as SQL."""

    update: str
    insert: str
    shape: tuple[tuple[bool, bool], ...]

    def run(self, using: str, parameters: dict[str, Any], entries: Sequence[Entry]) -> Sequence[Any] | None:
        """Execute it and return the columns of ``MOVED``, or None where the row does not take the events."""
        run = self._run_postgresql if dialects.is_postgresql(using) else self._run_sqlite
        found: Sequence[Any] | None = run(using, parameters, entries)
        return found

    def _run_postgresql(self, using: str, parameters: dict[str, Any], entries: Sequence[Entry]) -> Any:
        parameters["external_id"] = parameters["created_at"] = None
        for number, entry in enumerate(entries, 1):
            parameters |= _values(entry, number)
        connection = connections[using]
        sql = self.update
        if self.insert:
            sql = f"WITH bumped AS ({sql}), added AS ({self.insert}) SELECT {', '.join(MOVED)} FROM bumped"
        if connection.in_atomic_block and any(entry.external_id is not None for entry in entries):
            with transaction.atomic(using=using), connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchone()
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchone()

    def _run_sqlite(self, using: str, parameters: dict[str, Any], entries: Sequence[Entry]) -> Any:
        connection = connections[using]
        now = timezone.now()
        parameters["now"] = dialects.instant(connection, now)
        parameters["idle_since"] = dialects.instant(connection, now - parameters.pop("resume_after"))
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute(self.update, parameters)
            row = cursor.fetchone()
            if row is None or not entries:
                return row and _from_sqlite(connection, row)
            first = row[MOVED.index("last_sequence")] - len(entries)
            values: dict[str, Any] = {"id": parameters["id"]}
            for number, entry in enumerate(entries, 1):
                values |= _values(entry, number)
                values[f"sequence{number}"] = first + number
                instant = dialects.instant(connection, entry.created_at) or row[MOVED.index("last_activity_at")]
                values[f"created_at{number}"] = instant
            cursor.execute(self.insert, values)
        return _from_sqlite(connection, row)


def _values(entry: Entry, number: int) -> dict[str, Any]:
    external_id = entry.external_id
    return {
        f"type{number}": entry.type,
        f"role{number}": entry.role,
        f"content{number}": hide(entry.content),
        f"data{number}": dialects.as_json(entry.data),
        f"external_id{number}": external_id if external_id is None else hide(external_id),
        f"position{number}": entry.position,
        f"tokens{number}": entry.token_count,
        f"created_at{number}": entry.created_at,
    }


def _from_sqlite(connection: Any, row: Sequence[Any]) -> list[Any]:
    convert = connection.ops.convert_datetimefield_value
    return [
        convert(value, None, connection) if name.endswith("_at") else value
        for name, value in zip(MOVED, row, strict=True)
    ]


@lru_cache(maxsize=512)
def append(
    using: str,
    base: TimeoutPolicy,
    shape: tuple[tuple[bool, bool], ...],
    *,
    bound: bool,
    expected: bool,
    limited: bool,
) -> Append:
    """Build the append for a database, the timeouts above the session and a shape of events; of none, activity alone.

    Args:
        using: the database's alias.
        base: the timeouts in force where the session says nothing itself.
        shape: for each event whether it is a message and whether it brings its instant.
        bound: whether a client must be in control.
        expected: whether the last sequence is given.
        limited: whether there is a limit of messages.
    """
    dialect = dialects.of(using)
    messages = sum(is_message for is_message, _ in shape)
    sets = activity(dialect, base) | {
        "last_sequence": f"s.last_sequence + {len(shape)}",
        "token_count": "s.token_count + %(tokens)s",
    }
    if messages:
        sets |= {"message_count": f"s.message_count + {messages}", "status": "'active'"}
    where = ["s.id = %(id)s", *live(dialect), f"s.last_activity_at > {idle_since(dialect)}"]
    if bound:
        where.append(f"(s.strategy IN {_ANY_CLIENT} OR s.client = %(client)s)")
    if expected:
        where.append("s.last_sequence = %(expected)s")
    if limited and messages:
        where.append(f"s.message_count + {messages} <= %(limit)s")
    returning = ", ".join(f"s.{name}" for name in MOVED) if dialect.now else ", ".join(MOVED)
    if shape and dialect.now:
        returning = f"s.id, {returning}"
    insert = _insert_postgresql if dialect.now else _insert_sqlite
    return Append(update_session(sets, where, returning), insert(shape) if shape else "", shape)


def update_session(sets: Mapping[str, str], where: Sequence[str], returning: str) -> str:
    """Return an UPDATE of a session's row ``s``."""
    changes = ", ".join(f"{column} = {value}" for column, value in sets.items())
    return f"UPDATE chat_sessions_chatsession AS s SET {changes} WHERE {' AND '.join(where)} RETURNING {returning}"


def now(dialect: Dialect) -> str:
    """Return the instant, by the database's clock where it has one."""
    return dialect.now or "%(now)s"


def idle_since(dialect: Dialect) -> str:
    """Return the instant at which whoever has been idle since comes back."""
    return f"{dialect.now} - %(resume_after)s::interval" if dialect.now else "%(idle_since)s"


def live(dialect: Dialect) -> list[str]:
    """Return the conditions under which a session takes messages."""
    return [f"s.status IN ({_LIVE})", f"s.expires_at > {now(dialect)}"]


def activity(dialect: Dialect, base: TimeoutPolicy) -> dict[str, str]:
    """Return what any activity moves: the clock always, the deadline only forward and only where it renews."""
    policy = PolicySQL.over({}, base)
    instant = now(dialect)
    deadline = policy.deadline(dialect, instant)
    renewed = f"CASE WHEN {policy.renews} THEN {{}} ELSE {{}} END"
    return {
        "last_activity_at": f"{dialect.greatest}(s.last_activity_at, {instant})",
        "renewed_at": renewed.format(f"{dialect.greatest}(s.renewed_at, {instant})", "s.renewed_at"),
        "expires_at": renewed.format(f"{dialect.greatest}(s.expires_at, {deadline})", "s.expires_at"),
        "warned_at": f"CASE WHEN {policy.renews} AND {deadline} > s.expires_at THEN NULL ELSE s.warned_at END",
    }


@dataclass(frozen=True, slots=True)
class Touch:
    """The note of a page view, as SQL."""

    update: str

    def run(self, using: str, session_id: int) -> bool:
        """Execute it and tell whether it wrote."""
        settings = conf.get()
        connection = connections[using]
        parameters: dict[str, Any] = {"id": session_id}
        if dialects.is_postgresql(using):
            parameters |= {"resume_after": settings.resume_after, "interval": settings.touch_interval}
        else:
            instant = timezone.now()
            times = {"now": instant, "idle_since": instant - settings.resume_after}
            times["touched_before"] = instant - settings.touch_interval
            parameters |= {name: dialects.instant(connection, value) for name, value in times.items()}
        with connection.cursor() as cursor:
            cursor.execute(self.update, parameters)
            return cursor.fetchone() is not None


@lru_cache(maxsize=128)
def touch(using: str, base: TimeoutPolicy) -> Touch:
    """Build the note of a page view: it writes where the last one is older than the interval, and moves something.

    Where somebody has been idle for long enough to come back, the clock of activity stays, so that the coming back is
    recorded when it happens; only the deadline moves.
    """
    dialect = dialects.of(using)
    sets = activity(dialect, base)
    idle = f"s.last_activity_at <= {idle_since(dialect)}"
    sets["last_activity_at"] = f"CASE WHEN {idle} THEN s.last_activity_at ELSE {sets['last_activity_at']} END"
    before = f"{dialect.now} - %(interval)s::interval" if dialect.now else "%(touched_before)s"
    renews = PolicySQL.over({}, base).renews
    latest = f"CASE WHEN {renews} THEN {dialect.greatest}(s.last_activity_at, s.renewed_at) ELSE s.last_activity_at END"
    where = ["s.id = %(id)s", *live(dialect), f"{latest} <= {before}", f"({renews} OR NOT {idle})"]
    return Touch(update_session(sets, where, "s.id" if dialect.now else "id"))


def _insert_postgresql(shape: tuple[tuple[bool, bool], ...]) -> str:
    count = len(shape)
    rows = []
    for n, (is_message, is_dated) in enumerate(shape, 1):
        sequence = f"b.last_sequence - {count - n}"
        place = f"COALESCE(%(position{n})s::bigint, {sequence})" if is_message else "NULL::bigint"
        instant = f"%(created_at{n})s::timestamptz" if is_dated else "b.last_activity_at"
        rows.append(
            f"SELECT b.id, {sequence}, %(type{n})s::text, %(role{n})s::text, %(content{n})s::text,"
            f" %(data{n})s::jsonb, %(external_id{n})s::text, {place}, NULL::bigint, %(tokens{n})s::integer, {instant}"
            " FROM bumped b"
        )
    return f"{_INSERT} {' UNION ALL '.join(rows)}"


def _insert_sqlite(shape: tuple[tuple[bool, bool], ...]) -> str:
    rows = []
    for n, (is_message, _) in enumerate(shape, 1):
        place = f"COALESCE(%(position{n})s, %(sequence{n})s)" if is_message else "NULL"
        rows.append(
            f"(%(id)s, %(sequence{n})s, %(type{n})s, %(role{n})s, %(content{n})s, %(data{n})s, %(external_id{n})s,"
            f" {place}, NULL, %(tokens{n})s, %(created_at{n})s)"
        )
    return f"{_INSERT} VALUES {', '.join(rows)}"
