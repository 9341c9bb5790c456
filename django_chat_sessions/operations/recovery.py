"""What becomes of answers whose process is lost."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from asgiref.sync import sync_to_async
from django.db import connections, router

from .. import agents, conf, dialects, notifications
from ..choices import ALIVE, RunStatus
from ..exceptions import SessionNotFound
from ..models import ChatSession, Run
from . import dispatching, writing
from .runner import RUNNER, process_name
from .settling import settle
from .sweeping import Swept, sweep

#: What is said of an answer whose process was lost, or told to stop.
LOST, STOPPED = "ProcessLost", "ProcessStopped"


def is_lost(run: Run, now: datetime) -> bool:
    """Tell whether nobody gives an answer any more that is not finished."""
    return run.status == RunStatus.RUNNING and run.heartbeat_at + conf.get().stale_after <= now


def abandon(draft: writing.Draft, run: Run, error: str = LOST) -> None:
    """Mark a run as failed that its process did not finish; what was said stays, marked as cut short."""
    draft.entries += settle(run, RunStatus.FAILED, now=draft.now, next_sequence=draft.next_sequence, error=error)


def recover(*, using: str | None = None, limit: int | None = None) -> Swept:
    """See to every answer whose process is lost: begin it anew where its agent may be retried, or mark it as failed.

    Runs that wait although somebody should have taken them (a broker may lose messages) are handed over again. Safe in
    any number of workers at once.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: runs at the most.
    """
    return sweep("recover", _recover_batch, using, limit)


def _recover_batch(using: str, size: int) -> int:
    now = dialects.now(using)
    silent = Run.objects.using(using).filter(status__in=ALIVE, heartbeat_at__lte=now - conf.get().stale_after)
    found = list(silent.order_by("heartbeat_at").select_related("session")[:size])
    return sum(release(run) for run in found)


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
    if run.heartbeat_at + conf.get().stale_after > draft.now:
        return False
    run.heartbeat_at = draft.now
    run.save(using=writing.alias(draft.session), update_fields=["heartbeat_at"])
    dispatching.dispatch(run, draft.session)
    return True


def _begin_anew(draft: writing.Draft, run: Run) -> None:
    """Queue a run again for its next attempt; what the last one said is kept until that one begins."""
    draft.entries += settle(run, RunStatus.FAILED, now=draft.now, next_sequence=draft.next_sequence, error=LOST)[:-1]
    run.status, run.error, run.finished_at, run.worker = RunStatus.QUEUED, "", None, ""
    run.attempt, run.heartbeat_at, run.output_sequence, run.spoken_sequence = run.attempt + 1, draft.now, None, None
    run.save(using=writing.alias(draft.session))
    draft.touch(until=draft.now + (run.expires_at - (run.started_at or run.created_at)))
    dispatching.dispatch(run, draft.session)


def release_all(worker: str, *, using: str) -> int:
    """Take all runs from a process that stops; return how many."""
    runs = Run.objects.using(using).filter(status=RunStatus.RUNNING, worker=worker).select_related("session")
    return sum(release(run, error=STOPPED, worker=worker) for run in runs)


def drain(*, using: str | None = None) -> None:
    """Have this process stop: begin no answer, finish those that are given within the grace, hand over the rest."""
    RUNNER.is_draining = True
    notifications.wake_all()
    try:
        if RUNNER.drain(conf.get().GRACE_SECONDS):
            release_all(process_name(), using=using or router.db_for_write(ChatSession))
            RUNNER.wait(1)
    finally:
        connections.close_all()


# Thin twins for async code; the synchronous functions are the truth.
arecover = sync_to_async(recover)
