"""The hot statements, written by hand: each is built once for a shape of call and then only given its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import DataError, connections, transaction
from django.utils import timezone

from . import conf, dialects
from .choices import LIVE, MESSAGE_TYPES, Strategy
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

#: How many of them are no instants.
_COUNTERS = 4

_LIVE = ", ".join(f"'{status}'" for status in LIVE)
_ANY_CLIENT = f"('{Strategy.MULTIPLE}', '{Strategy.SINGLE}')"
INSERT_EVENT = (
    "INSERT INTO chat_sessions_sessionevent (session_id, sequence, type, role, content, data, external_id, position,"
    " superseded_by, token_count, created_at)"
)
INSERT_ENTRY = (
    "INSERT INTO chat_sessions_outboxentry (session_id, sequence, subscriber, attempts, next_attempt_at, error,"
    " created_at)"
)

#: Who is told of the events of an append: how many of these stand behind an event, and a subscriber.
Told = Sequence[tuple[int, str]]


#: Undoes a statement of PostgreSQL that waited for the row's lock, by an error that nothing else here can make.
#: The conditions are evaluated before such a wait, and again after it only where the row was changed meanwhile: a
#: session whose deadline passed during the wait would take the message. To lock the row first costs an append a fifth.
_WAITED = "1 / (CASE WHEN clock_timestamp() > {row}.last_activity_at + interval '100 milliseconds' THEN 0 ELSE 1 END)"

#: A column of both tables.
_TOKENS = "token_count"

#: Columns of an event that most leave empty.
_OPTIONAL = ("external_id", "position", _TOKENS, "created_at")

#: Of an event: whether it is a message of the conversation, and what it brings of the optional columns.
Shape = tuple[bool, tuple[str, ...]]


def shape(entry: Entry) -> Shape:
    """Return what a statement has to know of an event; whatever else differs is a parameter."""
    return entry.type in MESSAGE_TYPES, tuple(name for name in _OPTIONAL if getattr(entry, name) is not None)


def anything(entry: Entry) -> Shape:
    """Return the same for one of several events: all are parameters, so that their statements stay few."""
    return entry.type in MESSAGE_TYPES, _OPTIONAL if entry.created_at is not None else _OPTIONAL[:-1]


@dataclass(frozen=True, slots=True)
class Append:
    """The append of a number of events as one statement of PostgreSQL; another one where somebody is to be told."""

    sql: str
    telling: str = ""

    def run(
        self, using: str, parameters: dict[str, Any], entries: Sequence[Entry], told: Told = ()
    ) -> Sequence[Any] | None:
        """Execute it and return the columns of ``MOVED``, or None where the row does not take the events."""
        for number, entry in enumerate(entries, 1):
            parameters.update(_values(entry, number))
        if told:
            parameters["behind"], parameters["subscribers"] = map(list, zip(*told, strict=True))
        sql = self.telling if told else self.sql
        connection = connections[using]
        if connection.in_atomic_block and any(entry.external_id is not None for entry in entries):
            with transaction.atomic(using=using):
                return self._fetch(connection, sql, parameters)
        return self._fetch(connection, sql, parameters)

    def _fetch(self, connection: Any, sql: str, parameters: dict[str, Any]) -> Sequence[Any] | None:
        with connection.cursor() as cursor:
            try:
                cursor.execute(sql, parameters)
            except DataError:
                # It waited for the row (``_WAITED``); whoever asks again under the lock learns how things stand now.
                if connection.in_atomic_block:
                    raise
                return None
            row = cursor.fetchone()
        return row and [*row[:_COUNTERS], *map(dialects.from_microseconds, row[_COUNTERS : len(MOVED)])]


@dataclass(frozen=True, slots=True)
class SQLiteAppend:
    """The append of a number of events as an UPDATE and an INSERT of SQLite."""

    update: str
    insert: str

    def run(
        self, using: str, parameters: dict[str, Any], entries: Sequence[Entry], told: Told = ()
    ) -> Sequence[Any] | None:
        """Execute it and return the columns of ``MOVED``, or None where the row does not take the events."""
        connection = connections[using]
        with transaction.atomic(using=using), connection.cursor() as cursor:
            # Not before the transaction has begun, which may have waited for another writer past the deadline.
            now = timezone.now()
            parameters["now"] = dialects.instant(connection, now)
            parameters["idle_since"] = dialects.instant(connection, now - conf.get().resume_after)
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
            if told:
                _post_sqlite(cursor, {**parameters, "last": first + len(entries)}, told)
        return _from_sqlite(connection, row)


def _post_sqlite(cursor: Any, parameters: Mapping[str, Any], told: Told) -> None:
    sql = (
        f"{INSERT_ENTRY} SELECT %(id)s, %(last)s - json_extract(t.value, '$[0]'), json_extract(t.value, '$[1]'), 0,"
        " %(now)s, '', %(now)s FROM json_each(%(told)s) t"
    )
    cursor.execute(sql, {**{name: parameters[name] for name in ("id", "last", "now")}, "told": dialects.as_json(told)})


def _values(entry: Entry, number: int) -> dict[str, Any]:
    external_id = entry.external_id
    values = (
        entry.type,
        entry.role,
        hide(entry.content),
        dialects.as_json(entry.data) if entry.data else "{}",
        external_id if external_id is None else hide(external_id),
        entry.position,
        entry.token_count,
        entry.created_at,
    )
    return dict(zip(_parameters(number), values, strict=True))


@lru_cache(maxsize=256)
def _parameters(number: int) -> tuple[str, ...]:
    names = ("type", "role", "content", "data", "external_id", "position", "token_count", "created_at")
    return tuple(f"{name}{number}" for name in names)


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
    shapes: tuple[Shape, ...],
    *,
    resume_after: timedelta,
    limit: int | None,
    bound: bool,
    expected: bool,
    alone: bool,
) -> Append | SQLiteAppend:
    """Build the append for a database, the settings in force and the shapes of the events; of none, activity alone.

    Args:
        using: the database's alias.
        base: the timeouts in force where the session says nothing itself.
        shapes: of each event.
        resume_after: idleness after which coming back is recorded.
        limit: messages a session.
        bound: whether a client must be in control.
        expected: whether the last sequence is given.
        alone: whether it is a transaction by itself, and may undo itself without spoiling another.
    """
    dialect = dialects.of(using)
    messages = sum(is_message for is_message, _ in shapes)
    sets = activity(dialect, base) | _counts(shapes, messages)
    where = ["s.id = %(id)s", *live(dialect), f"s.last_activity_at > {idle_since(dialect, resume_after)}"]
    if bound:
        where.append(f"(s.strategy IN {_ANY_CLIENT} OR s.client = %(client)s)")
    if expected:
        where.append("s.last_sequence = %(expected)s")
    if limit is not None and messages:
        where.append(f"s.message_count + {messages} <= {int(limit)}")
    if not dialect.now:
        return SQLiteAppend(update_session(sets, where, ", ".join(MOVED)), _insert_sqlite(shapes) if shapes else "")
    if not shapes:
        return Append(update_session(sets, where, _returning("s", alone=alone)))
    returned = _returning("s", alone=alone)
    update = update_session(sets, where, "s.id, " + ", ".join(f"s.{name}" for name in MOVED))
    begin, end = f"WITH s AS ({update}), added AS ({_insert_postgresql(shapes)})", f" SELECT {returned} FROM s"
    return Append(begin + end, f"{begin}, posted AS ({_POST_POSTGRESQL}){end}")


def _counts(shapes: tuple[Shape, ...], messages: int) -> dict[str, str]:
    """Return what events of these shapes move beyond what any activity does."""
    counts: dict[str, str] = {}
    if shapes:
        counts["last_sequence"] = f"s.last_sequence + {len(shapes)}"
    if any(_TOKENS in given for _, given in shapes):
        counts[_TOKENS] = "s.token_count + %(tokens)s"
    if messages:
        counts |= {"message_count": f"s.message_count + {messages}", "status": "'active'"}
    return counts


def _returning(row: str, *, alone: bool) -> str:
    names = [f"{row}.{name}" for name in MOVED]
    guard = [_WAITED.format(row=row)] if alone else []
    return ", ".join([*names[:_COUNTERS], *map(dialects.microseconds, names[_COUNTERS:]), *guard])


def update_session(sets: Mapping[str, str], where: Sequence[str], returning: str) -> str:
    """Return an UPDATE of a session's row ``s``."""
    changes = ", ".join(f"{column} = {value}" for column, value in sets.items())
    return f"UPDATE chat_sessions_chatsession AS s SET {changes} WHERE {' AND '.join(where)} RETURNING {returning}"


