"""The command `chat_sessions sweep`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from django_chat_sessions import signals
from django_chat_sessions.choices import EventType, Status
from django_chat_sessions.management import progress, stopping, sweeping
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.operations import archiving, privacy, sessions
from django_chat_sessions.operations.sweeps import SWEEPS
from django_chat_sessions.testing import age, make_session, say

NOTHING = ", ".join(f"{name}: 0" for name in SWEEPS)


def said(**counts: int) -> str:
    """Return the line of a round that did this and nothing else."""
    return ", ".join(f"{name}: {counts.get(name, 0)}" for name in SWEEPS)


@pytest.fixture
def stopped_by_expiry():
    """Have this process asked to stop, once, as soon as a session's expiry is announced."""
    asked = []

    def stop(**_):
        if not asked:
            asked.append(1)
            signal.raise_signal(signal.SIGTERM)

    signals.session_expired.connect(stop)
    yield
    signals.session_expired.disconnect(stop)


# ------------------------------------------------------------------------------------------------------------- a round


@pytest.mark.django_db
def test_one_round_does_everything_in_order(alice, sweep):
    near, over, fresh, old, older = (make_session(alice, agent="silent") for _ in range(5))
    age(near, minutes=27)
    age(over, minutes=31)
    for session, days in ((old, 100), (older, 100)):
        sessions.end(session)
        age(session, days=days)
    privacy.hold(older, reason="a lawsuit")
    assert sweep() == said(warn=1, expire=1, archive=1).replace("archive: 1", "archive: 1 (1 held)") + "\n"
    for session in (near, over, fresh, old, older):
        session.refresh_from_db()
    assert near.events.filter(type=EventType.SESSION_EXPIRING).count() == 1
    assert [session.status for session in (over, fresh, old, older)] == ["expired", "created", "archived", "ended"]
    assert sweep() == NOTHING.replace("archive: 0", "archive: 0 (1 held)") + "\n"


@pytest.mark.django_db
def test_only_what_is_named_is_swept_and_in_its_own_order(alice, sweep):
    near, over = (make_session(alice, agent="silent") for _ in range(2))
    age(near, minutes=27)
    age(over, minutes=31)
    assert sweep("purge", "expire") == "expire: 1, purge: 0\n"
    near.refresh_from_db()
    assert near.warned_at is None


def test_what_is_no_sweep_is_refused(sweep):
    with pytest.raises(CommandError, match=r"'tidy' is none of warn, expire, .*, deliver"):
        sweep("tidy")


@pytest.mark.django_db
def test_a_limit_bounds_a_round(alice, settings, sweep):
    settings.CHAT_SESSIONS = {"SWEEP_BATCH": 2}
    for _ in range(5):
        age(make_session(alice, agent="silent"), hours=1)
    assert "expire: 3," in sweep("--limit", "3")
    assert "expire: 2," in sweep("--limit", "3")


@pytest.mark.parametrize(
    "arguments", [["--limit", "0"], ["--interval", "0"], ["--interval", "nan"], ["--interval", "x"]]
)
def test_impossible_arguments_are_refused(arguments, sweep):
    with pytest.raises(CommandError, match="above zero"):
        sweep(*arguments)


@pytest.mark.django_db
def test_a_single_round_without_a_database_is_an_error(sweep):
    def away(*_):
        raise OperationalError("no such table")

    with connection.execute_wrapper(away), pytest.raises(CommandError, match="The sweep failed: no such table"):
        sweep()


@pytest.mark.django_db
def test_a_sweep_that_fails_keeps_no_other_from_it_and_the_command_fails(alice, sweep, monkeypatch, caplog):
    def failing(*_, **__):
        raise RuntimeError("the storage is not there")

    monkeypatch.setattr(archiving.retention, "groups", failing)
    age(make_session(alice, agent="silent"), hours=1)
    out = StringIO()
    with pytest.raises(CommandError, match=r"Failed: archive\."):
        call_command("chat_sessions", "sweep", "expire", "archive", "compact", stdout=out)
    assert out.getvalue() == "expire: 1, archive: failed, compact: 0\n"
    assert "The sweep archive failed; the next one tries again" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_signal_ends_a_round_after_the_batch_it_is_in(alice, settings, sweep, stopped_by_expiry):
    settings.CHAT_SESSIONS = {"SWEEP_BATCH": 2}
    for _ in range(5):
        age(make_session(alice, agent="silent"), hours=1)
    before = signal.getsignal(signal.SIGTERM)
    assert sweep("warn", "expire", "recover") == "warn: 0, expire: 2\nStopped; the next sweep goes on.\n"
    assert signal.getsignal(signal.SIGTERM) is before
    assert ChatSession.objects.filter(status=Status.EXPIRED).count() == 2


