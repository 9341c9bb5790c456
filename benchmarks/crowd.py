"""A table of a size that sweeps have to live with: sessions of several agents and applications, with their logs.

Loaded by SQL, in the order of their age and with nothing due, in a minute or two. What a sweep is to find is made due
afterwards, a set for each sweep, by their deadlines or by the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import psycopg

from django_chat_sessions.agents import Agent, register, unregister
from django_chat_sessions.rules.timeouts import TimeoutOverrides

from .crew import TEXT

#: Events of a session, the first and (of one that is over) the last of which are no messages.
EVENTS = 10

AGENTS = tuple(f"crowd-{number}" for number in range(8))

#: Applications whose sessions are deleted when their retention is over, and those whose are archived.
DELETING, ARCHIVING = ("billing", "shop", "trial"), ("", "support")
APPLICATIONS = (*DELETING, *ARCHIVING)

OVER = ("expired", "ended", "failed")

#: Days after which nothing has to go yet, and after which the sets do.
LONG, SHORT = 400, 30


@dataclass(frozen=True, slots=True)
class Set:
    """Sessions that are alike: from which share of the crowd to which, in the order of age."""

    start: float
    end: float

    def of(self, crowd: int) -> int:
        """How many there are in a crowd."""
        return round((self.end - self.start) * crowd)

    def where(self, first: int, last: int, column: str = "n") -> str:
        """Return the condition on a column that counts the crowd."""
        count = last - first + 1
        return f"{column} >= {first + round(self.start * count)} AND {column} < {first + round(self.end * count)}"


#: Over: whose retention is over by SHORT, and those whose is not (among them some held, some archived long ago) …
PURGED, ARCHIVED, KEPT = Set(0, 0.3), Set(0.3, 0.34), Set(0.34, 0.5)
#: … and live: to be expired, to be warned of, and far from either; of those that come first, some are warned already.
EXPIRED, WARNED, KNOWN = Set(0.5, 0.8), Set(0.8, 0.9), Set(0.9, 0.91)

_SESSIONS = f"""
    INSERT INTO chat_sessions_chatsession
        (id, uuid, owner_id, agent, application, tenant, title, tags, status, metadata, environment, state,
         timeout_mode, timeout_minutes, warning_threshold_minutes, created_at, last_activity_at, renewed_at,
         expires_at, warned_at, ended_at, end_reason, settled_at, is_cascading, strategy, last_sequence, message_count,
         token_count, renewal_count, is_held)
    SELECT n, gen_random_uuid(), %(owner)s + n %% %(owners)s, 'crowd-' || n %% {len(AGENTS)},
        (%(applications)s::text[])[application], '', 'Conversation ' || n, '["crowd"]', status,
        %(metadata)s, %(environment)s, %(state)s,
        CASE own WHEN 1 THEN 'persistent' END, CASE own WHEN 2 THEN 1200 END, CASE own WHEN 3 THEN 90 END,
        began, since, since, until, CASE WHEN {{known}} THEN %(now)s::timestamptz END, settled,
        CASE status WHEN 'expired' THEN 'idle_timeout' WHEN 'ended' THEN 'user' ELSE '' END, settled, false,
        'multiple', {EVENTS}, {EVENTS - 1} - CASE WHEN settled IS NULL THEN 0 ELSE 1 END, 0, 0, is_held
    FROM (
        SELECT n, {{kept}} AND n %% 163 = 0 AS is_held,
            1 + CASE WHEN {{purged}} THEN n / {len(AGENTS)} %% 3 WHEN {{archived}} THEN 3 + n / {len(AGENTS)} %% 2
                ELSE n / {len(AGENTS)} %% 5 END AS application,
            CASE WHEN NOT {{over}} THEN 'active' WHEN {{kept}} AND n %% 7 = 0 THEN 'archived'
                WHEN n / 40 %% 20 < 10 THEN 'expired' WHEN n / 40 %% 20 < 19 THEN 'ended' ELSE 'failed' END AS status,
            CASE WHEN NOT {{over}} THEN n / {len(AGENTS)} %% 25 END AS own,
            began, began + interval '5 minutes' AS since,
            CASE WHEN {{over}} THEN began + interval '1 day' WHEN {{known}} THEN %(now)s + interval '25 minutes'
                ELSE %(now)s + interval '20 hours' + share * interval '3 hours' END AS until,
            CASE WHEN {{over}} THEN began + interval '1 day' END AS settled
        FROM (
            SELECT n, share, %(now)s::timestamptz - CASE
                    WHEN {{kept}} THEN interval '26 days' - (share - 0.34) * interval '120 days'
                    WHEN {{over}} THEN interval '72 days' - share * interval '88 days'
                    ELSE interval '6 hours' - share * interval '5 hours' END AS began
            FROM (SELECT n, (n - %(first)s)::float8 / %(count)s AS share FROM generate_series(%(first)s, %(last)s) n) n
        ) n
    ) n
"""

_LOGS = f"""
    INSERT INTO chat_sessions_sessionevent (session_id, sequence, type, role, content, data, position, created_at)
    SELECT s.id, k, type, CASE WHEN type <> 'message' THEN '' WHEN k %% 2 = 0 THEN 'user' ELSE 'assistant' END,
        CASE WHEN type = 'message' THEN %(text)s || ' (' || k || ')' ELSE '' END,
        CASE k WHEN 1 THEN s.opened WHEN {EVENTS} THEN s.closed ELSE '{{}}' END,
        CASE WHEN type = 'message' THEN k END, created_at + k * interval '20 seconds'
    FROM (
        SELECT id, status, settled_at, created_at, jsonb_build_object('agent', agent, 'owner', owner_id::text,
                'application', application, 'state', '{{}}'::jsonb, 'strategy', 'multiple') AS opened,
            CASE WHEN settled_at IS NULL THEN '{{}}' ELSE
                jsonb_build_object('reason', 'idle_timeout', 'ended_at', settled_at) END AS closed
        FROM chat_sessions_chatsession WHERE id BETWEEN %(first)s AND %(last)s ORDER BY id
    ) s, LATERAL (
        SELECT k, CASE WHEN k = 1 THEN 'session.created'
            WHEN k < {EVENTS} OR s.settled_at IS NULL THEN 'message' ELSE 'session.' || s.status END AS type
        FROM generate_series(1, {EVENTS}) k
    ) e