def now(dialect: Dialect) -> str:
    """Return the instant, by the database's clock where it has one."""
    return dialect.now or "%(now)s"


def idle_since(dialect: Dialect, resume_after: timedelta) -> str:
    """Return the instant at which whoever has been idle since comes back."""
    return f"{dialect.now} - {_interval(resume_after)}" if dialect.now else "%(idle_since)s"


def _interval(duration: timedelta) -> str:
    """Return a setting's duration as a literal; a timedelta is dear as a parameter."""
    return f"interval '{duration.total_seconds():.6f} seconds'"


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
        if not dialects.is_postgresql(using):
            instant = timezone.now()
            times = {"now": instant, "idle_since": instant - settings.resume_after}
            times["touched_before"] = instant - settings.touch_interval
            parameters |= {name: dialects.instant(connection, value) for name, value in times.items()}
        with connection.cursor() as cursor:
            cursor.execute(self.update, parameters)
            return cursor.fetchone() is not None


def touch(using: str, base: TimeoutPolicy) -> Touch:
    """Return the note of a page view for a database and the settings in force."""
    settings = conf.get()
    return _touch(using, base, settings.resume_after, settings.touch_interval)


@lru_cache(maxsize=128)
def _touch(using: str, base: TimeoutPolicy, resume_after: timedelta, interval: timedelta) -> Touch:
    """Build the note of a page view: it writes where the last one is older than the interval, and moves something.

    Where somebody has been idle for long enough to come back, the clock of activity stays, so that the coming back is
    recorded when it happens; only the deadline moves.
    """
    dialect = dialects.of(using)
    sets = activity(dialect, base)
    idle = f"s.last_activity_at <= {idle_since(dialect, resume_after)}"
    sets["last_activity_at"] = f"CASE WHEN {idle} THEN s.last_activity_at ELSE {sets['last_activity_at']} END"
    before = f"{dialect.now} - {_interval(interval)}" if dialect.now else "%(touched_before)s"
    renews = PolicySQL.over({}, base).renews
    latest = f"CASE WHEN {renews} THEN {dialect.greatest}(s.last_activity_at, s.renewed_at) ELSE s.last_activity_at END"
    where = ["s.id = %(id)s", *live(dialect), f"{latest} <= {before}", f"({renews} OR NOT {idle})"]
    return Touch(update_session(sets, where, "s.id" if dialect.now else "id"))


