"""What sweeps look for, and how they take it: bounded batches, found by the indexes that are made for it.

A ``Due`` says of some rows that something has to be done to them. What it says is both what a sweep takes and what its
preview counts. The rows of one ``Due`` are of one group (an agent's, say), so that an index has them in the order in
which they fell due, and a group in which nothing is due costs a look at the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db import connections

from . import dialects
from .choices import ALIVE, LIVE

SESSIONS = "chat_sessions_chatsession s"

_LIVE = f"s.status IN ({', '.join(f'{status!r}' for status in map(str, LIVE))})"
_ALIVE = ", ".join(f"'{status}'" for status in ALIVE)

#: The conditions of the partial indexes, which a statement has to repeat for SQLite to use them.
LIVE_SESSIONS = _LIVE
OWN_WARNINGS = (
    f"{_LIVE} AND (s.timeout_mode IS NOT NULL OR s.timeout_minutes IS NOT NULL"
    " OR s.warning_threshold_minutes IS NOT NULL)"
)

#: How long something has been due, as a preview groups it.
AGES: Mapping[str, timedelta] = MappingProxyType(
    {
        "under an hour": timedelta(hours=1),
        "under a day": timedelta(days=1),
        "under a week": timedelta(weeks=1),
        "under 30 days": timedelta(days=30),
    }
)
OLDER = "30 days and more"


def settled(using: str) -> str:
    """Return the condition of sessions that are over and not held."""
    return f"s.settled_at IS NOT NULL AND {flag(using, 's.is_held', is_set=False)}"


def held(using: str) -> str:
    """Return the condition of sessions that are over and held."""
    return f"s.settled_at IS NOT NULL AND {flag(using, 's.is_held', is_set=True)}"


def flag(using: str, column: str, *, is_set: bool) -> str:
    """Return a condition on a flag in the words of an index.

    SQLite compares them as they are written, which Django does in one way up to 6.0 and in another from 6.1 on; the
    database may have been made by either.
    """
    plain = column if is_set else f"NOT {column}"
    return plain if dialects.is_postgresql(using) else f"{plain} AND {column} = {int(is_set)}"


@dataclass(frozen=True, slots=True)
class Due:
    """Rows to which something has to be done.

    Attributes:
        where: the condition, over a session ``s``; text of ours alone.
        since: the instant from which each has been due, as SQL.
        parameters: of both, by name.
        source: the rows; ``s`` has to be one of them.
        key: what names one.
    """

    where: str
    since: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: str = SESSIONS
    key: str = "s.id"


@dataclass(frozen=True, slots=True)
class Taken:
    """A session that a batch has locked.

    Attributes:
        id, uuid: its own.
        since: from when it has been due.
        events: how long its log is.
    """

    id: int
    uuid: UUID
    since: datetime
    events: int


def take(using: str, due: Due, size: int, *, events: int | None = None, after: Taken | None = None) -> list[Taken]:
    """Lock sessions, those first that have been due for longest; who is locked by another is left out.

    Args:
        using: the database, in a transaction.
        due: sessions.
        size: sessions at the most.
        events: events at the most, all together, unless one session alone has more.
        after: only those that come after this one.
    """
    dialect = dialects.of(using)
    connection = connections[using]
    parameters = dict(due.parameters)
    where = due.where
    if after is not None:
        where += f" AND ({due.since}, s.id) > (%(after)s, %(after_id)s)"
        parameters |= {"after": dialects.instant(connection, after.since), "after_id": after.id}
    sql = (
        f"SELECT s.id, s.uuid, {due.since}, s.last_sequence FROM {due.source} WHERE {where}"
        f" ORDER BY {due.since}, s.id LIMIT {int(size)}{dialect.skip}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        taken = [Taken(row[0], _uuid(row[1]), _instant(connection, row[2]), row[3]) for row in cursor.fetchall()]
    return taken if events is None else _bounded(taken, events)


def _bounded(taken: list[Taken], events: int) -> list[Taken]:
    total = 0
    for number, one in enumerate(taken):
        total += one.events
        if number and total > events:
            return taken[:number]
    return taken


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def _instant(connection: Any, value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    found: datetime = connection.ops.convert_datetimefield_value(value, None, connection)
    return found


def live_agents(using: str, *, until: datetime | None = None) -> list[str]:
    """Return the agents of the live sessions, each by one look at an index.

    Args:
        using: the database.
        until: only those with a deadline by then.
    """
    found = _groups(using, ("agent",), "expires_at", _LIVE)
    return [agent for agent, first in found if until is None or first <= until]


def settled_groups(using: str, status: str) -> list[tuple[str, str, datetime]]:
    """Return the applications and agents of the sessions that are over in a status, and since when the first has been.

    Each by one look at an index. Held ones do not count: nothing falls due for them.
    """
    where = f"{settled(using)} AND s.status = '{status}'"
    found = _groups(using, ("application", "agent"), "settled_at", where)
    return [(application, agent, first) for application, agent, first in found]


def own_thresholds(using: str, agent: str, mode: str) -> list[int]:
    """Return the different thresholds that an agent's live sessions set themselves, each by one look at an index.

    Args:
        using: the database.
        agent: the name.
        mode: a condition on their modes; text of ours alone.
    """
    # By the mode, too, which is the same for all: PostgreSQL does not see that of one that IS NULL.
    sql = (
        f"SELECT s.warning_threshold_minutes FROM {SESSIONS} WHERE {OWN_WARNINGS} AND s.agent = %(agent)s AND {mode}"
        " AND s.warning_threshold_minutes > %(last)s ORDER BY s.timeout_mode, s.warning_threshold_minutes LIMIT 1"
    )
    found: list[int] = []
    with connections[using].cursor() as cursor:
        while True:
            cursor.execute(sql, {"agent": agent, "last": found[-1] if found else -1})
            row = cursor.fetchone()
            if row is None:
                return found
            found.append(row[0])


def say_themselves(using: str, agent: str) -> bool:
    """Tell whether any of an agent's live sessions says itself when it is warned of."""
    # In an order, or PostgreSQL takes the first that it comes by, reading the table.
    sql = (
        f"SELECT s.id FROM {SESSIONS} WHERE {OWN_WARNINGS} AND s.agent = %(agent)s"
        " ORDER BY s.timeout_mode, s.warning_threshold_minutes LIMIT 1"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {"agent": agent})
        return cursor.fetchone() is not None


