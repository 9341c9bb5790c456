"""A sweep with nothing to do looks at a few rows, however many sessions there are: by the indexes made for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_chat_sessions import batches, dialects
from django_chat_sessions.choices import RetentionAction
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import archiving, expiry, purging, retention, sessions
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import make_session

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("spoilt")]

#: Sessions that are not due, live and over each; more, and PostgreSQL would have to be asked to plan otherwise.
MANY = 10_000
#: Rows at which a statement may look.
FEW = 12

SWEEPS = {"expire": expiry.expire, "warn": expiry.warn, "archive": archiving.archive, "purge": purging.purge}
INDEXES = {"expire": "deadline", "warn": "deadline|own_warning", "archive": "retention", "purge": "retention"}


def multiply(session: ChatSession, number: int) -> None:
    """Insert so many copies of a session's row."""
    names = [f.column for f in ChatSession._meta.concrete_fields if f.name not in {"id", "uuid"}]
    columns = ", ".join(names)
    uuid, numbers = "gen_random_uuid()", f"generate_series(1, {number})"
    if connection.vendor == "sqlite":
        uuid = "lower(hex(randomblob(16)))"
        numbers = (
            f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) SELECT i FROM n)"
        )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO chat_sessions_chatsession (uuid, {columns})"
            f" SELECT {uuid}, {columns} FROM chat_sessions_chatsession, {numbers} n WHERE id = %s",
            [session.pk],
        )


@pytest.fixture
def crowd(alice, configured):
    """Fill the table with sessions that are live or over, and not due for anything."""
    configured(RETENTION={"action": "archive"}, APPLICATION_RETENTION={"billing": {"ended": 90, "action": "delete"}})
    live, gone = make_session(alice, agent="silent"), make_session(alice, agent="silent")
    billing = make_session(alice, agent="silent", application="billing")
    for session in (gone, billing):
        sessions.end(session)
    own = [
        make_session(alice, agent="silent", timeout=TimeoutOverrides(mode, minutes, None, warning))
        for mode, minutes, warning in (("lenient", None, None), (None, 60, None), (None, 60, 9), ("lenient", None, 70))
    ]
    for session in (live, gone, billing):
        multiply(session, MANY)
    for session in own:
        multiply(session, MANY // 4)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return live


@pytest.fixture
def said() -> Callable[[Callable[[], Any]], list[tuple[str, Any]]]:
    """Return a function that tells which questions were asked of the database by something."""

    def said(work: Callable[[], Any]) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []

        def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith(("SELECT s.", 'SELECT "chat_sessions_chatsession"', "WITH")):
                found.append((sql, params))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            work()
        return found

    return said


def named(sql: str, params: Any) -> tuple[str, list[Any]]:
    """Return a statement with numbered parameters, as PostgreSQL prepares it, and their values."""
    if isinstance(params, dict):
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
        for number, name in enumerate(names, 1):
            sql = sql.replace(f"%({name})s", f"${number}")
        return sql.replace("%%", "%"), [params[name] for name in names]
    numbers = iter(range(1, 1000))
    return re.sub("%s", lambda match: f"${next(numbers)}", sql).replace("%%", "%"), list(params or ())


def literal(value: Any) -> str:
    if isinstance(value, (bool, int)):
        return str(value)
    if isinstance(value, list):
        return f"'{{{','.join(map(str, value))}}}'"
    return "'" + str(value).replace("'", "''") + "'"


def plan(sql: str, params: Any, *, generic: bool) -> dict[str, Any]:
    """Return how PostgreSQL does a statement, and what it took."""
    statement, values = named(sql, params)
    given = f"({', '.join(map(literal, values))})" if values else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL plan_cache_mode = {'force_generic_plan' if generic else 'force_custom_plan'}")
        # Past psycopg, which would look for parameters of its own.
        raw = connection.connection.cursor()
        raw.execute(f"PREPARE asked AS {statement}".encode())
        raw.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked{given}".encode())
        found = raw.fetchone()[0]
        raw.execute(b"DEALLOCATE asked")
    return (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]


def nodes(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield root
    for child in root.get("Plans", ()):
        yield from nodes(child)


def looked_at(root: dict[str, Any]) -> int:
    """Return how many rows the plan's scans looked at."""
    scans = [node for node in nodes(root) if "Scan" in node["Node Type"]]
    return sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans)


@pytest.mark.postgres
@pytest.mark.parametrize("generic", [False, True], ids=["custom plan", "generic plan"])
@pytest.mark.parametrize("name", SWEEPS)
def test_postgresql_looks_at_few_rows_where_nothing_is_due(crowd, said, name, generic):
    asked = said(SWEEPS[name])
    assert len(asked) >= 2
    for sql, params in asked:
        found = plan(sql, params, generic=generic)
        assert looked_at(found) <= FEW, (sql, found)
    used = {node.get("Index Name", "") for sql, params in asked for node in nodes(plan(sql, params, generic=generic))}
    assert any(re.fullmatch(f"chat_sessions_({INDEXES[name]})", index) for index in used)


@pytest.mark.postgres
@pytest.mark.parametrize("generic", [False, True], ids=["custom plan", "generic plan"])
def test_postgresql_takes_a_batch_in_the_order_of_the_index(crowd, generic):
    """No sort of all that is due, and no look at what comes after the batch."""
    ChatSession.objects.filter(settled_at__isnull=False, application="").update(
        settled_at=dialects.now("default") - timedelta(days=100)
    )
    with connection.cursor() as cursor:
        cursor.execute("UPDATE chat_sessions_chatsession SET settled_at = settled_at - id * interval '1 second'")
        cursor.execute("ANALYZE")
    now = dialects.now("default")
    due = next(iter(retention.due("default", now, RetentionAction.ARCHIVE)))
    asked: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        first = batches.take("default", due, 10)
        batches.take("default", due, 10, after=first[-1])
    for sql, params in asked:
        found = plan(sql, params, generic=generic)
        assert looked_at(found) <= 60, (sql, found)


@pytest.mark.sqlite
@pytest.mark.parametrize("name", SWEEPS)
def test_sqlite_searches_by_the_index_where_nothing_is_due(crowd, said, name):
    asked = said(SWEEPS[name])
    assert len(asked) >= 2
    for sql, params in asked:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
            steps = [row[3] for row in cursor.fetchall()]
        scans = [step for step in steps if re.match(r"SCAN|SEARCH", step)]
        assert scans
        # One that is sorted by an index and ends at the first row is a SCAN of that index.
        assert all("USING" in step for step in scans), (sql, steps)
        assert not [step for step in steps if "TEMP B-TREE FOR ORDER BY" in step], (sql, steps)
    assert any(re.search(f"chat_sessions_({INDEXES[name]})", step) for step in _steps(asked))


def _steps(asked: list[tuple[str, Any]]) -> Iterator[str]:
    for sql, params in asked:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
            yield from (row[3] for row in cursor.fetchall())


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_with_nothing_due_asks_as_often_however_many_there_are(alice, said, configured, name):
    configured(RETENTION={"action": "archive"})
    counted = []
    for number in (1, 50):
        live, gone = make_session(alice, agent="silent"), make_session(alice, agent="silent")
        sessions.end(gone)
        for session in (live, gone):
            multiply(session, number)
        counted.append(len(said(SWEEPS[name])))
    assert counted[0] == counted[1]
