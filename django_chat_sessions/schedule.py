"""When the tasks run: a table for Celery's ``beat_schedule``, and its installer in django-celery-beat.

In a settings module or Celery app::

    from django_chat_sessions.schedule import beat_schedule

    CELERY_BEAT_SCHEDULE = {**beat_schedule()}

or, where django-celery-beat is installed, ``manage.py chat_sessions schedule``. Only names of tasks are
kept here: neither Celery nor its tasks need to be importable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import router, transaction
from django.db.models import Q
from django.utils import timezone

#: How often most tasks run where nobody says otherwise, and how often chunks are removed; seconds.
EVERY = 60
COMPACT_EVERY = 600

#: When what is over is archived and deleted: minute, hour, day of the month, month, day of the week. A task that runs
#: out of its time (``SWEEP_SECONDS``) leaves the rest to the next one, ten minutes later.
QUIET_HOURS = "*/10 1-5 * * *"

#: After how many seconds such a task is dropped that waits in the queue.
CRONTAB_EXPIRES = 600

#: Every so many seconds, or a crontab.
When = float | str

_DEFAULTS: Mapping[str, When] = MappingProxyType(
    {
        "chat_sessions.warn": EVERY,
        "chat_sessions.expire": EVERY,
        "chat_sessions.recover": EVERY,
        "chat_sessions.archive": QUIET_HOURS,
        "chat_sessions.purge": QUIET_HOURS,
        "chat_sessions.compact": COMPACT_EVERY,
        "chat_sessions.deliver": EVERY,
    }
)

#: The name of each entry, and of its task.
TASKS: Mapping[str, str] = MappingProxyType({f"chat-sessions-{task.rpartition('.')[2]}": task for task in _DEFAULTS})

_MARK = "Installed by `manage.py chat_sessions schedule`."
_DESCRIPTION = f"{_MARK} Changes made here are kept."

#: The table as it is, for ``app.conf.beat_schedule``. Made when somebody asks for it: it takes Celery.
BEAT_SCHEDULE: dict[str, dict[str, Any]]


def __getattr__(name: str) -> Any:
    """Make the table."""
    if name == "BEAT_SCHEDULE":
        return beat_schedule()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def beat_schedule(*, seconds: float | None = None, crontab: str | None = QUIET_HOURS) -> dict[str, dict[str, Any]]:
    """Return the entries for Celery's setting ``beat_schedule``.

    A task that waits in the queue until the next one comes is dropped, so that workers that were away do not find a
    heap of them. A crontab is in Celery's time zone (``CELERY_TIMEZONE``).

    Args:
        seconds: how often each task runs that is not for quiet hours; None is 60, and 600 for removing chunks.
        crontab: when archiving and purging run; None is as often as the others.

    Raises:
        ValueError: such a crontab is impossible.
    """
    return {name: _celery_entry(task, _when(task, seconds, crontab)) for name, task in TASKS.items()}


def _celery_entry(task: str, when: When) -> dict[str, Any]:
    schedule = _crontab(when) if isinstance(when, str) else when
    return {"task": task, "schedule": schedule, "options": {"expires": _expires(when)}}


def _when(task: str, seconds: float | None, crontab: str | None) -> When:
    default = _DEFAULTS[task]
    if isinstance(default, str):
        return crontab if crontab is not None else seconds or EVERY
    return seconds or default


def _expires(when: When) -> float:
    return CRONTAB_EXPIRES if isinstance(when, str) else when


def _crontab(text: str) -> Any:
    """Return Celery's crontab; the text itself where Celery is not there, nor anybody who could read it."""
    fields = _crontab_fields(text)
    try:
        from celery.schedules import ParseException, crontab  # noqa: PLC0415 - optional
    except ImportError:
        return text
    try:
        return crontab(**fields)
    except (ParseException, ValueError) as error:
        raise ValueError(f"{text!r} is not a crontab: {error}") from error


def _crontab_fields(text: str) -> dict[str, str]:
    parts = text.split()
    if len(parts) != 5:
        raise ValueError(f"{text!r} is not a crontab: it has to say minute, hour, day of the month, month, weekday.")
    return dict(zip(("minute", "hour", "day_of_month", "month_of_year", "day_of_week"), parts, strict=True))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of django-celery-beat.

    Attributes:
        name: the entry's.
        task: its task's.
        schedule: when it runs, in words.
        is_enabled: whether it runs at all.
        last_run_at: when it was last sent to a worker.
        outcome: what was done to it now: ``installed``, ``kept``, ``reset``, ``removed``; empty where only shown.
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


