"""``manage.py demo_setup``: the people of the demo, and its schedule."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.db import transaction
from django.db.models import Q

PASSWORD = "demo"
SUPPORT_GROUP = "Chat support"

#: name -> (staff, superuser)
PEOPLE = {
    "alice": (False, False),
    "bob": (False, False),
    "support": (True, False),
    "admin": (True, True),
}


class Command(BaseCommand):
    """Creates what is missing and leaves alone what is there; to be run after migrate, as often as you like."""

    help = "Create the users alice, bob, support and admin (password demo) and install the Celery beat schedule."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            group = self.support_group()
            # Hashing is slow on purpose; everybody knows this one, so once will do.
            password = make_password(PASSWORD)
            for name in PEOPLE:
                self.person(name, password)
            group.user_set.add(User.objects.get(username="support"))
        self.schedule()

    def support_group(self) -> Group:
        """Let support read and change chat sessions, and do whatever else the app has a permission for."""
        group, created = Group.objects.get_or_create(name=SUPPORT_GROUP)
        adding_or_deleting = Q(codename__startswith="add_") | Q(codename__startswith="delete_")
        granted = Permission.objects.filter(content_type__app_label="chat_sessions")
        group.permissions.set(granted.exclude(adding_or_deleting))
        self.say(f"group {SUPPORT_GROUP}", created=created)
        return group

    def person(self, name: str, password: str) -> None:
        staff, superuser = PEOPLE[name]
        _, created = User.objects.get_or_create(
            username=name,
            defaults={
                "email": f"{name}@example.com",
                "is_staff": staff,
                "is_superuser": superuser,
                "password": password,
            },
        )
        self.say(f"user {name}", created=created)

    def schedule(self) -> None:
        if not apps.is_installed("django_celery_beat"):
            self.stdout.write("  schedule: from the settings, as django-celery-beat is not installed")
            return
        try:
            seconds = str(getattr(settings, "SWEEP_SECONDS", 5))
            call_command("chat_sessions", "schedule", "--every", seconds, "--no-crontab", stdout=self.stdout)
        except CommandError as error:
            raise CommandError(f"The beat schedule could not be installed: {error}") from error

    def say(self, what: str, *, created: bool) -> None:
        self.stdout.write(f"  {what}: {'created' if created else 'there already'}")
