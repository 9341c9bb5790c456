"""Celery's door: each task is one call of an operation. Nothing imports this but Celery itself."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict
from typing import Any

from celery import Task, current_app, shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from django.db import connections, router

from . import conf
from .models import ChatSession
from .operations import dispatching, expiry, recovery
from .operations.sweeping import Swept

logger = logging.getLogger(__name__)


@shared_task(name="chat_sessions.expire")
def expire_sessions() -> dict[str, Any]:
    """Record the expiry of every session whose deadline has passed; return what was done."""
    return _report(expiry.expire())


@shared_task(name="chat_sessions.warn")
def warn_sessions() -> dict[str, Any]:
    """Warn, once a deadline, of every session that will expire soon; return what was done."""
    return _report(expiry.warn())


@shared_task(name="chat_sessions.recover")
def recover_runs() -> dict[str, Any]:
    """See to answers whose process is lost, and to those that nobody took; return what was done."""
    return _report(recovery.recover())


@shared_task(name="chat_sessions.run", bind=True, ignore_result=True)
def give_answer(self: Task[..., None], run: str, using: str) -> None:
    """Give the answer of a queued run."""
    dispatching.execute(run, using=using, worker=str(self.request.hostname or "celery"))


def send(run: str, using: str) -> None:
    """Send a queued run to a worker; a broker that is away is not waited for."""
    give_answer.apply_async(args=(run, using), retry=False)


def is_configured() -> bool:
    """Tell whether this project has a broker to send runs to."""
    return bool(getattr(settings, "CELERY_BROKER_URL", None) or current_app.conf.broker_url)


@worker_shutting_down.connect(dispatch_uid="django_chat_sessions.tasks")
def hand_back(sender: str, **_: Any) -> None:
    """Let a worker that is told to stop finish what it says within its grace, and take the rest from it then."""
    thread = threading.Timer(conf.get().GRACE_SECONDS, _take_from, args=(str(sender),))
    thread.daemon = True
    thread.start()


def _take_from(worker: str) -> None:
    try:
        recovery.release_all(worker, using=router.db_for_write(ChatSession))
    finally:
        connections.close_all()


def _report(swept: Swept) -> dict[str, Any]:
    done = asdict(swept)
    logger.info("chat_sessions.%(task)s count=%(count)d batches=%(batches)d", done)
    return done
