"""The command `chat_sessions schedule`."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection

from django_chat_sessions.schedule import COMPACT_EVERY, EVERY, QUIET_HOURS, TASKS

NIGHTLY = {"chat_sessions.archive", "chat_sessions.purge"}

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not find_spec("django_celery_beat"), reason="django-celery-beat is not there"),
]


@pytest.fixture
def rows():
    from django_celery_beat.models import PeriodicTask

    return PeriodicTask.objects


def run(*args: str) -> list[str]:
    out = StringIO()
    call_command("chat_sessions", "schedule", *args, stdout=out)
    return out.getvalue().splitlines()


def minute():
    from django_celery_beat.models import IntervalSchedule

    return IntervalSchedule.objects.get_or_create(every=5, period=IntervalSchedule.MINUTES)[0]


def when(row) -> str:
    """Return when an entry runs, as somebody would write it."""
    if row.crontab is None:
        return f"{row.interval.every} {row.interval.period}"
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    return " ".join(getattr(row.crontab, name) for name in names)


def test_it_installs_each_task_once(rows):
    assert len(run()) == len(TASKS)
    found = {(row.name, row.task, when(row), row.expire_seconds, row.enabled) for row in rows.all()}
    often = {
        (name, task, f"{every} seconds", every, True)
        for name, task in TASKS.items()
        if task not in NIGHTLY and (every := COMPACT_EVERY if task.endswith("compact") else EVERY)
    }
    assert found == often | {(name, task, QUIET_HOURS, 600, True) for name, task in TASKS.items() if task in NIGHTLY}
    assert all("kept" in line for line in run())
    assert rows.count() == len(TASKS)


def test_quiet_hours_are_those_of_the_project(rows, settings):
    settings.TIME_ZONE = "Asia/Kathmandu"
    run()
    [zone] = {str(row.crontab.timezone) for row in rows.filter(task__in=NIGHTLY)}
    assert zone == "Asia/Kathmandu"
    assert f"chat-sessions-purge: chat_sessions.purge, {QUIET_HOURS} (m/h/dM/MY/d) Asia/Kathmandu" in run("--show")


def test_another_crontab_is_for_the_nightly_ones_alone(rows):
    run("--crontab", "30 22-4 * * mon-fri", "--every", "20")
    found = {row.task: when(row) for row in rows.all()}
    assert found == {task: "30 22-4 * * mon-fri" if task in NIGHTLY else "20 seconds" for task in TASKS.values()}


def test_without_a_crontab_they_run_as_often_as_the_others(rows):
    run("--no-crontab", "--every", "20")
    assert {when(row) for row in rows.all()} == {"20 seconds"}


def test_entries_share_their_schedules(rows):
    run("--every", "30")
    assert len({(row.interval_id, row.crontab_id) for row in rows.all()}) == 2


def test_a_rerun_keeps_what_the_operator_changed(rows):
    run()
    row = rows.get(task="chat_sessions.expire")
    row.interval, row.enabled, row.name, row.queue = minute(), False, "our own name", "slow"
    row.save()
    run("--every", "10")
    assert rows.count() == len(TASKS)
    row.refresh_from_db()
    assert (row.interval.every, row.enabled, row.name, row.queue) == (5, False, "our own name", "slow")


def test_a_rerun_keeps_another_kind_of_schedule(rows):
    from django_celery_beat.models import CrontabSchedule

    run()
    row = rows.get(task="chat_sessions.warn")
    row.interval, row.crontab = None, CrontabSchedule.objects.create(minute="*/5")
    row.save()
    assert any("*/5" in line for line in run())
    row.refresh_from_db()
    assert row.interval is None


def test_a_rerun_adds_what_is_missing(rows):
    run()
    rows.get(task="chat_sessions.warn").delete()
    lines = run()
    assert [line.rpartition(" ")[2] for line in lines] == ["(installed)"] + ["(kept)"] * (len(TASKS) - 1)


def test_reset_puts_entries_back(rows):
    from django_celery_beat.models import CrontabSchedule

    run()
    row = rows.get(task="chat_sessions.expire")
    row.interval, row.crontab, row.enabled = None, CrontabSchedule.objects.create(minute="0"), False
    row.save()
    assert all("reset" in line for line in run("--reset", "--every", "20"))
    row.refresh_from_db()
    assert (row.interval.every, row.crontab, row.enabled, row.expire_seconds) == (20, None, True, 20)


def test_reset_makes_a_crontab_of_an_interval_again(rows):
    run()
    row = rows.get(task="chat_sessions.purge")
    row.interval, row.crontab = minute(), None
    row.save()
    assert all("kept" in line for line in run())
    run("--reset")
    row.refresh_from_db()
    assert (row.interval, when(row)) == (None, QUIET_HOURS)


def test_entries_of_tasks_that_are_no_more_are_shown_and_removed(rows):
    run()
    gone = {"name": "chat-sessions-tidy", "task": "chat_sessions.tidy", "interval": minute()}
    rows.create(**gone, description=rows.first().description)
    rows.create(name="a project's own", task="chat_sessions.report", interval=minute())
    assert "chat-sessions-tidy: chat_sessions.tidy, every 5 minutes (no such task)" in run("--show")
    assert run()[-1] == "chat-sessions-tidy: chat_sessions.tidy, every 5 minutes (removed)"
    assert set(rows.values_list("task", flat=True)) == {*TASKS.values(), "chat_sessions.report"}


def test_show_changes_nothing(rows):
    assert run("--show") == ["Nothing is installed: run `manage.py chat_sessions schedule`."]
    assert not rows.exists()
    run()
    rows.filter(task="chat_sessions.warn").update(enabled=False)
    assert "chat-sessions-warn: chat_sessions.warn, every 60 seconds, disabled" in run("--show")


def test_remove_takes_ours_and_leaves_others(rows):
    run()
    rows.create(name="somebody else's", task="host.task", interval=minute())
    assert run("--remove") == [f"{len(TASKS)} removed."]
    assert [row.task for row in rows.all()] == ["host.task"]
    assert run("--remove") == ["0 removed."]


def test_a_running_beat_is_told_of_every_change():
    from django_celery_beat.models import PeriodicTasks

    seen = [PeriodicTasks.last_change()]
    for arguments in ([], ["--reset"], ["--remove"]):
        run(*arguments)
        seen.append(PeriodicTasks.last_change())
    assert len(set(seen)) == len(seen)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_two_deployments_at_once_install_once(rows):
    from django_celery_beat.models import CrontabSchedule, IntervalSchedule

    start, said = threading.Barrier(4), []

    def deploy():
        try:
            start.wait()
            said.extend(run())
        finally:
            connection.close()

    threads = [threading.Thread(target=deploy) for _ in range(start.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.endswith("(installed)") for line in said) == len(TASKS)
    assert sum(line.endswith("(kept)") for line in said) == len(TASKS) * (start.parties - 1)
    assert rows.count() == len(TASKS)
    assert (IntervalSchedule.objects.count(), CrontabSchedule.objects.count()) == (2, 1)


@pytest.mark.django_db(transaction=True)
def test_an_installation_that_fails_installs_nothing(rows):
    def refuse(execute, sql, *args):
        if "INSERT" in sql and "periodictask" in sql and rows.count() == 3:
            raise RuntimeError("the machine is switched off")
        return execute(sql, *args)

    with connection.execute_wrapper(refuse), pytest.raises(RuntimeError):
        run()
    assert rows.count() == 0
    run()
    assert rows.count() == len(TASKS)


@pytest.mark.parametrize("seconds", ["0", "-1", "1.5", "x", ""])
def test_an_impossible_interval_is_refused(seconds):
    with pytest.raises(CommandError, match="whole number above zero"):
        run("--every", seconds)


@pytest.mark.parametrize(
    ("crontab", "words"),
    [
        ("", "has to say minute, hour, day of the month, month, weekday"),
        ("* * * *", "has to say minute"),
        ("60 * * * *", "'60 [*] [*] [*] [*]' is not a crontab: Invalid end range: 60 > 59"),
        ("*/0 * * * *", "is not a crontab"),
        ("5, 1 * * *", "is not a crontab: empty part"),
        ("0 0 * * someday", "is not a crontab: Invalid weekday literal 'someday'"),
    ],
)
def test_an_impossible_crontab_is_refused(rows, crontab, words):
    run()
    for arguments in ([], ["--reset"]):
        with pytest.raises(CommandError, match=words):
            run("--crontab", crontab, *arguments)
    assert {when(row) for row in rows.filter(task__in=NIGHTLY)} == {QUIET_HOURS}


def test_without_django_celery_beat_it_says_what_else_to_do(monkeypatch):
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    for argument in ([], ["--show"], ["--remove"]):
        with pytest.raises(CommandError, match=r"sweep --loop"):
            run(*argument)
