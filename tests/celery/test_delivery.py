"""Celery workers deliver: nudged after the commit, again when something failed, and at most once a second a process."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from django_chat_sessions import tasks
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.operations import outbox
from django_chat_sessions.rules import backoff
from django_chat_sessions.testing import make_session, say
from tests.celery.conftest import Process, eventually
from tests.operations import told

ROOT = Path(__file__).resolve().parents[2]


# --------------------------------------------------------------------------------------------------------------- pacing


@pytest.fixture
def nudges() -> tasks.Nudges:
    return tasks.Nudges()


def test_the_first_look_is_at_once_and_those_of_the_same_second_are_one(nudges):
    assert nudges.plan("default", 100.0, now=100.0) == 0
    assert nudges.plan("default", 100.3, now=100.3) == pytest.approx(0.7)
    assert [nudges.plan("default", 100 + n / 100, now=100 + n / 100) for n in range(31, 100)] == [None] * 69
    assert nudges.plan("default", 101.5, now=101.5) == pytest.approx(0.5)
    assert nudges.plan("default", 110.0, now=110.0) == 0


def test_a_look_at_another_database_is_another_one(nudges):
    assert nudges.plan("default", 100.0, now=100.0) == 0
    assert nudges.plan("other", 100.0, now=100.0) == 0


def test_looks_that_are_planned_do_for_what_is_due_by_then(nudges):
    assert nudges.plan("default", 116.0, now=100.0) == 16
    assert nudges.plan("default", 115.5, now=100.0) is None
    assert nudges.plan("default", 116.5, now=100.0) == 17
    assert nudges.plan("default", 101.0, now=100.0) == 1
    assert nudges.plan("default", 100.5, now=100.0) is None
    assert nudges.plan("default", 100.0, now=100.0) == 0


def test_no_look_is_earlier_than_what_it_is_for(nudges):
    planned: list[float] = []
    for at in [5.0, 3.2, 4.1, 4.9, 0.0, 0.4, 2.6, 5.5, 3.9, 1.7]:
        wait = nudges.plan("default", at, now=0.0)
        if wait is not None:
            planned.append(wait)
        assert any(at <= one <= at + 2 for one in planned)
    ordered = sorted(planned)
    assert all(later - earlier >= 0.999 for earlier, later in pairwise(ordered))


# ---------------------------------------------------------------------------------------------------- who writes, waits


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what is sent to the broker."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.deliver_events, "apply_async", lambda **options: messages.append(options))
    monkeypatch.setattr(tasks, "NUDGES", tasks.Nudges())
    return messages


@pytest.fixture
def subscribed(settings: Any) -> Callable[..., None]:
    def subscribed(subscriber: str, **keys: Any) -> None:
        given = {"SUBSCRIBERS": {"message": [told.path(subscriber)]}, "RUNNER": "celery", **keys}
        settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, **given}

    return subscribed


@pytest.mark.django_db(transaction=True)
def test_a_worker_is_nudged_by_what_was_committed(alice, subscribed, sent):
    session = make_session(alice, agent="silent")
    say(session, "Hello")
    subscribed("hear")
    say(session, "Hello")
    eventually(lambda: sent, "a message")
    assert [(message["kwargs"], message["countdown"]) for message in sent] == [({"using": "default"}, 0)]
    # Of those that wait behind a busy worker it drops the old ones, so that other tasks get their turn.
    assert sent[0]["expires"] == outbox.LONGEST_SECONDS


@pytest.mark.django_db(transaction=True)
def test_nobody_is_nudged_where_celery_is_not_used(alice, subscribed, sent):
    subscribed("hear", RUNNER="server")
    say(make_session(alice, agent="silent"), "Hello")
    assert tasks.SENDER.post(lambda: None).result(10) is None
    assert sent == []


@pytest.mark.django_db(transaction=True)
def test_what_failed_is_looked_at_again_when_it_is_due(alice, subscribed, sent, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.0)
    monkeypatch.setattr(backoff, "SHORTEST", 30.0)
    session = make_session(alice, agent="silent")
    subscribed("refuse", RUNNER="server")
    say(session, "Hello")
    subscribed("refuse")
    outbox.deliver()
    eventually(lambda: sent, "a message")
    assert [round(message["countdown"]) for message in sent] == [30]
    sent.clear()
    # What is to be tried in more than a minute, the beat comes before.
    OutboxEntry.objects.update(attempts=8, next_attempt_at="2000-01-01T00:00:00Z")
    outbox.deliver()
    assert tasks.SENDER.post(lambda: None).result(10) is None
    assert sent == []


@pytest.mark.django_db(transaction=True)
def test_a_task_is_over_before_long_and_sends_another_for_what_is_left(alice, subscribed, sent, monkeypatch):
    monkeypatch.setattr(outbox, "LONGEST_SECONDS", 0)
    monkeypatch.setattr(outbox, "CLAIM", 1)
    several = [make_session(alice, agent="silent") for _ in range(2)]
    subscribed("hear", RUNNER="server")  # The beat's alone go on, too.
    for session in several:
        say(session, "Hello")
    assert tasks.deliver_events()["count"] == 1
    eventually(lambda: sent, "a message")
    assert [message["kwargs"] for message in sent] == [{"using": "default"}]
    sent.clear()
    monkeypatch.setattr(outbox, "LONGEST_SECONDS", 60)
    monkeypatch.setattr(tasks, "NUDGES", tasks.Nudges())
    assert tasks.deliver_events()["count"] == 1
    assert tasks.SENDER.post(lambda: None).result(10) is None
    assert sent == []


@pytest.mark.django_db(transaction=True)
def test_who_writes_does_not_wait_for_the_broker(alice, subscribed, monkeypatch, caplog):
    over = threading.Event()

    def hang(**options: Any) -> None:
        over.wait(30)
        raise OSError("away")

    monkeypatch.setattr(tasks.deliver_events, "apply_async", hang)
    monkeypatch.setattr(tasks, "NUDGES", tasks.Nudges())
    monkeypatch.setattr(tasks, "SENDER", tasks.Sender())
    session = make_session(alice, agent="silent")
    subscribed("hear")
    began = time.monotonic()
    for _ in range(20):
        say(session, "Hello")
    assert time.monotonic() - began < 10
    assert OutboxEntry.objects.count() == 20
    for number in range(50):
        tasks.nudge(f"another {number}")
    assert tasks.SENDER._letters.qsize() == tasks.BACKLOG
    with caplog.at_level(logging.WARNING):
        over.set()
        eventually(lambda: "nudging who delivers" in caplog.text, "a complaint")


@pytest.mark.django_db(transaction=True)
def test_where_tasks_are_done_at_once_so_is_delivery(alice, subscribed, monkeypatch):
    monkeypatch.setattr(tasks, "NUDGES", tasks.Nudges())
    told.heard.clear()
    session = make_session(alice, agent="silent")
    subscribed("hear")
    tasks.deliver_events.app.conf.task_always_eager = True
    try:
        say(session, "Hello")
    finally:
        tasks.deliver_events.app.conf.task_always_eager = False
    assert [notice.sequence for notice in told.heard] == [2]
    assert not OutboxEntry.objects.exists()


# --------------------------------------------------------------------------------------------------------- real workers


#: Says something in a new session, by a process that exits as soon as it may.
SAY = """
import sys, time
from tests.celery import host_app
import django
django.setup()
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import say
session = ChatSession.objects.get(uuid=sys.argv[1])
for text in sys.argv[2:]:
    say(session, text)
