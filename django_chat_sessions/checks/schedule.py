"""Checks that something runs the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register  # noqa: A004
from django.db import DatabaseError, connections

from django_chat_sessions import conf, schedule

from .configuration import TAG, is_sound

_TABLE = "django_celery_beat_periodictask"


@register(TAG)
def check_schedule(**_: Any) -> list[CheckMessage]:
    """Check that a project with Celery schedules the tasks, as far as the settings tell."""
    if find_spec("celery") is None or schedule.is_available():
        return []
    missing = ", ".join(sorted(_unscheduled()))
    if not missing:
        return []
    hint = "Put django_chat_sessions.schedule.BEAT_SCHEDULE into Celery's beat_schedule, or install"
    hint += " django-celery-beat and run `manage.py chat_sessions schedule`. Where"
    hint += " `manage.py chat_sessions sweep --loop` runs instead, silence this check."
    return [Warning(f"Nothing schedules {missing}.", hint=hint, id="chat_sessions.W004")]


@register(TAG, Tags.database)
def check_entries(*, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Check that django-celery-beat has our entries, where its table is."""
    if not schedule.is_available() or not databases or not _unscheduled():
        return []
    try:
        if not any(_has_table(alias) for alias in databases):
            return []  # before the first migration
        there = {entry.task for entry in schedule.show()}
    except DatabaseError:
        return []  # Django's own checks and the command that follows say it better
    missing = ", ".join(sorted(_unscheduled() - there))
    if not missing:
        return []
    hint = "Run `manage.py chat_sessions schedule`; disable in the admin what is not wanted."
    text = f"django-celery-beat has no entry for {missing}."
    return [Warning(text, hint=hint, id="chat_sessions.W005")]


def _unscheduled() -> set[str]:
    """Return the tasks that have something to do and are in no table: without subscribers nothing is delivered."""
    delivers = is_sound() and conf.get().has_subscribers
    needed = set(schedule.TASKS.values()) - (set() if delivers else {"chat_sessions.deliver"})
    return needed - schedule.configured()


def _has_table(alias: str) -> bool:
    return _TABLE in connections[alias].introspection.table_names()
