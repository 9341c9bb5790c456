"""The proof: what nobody touched is sound, and what somebody did is found."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F

from django_chat_sessions.agents import Message
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import messages, privacy, runs, sessions, verification
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh

pytestmark = pytest.mark.usefixtures("spoilt")
EVENTS = "chat_sessions_sessionevent"


@pytest.fixture
def talk(alice):
    """Return a session to which everything has happened."""
    session = make_session(alice, agent="count", title="T", metadata={"m": 1}, client="A")
    say(session, "one", token_count=3)
    say(session, "two")
    messages.edit(session, 2, "ONE")
    messages.edit(session, 2, "Ones")
    messages.withdraw(session, 3)
    sessions.change_state(session, {"a": 1})
    age(session, minutes=6)
    runs.ask(session, Message("user", "q"))
    sessions.renew(session)
    sessions.change_timeout(session, {"timeout_minutes": 60})
    sessions.change(session, tags=["x"])
    privacy.hold(session)
    return session


def found(session: ChatSession) -> set[str]:
    return {difference.field for difference in verification.verify(session)}


def spoil(sql: str, *parameters: object) -> None:
    """Write past every guard, as somebody with the database's password could."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql, parameters)
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = origin")


def test_what_nobody_touched_is_sound(talk):
    assert verification.verify(talk) == []
    sessions.end(talk)
    assert verification.verify(talk) == []


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("status", {"status": "created"}),
        ("owner", {"owner": None}),
        ("client", {"client": "B"}),
        ("title", {"title": "U"}),
        ("tags", {"tags": []}),
        ("metadata", {"metadata": {"m": True}}),
        ("state", {"state": {}}),
        ("timeout", {"timeout_mode": "lenient"}),
        ("timeout", {"timeout_minutes": 61}),
        ("timeout", {"max_duration_minutes": 1}),
        ("timeout", {"warning_threshold_minutes": 1}),
        ("timeout", {"auto_renew": True}),
        ("last_sequence", {"last_sequence": F("last_sequence") + 1}),
        ("message_count", {"message_count": F("message_count") - 1}),
        ("token_count", {"token_count": 0}),
        ("renewal_count", {"renewal_count": 0}),
        ("end_reason", {"end_reason": "x"}),
        ("is_held", {"is_held": False}),
        ("ended_at", {"ended_at": F("created_at")}),
        ("last_activity_at", {"last_activity_at": F("created_at") - timedelta(seconds=1)}),
        ("renewed_at", {"renewed_at": F("created_at") - timedelta(seconds=1)}),
        ("renewed_at", {"renewed_at": F("last_activity_at") + timedelta(days=1)}),
        ("expires_at", {"expires_at": F("created_at")}),
    ],
)
def test_whatever_is_changed_in_the_row_is_found(talk, field, values):
    ChatSession.objects.filter(pk=talk.pk).update(**values)
    assert field in found(talk)


@pytest.mark.parametrize("field", ["ended_at", "end_reason", "status"])
def test_whatever_is_changed_in_the_row_of_what_is_over_is_found(talk, field):
    sessions.end(talk, reason="done")
    values = {"ended_at": fresh(talk).ended_at + timedelta(microseconds=1), "end_reason": "", "status": "failed"}
    ChatSession.objects.filter(pk=talk.pk).update(**{field: values[field]})
    assert found(talk) == {field}


def test_a_difference_says_which_session_and_what_both_say(talk):
    ChatSession.objects.filter(pk=talk.pk).update(title="U")
    assert verification.verify(talk) == [verification.Difference(str(talk.uuid), "title", "U", "T")]


@pytest.mark.parametrize("which", [1, 2, 5])
def test_an_event_that_is_missing_is_found(talk, which):
    spoil(f"DELETE FROM {EVENTS} WHERE session_id = %s AND sequence = %s", talk.pk, which)
    assert "sequence" in found(talk)


def test_the_last_event_missing_is_found(talk):
    spoil(f"DELETE FROM {EVENTS} WHERE session_id = %s AND sequence = %s", talk.pk, talk.last_sequence)
    assert "last_sequence" in found(talk)


def test_a_log_that_is_missing_is_found(talk):
    spoil(f"DELETE FROM {EVENTS} WHERE session_id = %s", talk.pk)
    assert found(talk) >= {"last_sequence", "status"}


def test_an_event_that_was_added_is_found(talk):
    columns = "session_id, sequence, type, role, content, data, created_at"
    spoil(
        f"INSERT INTO {EVENTS} ({columns}) SELECT {columns.replace('sequence', 'sequence + 100')} FROM {EVENTS}"
        " WHERE session_id = %s AND sequence = 1",
        talk.pk,
    )
    assert "sequence" in found(talk)


@pytest.mark.parametrize(
    ("sets", "where", "field"),
    [
        ("type = 'app.x'", "type = 'message' AND sequence = 2", "message_count"),
        ("type = 'session.ended'", "type = 'session.renewed'", "log"),
        ("type = 'app.x'", "type = 'session.created'", "log"),
        ("data = '{}'", "type = 'state.changed'", "log"),
        ("data = '[]'", "type = 'state.changed'", "log"),
        ("data = '[]'", "type = 'session.created'", "log"),
        ("""data = '{"title": "U"}'""", "type = 'session.changed'", "title"),
        ("token_count = 4", "sequence = 2", "token_count"),
        ("superseded_by = NULL", "sequence = 3", "withdrawn"),
        ("superseded_by = NULL, position = 999", "sequence = 3", "conversation"),
        ("superseded_by = 1", "sequence = 2", "superseded_by"),
        ("superseded_by = 999", "sequence = 2", "superseded_by"),
        ("superseded_by = sequence + 1", "type = 'message' AND superseded_by IS NULL", "superseded_by"),
    ],
)
def test_whatever_is_changed_in_the_log_is_found(talk, sets, where, field):
    spoil(f"UPDATE {EVENTS} SET {sets} WHERE session_id = %s AND {where}", talk.pk)
    assert field in found(talk)


def test_verifying_changes_nothing(talk):
    before = fresh(talk)
    verification.verify(talk)
    assert fresh(talk).last_sequence == before.last_sequence