time.sleep(1.5)
"""


@pytest.fixture
def subprocess_environment(subprocess_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    settings = {"RUNNER": "celery", "SUBSCRIBERS": {"message": [told.path("refuse_twice")]}}
    return {
        **subprocess_environment,
        "TEST_CHAT_SESSIONS": json.dumps(settings),
        "TEST_HEARD": str(tmp_path / "heard"),
    }


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_worker_delivers_what_another_process_wrote_and_tries_again_without_any_beat(
    alice: Any,
    start_worker: Callable[[], Process],
    broker: Any,
    subprocess_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    worker = start_worker()
    session = make_session(alice, agent="silent")
    environment = {**subprocess_environment, **broker.environment, "DJANGO_SETTINGS_MODULE": "tests.celery.host"}
    subprocess.run(
        [sys.executable, "-c", SAY, str(session.uuid), "Hello", "Good bye"], cwd=ROOT, env=environment, check=True
    )
    eventually(lambda: not OutboxEntry.objects.exists(), "the outbox to be empty")
    ends = [line.split() for line in (tmp_path / "heard").read_text().splitlines() if line.startswith("end")]
    assert [(int(sequence), int(attempt)) for _, _, sequence, attempt in ends] == [
        (sequence, attempt) for sequence in (2, 3) for attempt in (1, 2, 3)
    ]
    assert "chat_sessions.deliver" in worker.said
    assert ChatSession.objects.get(pk=session.pk).last_sequence == 3