def test_the_first_signal_asks_and_the_second_is_heard_by_whoever_heard_before():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with stopping.Stop() as stop:
            assert not stop.is_asked
            signal.raise_signal(signal.SIGTERM)
            assert (stop.is_asked, heard) == (True, [])
            signal.raise_signal(signal.SIGTERM)
            assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_waits_is_woken_by_a_signal():
    with stopping.Stop() as stop:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        started = time.monotonic()
        stop.wait(40)
        assert time.monotonic() - started < 20
        assert stop.is_asked


@pytest.mark.django_db(transaction=True)
def test_another_thread_than_the_main_one_may_sweep(sweep):
    found = []

    def work():
        try:
            found.append(sweep("expire"))
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["expire: 0\n"]


# -------------------------------------------------------------------------------------------------------------- a loop


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_for_a_while_does_not_end_a_loop(alice, stopped_by_expiry):
    age(make_session(alice, agent="silent"), hours=1)
    failures = iter([OperationalError("the database is starting up")])

    def away_at_first(execute, *args):
        if error := next(failures, None):
            raise error
        return execute(*args)

    out, errors = StringIO(), StringIO()
    with connection.execute_wrapper(away_at_first):
        call_command("chat_sessions", "sweep", "--loop", "--interval", "0.01", stdout=out, stderr=errors)
    assert errors.getvalue() == "The sweep failed and is tried again: the database is starting up\n"
    # Asked to stop in the middle of a round, it leaves what comes after.
    assert out.getvalue() == "Sweeping every 0.01 s; Ctrl-C stops.\nwarn: 0, expire: 1\nStopped.\n"


@pytest.mark.django_db(transaction=True)
def test_subscribers_need_not_wait_for_the_next_round_of_a_loop(alice, settings, monkeypatch):
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "SUBSCRIBERS": {"message": [f"{__name__}.told"]}}
    monkeypatch.setattr(sweeping, "DELIVER_SECONDS", 0.01)
    session = make_session(alice, agent="silent")
    spoken, wait = [], stopping.Stop.wait

    def wait_and_speak(stop, seconds):
        if not spoken:
            spoken.append(say(session, "hello"))
        wait(stop, seconds)

    monkeypatch.setattr(stopping.Stop, "wait", wait_and_speak)
    TOLD.clear()
    out = StringIO()
    call_command("chat_sessions", "sweep", "--loop", "--interval", "20", stdout=out)
    assert TOLD == ["message"]
    assert out.getvalue() == "Sweeping every 20 s; Ctrl-C stops.\ndeliver: 1\nStopped.\n"


@pytest.mark.django_db(transaction=True)
def test_a_full_outbox_keeps_no_round_of_a_loop_from_its_turn(alice, settings, monkeypatch, stopped_by_expiry):
    """What is said whenever somebody is told would be told for ever."""
    monkeypatch.setattr(sweeping, "LONGEST_SECONDS", 0.1)
    monkeypatch.setattr(sweeping, "DELIVER_SECONDS", 0.01)
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "SUBSCRIBERS": {"message": [f"{__name__}.go_on"]}}
    session, over = (make_session(alice, agent="silent") for _ in range(2))
    say(session, "Hello")
    LATER[:] = [over, time.monotonic() + 0.3, time.monotonic() + 30]
    call_command("chat_sessions", "sweep", "--loop", "--interval", "0.2", stdout=StringIO())
    over.refresh_from_db()
    assert over.status == Status.EXPIRED
    # Its round came while there was still something to tell.
    assert OutboxEntry.objects.exists()


