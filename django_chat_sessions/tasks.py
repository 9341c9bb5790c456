"""Celery's door: each task is one call of an operation. Nothing imports this but Celery itself."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from celery import shared_task

from .operations import expiry
from .operations.expiry import Swept

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
    """Mark answers as failed that nobody finished in time; return what was done."""
    return _report(expiry.recover())


def _report(swept: Swept) -> dict[str, Any]:
    done = asdict(swept)
    logger.info("chat_sessions.%(task)s count=%(count)d batches=%(batches)d", done)
    return done
