"""What the clock does to sessions, one at a time and in sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from .. import agents, conf, dialects, log, signals
from ..choices import ALIVE, LIVE, EndReason, EventType, RunStatus
from ..models import ChatSession, Run
from ..rules import timeouts
from . import writing
from .settling import settle
from .sweeping import Swept, sweep

#: What is said of an answer that was not finished when its session expired.
EXPIRED = "SessionExpired"


def reason(session: ChatSession) -> str:
    """Return why the session expires when it does."""
    limit = timeouts.limit(session.policy, session.created_at)
    return EndReason.MAX_DURATION if session.expires_at >= limit else EndReason.IDLE_TIMEOUT


def record_expiry(session: ChatSession, now: datetime) -> None:
    """Record that a locked session, whose deadline has passed, expired."""
    runs = _give_up(writing.alias(session), [session], now).get(session.pk, [])
    log.write(session, [*runs, _expired(session)], now=max(now, session.expires_at))
    writing.announce(signals.session_expired, session)


def _expired(session: ChatSession) -> log.Entry:
    data = {"reason": str(reason(session)), "ended_at": log.iso(session.expires_at)}
    return log.Entry(type=EventType.SESSION_EXPIRED, data=data)


def expire(*, using: str | None = None, limit: int | None = None) -> Swept:
    """Record the expiry of every session whose deadline has passed, in bounded batches.

    Safe in any number of workers at once: on PostgreSQL they share the work (SKIP LOCKED), on SQLite they take
    turns. A worker that dies loses the batch it was in, and the next sweep takes it up.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: sessions at the most.
    """
    return sweep("expire", _expire_batch, using, limit)


def warn(*, using: str | None = None, limit: int | None = None) -> Swept:
    """Record ``session.expiring``, once a deadline, for every live session within its warning threshold."""
    return sweep("warn", _warn_batch, using, limit)


def _expire_batch(using: str, size: int) -> int:
    with log.begin(using):
        now = dialects.now(using)
        due = ChatSession.objects.using(using).due_for_expiry(now).order_by("expires_at", "pk")
        sessions = list(_lock(due, using)[:size])
        runs = _give_up(using, sessions, now)
        pairs = [(session, [*runs.get(session.pk, ()), _expired(session)]) for session in sessions]
        log.write_each(using, pairs, now=now)
        for session in sessions:
            writing.announce(signals.session_expired, session)
    return len(sessions)


def _give_up(using: str, sessions: Sequence[ChatSession], now: datetime) -> dict[int, list[log.Entry]]:
    """Mark the unfinished answers of locked, expiring sessions as failed; return the events that say so."""
    last = {session.pk: session.last_sequence for session in sessions}
    alive = Run.objects.using(using).filter(session__in=last, status__in=ALIVE)
    return {
        run.session_id: settle(run, RunStatus.FAILED, now=now, next_sequence=last[run.session_id] + 1, error=EXPIRED)
        for run in alive
    }


def _lock(rows: Any, using: str) -> Any:
    return rows.select_for_update(skip_locked=True, of=("self",)) if dialects.is_postgresql(using) else rows


def _warn_batch(using: str, size: int) -> int:
    with log.begin(using):
        now = dialects.now(using)
        ids = list(_near_expiry(using, now, size))
        near = ChatSession.objects.using(using).filter(pk__in=ids, warned_at__isnull=True).live(now).order_by("pk")
        sessions = list(_lock(near, using))
        entries = []
        for session in sessions:
            data = {"expires_at": log.iso(session.expires_at)}
            entries.append((session, [log.Entry(type=EventType.SESSION_EXPIRING, data=data)]))
        log.write_each(using, entries, now=now, warned_at=now)
        for session in sessions:
            writing.announce(signals.session_expiring, session)
    return len(sessions)


def _near_expiry(using: str, now: datetime, size: int) -> Iterator[int]:
    """Find live sessions within their warning threshold that nobody has warned of, by the index of deadlines."""
    dialect = dialects.of(using)
    bases = {name: agent.inherited for name, agent in agents.registered().items()}
    policy = dialects.PolicySQL.over(bases, agents.Agent("").inherited)
    statuses = ", ".join(f"'{status}'" for status in LIVE)
    instant = dialect.instant.replace("%s", "%(now)s")
    warned = dialect.interval.format(at=instant, minutes=policy.warning)
    sql = (
        f"SELECT s.id FROM chat_sessions_chatsession s WHERE s.status IN ({statuses}) AND s.warned_at IS NULL"
        f" AND s.expires_at > %(now)s AND s.expires_at <= %(horizon)s"
        f" AND s.expires_at <= {warned}"
        f" ORDER BY s.expires_at LIMIT %(size)s{dialect.skip}"
    )
    connection = connections[using]
    # No warning threshold reaches the idle timeout, so none reaches further than the longest of those.
    horizon = dialects.instant(connection, now + timedelta(minutes=conf.get().MAX_TIMEOUT_MINUTES))
    with connection.cursor() as cursor:
        cursor.execute(sql, {"now": dialects.instant(connection, now), "horizon": horizon, "size": size})
        return iter([row[0] for row in cursor.fetchall()])


# Thin twins for async code; the synchronous functions are the truth.
aexpire = sync_to_async(expire)
awarn = sync_to_async(warn)
