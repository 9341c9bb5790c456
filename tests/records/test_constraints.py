"""What the database itself does not let through."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from django_chat_sessions.models import ChatSession, Run, SessionEvent
from django_chat_sessions.testing import make_session, say


@pytest.fixture
def session(alice):
    return make_session(alice, agent="silent")


def insert(session: ChatSession, **fields) -> None:
    row = {"sequence": 50, "type": "message", "position": 50, "created_at": timezone.now(), **fields}
    with transaction.atomic():
        SessionEvent._base_manager.bulk_create([SessionEvent(session=session, **row)])


def test_a_sequence_is_there_once(session):
    with pytest.raises(IntegrityError):
        insert(session, sequence=1)


def test_a_place_of_the_conversation_has_one_current_message(session):
    say(session, "x")
    with pytest.raises(IntegrityError):
        insert(session, position=2)
    with pytest.raises(IntegrityError):
        insert(session, position=2, type="message.edited")
    insert(session, position=2, type="message.deleted")


def test_a_messages_name_is_there_once_in_a_session(session, alice):
    say(session, "x", external_id="n")
    with pytest.raises(IntegrityError):
        insert(session, external_id="n")
    insert(make_session(alice), external_id="n")
    insert(session, external_id=None)


def test_at_most_one_run_of_a_session_is_alive(session):
    def run(status: str) -> None:
        now = timezone.now()
        with transaction.atomic():
            Run.objects.create(
                session=session, status=status, input_sequence=1, created_at=now, expires_at=now, heartbeat_at=now
            )

    for status in ("succeeded", "failed", "cancelled", "succeeded", "running"):
        run(status)
    for status in ("running", "queued"):
        with pytest.raises(IntegrityError):
            run(status)


@pytest.mark.parametrize("values", [{"status": "asleep"}, {"last_sequence": -1}, {"message_count": -1}])
def test_a_row_says_nothing_impossible(session, values):
    with pytest.raises(IntegrityError), transaction.atomic():
        ChatSession.objects.filter(pk=session.pk).update(**values)


@pytest.mark.parametrize("field", ["slot", "external_id"])
def test_places_and_names_are_one_a_live_session(alice, field):
    first, second = make_session(alice, agent="silent"), make_session(alice, agent="silent")
    ChatSession.objects.filter(pk=first.pk).update(**{field: "x"})
    with pytest.raises(IntegrityError), transaction.atomic():
        ChatSession.objects.filter(pk=second.pk).update(**{field: "x"})
    ChatSession.objects.filter(pk=first.pk).update(status="ended")
    ChatSession.objects.filter(pk=second.pk).update(**{field: "x"})


def test_public_ids_are_unique(session, alice):
    with pytest.raises(IntegrityError), transaction.atomic():
        ChatSession.objects.filter(pk=make_session(alice).pk).update(uuid=session.uuid)