def _insert_postgresql(shapes: tuple[Shape, ...]) -> str:
    rows = []
    for n, (is_message, given) in enumerate(shapes, 1):
        sequence = f"(s.last_sequence - {len(shapes) - n})"
        found = {name: f"%({name}{n})s" for name in given}
        place = f"COALESCE({found['position']}::bigint, {sequence})" if "position" in found else sequence
        rows.append(
            f"SELECT s.id, {sequence}, %(type{n})s::text, %(role{n})s::text, %(content{n})s::text,"
            f" %(data{n})s::jsonb, {found.get('external_id', 'NULL')}::text, {place if is_message else 'NULL'}::bigint,"
            f" NULL::bigint, {found.get('token_count', 'NULL')}::integer,"
            f" {found.get('created_at', 's.last_activity_at')}::timestamptz FROM s"
        )
    return f"{INSERT_EVENT} {' UNION ALL '.join(rows)}"


# Not at the instant of the last activity, which may be ahead of a clock that was set back.
_POST_POSTGRESQL = (
    f"{INSERT_ENTRY} SELECT s.id, s.last_sequence - t.behind, t.name, 0, statement_timestamp(), '',"
    " statement_timestamp() FROM s, unnest(%(behind)s::integer[], %(subscribers)s::text[]) t(behind, name)"
)


def _insert_sqlite(shapes: tuple[Shape, ...]) -> str:
    rows = []
    for n, (is_message, _) in enumerate(shapes, 1):
        place = f"COALESCE(%(position{n})s, %(sequence{n})s)" if is_message else "NULL"
        rows.append(
            f"(%(id)s, %(sequence{n})s, %(type{n})s, %(role{n})s, %(content{n})s, %(data{n})s, %(external_id{n})s,"
            f" {place}, NULL, %(token_count{n})s, %(created_at{n})s)"
        )
    return f"{INSERT_EVENT} VALUES {', '.join(rows)}"