"""

_COUNTED = "SELECT setval(pg_get_serial_sequence('chat_sessions_chatsession', 'id'), %s)"


@dataclass(slots=True)
class Crowd:
    """Sessions 1, 2, 3 … of a table that has no others.

    Attributes:
        connection: of psycopg, in autocommit.
        size: how many there are.
        first: of the last ones that came, in which the sets are.
    """

    connection: Any
    size: int = 0
    first: int = 1

    @classmethod
    def none(cls, connection: Any) -> Crowd:
        """Return none at all, in tables that are emptied."""
        connection.execute("TRUNCATE chat_sessions_chatsession RESTART IDENTITY CASCADE")
        users = "INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff,"
        users += " is_active, date_joined) SELECT 'crowd ' || n, '', false, '', '', '', false, true, now()"
        connection.execute(f"{users} FROM generate_series(1, 1000) n ON CONFLICT DO NOTHING")
        return cls(connection)

    def grow(self, size: int) -> None:
        """Add as many as are missing to a size, and let the planner know."""
        owner, owners = self.connection.execute(
            "SELECT min(id), count(*) FROM auth_user WHERE username LIKE 'crowd %'"
        ).fetchone()
        self.first, last = self.size + 1, size
        names = ("purged", "archived", "kept", "known")
        sets = dict(zip(names, (PURGED, ARCHIVED, KEPT, KNOWN), strict=True))
        given = {
            "first": self.first, "last": last, "count": last - self.first + 1, "owner": owner, "owners": owners,
            "applications": list(APPLICATIONS), "text": TEXT, "metadata": '{"plan": "basic", "region": "eu"}',
            "environment": '{"browser": "Firefox", "language": "en"}', "state": '{"step": 3, "cart": [17, 4]}',
            "now": self.connection.execute("SELECT now()").fetchone()[0],
        }  # fmt: skip
        over = Set(0, 0.5).where(self.first, last)
        conditions = {name: f"({one.where(self.first, last)})" for name, one in sets.items()}
        if self.size:
            conditions["known"] = "false"
        sessions = _SESSIONS.format(**conditions, over=f"({over})")
        with _loading(self.connection):
            _execute(self.connection, sessions, given)
            _execute(self.connection, _LOGS, given)
            self.connection.execute(_COUNTED, [last])
        self.size = last
        self.settle()

    def settle(self) -> None:
        """Let the planner know, and have everything written, as it is on a server after a while."""
        self.connection.execute("VACUUM ANALYZE chat_sessions_chatsession")
        self.connection.execute("VACUUM ANALYZE chat_sessions_sessionevent")
        self.connection.execute("CHECKPOINT")

    def where(self, one: Set, column: str) -> str:
        """Return the condition on a column of ids."""
        return one.where(self.first, self.size, column)

    def count(self, one: Set) -> int:
        """Return how many sessions there are in a set."""
        return one.of(self.size - self.first + 1)

    def fall_due(self) -> None:
        """Move deadlines, so that the sets have to be expired and warned of; retention is a matter of the settings."""
        moved = "UPDATE chat_sessions_chatsession SET expires_at = now() {} WHERE {}"
        for one, to in (
            (EXPIRED, "- interval '2 hours' + random() * interval '1 hour'"),
            (WARNED, "+ interval '20 minutes' + random() * interval '8 minutes'"),
        ):
            self.connection.execute(moved.format(to, self.where(one, "id")))
        self.settle()


def _execute(connection: Any, sql: str, given: dict[str, Any]) -> None:
    # Bound by the client, once: what only some statements need is there for all.
    psycopg.ClientCursor(connection).execute(sql, given)


@contextmanager
def _loading(connection: Any) -> Iterator[None]:
    """Have nothing checked for each row, which a superuser may."""
    with suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute("SET session_replication_role = replica")
    connection.execute("SET synchronous_commit = off")
    yield
    connection.execute("RESET synchronous_commit")
    connection.execute("RESET session_replication_role")


@contextmanager
def settings(days: int) -> Iterator[None]:
    """Keep what is over for about so many days; each agent and application differently."""
    from django.conf import settings as project
    from django.test import override_settings

    tiers = {
        name: {"action": "delete" if name in DELETING else "archive", "failed": days + number}
        for number, name in enumerate(APPLICATIONS)
    }
    kept = {"expired": days, "ended": days, "failed": days}
    for number, name in enumerate(AGENTS):
        # None of them as long as the sets are over for, nor as short as the others are.
        timeouts = TimeoutOverrides(mode="persistent", warning_threshold_minutes=60 - number * 4)
        register(Agent(name, timeouts=timeouts, retention={"ended": days + number}))
    try:
        with override_settings(
            CHAT_SESSIONS={**project.CHAT_SESSIONS, "RETENTION": kept, "APPLICATION_RETENTION": tiers}
        ):
            yield
    finally:
        for name in AGENTS:
            unregister(name)


def groups(applications: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return the statuses, applications and agents of sessions that are over, in the order in which sweeps go."""
    return list(product(OVER, sorted(applications), AGENTS))
