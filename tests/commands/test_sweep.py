"""The command `chat_sessions sweep`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from django_chat_sessions.choices import EventType, Status
from django_chat_sessions.management.commands import chat_sessions as module
from django_chat_sessions.testing import age, make_session


def sweep(*args: str) -> str:
    out = StringIO()
    call_command("chat_sessions", "sweep", *args, stdout=out)
    return out.getvalue()


@pytest.mark.django_db
def test_one_round_warns_and_expires(alice):
    near, over, fresh = (make_session(alice, agent="silent") for _ in range(3))
    age(near, minutes=27)
    age(over, minutes=31)
    assert sweep() == "warn: 1, expire: 1, recover: 0\n"
    for session in (near, over, fresh):
        session.refresh_from_db()
    assert near.warned_at is not None
    assert near.events.filter(type=EventType.SESSION_EXPIRING).count() == 1
    assert over.status == Status.EXPIRED
    assert fresh.status == Status.CREATED
    assert sweep() == "warn: 0, expire: 0, recover: 0\n"


@pytest.mark.django_db
def test_a_limit_bounds_a_round(alice, settings):
    settings.CHAT_SESSIONS = {"SWEEP_BATCH": 2}
    for _ in range(5):
        age(make_session(alice, agent="silent"), hours=1)
    assert "expire: 3," in sweep("--limit", "3")
    assert "expire: 2," in sweep("--limit", "3")


@pytest.mark.parametrize(
    "arguments", [["--limit", "0"], ["--interval", "0"], ["--interval", "nan"], ["--interval", "x"]]
)
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(CommandError, match="above zero"):
        sweep(*arguments)


@pytest.mark.django_db
def test_a_database_that_is_away_for_a_while_does_not_end_a_loop(monkeypatch):
    command, rounds = module.Command(stdout=StringIO(), stderr=StringIO()), []

    def failing_once(*args, **kwargs):
        rounds.append(1)
        if len(rounds) == 1:
            raise OperationalError("the database is starting up")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(command, "_round", failing_once)
    before = signal.getsignal(signal.SIGTERM)
    command.sweep(loop=True, interval=0.01, limit=None)
    assert len(rounds) == 2
    assert "starting up" in command.stderr.getvalue()
    assert command.stdout.getvalue().endswith("Stopped.\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_single_round_without_a_database_is_an_error(monkeypatch):
    def failing(*args, **kwargs):
        raise OperationalError("no such table")

    monkeypatch.setattr(module.Command, "_round", failing)
    with pytest.raises(CommandError, match="The sweep failed: no such table"):
        sweep()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_sweeps_until_a_signal_stops_it_cleanly(alice, subprocess_environment, number):
    session = make_session(alice, agent="silent")
    command = [sys.executable, "-m", "django", "chat_sessions", "sweep", "--skip-checks", "--loop", "--interval", "0.2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=subprocess_environment, **pipes) as process:
        assert process.stdout.readline().startswith("Sweeping every 0.2 s")
        age(session, hours=1)
        assert process.stdout.readline() == "warn: 0, expire: 1, recover: 0\n"
        started = time.monotonic()
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (0, "Stopped.\n", "")
    assert time.monotonic() - started < 5
    session.refresh_from_db()
    assert session.status == Status.EXPIRED
