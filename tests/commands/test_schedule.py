"""The command `chat_sessions schedule`."""

from __future__ import annotations

from importlib.util import find_spec
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from django_chat_sessions import schedule
from django_chat_sessions.schedule import TASKS

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


def test_it_installs_each_task_once(rows):
    assert len(run()) == len(TASKS)
    found = {(row.name, row.task, row.interval.every, row.interval.period, row.enabled) for row in rows.all()}
    assert found == {(name, task, 60, "seconds", True) for name, task in TASKS.items()}
    assert all("kept" in line for line in run())
    assert rows.count() == len(TASKS)


def test_entries_share_one_interval(rows):
    run("--every", "30")
    assert len({row.interval_id for row in rows.all()}) == 1


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
    assert [line.rpartition(" ")[2] for line in lines] == ["(installed)", "(kept)", "(kept)"]


def test_reset_puts_entries_back(rows):
    from django_celery_beat.models import CrontabSchedule

    run()
    row = rows.get(task="chat_sessions.expire")
    row.interval, row.crontab, row.enabled = None, CrontabSchedule.objects.create(minute="0"), False
    row.save()
    assert all("reset" in line for line in run("--reset", "--every", "20"))
    row.refresh_from_db()
    assert (row.interval.every, row.crontab, row.enabled, row.expire_seconds) == (20, None, True, 20)


def test_show_changes_nothing(rows):
    assert run("--show") == ["Nothing is installed: run `manage.py chat_sessions schedule`."]
    assert not rows.exists()
    run()
    rows.filter(task="chat_sessions.warn").update(enabled=False)
    assert "chat-sessions-warn: chat_sessions.warn, every 60 seconds, disabled" in run("--show")


def test_remove_takes_ours_and_leaves_others(rows):
    run()
    rows.create(name="somebody else's", task="host.task", interval=minute())
    assert run("--remove") == ["3 removed."]
    assert [row.task for row in rows.all()] == ["host.task"]
    assert run("--remove") == ["0 removed."]


def test_a_running_beat_is_told_of_every_change():
    from django_celery_beat.models import PeriodicTasks

    seen = [PeriodicTasks.last_change()]
    for arguments in ([], ["--reset"], ["--remove"]):
        run(*arguments)
        seen.append(PeriodicTasks.last_change())
    assert len(set(seen)) == len(seen)


def test_two_deployments_at_once_install_once(rows, monkeypatch):
    run()
    real, looks = schedule._find, []

    def blind_at_first(name, task):
        looks.append(name)
        return None if looks.count(name) == 1 else real(name, task)

    monkeypatch.setattr(schedule, "_find", blind_at_first)
    assert all("kept" in line for line in run())
    assert rows.count() == len(TASKS)


@pytest.mark.parametrize("seconds", ["0", "-1", "1.5", "x", ""])
def test_an_impossible_interval_is_refused(seconds):
    with pytest.raises(CommandError, match="whole number above zero"):
        run("--every", seconds)


def test_without_django_celery_beat_it_says_what_else_to_do(monkeypatch):
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    for argument in ([], ["--show"], ["--remove"]):
        with pytest.raises(CommandError, match=r"sweep --loop"):
            run(*argument)
