"""What PostgreSQL and SQLite say differently, in the statements that are written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from .fields import dump
from .rules.timeouts import MODES, TimeoutPolicy


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words of one database.

    Attributes:
        now: the database's instant, under a row's lock; empty where the process's clock is the one.
        least, greatest: functions of several arguments.
        interval: an instant plus a number of minutes, as a template of ``at`` and ``minutes``.
        instant: a parameter as an instant, as a template of ``name``.
        json: a parameter as JSON, as a template of ``name``.
        build, collect: functions that make a JSON object, a JSON array of rows.
        nested: a JSON value, kept as JSON when it is nested, as a template of ``value``.
        iso: an instant as ISO 8601 text, as a template of ``at``.
        lock: what makes a query lock the rows of ``s``.
        skip: the same, leaving out those that somebody else has locked.
        among: a condition that a column is among a parameter of many integers, as a template of ``column``, ``name``.
        seconds: from one instant to another, to the millisecond, as a template of ``start`` and ``end``.
    """

    now: str
    least: str
    greatest: str
    interval: str
    instant: str
    json: str
    build: str
    collect: str
    nested: str
    iso: str
    lock: str
    skip: str
    among: str
    seconds: str


POSTGRESQL = Dialect(
    now="clock_timestamp()",
    least="LEAST",
    greatest="GREATEST",
    interval="({at} + make_interval(mins => {minutes}))",
    instant="%({name})s::timestamptz",
    json="%({name})s::jsonb",
    build="json_build_object",
    collect="json_agg",
    nested="{value}",
    iso="""to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    lock=" FOR UPDATE OF s",
    skip=" FOR UPDATE OF s SKIP LOCKED",
    among="{column} = ANY(%({name})s)",
    seconds="round(extract(epoch FROM ({end} - {start}))::numeric, 3)",
)

# Django stores an instant in SQLite as naive UTC text; its own function for F() + timedelta keeps that form.
SQLITE = Dialect(
    now="",
    least="MIN",
    greatest="MAX",
    interval="django_format_dtdelta('+', {at}, ({minutes}) * 60000000)",
    instant="%({name})s",
    json="%({name})s",
    build="json_object",
    collect="json_group_array",
    nested="json({value})",
    # Django leaves out the microseconds where there are none.
    iso="(replace(CASE length({at}) WHEN 19 THEN {at} || '.000000' ELSE {at} END, ' ', 'T') || 'Z')",
    lock="",
    skip="",
    among="{column} IN (SELECT value FROM json_each(%({name})s))",
    # julianday() keeps no more than milliseconds of either; Django's own function for differences keeps all.
    seconds="round(django_timestamp_diff({end}, {start}) / 1000000.0, 3)",
)


def of(using: str) -> Dialect:
    """Return the words of the database under that alias."""
    return POSTGRESQL if connections[using].vendor == "postgresql" else SQLITE


def is_postgresql(using: str) -> bool:
    """Tell whether the database under that alias is PostgreSQL."""
    return connections[using].vendor == "postgresql"


def instant(connection: BaseDatabaseWrapper, value: datetime | None) -> Any:
    """Return an instant as a statement's parameter."""
    return connection.ops.adapt_datetimefield_value(value)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(column: str) -> str:
    """Return an instant of PostgreSQL as an integer, for ``from_microseconds``.

    Django reads an instant's text in Python, which costs ten times as much, and a session has seven of them.
    """
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


def from_microseconds(value: int | None) -> datetime | None:
    """Return the instant."""
    return None if value is None else _EPOCH + timedelta(0, 0, value)


def integers(using: str, values: Iterable[int]) -> Any:
    """Return many integers as the one parameter that ``Dialect.among`` takes."""
    return list(values) if is_postgresql(using) else json.dumps(list(values))


def as_json(value: Any) -> str:
    """Return a JSON value as a statement's parameter."""
    return dump(value)


def now(using: str) -> datetime:
    """Return the instant that decides: the database's where it has a clock of its own, else this process's."""
    if not is_postgresql(using):
        return timezone.now()
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: datetime = cursor.fetchone()[0]
    return found


@dataclass(frozen=True, slots=True)
class PolicySQL:
    """The timeouts in force as SQL over a session's row ``s``, from what it inherits (``Agent.inherited``).

    It says in SQL what ``rules.timeouts.merge`` says in Python, so that a row's own overrides are read under its lock.
    """

    idle: str
    maximum: str
    warning: str
    renews: str

    @classmethod
    def over(cls, bases: Mapping[str, TimeoutPolicy], default: TimeoutPolicy) -> PolicySQL:
        """Build the expressions for sessions of several agents at once; the values are integers, never text."""
        idle = f"COALESCE(s.timeout_minutes, {_modes('timeout_minutes')}, {_bases(bases, default, 'timeout_minutes')})"
        own_maximum = f"COALESCE(s.max_duration_minutes, {_modes('max_duration_minutes')})"
        base_maximum = _bases(bases, default, "max_duration_minutes")
        warning = (
            f"COALESCE({_modes('warning_threshold_minutes')}, {_bases(bases, default, 'warning_threshold_minutes')})"
        )
        halved = f"CASE WHEN {warning} < {idle} THEN {warning} ELSE {idle} / 2 END"
        return cls(
            idle=idle,
            maximum=f"COALESCE({own_maximum}, CASE WHEN {base_maximum} < {idle} THEN {idle} ELSE {base_maximum} END)",
            warning=f"COALESCE(s.warning_threshold_minutes, {halved})",
            renews=f"COALESCE(s.auto_renew, {_bases(bases, default, 'auto_renew')})",
        )

    def deadline(self, dialect: Dialect, renewed_at: str) -> str:
        """Return the formula of the deadline for a session renewed at that instant."""
        idle = dialect.interval.format(at=renewed_at, minutes=self.idle)
        return f"{dialect.least}({idle}, {dialect.interval.format(at='s.created_at', minutes=self.maximum)})"


def _modes(name: str) -> str:
    pairs = ((mode, getattr(values, name)) for mode, values in MODES.items())
    cases = " ".join(f"WHEN '{mode}' THEN {value}" for mode, value in pairs if value is not None)
    return f"CASE s.timeout_mode {cases} END"


def _literal(value: object) -> str:
    return str(value).upper() if isinstance(value, bool) else str(int(str(value)))


def _bases(bases: Mapping[str, TimeoutPolicy], default: TimeoutPolicy, name: str) -> str:
    otherwise = getattr(default, name)
    different = {agent: getattr(p, name) for agent, p in bases.items() if getattr(p, name) != otherwise}
    if not different:
        return _literal(otherwise)
    cases = " ".join(f"WHEN {_quoted(agent)} THEN {_literal(value)}" for agent, value in different.items())
    return f"CASE s.agent {cases} ELSE {_literal(otherwise)} END"


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''").replace("%", "%%") + "'"
