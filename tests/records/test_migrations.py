"""The migrations say what the models say, and go both ways."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection

from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import make_session, say

LABEL = "chat_sessions"


def test_no_migration_is_missing(db):
    call_command("makemigrations", LABEL, check=True, dry_run=True, verbosity=0)


def tables() -> set[str]:
    return {name for name in connection.introspection.table_names() if name.startswith(f"{LABEL}_")}


@pytest.mark.django_db(transaction=True)
def test_migrations_go_back_and_forth_over_data(alice):
    there = tables()
    say(make_session(alice, agent="silent"), "hello")
    try:
        call_command("migrate", LABEL, "0001", verbosity=0)
        assert ChatSession.objects.count() == 1
        call_command("migrate", LABEL, verbosity=0)
        say(ChatSession.objects.get(), "again")
        call_command("migrate", LABEL, "zero", verbosity=0)
        assert tables() == set()
    finally:
        call_command("migrate", LABEL, verbosity=0)
    assert tables() == there
    assert not ChatSession.objects.exists()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_going_back_takes_the_triggers_and_their_functions_along():
    names = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'chat_sessions_%%'"
    try:
        call_command("migrate", LABEL, "0001", verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute(names)
            assert cursor.fetchone()[0] == 0
    finally:
        call_command("migrate", LABEL, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(names)
        assert cursor.fetchone()[0] == 3
