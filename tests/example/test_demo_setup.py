"""``manage.py demo_setup``."""

from __future__ import annotations

from io import StringIO

import pytest
from django.apps import apps
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group, User
from django.core.management import call_command

from django_chat_sessions.schedule import TASKS
from example_project.assistants.management.commands.demo_setup import PEOPLE, SUPPORT_GROUP

pytestmark = pytest.mark.django_db


def demo_setup() -> str:
    output = StringIO()
    call_command("demo_setup", stdout=output)
    return output.getvalue()


def test_everybody_can_log_in() -> None:
    demo_setup()
    for name, (staff, superuser) in PEOPLE.items():
        user = authenticate(username=name, password="demo")
        assert isinstance(user, User)
        assert (user.is_staff, user.is_superuser) == (staff, superuser)


def test_support_reads_and_changes_but_neither_adds_nor_deletes() -> None:
    demo_setup()
    support = User.objects.get(username="support")
    granted = {name.removeprefix("chat_sessions.") for name in support.get_all_permissions()}
    assert {"view_chatsession", "change_chatsession", "view_sessionevent"} <= granted
    assert not [name for name in granted if name.startswith(("add_", "delete_"))]
    assert [group.name for group in support.groups.all()] == [SUPPORT_GROUP]


def test_again_it_leaves_everything_as_it_is() -> None:
    demo_setup()
    User.objects.filter(username="alice").update(first_name="Alice")
    password = User.objects.get(username="alice").password
    assert "there already" in demo_setup()
    alice = User.objects.get(username="alice")
    assert (alice.first_name, alice.password) == ("Alice", password)
    assert User.objects.count() == len(PEOPLE)
    assert Group.objects.count() == 1


@pytest.mark.skipif(not apps.is_installed("django_celery_beat"), reason="django-celery-beat is not installed")
def test_the_schedule_is_installed_once() -> None:
    from django_celery_beat.models import PeriodicTask

    demo_setup()
    every = {row.task: (row.interval.every, row.interval.period) for row in PeriodicTask.objects.all()}
    assert every == dict.fromkeys(TASKS.values(), (5, "seconds"))
    demo_setup()
    assert PeriodicTask.objects.count() == len(every)