def _groups(using: str, columns: Sequence[str], at: str, where: str) -> Iterator[tuple[Any, ...]]:
    """Yield the different values of the columns that an index begins with, and the first of its next: a loose scan.

    ``SELECT DISTINCT`` would read every row (https://wiki.postgresql.org/wiki/Loose_indexscan). The values are those
    that are stored, to be given back as they are.
    """
    connection = connections[using]
    names = ", ".join(f"s.{column}" for column in columns)
    given = ", ".join(f"%({column})s" for column in columns)
    sql = f"SELECT {names}, s.{at} FROM {SESSIONS} WHERE {where}{{more}} ORDER BY {names}, s.{at} LIMIT 1"
    more, values = "", None
    while True:
        with connection.cursor() as cursor:
            cursor.execute(sql.format(more=more), None if values is None else dict(zip(columns, values, strict=True)))
            row = cursor.fetchone()
        if row is None:
            return
        *values, first = row
        yield (*values, _instant(connection, first))
        more = f" AND ({names}) > ({given})"


def answering(using: str, ids: Sequence[int]) -> list[int]:
    """Return which of these sessions owe an answer."""
    dialect = dialects.of(using)
    sql = (
        f"SELECT r.session_id FROM chat_sessions_run r WHERE r.status IN ({_ALIVE})"
        f" AND {dialect.among.format(column='r.session_id', name='ids')}"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {"ids": dialects.integers(using, ids)})
        return [row[0] for row in cursor.fetchall()]


def roots(using: str, ids: Sequence[int]) -> dict[int, int]:
    """Return the roots of those of the sessions that have a parent or children."""
    if not ids:
        return {}
    sql = (
        f"SELECT s.id, COALESCE(s.root_id, s.id) FROM {SESSIONS}"
        f" WHERE {dialects.of(using).among.format(column='s.id', name='ids')} AND (s.parent_id IS NOT NULL"
        " OR EXISTS (SELECT 1 FROM chat_sessions_chatsession c WHERE c.parent_id = s.id))"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {"ids": dialects.integers(using, ids)})
        return dict(cursor.fetchall())