LATER: list[Any] = []


def go_on(event) -> None:
    """Have one session due after a while, and say another thing, up to a time."""
    over, due, until = LATER
    if time.monotonic() > due:
        age(over, hours=1)
        LATER[1] = until
    if time.monotonic() < until:
        say(event.session, "Hello")


TOLD: list[str] = []


def told(event) -> None:
    """Be told of an event, and have the loop stop."""
    TOLD.append(event.type)
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_sweeps_until_a_signal_stops_it_cleanly(alice, subprocess_environment, number):
    session = make_session(alice, agent="silent")
    command = [sys.executable, "-m", "django", "chat_sessions", "sweep", "--skip-checks", "--loop", "--interval", "0.2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=subprocess_environment, **pipes) as process:
        try:
            assert process.stdout.readline().startswith("Sweeping every 0.2 s")
            age(session, hours=1)
            assert process.stdout.readline() == said(expire=1) + "\n"
            started = time.monotonic()
            process.send_signal(number)
            out, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out, errors) == (0, "Stopped.\n", "")
    assert time.monotonic() - started < 5
    session.refresh_from_db()
    assert session.status == Status.EXPIRED


# ------------------------------------------------------------------------------------------------------------ progress


@pytest.fixture
def slow_clock(monkeypatch):
    """Have a second pass at each look at the clock."""
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))


@pytest.mark.django_db
def test_a_terminal_sees_a_bar_on_one_line(alice, settings, sweep, terminal, slow_clock):
    settings.CHAT_SESSIONS = {"SWEEP_BATCH": 1}
    for _ in range(4):
        age(make_session(alice, agent="silent"), hours=1)
    sweep("expire", stderr=terminal)
    assert "\n" not in terminal.getvalue()
    lines = [line for line in terminal.getvalue().replace("\x1b[K", "").split("\r") if line]
    assert lines[0].startswith("expire: 1 sessions of 4 [#####...............] 25%, ")
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("expire: 4 sessions of 4 [####################] 100%, ")
    assert "left" not in lines[-1]
    assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.django_db
def test_the_bar_ends_where_the_limit_is(alice, settings, sweep, terminal, slow_clock):
    settings.CHAT_SESSIONS = {"SWEEP_BATCH": 1}
    for _ in range(4):
        age(make_session(alice, agent="silent"), hours=1)
    sweep("expire", "--limit", "2", stderr=terminal)
    assert "expire: 1 sessions of 2 [##########..........] 50%" in terminal.getvalue()


@pytest.mark.django_db
def test_a_log_file_sees_a_line_now_and_then(alice, settings, sweep, monkeypatch):
    monkeypatch.setattr(progress, "EACH", 2)
    settings.CHAT_SESSIONS = {"SWEEP_BATCH": 1}
    for _ in range(5):
        age(make_session(alice, agent="silent"), hours=1)
    errors = StringIO()
    with CaptureQueriesContext(connection) as queries:
        sweep("expire", stderr=errors)
    assert errors.getvalue().splitlines() == ["expire: 2 sessions …", "expire: 4 sessions …"]
    assert not [query for query in queries.captured_queries if "count(*)" in query["sql"]]


# ----------------------------------------------------------------------------------------------------------- log lines


@pytest.mark.django_db
def test_a_sweep_logs_one_line_and_none_at_this_level_where_it_finds_nothing(alice, sweep, caplog):
    caplog.set_level(logging.INFO, "django_chat_sessions")
    age(make_session(alice, agent="silent"), hours=1)
    sweep()
    sweep()
    [record] = [record for record in caplog.records if "chat_sessions.sweep" in record.getMessage()]
    assert record.getMessage().startswith("chat_sessions.sweep task=expire count=1 batches=")
    assert (record.sweep_task, record.sweep_count, record.sweep_is_finished) == ("expire", 1, True)


