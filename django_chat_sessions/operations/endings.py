"""How a session comes to be over: one by one, with the answer that it owes, or many at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .. import agents, batches, dialects, log, logs, signals
from ..choices import ALIVE, EndReason, EventType, RunStatus, Status
from ..models import ChatSession, Run
from ..rules import timeouts
from . import figures, writing
from .settling import settle

#: What is said of an answer that was not finished when its session expired.
EXPIRED = "SessionExpired"


def reason(session: ChatSession) -> str:
    """Return why the session expires when it does."""
    limit = timeouts.limit(session.policy, session.created_at)
    return EndReason.MAX_DURATION if session.expires_at >= limit else EndReason.IDLE_TIMEOUT


def record_expiry(session: ChatSession, now: datetime) -> None:
    """Record that a locked session, whose deadline has passed, expired; its unfinished answer fails."""
    using = writing.alias(session)
    entries: list[log.Entry] = []
    for run in Run.objects.using(using).filter(session=session, status__in=ALIVE):
        entries += settle(run, RunStatus.FAILED, now=now, next_sequence=session.last_sequence + 1, error=EXPIRED)
    log.write(session, [*entries, _expired(session)], now=max(now, session.expires_at))
    writing.announce(signals.session_expired, session)


def _expired(session: ChatSession) -> log.Entry:
    data = {"reason": str(reason(session)), "ended_at": log.iso(session.expires_at)}
    return log.Entry(type=EventType.SESSION_EXPIRED, data=data)


def record_expiries(using: str, agent: str, ids: Sequence[int], now: datetime) -> None:
    """Record that locked sessions of one agent, whose deadlines have passed, expired."""
    answering, at_once = _apart(using, ids)
    for session in answering:
        record_expiry(session, now)
    logs.record(using, at_once, _expired_sql(using, agent), now=now)
    writing.announce_each(signals.session_expired, using, at_once)


def _apart(using: str, ids: Sequence[int]) -> tuple[list[ChatSession], list[int]]:
    """Part locked sessions that owe an answer, which has to be settled, from those that do not, the most by far."""
    owing = set(batches.answering(using, ids)) if ids else set()
    sessions = ChatSession.objects.using(using).filter(pk__in=owing).order_by("pk") if owing else ()
    return list(sessions), [pk for pk in ids if pk not in owing]


def _expired_sql(using: str, agent: str) -> logs.Same:
    """Say ``reason`` and ``_expired`` in SQL."""
    dialect = dialects.of(using)
    maximum = dialects.PolicySQL.over({}, agents.of(agent).inherited).maximum
    limit = dialect.interval.format(at="s.created_at", minutes=maximum)
    why = f"CASE WHEN s.expires_at >= {limit} THEN '{EndReason.MAX_DURATION}' ELSE '{EndReason.IDLE_TIMEOUT}' END"
    columns = {
        "status": f"'{Status.EXPIRED}'",
        "ended_at": "s.expires_at",
        "settled_at": "s.expires_at",
        "end_reason": why,
    }
    data = f"{dialect.build}('reason', s.end_reason, 'ended_at', {dialect.iso.format(at='s.ended_at')})"
    return logs.Same(type=EventType.SESSION_EXPIRED, data=data, columns=columns)


def record_ends(using: str, ids: Sequence[int], now: datetime) -> None:
    """Record that locked live sessions ended because their parents did; the answers that they owe are cancelled."""
    answering, at_once = _apart(using, ids)
    for session in answering:
        entries: list[log.Entry] = []
        for run in Run.objects.using(using).filter(session=session, status__in=ALIVE):
            entries += settle(run, RunStatus.CANCELLED, now=now, next_sequence=session.last_sequence + 1)
        data = ended(session, now, EndReason.PARENT_ENDED)
        log.write(session, [*entries, log.Entry(type=EventType.SESSION_ENDED, data=data)], now=now)
    logs.record(using, at_once, _ended_sql(using), now=now)
    writing.announce_each(signals.session_ended, using, ids, reason=EndReason.PARENT_ENDED)


def ended(session: ChatSession, now: datetime, reason: str) -> dict[str, Any]:
    """Return what the event of a session's end keeps."""
    return {
        "reason": reason,
        "ended_at": log.iso(now),
        "state": session.state,
        "figures": figures.final(session, now),
    }


def _ended_sql(using: str) -> logs.Same:
    """Say ``ended`` and ``figures.final`` in SQL."""
    dialect = dialects.of(using)
    instant = dialect.instant.format(name="now")
    seconds = f"{dialect.greatest}(0.0, {dialect.seconds.format(start='s.created_at', end=instant)})"
    figures = (
        f"{dialect.build}('duration_seconds', {seconds}, 'message_count', s.message_count,"
        " 'token_count', s.token_count, 'renewal_count', s.renewal_count)"
    )
    data = (
        f"{dialect.build}('reason', '{EndReason.PARENT_ENDED}', 'ended_at', {dialect.iso.format(at=instant)},"
        f" 'state', {dialect.nested.format(value='s.state')}, 'figures', {figures})"
    )
    columns = {
        "status": f"'{Status.ENDED}'",
        "ended_at": instant,
        "settled_at": instant,
        "end_reason": f"'{EndReason.PARENT_ENDED}'",
    }
    return logs.Same(type=EventType.SESSION_ENDED, data=data, columns=columns)