def untold(using: str, ids: Sequence[int]) -> set[int]:
    """Return the sessions of which subscribers have yet to be told something.

    To be asked of locked sessions: PostgreSQL, which waited for a row, looks again at that row alone, and not at what
    whoever held it has left in the outbox.
    """
    if not ids:
        return set()
    among = dialects.of(using).among.format(column="o.session_id", name="ids")
    sql = f"SELECT o.session_id FROM chat_sessions_outboxentry o WHERE {among} AND o.set_aside_at IS NULL"
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {"ids": dialects.integers(using, ids)})
        return {row[0] for row in cursor.fetchall()}


def held_forks(using: str, ids: Sequence[int]) -> set[int]:
    """Lock the forks of locked sessions; return which of the sessions have one that somebody else has locked.

    Deleting a session changes its forks: so nobody is waited for, nor in a circle.
    """
    if not ids or not dialects.is_postgresql(using):
        return set()
    forked = f"FROM {SESSIONS} WHERE s.forked_from_id = ANY(%(ids)s)"
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT s.id {forked} ORDER BY s.id FOR UPDATE SKIP LOCKED", {"ids": list(ids)})
        ours = [row[0] for row in cursor.fetchall()]
        cursor.execute(f"SELECT s.forked_from_id {forked} AND s.id <> ALL(%(ours)s)", {"ids": list(ids), "ours": ours})
        return {row[0] for row in cursor.fetchall()}


#: What is below some sessions, however deep and whatever became of what is between.
_BELOW = (
    "WITH RECURSIVE below(top, id) AS (SELECT c.parent_id, c.id FROM chat_sessions_chatsession c WHERE {among}"
    " UNION SELECT b.top, c.id FROM below b JOIN chat_sessions_chatsession c ON c.parent_id = b.id)"
)


def live_below(using: str, ids: Sequence[int], size: int, *, waits: bool) -> list[int]:
    """Lock live sessions that are below some sessions, the oldest first, as everybody does.

    Args:
        using: the database, in a transaction.
        ids: the sessions above.
        size: sessions at the most.
        waits: whether to wait for those that are locked by another; if not, they are left out.
    """
    dialect = dialects.of(using)
    among = dialect.among.format(column="c.parent_id", name="ids")
    sql = (
        f"{_BELOW.format(among=among)} SELECT s.id FROM {SESSIONS} WHERE s.id IN (SELECT id FROM below) AND {_LIVE}"
        f" ORDER BY s.id LIMIT {int(size)}{dialect.lock if waits else dialect.skip}"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {"ids": dialects.integers(using, ids)})
        return [row[0] for row in cursor.fetchall()]


def mark(using: str, ids: Sequence[int]) -> None:
    """Mark those of some locked sessions below which there is still a live one."""
    among = dialects.of(using).among.format(column="c.parent_id", name="ids")
    sql = (
        f"{_BELOW.format(among=among)} UPDATE chat_sessions_chatsession SET is_cascading = TRUE WHERE id IN"
        f" (SELECT b.top FROM below b JOIN {SESSIONS} ON s.id = b.id WHERE {_LIVE})"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, {"ids": dialects.integers(using, ids)})


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows are due, of one status, agent and age."""

    status: str
    agent: str
    age: str
    number: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row that is due: its session, and since when."""

    session: UUID
    status: str
    agent: str
    since: datetime


def count(using: str, due: Due, now: datetime) -> list[Counted]:
    """Count what is due, by status, agent and age."""
    connection = connections[using]
    names = {f"age{number}": dialects.instant(connection, now - age) for number, age in enumerate(AGES.values())}
    cases = " ".join(f"WHEN {due.since} > %(age{number})s THEN '{age}'" for number, age in enumerate(AGES))
    sql = (
        f"SELECT s.status, s.agent, CASE {cases} ELSE '{OLDER}' END, count(*) FROM {due.source} WHERE {due.where}"
        " GROUP BY 1, 2, 3"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, {**due.parameters, **names})
        return [Counted(*row) for row in cursor.fetchall()]


def sample(using: str, due: Due, size: int) -> list[Example]:
    """Return some of what is due, what has been so for longest first."""
    connection = connections[using]
    sql = (
        f"SELECT s.uuid, s.status, s.agent, {due.since} FROM {due.source} WHERE {due.where}"
        f" ORDER BY {due.since}, {due.key} LIMIT {int(size)}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, due.parameters)
        rows = cursor.fetchall()
    return [Example(_uuid(row[0]), row[1], row[2], _instant(connection, row[3])) for row in rows]
