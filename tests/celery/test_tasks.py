"""The tasks as functions, and their table."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import timedelta

import pytest
from django.utils import timezone

from django_chat_sessions import tasks
from django_chat_sessions.models import Run
from django_chat_sessions.operations import recovery
from django_chat_sessions.schedule import BEAT_SCHEDULE, beat_schedule
from django_chat_sessions.testing import age, make_session

pytestmark = pytest.mark.django_db


def test_each_task_says_what_it_did(alice, caplog):
    caplog.set_level(logging.INFO)
    age(make_session(alice, agent="silent"), minutes=27)
    age(make_session(alice, agent="silent"), minutes=31)
    assert tasks.warn_sessions() == {"task": "warn", "count": 1, "batches": 1}
    assert tasks.expire_sessions() == {"task": "expire", "count": 1, "batches": 1}
    assert tasks.recover_runs() == {"task": "recover", "count": 0, "batches": 1}
    assert [record.getMessage() for record in caplog.records if record.name == tasks.__name__] == [
        "chat_sessions.warn count=1 batches=1",
        "chat_sessions.expire count=1 batches=1",
        "chat_sessions.recover count=0 batches=1",
    ]


def test_the_app_runs_without_celery():
    code = """
import sys
for name in ("celery", "kombu", "django_celery_beat"):
    sys.modules[name] = None
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_chat_sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MIDDLEWARE=[],
)
import django
django.setup()
from django.core.management import call_command
from django_chat_sessions import middleware, schedule, testing
call_command("migrate", verbosity=0)
call_command("check")
call_command("chat_sessions", "sweep")
print(sorted(schedule.BEAT_SCHEDULE))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "chat-sessions-expire" in done.stdout


def test_the_table_names_tasks_that_exist():
    names = {tasks.expire_sessions.name, tasks.warn_sessions.name, tasks.recover_runs.name}
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} == names


def test_the_table_takes_another_interval():
    entry = beat_schedule(seconds=5)["chat-sessions-expire"]
    assert entry == {"task": "chat_sessions.expire", "schedule": 5, "options": {"expires": 5}}


def test_a_worker_that_stops_leaves_the_answers_of_the_one_that_takes_its_place(alice):
    now = timezone.now()
    mine, successors = (
        Run.objects.create(
            session=make_session(alice, agent="echo"),
            status="running",
            worker=worker,
            input_sequence=1,
            created_at=now,
            heartbeat_at=now,
            expires_at=now + timedelta(minutes=1),
        )
        for worker in (f"{tasks._named('celery@host')}:7", "celery@host:another:7")
    )
    assert recovery.release_all(tasks._named("celery@host"), using="default") == 1
    mine.refresh_from_db()
    successors.refresh_from_db()
    assert (mine.status, mine.error, successors.status) == ("failed", "ProcessStopped", "running")
