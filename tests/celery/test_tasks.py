"""The tasks as functions, and their table."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import timedelta

import pytest
from celery.schedules import crontab
from django.utils import timezone

from django_chat_sessions import schedule, tasks
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import recovery, sessions, sweeping
from django_chat_sessions.operations.sweeps import SWEEPS
from django_chat_sessions.schedule import BEAT_SCHEDULE, beat_schedule
from django_chat_sessions.testing import age, make_session

pytestmark = pytest.mark.django_db


TASKS = {
    "warn": tasks.warn_sessions,
    "expire": tasks.expire_sessions,
    "recover": tasks.recover_runs,
    "archive": tasks.archive_sessions,
    "purge": tasks.purge_sessions,
    "compact": tasks.compact_chunks,
    "deliver": tasks.deliver_events,
}


def test_there_is_a_task_for_each_sweep():
    assert list(TASKS) == list(SWEEPS)
    assert {name: task.name for name, task in TASKS.items()} == {name: f"chat_sessions.{name}" for name in SWEEPS}


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_returns_is_json(name):
    result = TASKS[name]()
    assert json.loads(json.dumps(result)) == result
    assert (result["task"], result["count"], result["is_finished"]) == (name, 0, True)


def test_each_task_says_what_it_did(alice, caplog):
    caplog.set_level(logging.INFO, "django_chat_sessions")
    age(make_session(alice, agent="silent"), minutes=27)
    age(make_session(alice, agent="silent"), minutes=31)
    old = make_session(alice, agent="silent")
    sessions.end(old)
    age(old, days=100)
    done = {name: task()["count"] for name, task in TASKS.items()}
    assert done == {**dict.fromkeys(TASKS, 0), "warn": 1, "expire": 1, "archive": 1}
    said = [record.getMessage().split()[:3] for record in caplog.records if "sweep" in record.getMessage()]
    assert said == [["chat_sessions.sweep", f"task={name}", "count=1"] for name in ("warn", "expire", "archive")]


def test_a_task_that_takes_too_long_leaves_the_rest_to_the_next(alice, settings, monkeypatch):
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "SWEEP_BATCH": 1, "SWEEP_SECONDS": 10}
    for _ in range(5):
        age(make_session(alice, agent="silent"), hours=1)
    expired = ChatSession.objects.filter(status="expired")
    # Each takes six seconds.
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: 6 * expired.count())
    first = tasks.expire_sessions()
    assert (first["count"], first["is_finished"]) == (2, False)
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: 0)
    rest = tasks.expire_sessions()
    assert (rest["count"], rest["is_finished"]) == (3, True)


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
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} == {task.name for task in TASKS.values()}


def test_the_table_sweeps_often_and_clears_away_at_night():
    table = {entry["task"].rpartition(".")[2]: entry for entry in BEAT_SCHEDULE.values()}
    night = crontab(minute="*/10", hour="1-5")
    assert {name: entry["schedule"] for name, entry in table.items()} == {
        "warn": 60,
        "expire": 60,
        "recover": 60,
        "archive": night,
        "purge": night,
        "compact": 600,
        "deliver": 60,
    }
    expires = {name: entry["options"]["expires"] for name, entry in table.items()}
    assert expires == {**dict.fromkeys(TASKS, 60), "archive": 600, "purge": 600, "compact": 600}


def test_the_table_takes_another_interval_and_another_crontab():
    table = beat_schedule(seconds=5, crontab="0 3 * * sun")
    entry = table["chat-sessions-expire"]
    assert entry == {"task": "chat_sessions.expire", "schedule": 5, "options": {"expires": 5}}
    assert table["chat-sessions-compact"]["schedule"] == 5
    assert table["chat-sessions-purge"]["schedule"] == crontab(minute="0", hour="3", day_of_week="sun")


def test_the_table_may_have_intervals_alone():
    assert {entry["schedule"] for entry in beat_schedule(seconds=5, crontab=None).values()} == {5}
    assert beat_schedule(crontab=None)["chat-sessions-purge"]["schedule"] == 60


def test_an_impossible_crontab_is_no_table():
    with pytest.raises(ValueError, match=r"'0 24 \* \* \*' is not a crontab"):
        beat_schedule(crontab="0 24 * * *")


def test_the_module_has_the_table_and_nothing_else_that_is_not_there():
    assert not hasattr(schedule, "BEAT_SCHEDULES")


def test_a_settings_module_may_take_the_table():
    code = """
from django.conf import settings
from django_chat_sessions.schedule import BEAT_SCHEDULE, beat_schedule
settings.configure(CELERY_BEAT_SCHEDULE={**BEAT_SCHEDULE, **beat_schedule(seconds=5)}, CELERY_BROKER_URL="memory://")
from celery import Celery
app = Celery()
app.config_from_object("django.conf:settings", namespace="CELERY")
print(sorted(app.conf.beat_schedule))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(schedule.TASKS))


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
