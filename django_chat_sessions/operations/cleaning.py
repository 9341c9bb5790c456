"""Cleaning up at other times than the sweeps of retention do: at once, or when somebody comes back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db import connections, router

from .. import agents, conf, dialects, log
from ..choices import LIVE, Cleanup, RetentionAction, Status
from ..exceptions import SessionNotFound
from ..models import ChatSession
from . import archiving, cascades, endings, purging, retention, trees, writing
from .sweeping import Budget, leave


def at_once(using: str, budget: Budget, *, agent: str | None = None) -> Iterator[int]:
    """Archive or delete the expired sessions whose agents want it so; yields 0 after each transaction.

    They were counted when their expiry was recorded.

    Args:
        using: the database.
        budget: how many a transaction may take.
        agent: whose; None is everybody's.
    """
    if agent is not None and agents.of(agent).cleanup_in_force != Cleanup.IMMEDIATE:
        return
    everybody = (conf.get().CLEANUP, *(agent.cleanup for agent in agents.registered().values()))
    if Cleanup.IMMEDIATE not in everybody:
        return
    sweeps = {RetentionAction.ARCHIVE: archiving.archive_group, RetentionAction.DELETE: purging.purge_group}
    for action, clean_up in sweeps.items():
        for group in retention.groups(using, action, dialects.now(using), statuses=(Status.EXPIRED,)):
            if group.cleanup == Cleanup.IMMEDIATE and agent in {None, group.agent}:
                for _ in clean_up(using, group, budget):
                    yield 0


def on_access(session: ChatSession, *, now: datetime | None = None) -> ChatSession:
    """Return a session that somebody asks for, cleaned up where its agent leaves that to whoever comes (``lazy``).

    Args:
        session: refreshed in place where something is done to it, and then of the database that is written to.
        now: the instant at which it was read; None asks the database, where it has to be known.

    Raises:
        SessionNotFound: its retention is over, and it is deleted now.
    """
    if session.is_held or agents.of(session.agent).cleanup_in_force != Cleanup.LAZY:
        return session
    # It may have been read from a replica.
    using = router.db_for_write(ChatSession, instance=session)
    action = _due(session, now or dialects.now(using))
    if action is None:
        return session
    session._state.db = using
    _try(session, using)
    if action == RetentionAction.DELETE:
        _delete(session, using)
    return session


def _try(session: ChatSession, using: str) -> None:
    """Do to a session what is due but its deletion; where that fails, it is left to whoever comes next."""
    try:
        _clean_up(session, using)
    except SessionNotFound:
        raise
    except Exception as error:
        if not connections[using].is_usable():
            raise
        leave(session.uuid, error)


def _delete(session: ChatSession, using: str) -> None:
    """Delete a session with what is below it, if all of that may go."""
    for _ in trees.purge(using, session.root_id or session.pk, asked=session.pk):
        continue
    if not ChatSession.objects.using(using).filter(pk=session.pk).exists():
        raise SessionNotFound


def _due(session: ChatSession, now: datetime) -> RetentionAction | None:
    """Return what is to be done to a session now."""
    fate = retention.fate(session, now)
    is_due = fate is not None and fate.at is not None and fate.at <= now and not session.is_held
    return fate.action if fate is not None and is_due else None


def _clean_up(session: ChatSession, using: str) -> None:
    """Record the expiry that nobody has recorded, and archive what is to be archived."""
    with log.begin(using):
        row = log.lock(session)
        now = dialects.now(using)
        action = _due(row, now)
        if action is not None and row.status in LIVE:
            endings.record_expiry(row, now)
            cascades.expire_below(using, [row.pk], now)
        if action == RetentionAction.ARCHIVE and retention.is_told(row):
            archiving.archive_one(row, now)
        writing.refresh(session, row)
    if action == RetentionAction.ARCHIVE and session.status != Status.ARCHIVED:
        # It was, if at all, once that had been committed.
        found = ChatSession.objects.using(using).filter(pk=session.pk).first()
        writing.refresh(session, found or session)
