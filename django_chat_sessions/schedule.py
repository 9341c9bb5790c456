"""When the tasks run: a table for Celery's ``beat_schedule``, and its installer in django-celery-beat.

In a settings module or Celery app::

    from django_chat_sessions.schedule import beat_schedule

    CELERY_BEAT_SCHEDULE = {**beat_schedule()}

or, where django-celery-beat is installed, ``manage.py chat_sessions schedule``. Only names of tasks are
kept here: neither Celery nor its tasks need to be importable.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import IntegrityError, transaction

#: The name of each entry, and of its task.
TASKS: Mapping[str, str] = MappingProxyType(
    {
        "chat-sessions-warn": "chat_sessions.warn",
        "chat-sessions-expire": "chat_sessions.expire",
        "chat-sessions-recover": "chat_sessions.recover",
    }
)

#: How often each task runs where nobody says otherwise; seconds.
EVERY = 60

_DESCRIPTION = "Installed by `manage.py chat_sessions schedule`. Changes made here are kept."


def beat_schedule(*, seconds: float = EVERY) -> dict[str, dict[str, Any]]:
    """Return the entries for Celery's setting ``beat_schedule``.

    Args:
        seconds: how often each task runs. A task that waits for longer than that in the queue is dropped,
            so that workers that were away do not find a heap of them.
    """
    return {name: {"task": task, "schedule": seconds, "options": {"expires": seconds}} for name, task in TASKS.items()}


#: The table as it is, for ``app.conf.beat_schedule``.
BEAT_SCHEDULE = beat_schedule()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of django-celery-beat.

    Attributes:
        name: the entry's.
        task: its task's.
        schedule: when it runs, in words.
        is_enabled: whether it runs at all.
        last_run_at: when it was last sent to a worker.
        outcome: what was done to it now: ``installed``, ``kept``, ``reset``; empty where only shown.
    """

    name: str
    task: str
    schedule: str
    is_enabled: bool
    last_run_at: datetime | None
    outcome: str = ""


def is_available() -> bool:
    """Tell whether django-celery-beat is installed in this project."""
    return apps.is_installed("django_celery_beat")


def configured() -> set[str]:
    """Return those of our tasks that are in the ``beat_schedule`` of the project's Celery app or settings.

    Where the project has not imported Celery, only the settings are read.
    """
    table = dict(getattr(settings, "CELERY_BEAT_SCHEDULE", None) or {})
    if "celery" in sys.modules:
        from celery import current_app  # noqa: PLC0415 - optional

        table |= current_app.conf.beat_schedule or {}
    return {entry.get("task") for entry in table.values()} & set(TASKS.values())


def install(*, seconds: int = EVERY, reset: bool = False) -> list[Entry]:
    """Put what is missing into django-celery-beat; what is there stays as the operator left it.

    An entry is recognised by its task, so that a renamed one is not doubled.

    Args:
        seconds: how often a new entry runs.
        reset: put entries that are there back to this interval, and enable them.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed in this project.
    """
    return [_install(name, task, seconds, reset=reset) for name, task in TASKS.items()]


def show() -> list[Entry]:
    """Return our entries in django-celery-beat.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed in this project.
    """
    return [_entry(row) for row in _rows().order_by("name")]


def remove() -> int:
    """Remove our entries from django-celery-beat and return how many went; the intervals stay for others.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed in this project.
    """
    rows = list(_rows())
    for row in rows:
        row.delete()  # each by itself: that is what tells a running beat
    return len(rows)


def _models() -> Any:
    if not is_available():
        raise ImproperlyConfigured(
            "django_celery_beat is not in INSTALLED_APPS. Without it, put django_chat_sessions.schedule."
            "BEAT_SCHEDULE into Celery's beat_schedule, or run `manage.py chat_sessions sweep --loop`."
        )
    from django_celery_beat import models  # noqa: PLC0415 - optional, and only where it is an installed app

    return models


def _rows() -> Any:
    return _models().PeriodicTask.objects.filter(task__in=TASKS.values()).select_related("interval")


def _install(name: str, task: str, seconds: int, *, reset: bool) -> Entry:
    row = _find(name, task)
    if row is None:
        row = _create(name, task, seconds)
        if row is not None:
            return _entry(row, "installed")
        row = _find(name, task)
    if not reset:
        return _entry(row, "kept")
    for field, value in _fields(task, seconds).items():
        setattr(row, field, value)
    row.save()
    return _entry(row, "reset")


def _find(name: str, task: str) -> Any:
    rows = _models().PeriodicTask.objects
    return rows.filter(task=task).order_by("pk").first() or rows.filter(name=name).first()


def _create(name: str, task: str, seconds: int) -> Any:
    """Create an entry; None where another process did at the same instant."""
    try:
        with transaction.atomic():
            return _models().PeriodicTask.objects.create(name=name, **_fields(task, seconds))
    except (IntegrityError, ValidationError):
        if _find(name, task) is None:
            raise
        return None


def _fields(task: str, seconds: int) -> dict[str, Any]:
    return {
        "task": task,
        "interval": _interval(seconds),
        "crontab": None,
        "solar": None,
        "clocked": None,
        "enabled": True,
        "one_off": False,
        "start_time": None,
        "expires": None,
        "expire_seconds": seconds,
        "description": _DESCRIPTION,
    }


def _interval(seconds: int) -> Any:
    # Not get_or_create: nothing keeps django-celery-beat from having the same interval twice.
    model = _models().IntervalSchedule
    found = model.objects.filter(every=seconds, period=model.SECONDS).order_by("pk").first()
    return found or model.objects.create(every=seconds, period=model.SECONDS)


def _entry(row: Any, outcome: str = "") -> Entry:
    return Entry(
        name=row.name,
        task=row.task,
        schedule=str(row.scheduler or "never"),
        is_enabled=row.enabled,
        last_run_at=row.last_run_at,
        outcome=outcome,
    )
