"""Workers and beat for real: sessions expire by themselves, once each."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib.util import find_spec

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F

from django_chat_sessions.choices import EventType, Status
from django_chat_sessions.models import ChatSession, SessionEvent
from django_chat_sessions.operations.sweeps import SWEEPS
from django_chat_sessions.testing import age, make_session
from tests.celery.conftest import PATIENCE_SECONDS, Broker, Process, eventually

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SESSIONS = 500


def status(session: ChatSession) -> str:
    session.refresh_from_db()
    return session.status


def expired_by(worker: Process) -> list[int]:
    """Return how many sessions each of a worker's tasks said that it expired."""
    return [int(count) for count in re.findall(r"'task': 'expire', 'count': (\d+)", worker.said)]


def make_due_sessions(alice, count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            make_session(alice, agent="silent")
        names = ("created_at", "last_activity_at", "renewed_at", "expires_at")
        ChatSession.objects.update(**{name: F(name) - timedelta(hours=1) for name in names})


def assert_each_expired_once(count: int) -> None:
    assert ChatSession.objects.filter(status=Status.EXPIRED).count() == count
    events = SessionEvent.objects.filter(type=EventType.SESSION_EXPIRED)
    assert events.count() == events.values("session").distinct().count() == count


def test_a_session_expires_by_itself_through_beat_and_worker(alice, start, start_worker, tmp_path):
    session = make_session(alice, agent="silent")
    worker = start_worker()
    start("beat", "--schedule", str(tmp_path / "beat"), TEST_BEAT_SCHEDULE="1")
    age(session, minutes=29, seconds=58)
    eventually(lambda: status(session) == Status.EXPIRED, "the session to expire")
    types = list(session.events.order_by("sequence").values_list("type", flat=True))
    assert types[0] == EventType.SESSION_CREATED
    assert types[-1] == EventType.SESSION_EXPIRED
    assert set(types[1:-1]) <= {EventType.SESSION_EXPIRING}
    worker.hear("chat_sessions.sweep task=expire count=1")
    worker.hear("'task': 'recover', 'count': 0")


@pytest.mark.skipif(not find_spec("django_celery_beat"), reason="django-celery-beat is not there")
def test_entries_of_django_celery_beat_are_picked_up(alice, start, start_worker):
    session = age(make_session(alice, agent="silent"), hours=1)
    worker = start_worker()
    scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
    start("beat", "--scheduler", scheduler, "--max-interval", "1")
    call_command("chat_sessions", "schedule", "--every", "1", "--no-crontab", verbosity=0)
    eventually(lambda: status(session) == Status.EXPIRED, "the session to expire")
    for task in SWEEPS:
        worker.hear(f"{{'task': '{task}', 'count': ")


def test_two_workers_at_once_expire_each_session_once(alice, broker: Broker, start_worker):
    make_due_sessions(alice, SESSIONS)
    workers = [start_worker(), start_worker()]
    with transaction.atomic():
        block_writers()
        for _ in workers:
            broker.send("chat_sessions.expire")
        for worker in workers:
            worker.hear("received")
    eventually(lambda: all(map(expired_by, workers)), "both tasks to be done")
    counts = [sum(expired_by(worker)) for worker in workers]
    assert sum(counts) == SESSIONS
    # On SQLite they take turns, as the locks have it.
    assert all(counts) or connection.vendor == "sqlite"
    assert_each_expired_once(SESSIONS)


def block_writers() -> None:
    """Let no other process write until the transaction ends; on SQLite it does so from its first statement."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE chat_sessions_chatsession IN SHARE ROW EXCLUSIVE MODE")


@pytest.mark.postgres
def test_workers_skip_what_somebody_else_holds(alice, broker: Broker, start_worker):
    make_due_sessions(alice, 30)
    worker = start_worker()
    with transaction.atomic():
        held = ChatSession.objects.select_for_update().order_by("expires_at", "pk")[:7]
        ids = [session.pk for session in held]
        broker.send("chat_sessions.expire")
        eventually(lambda: expired_by(worker) == [23], "the others to expire")
        assert not ChatSession.objects.filter(pk__in=ids, status=Status.EXPIRED).exists()
    broker.send("chat_sessions.expire")
    eventually(lambda: expired_by(worker) == [23, 7], "the rest to expire")
    assert_each_expired_once(30)


@pytest.mark.parametrize("broker", ["filesystem"], indirect=True)
def test_a_worker_that_is_told_to_stop_leaves_the_rest_of_a_sweep(alice, broker: Broker, start):
    make_due_sessions(alice, 300)
    quiet = ("--without-gossip", "--without-mingle")
    # Its child sweeps, which nobody tells.
    worker = start("worker", "--pool", "prefork", "--concurrency", "1", *quiet, TEST_SLOWLY="0.05")
    worker.hear(" ready.")
    broker.send("chat_sessions.expire")
    eventually(lambda: ChatSession.objects.filter(status=Status.EXPIRED).exists(), "the sweep to begin")
    worker.popen.terminate()
    worker.popen.wait(PATIENCE_SECONDS)
    [count] = expired_by(worker)
    assert 0 < count < 300
    assert_each_expired_once(count)