def install(*, seconds: int | None = None, crontab: str | None = QUIET_HOURS, reset: bool = False) -> list[Entry]:
    """Put what is missing into django-celery-beat; what is there stays as the operator left it.

    An entry is recognised by its task, so that a renamed one is not doubled. Those that an earlier version installed
    for tasks that are no more are removed, as workers would only complain of them. All or nothing is done, and who
    installs at the same time waits.

    Args:
        seconds: how often a new entry runs that is not for quiet hours; None is 60, and 600 for removing chunks.
        crontab: when new entries for archiving and purging run, in the project's time zone; None is as often as the
            others.
        reset: put entries that are there back to this, and enable them.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed in this project.
        ValueError: such a crontab is impossible.
    """
    if crontab is not None:
        _crontab(crontab)
    with _alone():
        plans = [(name, task, _when(task, seconds, crontab)) for name, task in TASKS.items()]
        return [*(_install(*plan, reset=reset) for plan in plans), *map(_remove, _obsolete())]


def show() -> list[Entry]:
    """Return our entries in django-celery-beat.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed in this project.
    """
    return [_entry(row, "" if row.task in TASKS.values() else "no such task") for row in _rows().order_by("name")]


def remove() -> int:
    """Remove our entries from django-celery-beat and return how many went; the intervals stay for others.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed in this project.
    """
    with _alone():
        return len([_remove(row) for row in _rows()])


def _models() -> Any:
    if not is_available():
        raise ImproperlyConfigured(
            "django_celery_beat is not in INSTALLED_APPS. Without it, put django_chat_sessions.schedule."
            "BEAT_SCHEDULE into Celery's beat_schedule, or run `manage.py chat_sessions sweep --loop`."
        )
    from django_celery_beat import models  # noqa: PLC0415 - optional, and only where it is an installed app

    return models


def _rows() -> Any:
    """Return our entries: those of our tasks, and what we installed, which is not whatever is named like it."""
    ours = Q(task__in=TASKS.values()) | Q(task__startswith="chat_sessions.", description__startswith=_MARK)
    return _models().PeriodicTask.objects.filter(ours).select_related("interval", "crontab")


def _obsolete() -> Any:
    return _rows().exclude(task__in=TASKS.values())


@contextmanager
def _alone() -> Iterator[None]:
    """Let nobody else install until this transaction ends: nothing keeps two from making the same interval, say."""
    model = _models().PeriodicTasks
    with transaction.atomic(using=router.db_for_write(model)):
        # The one row by which beat learns of changes. Written without being read first, which SQLite might refuse.
        if not model.objects.filter(ident=1).update(last_update=timezone.now()):
            model.update_changed()
        yield


def _install(name: str, task: str, when: When, *, reset: bool) -> Entry:
    row = _find(name, task)
    if row is None:
        return _entry(_models().PeriodicTask.objects.create(name=name, **_fields(task, when)), "installed")
    if not reset:
        return _entry(row, "kept")
    for field, value in _fields(task, when).items():
        setattr(row, field, value)
    row.save()
    return _entry(row, "reset")


def _remove(row: Any) -> Entry:
    entry = _entry(row, "removed")
    row.delete()  # each by itself: that is what tells a running beat
    return entry


def _find(name: str, task: str) -> Any:
    rows = _models().PeriodicTask.objects
    return rows.filter(task=task).order_by("pk").first() or rows.filter(name=name).first()


def _fields(task: str, when: When) -> dict[str, Any]:
    return {
        "task": task,
        "interval": None if isinstance(when, str) else _interval(when),
        "crontab": _crontab_row(when) if isinstance(when, str) else None,
        "solar": None,
        "clocked": None,
        "enabled": True,
        "one_off": False,
        "start_time": None,
        "expires": None,
        "expire_seconds": _expires(when),
        "description": _DESCRIPTION,
    }


def _interval(seconds: float) -> Any:
    model = _models().IntervalSchedule
    return _found_or_made(model, every=seconds, period=model.SECONDS)


def _crontab_row(text: str) -> Any:
    return _found_or_made(_models().CrontabSchedule, **_crontab_fields(text), timezone=timezone.get_default_timezone())


def _found_or_made(model: Any, **fields: Any) -> Any:
    # Not get_or_create: nothing keeps django-celery-beat from having the same one twice.
    return model.objects.filter(**fields).order_by("pk").first() or model.objects.create(**fields)


def _entry(row: Any, outcome: str = "") -> Entry:
    return Entry(
        name=row.name,
        task=row.task,
        schedule=str(row.scheduler or "never"),
        is_enabled=row.enabled,
        last_run_at=row.last_run_at,
        outcome=outcome,
    )
