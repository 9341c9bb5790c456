"""Checks of the middleware's place, of what runs the tasks, and of the database."""

from __future__ import annotations

import sqlite3
import sys
from importlib.util import find_spec

import pytest
from django.apps import apps
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection

from django_chat_sessions import schedule
from django_chat_sessions.checks import databases
from django_chat_sessions.middleware import ChatSessionMiddleware

OURS = "django_chat_sessions.middleware.ChatSessionMiddleware"
USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"

needs_beat = pytest.mark.skipif(not find_spec("django_celery_beat"), reason="django-celery-beat is not there")


class Users(AuthenticationMiddleware):
    """A host's own."""


class Chats(ChatSessionMiddleware):
    """A host's own."""


def ids(**options) -> list[str]:
    messages = run_checks(tags=["chat_sessions"], **options)
    assert all(message.hint for message in messages)
    return [message.id.removeprefix("chat_sessions.") for message in messages]


# -- the middleware


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([USERS, OURS], []),
        ([f"{__name__}.Users", f"{__name__}.Chats"], []),
        ([USERS, "no.such.Middleware", OURS], []),
        ([USERS], ["W001"]),
        ([], ["W001"]),
        ([OURS], ["W002"]),
        ([OURS, USERS], ["E010"]),
        ([f"{__name__}.Chats", USERS], ["E010"]),
    ],
)
def test_the_middleware_belongs_after_the_one_that_knows_the_user(settings, chain, expected):
    settings.MIDDLEWARE = chain
    assert ids() == expected


# -- the schedule


@pytest.fixture
def unscheduled(settings):
    settings.CELERY_BEAT_SCHEDULE = {}


@pytest.fixture
def without_beat(unscheduled, monkeypatch):
    monkeypatch.setattr(schedule, "is_available", lambda: False)


def test_celery_without_a_schedule_is_warned_of(without_beat):
    assert ids() == ["W004"]


def test_a_table_in_the_settings_is_a_schedule(without_beat, settings):
    settings.CELERY_BEAT_SCHEDULE = schedule.beat_schedule(seconds=30)
    assert ids() == []


def test_half_a_table_is_not(without_beat, settings):
    settings.CELERY_BEAT_SCHEDULE = {"warn": {"task": "chat_sessions.warn", "schedule": 60}}
    [message] = run_checks(tags=["chat_sessions"])
    missing = [f"chat_sessions.{name}" for name in ("archive", "compact", "expire", "purge", "recover")]
    assert message.msg == f"Nothing schedules {', '.join(missing)}."


@pytest.mark.parametrize(
    "subscribers",
    [{"SUBSCRIBERS": {"app.*": ["example.told"]}}, {"WEBHOOK_URL": "https://example.org/", "WEBHOOK_SECRET": "s" * 32}],
)
def test_what_nobody_subscribes_to_need_not_be_delivered(without_beat, settings, subscribers):
    table = schedule.beat_schedule()
    del table["chat-sessions-deliver"]
    settings.CELERY_BEAT_SCHEDULE = table
    assert ids() == []
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, **subscribers}
    said = [message.msg for message in run_checks(tags=["chat_sessions"])]
    assert "Nothing schedules chat_sessions.deliver." in said


def test_a_table_in_the_celery_app_is_a_schedule(without_beat):
    from celery import Celery, current_app

    before = current_app._get_current_object()
    app = Celery("host", set_as_current=True)
    try:
        app.conf.beat_schedule = schedule.BEAT_SCHEDULE
        assert ids() == []
    finally:
        before.set_current()


def test_without_celery_nothing_is_missed(without_beat, monkeypatch):
    monkeypatch.setitem(sys.modules, "celery", None)
    monkeypatch.setattr("django_chat_sessions.checks.schedule.find_spec", lambda name: None)
    assert ids() == []


@needs_beat
@pytest.mark.django_db
def test_beat_without_our_entries_is_warned_of_until_they_are_there(unscheduled):
    assert ids(databases=["default"]) == ["W005"]
    assert ids() == []
    call_command("chat_sessions", "schedule", verbosity=0)
    assert ids(databases=["default"]) == []


@needs_beat
@pytest.mark.django_db
def test_a_task_may_be_in_the_table_or_in_beat(settings):
    settings.CELERY_BEAT_SCHEDULE = {"warn": {"task": "chat_sessions.warn", "schedule": 60}}
    call_command("chat_sessions", "schedule", verbosity=0)
    PeriodicTask = apps.get_model("django_celery_beat", "PeriodicTask")
    PeriodicTask.objects.filter(task="chat_sessions.warn").delete()
    assert ids(databases=["default"]) == []
    PeriodicTask.objects.filter(task="chat_sessions.purge").delete()
    [message] = run_checks(tags=["chat_sessions"], databases=["default"])
    assert message.msg == "django-celery-beat has no entry for chat_sessions.purge."


@needs_beat
@pytest.mark.django_db
def test_before_the_first_migration_nothing_is_said(unscheduled, monkeypatch):
    monkeypatch.setattr(connection.introspection, "table_names", lambda *args, **kwargs: [])
    assert ids(databases=["default"]) == []


# -- the database


@pytest.fixture
def options(monkeypatch):
    def options(**values):
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", values)

    return options


@pytest.mark.sqlite
def test_sqlite_without_immediate_transactions_is_warned_of(options, tmp_path, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "NAME", tmp_path / "new.sqlite3")
    options(init_command="PRAGMA synchronous=NORMAL; PRAGMA JOURNAL_MODE = WAL;")
    assert ids() == ["W006"]
    options(init_command="PRAGMA journal_mode(wal)", transaction_mode="immediate")
    assert ids() == []


@pytest.mark.sqlite
def test_sqlite_without_wal_is_warned_of_and_the_file_itself_may_tell(options, tmp_path, monkeypatch):
    file = tmp_path / "old.sqlite3"
    monkeypatch.setitem(connection.settings_dict, "NAME", str(file))
    options(transaction_mode="IMMEDIATE")
    assert ids() == ["W007"]
    assert not file.exists()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE t (x)")
    assert ids() == ["W007"]
    other.execute("PRAGMA journal_mode=WAL")
    assert ids() == []
    other.close()


@pytest.mark.sqlite
@pytest.mark.parametrize("name", [":memory:", "file:memorydb_default?mode=memory&cache=shared", ""])
def test_sqlite_in_memory_needs_neither(options, monkeypatch, name):
    monkeypatch.setitem(connection.settings_dict, "NAME", name)
    options()
    assert ids() == []


@pytest.mark.sqlite
def test_an_old_sqlite_library_is_refused(monkeypatch):
    monkeypatch.setattr(databases, "SQLITE_LEAST", (99, 0))
    assert ids() == ["E011"]


@pytest.mark.postgres
def test_postgresql_that_connects_for_each_request_is_warned_of_at_deployment(options, monkeypatch):
    options(server_side_binding=True, prepare_threshold=1)
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    assert ids(include_deployment_checks=True) == ["W008"]
    assert ids() == []
    options(server_side_binding=True, prepare_threshold=1, pool=True)
    assert ids(include_deployment_checks=True) == []


@pytest.mark.postgres
def test_postgresql_that_prepares_nothing_is_warned_of_at_deployment(options, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 60)
    for values in (
        {},
        {"server_side_binding": True},
        {"prepare_threshold": 1},
        {"server_side_binding": True, "prepare_threshold": 0},
    ):
        options(**values)
        assert ids(include_deployment_checks=True) == ["W009"]
    options(server_side_binding=True, prepare_threshold=1)
    assert ids(include_deployment_checks=True) == []