@pytest.mark.django_db
def test_what_was_done_is_logged_though_the_next_batch_fails(alice, settings, caplog):
    caplog.set_level(logging.INFO, "django_chat_sessions")
    settings.CHAT_SESSIONS = {"SWEEP_BATCH": 2}
    for _ in range(3):
        age(make_session(alice, agent="silent"), hours=1)

    def refuse(swept):
        raise OperationalError("gone")

    with pytest.raises(OperationalError):
        SWEEPS["expire"].work(watch=refuse)
    [record] = [record for record in caplog.records if "chat_sessions.sweep" in record.getMessage()]
    assert (record.sweep_count, record.sweep_is_finished) == (2, False)


# ------------------------------------------------------------------------------------------------------------- dry run


@pytest.fixture
def read_only():
    """Let the database refuse whatever is written."""
    on, off = (
        ("SET default_transaction_read_only = on", "SET default_transaction_read_only = off")
        if connection.vendor == "postgresql"
        else ("PRAGMA query_only = ON", "PRAGMA query_only = OFF")
    )

    def switch(sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)

    yield lambda: switch(on)
    switch(off)


@pytest.mark.django_db(transaction=True)
def test_a_dry_run_of_everything_writes_nothing(alice, sweep, read_only):
    age(make_session(alice, agent="silent"), minutes=27)
    age(make_session(alice, agent="silent"), minutes=31)
    for days in (100, 500):
        session = make_session(alice, agent="silent")
        sessions.end(session)
        age(session, days=days)
    before = list(ChatSession.objects.order_by("pk").values())
    read_only()
    with CaptureQueriesContext(connection) as queries:
        lines = sweep("--dry-run").splitlines()
    assert {query["sql"].partition(" ")[0] for query in queries.captured_queries} == {"SELECT"}
    assert [line for line in lines if not line.startswith(" ")] == [
        "warn: 1 session",
        "expire: 1 session",
        "recover: 0 answers and sessions",
        "archive: 2 sessions",
        "purge: 0 sessions",
        "compact: 0 chunks",
        "deliver: 0 events",
        "Nothing was done.",
    ]
    assert list(ChatSession.objects.order_by("pk").values()) == before


@pytest.mark.django_db
def test_a_dry_run_shows_what_is_due_by_status_agent_and_age_and_a_sample(alice, sweep):
    first = age(make_session(alice, agent="silent"), days=2)
    second = make_session(alice, agent="")
    say(second, "hello")
    age(second, minutes=40)
    lines = sweep("expire", "--dry-run").splitlines()
    since = f"{first.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    assert lines == [
        "expire: 2 sessions",
        "  by status  active 1, created 1",
        "  by agent   (none) 1, silent 1",
        "  by age     under an hour 1, under a week 1",
        f"  session{' ' * 29}  status   agent   due since",
        f"  {first.uuid}  created  silent  {since}",
        f"  {second.uuid}  active   (none)  {second.expires_at:%Y-%m-%d %H:%M:%S} UTC",
        "Nothing was done.",
    ]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("number", "words"), [(1, "1 more is under legal hold and stays"), (3, "3 more are under legal hold and stay")]
)
def test_a_dry_run_says_what_stays_because_of_a_legal_hold(alice, sweep, number, words):
    for _ in range(number):
        session = make_session(alice, agent="silent")
        sessions.end(session)
        age(session, days=100)
        privacy.hold(session)
    assert sweep("archive", "--dry-run") == f"archive: 0 sessions; {words}\nNothing was done.\n"


@pytest.mark.django_db
def test_a_dry_run_says_what_the_sweep_then_does(alice, sweep):
    for hours in range(1, 4):
        age(make_session(alice, agent="silent"), hours=hours)
    assert sweep("expire", "--dry-run").startswith("expire: 3 sessions\n")
    assert sweep("expire") == "expire: 3\n"
    assert sweep("expire", "--dry-run") == "expire: 0 sessions\nNothing was done.\n"


def test_a_dry_run_is_no_loop(sweep):
    with pytest.raises(CommandError, match="not allowed with"):
        sweep("--dry-run", "--loop")


def test_the_time_left_is_said_in_hours_minutes_and_seconds():
    said = [progress._duration(timedelta(**given).total_seconds()) for given in ({"seconds": 5}, {"hours": 30})]
    assert said == ["0:05", "30:00:00"]
