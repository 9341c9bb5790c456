"""What becomes of answers whose process is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, router
from django.db.models import Q

from .. import agents, conf, dialects, notifications
from ..batches import Due
from ..choices import ALIVE, RunStatus
from ..exceptions import SessionNotFound
from ..models import ChatSession, Run
from . import cascades, dispatching, writing
from .patience import impatient
from .runner import RUNNER, process_name
from .settling import settle
from .sweeping import Budget, Swept, Watch, sweep

logger = logging.getLogger("django_chat_sessions")

#: What is said of an answer whose process was lost, or told to stop.
LOST, STOPPED = "ProcessLost", "ProcessStopped"

#: Milliseconds that recovery waits for a session that somebody holds, before it goes on with the next.
PATIENCE_MILLISECONDS = 1000

#: A run that waits is handed over again after ``STALE_AFTER``, then after twice as long and so on, up to so many times.
MOST_PAUSES = 10

#: Seconds that a process which has handed over its answers gives them to notice.
FAREWELL_SECONDS = 2.0


def is_lost(run: Run, now: datetime) -> bool:
    """Tell whether nobody gives an answer any more that is not finished."""
    return run.status == RunStatus.RUNNING and run.heartbeat_at + conf.get().stale_after <= now


def abandon(draft: writing.Draft, run: Run, error: str = LOST) -> None:
    """Mark a run as failed that its process did not finish; what was said stays, marked as cut short."""
    draft.entries += settle(run, RunStatus.FAILED, now=draft.now, next_sequence=draft.next_sequence, error=error)


def recover(*, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
    """See to every answer whose process is lost: begin it anew where its agent may be retried, or mark it as failed.

    Runs that wait although somebody should have taken them (a broker may lose messages) are handed over again. Children
    that the end of their parent has yet to reach end, too. Safe in any number of workers at once.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: runs and sessions at the most.
        watch: is told after each batch, and may end the sweep.
    """
    return sweep("recover", _batches, using=using, limit=limit, watch=watch)


def due(using: str, now: datetime) -> list[Due]:
    """Return what ``recover`` looks at: runs of which nobody has heard for long, and ends that have to go on."""
    where = f"r.status IN ({', '.join(repr(str(status)) for status in ALIVE)}) AND r.heartbeat_at <= %(before)s"
    given = {"before": dialects.instant(connections[using], now - conf.get().stale_after)}
    source = "chat_sessions_run r JOIN chat_sessions_chatsession s ON s.id = r.session_id"
    return [Due(where, "r.heartbeat_at", given, source=source, key="r.id"), *cascades.due(using, now)]


def _batches(using: str, budget: Budget) -> Iterator[int]:
    yield from cascades.go_on(using)
    last = 0
    while True:
        size = budget.size
        found = list(_silent(using, after=last)[:size])
        yield sum(_tried(run) for run in found)
        if len(found) < size:
            return
        last = found[-1].pk


def _silent(using: str, *, after: int) -> Any:
    """Return the runs of which nobody has said for long that he is at them, in an order that does not change."""
    before = dialects.now(using) - conf.get().stale_after
    runs = Run.objects.using(using).filter(status__in=ALIVE, heartbeat_at__lte=before, pk__gt=after)
    return runs.order_by("pk").select_related("session")


def _tried(run: Run) -> bool:
    """Release a run; one that cannot be now is left to the next time, and does not keep the others from it."""
    using = run._state.db or "default"
    try:
        with impatient(using, milliseconds=PATIENCE_MILLISECONDS):
            return release(run)
    except Exception:
        if not connections[using].is_usable():
            raise
        logger.exception("Run %s cannot be recovered now", run.uuid)
        return False


def release(run: Run, *, error: str = LOST, worker: str | None = None) -> bool:
    """Take a run from a process that does not give its answer; tell whether it was still to be taken.

    Args:
        run: with its session.
        error: why, where it is not begun anew.
        worker: the process, where that is known to stop; None: only where it is lost.
    """
    # Its session may be deleted meanwhile, and the run with it.
    with suppress(SessionNotFound, Run.DoesNotExist), writing.writing(run.session, live=False) as draft:
        using = writing.alias(draft.session)
        run.refresh_from_db(using=using)
        if run.status == RunStatus.QUEUED:
            return _hand_over_again(draft, run)
        is_ours = worker == run.worker if worker is not None else is_lost(run, draft.now)
        if run.status != RunStatus.RUNNING or not is_ours:
            return False
        if run.attempt >= agents.of(draft.session.agent).max_attempts or not draft.session.is_live_at(draft.now):
            abandon(draft, run, error)
        else:
            _begin_anew(draft, run)
        return True
    return False


def _hand_over_again(draft: writing.Draft, run: Run) -> bool:
    """Hand over a run that nobody took; the longer it waits, the more seldom, as it may just be a long queue."""
    stale = conf.get().stale_after
    queued_at = run.expires_at - timedelta(seconds=agents.of(draft.session.agent).time_limit_seconds)
    waited = run.heartbeat_at - queued_at
    if run.heartbeat_at + max(stale, min(waited, stale * MOST_PAUSES)) > draft.now:
        return False
    run.heartbeat_at = draft.now
    run.save(using=writing.alias(draft.session), update_fields=["heartbeat_at"])
    dispatching.dispatch(run, draft.session)
    return True


def _begin_anew(draft: writing.Draft, run: Run) -> None:
    """Queue a run again for its next attempt; what the last one said is kept until that one begins."""
    draft.entries += settle(run, RunStatus.FAILED, now=draft.now, next_sequence=draft.next_sequence, error=LOST)[:-1]
    time_limit = run.expires_at - (run.started_at or run.created_at)
    run.status, run.error, run.finished_at, run.worker = RunStatus.QUEUED, "", None, ""
    run.attempt, run.output_sequence, run.spoken_sequence = run.attempt + 1, None, None
    run.heartbeat_at, run.expires_at = draft.now, draft.now + time_limit
    run.save(using=writing.alias(draft.session))
    draft.touch(until=run.expires_at)
    dispatching.dispatch(run, draft.session)


def release_all(worker: str, *, using: str) -> int:
    """Take all runs from a process that stops, or a host of processes; return how many.

    Args:
        worker: the name of the process, or what comes before the number in the names of its children.
        using: the database.
    """
    named = Q(worker=worker) | Q(worker__startswith=f"{worker}:")
    runs = Run.objects.using(using).filter(named, status=RunStatus.RUNNING).select_related("session")
    count = 0
    for run in runs:
        try:
            count += release(run, error=STOPPED, worker=run.worker)
        except Exception:
            logger.exception("Run %s cannot be handed over; recovery finds it", run.uuid)
            connections[using].close()
    return count


def drain(*, using: str | None = None) -> None:
    """Have this process stop: begin no answer, finish those that are given within the grace, hand over the rest."""
    using = using or router.db_for_write(ChatSession)
    RUNNER.is_draining = True
    notifications.wake_all()
    try:
        dropped = RUNNER.drain(conf.get().GRACE_SECONDS)
        dispatching.give_back(using, [execution.run.pk for execution in dropped if execution.using == using])
        if release_all(process_name(), using=using):
            RUNNER.wait(FAREWELL_SECONDS)
    finally:
        connections.close_all()


# Thin twins for async code; the synchronous functions are the truth.
arecover = sync_to_async(recover)
