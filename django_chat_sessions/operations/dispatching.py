"""Handing runs to who gives the answers: a Celery worker, or this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.module_loading import import_string

from .. import conf, dialects
from ..choices import RunStatus
from ..models import ChatSession, Run
from . import writing
from .patience import hang_up
from .runner import RUNNER, Execution, process_name

logger = logging.getLogger("django_chat_sessions")

#: Celery's own room, which nothing here may import.
_TASKS = "django_chat_sessions.tasks"


def dispatch(run: Run, session: ChatSession) -> None:
    """Hand a queued run over when the transaction has committed."""
    using = writing.alias(session)
    transaction.on_commit(partial(hand_over, run.pk, run.uuid, using), using=using)


def hand_over(key: int, public_id: UUID, using: str) -> None:
    """Hand a queued run to a Celery worker or to this process, by the setting ``RUNNER``.

    Where that fails, the run stays queued, and recovery hands it over again.
    """
    try:
        if uses_celery():
            import_string(f"{_TASKS}.send")(str(public_id), using)
        elif RUNNER.is_draining:
            give_back(using, [key])
        else:
            run = Run.objects.using(using).filter(pk=key, status=RunStatus.QUEUED).first()
            if run is not None:
                RUNNER.submit(Execution(run, process_name()))
    except Exception:
        # The question is stored, and its caller must not be told that it failed.
        logger.exception("Run %s could not be handed over; it stays queued", public_id)


def give_back(using: str, keys: list[int]) -> None:
    """Let the next recovery take queued runs that this process does not, as it stops."""
    before = dialects.now(using) - conf.get().stale_after
    Run.objects.using(using).filter(pk__in=keys, status=RunStatus.QUEUED).update(heartbeat_at=before)


def uses_celery() -> bool:
    """Tell whether Celery workers give the answers that nobody waits for."""
    choice = conf.get().RUNNER
    if choice != "auto":
        return choice == "celery"
    if find_spec("celery") is None:
        return False
    is_configured: Callable[[], Any] = import_string(f"{_TASKS}.is_configured")
    return bool(is_configured())


def execute(public_id: str, *, using: str, worker: str) -> None:
    """Give the answer of a queued run in this process, and wait until it is given; for a worker's task."""
    # A broker may bring the same message twice.
    run = Run.objects.using(using).filter(uuid=public_id, status=RunStatus.QUEUED).first()
    if run is None:
        return
    if RUNNER.is_draining:
        hand_over(run.pk, run.uuid, using)
        return
    execution = Execution(run, worker)
    RUNNER.submit(execution)
    # The answer has connections of its own.
    hang_up(using)
    execution.outcome.result()
