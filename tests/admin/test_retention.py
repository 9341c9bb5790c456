"""What a session's page says of what becomes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import privacy, sessions
from tests.admin.conftest import overdue, page
from tests.operations.conftest import configured  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db

LABELS = {"Archived on", "Deleted on", "Retention"}


def told(client, session):
    """Return what the page says of retention."""
    groups = client.get(page(session)).context["groups"]
    return [fact for group in groups for fact in group.facts if fact.label in LABELS]


@pytest.fixture
def ended(talk):
    return sessions.end(talk("hello"))


def test_a_live_session_has_no_retention_yet(reader, talk):
    assert told(reader, talk("hello")) == []


def test_the_page_says_when_a_session_is_archived(reader, ended):
    (fact,) = told(reader, ended)
    assert (fact.label, fact.at, fact.note) == ("Archived on", ended.ended_at + timedelta(days=90), "")
    assert fact.at.isoformat() in reader.get(page(ended)).content.decode()


def test_the_page_says_when_a_session_is_deleted(reader, ended, configured):  # noqa: F811
    configured(RETENTION={"ended": 0, "action": "delete"})
    (fact,) = told(reader, ended)
    assert (fact.label, fact.at, fact.note) == ("Deleted on", ended.ended_at, "with the next sweep")


def test_an_expiry_that_no_sweep_has_recorded_counts(reader, talk):
    session = overdue(talk("hello"))
    (fact,) = told(reader, session)
    expires_at = ChatSession.objects.get(pk=session.pk).expires_at
    assert (fact.label, fact.at) == ("Archived on", expires_at + timedelta(days=30))


def test_the_page_says_that_a_session_is_kept_for_ever(reader, ended, configured):  # noqa: F811
    configured(RETENTION={"ended": None})
    assert [fact.text for fact in told(reader, ended)] == ["kept for ever"]


def test_the_page_says_that_a_session_is_held(reader, ended, configured):  # noqa: F811
    privacy.hold(ended)
    assert [fact.text for fact in told(reader, ended)] == ["kept: legal hold"]


def test_the_page_says_that_the_next_access_does_it(reader, ended, configured):  # noqa: F811
    configured(CLEANUP="lazy")
    (fact,) = told(reader, ended)
    assert (fact.label, fact.note) == ("Archived on", "on the next access after that")


def test_an_archived_session_says_when_it_is_deleted(reader, ended, configured):  # noqa: F811
    configured(RETENTION={"ended": 0, "archived": 10})
    now = timezone.now()
    ChatSession.objects.filter(pk=ended.pk).update(status="archived", settled_at=now)
    (fact,) = told(reader, ended)
    assert (fact.label, fact.at) == ("Deleted on", now + timedelta(days=10))
