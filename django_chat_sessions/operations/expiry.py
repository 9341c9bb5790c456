"""What the clock does to sessions, one at a time and in sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, router

from .. import agents, conf, dialects, log, signals
from ..choices import ALIVE, LIVE, EndReason, EventType, RunStatus
from ..exceptions import SessionNotFound
from ..models import ChatSession, Run
from ..rules import timeouts
from . import writing

#: What is said of an answer that was never finished.
GIVEN_UP = "The answer was not finished in time."


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did.

    Attributes:
        task: its name.
        count: sessions, or runs, that it dealt with.
        batches: transactions that it took.
    """

    task: str
    count: int
    batches: int


def reason(session: ChatSession) -> str:
    """Return why the session expires when it does."""
    limit = timeouts.limit(session.policy, session.created_at)
    return EndReason.MAX_DURATION if session.expires_at >= limit else EndReason.IDLE_TIMEOUT


def record_expiry(session: ChatSession, now: datetime) -> None:
    """Record that a locked session, whose deadline has passed, expired."""
    runs = _give_up(writing.alias(session), [session.pk], now).get(session.pk, [])
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
    return _sweep("expire", _expire_batch, using, limit)


def warn(*, using: str | None = None, limit: int | None = None) -> Swept:
    """Record ``session.expiring``, once a deadline, for every live session within its warning threshold."""
    return _sweep("warn", _warn_batch, using, limit)


def recover(*, using: str | None = None, limit: int | None = None) -> Swept:
    """Mark every run as failed that is past its time limit, so that its session is usable again."""
    return _sweep("recover", _recover_batch, using, limit)


def _sweep(task: str, batch: Any, using: str | None, limit: int | None) -> Swept:
    using = using or router.db_for_write(ChatSession)
    size = conf.get().SWEEP_BATCH
    count = batches = 0
    while limit is None or count < limit:
        wanted = size if limit is None else min(size, limit - count)
        done = batch(using, wanted)
        count, batches = count + done, batches + 1
        if done < wanted:
            break
    return Swept(task, count, batches)


def _expire_batch(using: str, size: int) -> int:
    with log.begin(using):
        now = dialects.now(using)
        due = ChatSession.objects.using(using).due_for_expiry(now).order_by("expires_at", "pk")
        sessions = list(_lock(due, using)[:size])
        runs = _give_up(using, [session.pk for session in sessions], now)
        pairs = [(session, [*runs.get(session.pk, ()), _expired(session)]) for session in sessions]
        log.write_each(using, pairs, now=now)
        for session in sessions:
            writing.announce(signals.session_expired, session)
    return len(sessions)


def _give_up(using: str, sessions: Sequence[int], now: datetime) -> dict[int, list[log.Entry]]:
    """Mark the unfinished answers of expiring sessions as failed; return the events that say so."""
    entries: dict[int, list[log.Entry]] = {}
    alive = Run.objects.using(using).filter(session__in=sessions, status__in=ALIVE)
    for session, uuid in alive.values_list("session_id", "uuid"):
        data = {"run": str(uuid), "error": GIVEN_UP}
        entries.setdefault(session, []).append(log.Entry(type=EventType.RUN_FAILED, data=data))
    if entries:
        alive.update(status=RunStatus.FAILED, error=GIVEN_UP, finished_at=now)
    return entries


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


def _recover_batch(using: str, size: int) -> int:
    now = dialects.now(using)
    stale = Run.objects.using(using).filter(status__in=ALIVE, expires_at__lte=now).order_by("pk")
    recovered = 0
    for run in stale.select_related("session")[:size]:
        # Its session may be deleted meanwhile, and the run with it.
        with suppress(SessionNotFound), writing.writing(run.session, live=False) as draft:
            recovered += abandon(draft, run)
    return recovered


def abandon(draft: writing.Draft, run: Run) -> bool:
    """Mark a run as failed that its process did not finish; tell whether it was still alive."""
    runs = Run.objects.using(writing.alias(draft.session)).filter(pk=run.pk, status__in=ALIVE)
    if not runs.update(status=RunStatus.FAILED, error=GIVEN_UP, finished_at=draft.now):
        return False
    draft.record(EventType.RUN_FAILED, {"run": str(run.uuid), "error": GIVEN_UP})
    return True


# Thin twins for async code; the synchronous functions are the truth.
aexpire = sync_to_async(expire)
awarn = sync_to_async(warn)
arecover = sync_to_async(recover)
