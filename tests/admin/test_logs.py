"""Events and answers: to read, nothing else."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User

from django_chat_sessions.admin import listing
from django_chat_sessions.agents import Message
from django_chat_sessions.choices import EventType, RunStatus
from django_chat_sessions.models import ChatSession, Run, SessionEvent
from django_chat_sessions.operations import messages, privacy, runs
from tests.admin.conftest import EVENTS, RUNS, keys

pytestmark = pytest.mark.django_db

STRANGE = "a\0b\ud800c<script>"


def test_events_are_listed_newest_first(reader, talk):
    talk("Hello")
    shown = reader.get(EVENTS)
    assert keys(shown) == list(SessionEvent.objects.order_by("-pk").values_list("pk", flat=True))
    assert "session created" in shown.content.decode()


def test_events_are_found_by_their_session(reader, talk):
    session = talk("Hello")
    talk("Hello")
    shown = reader.get(EVENTS, {"q": str(session.uuid)})
    assert [event.sequence for event in shown.context["cl"].result_list] == [2, 1]
    assert keys(reader.get(EVENTS, {"q": str(uuid.uuid4())})) == []
    assert keys(reader.get(EVENTS, {"q": "Hello"})) == []


def test_events_are_filtered_by_type(reader, talk):
    session = talk("Hello")
    messages.record(session, "app.clicked")
    for type_ in (EventType.MESSAGE, "app.clicked"):
        shown = reader.get(EVENTS, {"type": type_})
        assert [event.type for event in shown.context["cl"].result_list] == [type_]
    assert len(reader.get(EVENTS).context["cl"].filter_specs[0].lookup_choices) == len(EventType.values)


def test_a_type_is_looked_for_among_the_newest_or_in_one_session(reader, talk, monkeypatch):
    session = talk("Hello")
    monkeypatch.setattr(listing, "WINDOW", 1)
    assert keys(reader.get(EVENTS, {"type": "session.created"})) == []
    assert len(keys(reader.get(EVENTS, {"type": "session.created", "q": str(session.uuid)}))) == 1


def test_an_event_is_shown_whole_and_escaped(reader, talk):
    session = talk()
    messages.append(session, Message("user", STRANGE, external_id=STRANGE, metadata={STRANGE: STRANGE}))
    event = session.events.get(sequence=2)
    body = reader.get(f"{EVENTS}{event.pk}/change/").content.decode()
    assert "a\\u0000b\\ud800c&lt;script&gt;" in body
    assert "<script>a" not in body


def test_nothing_is_written_to_the_log_by_hand(boss, talk):
    session = talk("Hello")
    event = session.events.first()
    address = f"{EVENTS}{event.pk}/change/"
    assert boss.get(f"{EVENTS}add/").status_code == 403
    assert boss.post(address, {"content": "x"}).status_code == 403
    assert boss.post(f"{EVENTS}{event.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "deletelink" not in boss.get(address).content.decode()
    assert boss.get(EVENTS).context["action_form"] is None
    assert session.events.count() == 2


def test_answers_are_listed_and_shown(reader, talk):
    session = talk()
    run = runs.ask(session, Message("user", "Hello")).run
    Run.objects.update(error=STRANGE)
    for query in ({}, {"status": RunStatus.SUCCEEDED}, {"q": str(session.uuid)}):
        assert keys(reader.get(RUNS, query)) == [run.pk]
    assert keys(reader.get(RUNS, {"status": RunStatus.FAILED})) == []
    body = reader.get(f"{RUNS}{run.pk}/change/").content.decode()
    assert "a\\u0000b\\ud800c&lt;script&gt;" in body


def test_answers_cannot_be_changed(boss, talk):
    run = runs.ask(talk(), Message("user", "Hello")).run
    assert boss.post(f"{RUNS}{run.pk}/change/", {"status": "failed"}).status_code == 403
    assert boss.post(f"{RUNS}{run.pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("address", [EVENTS, RUNS])
def test_queries_do_not_grow_with_rows(reader, talk, django_assert_max_num_queries, address):
    counts = []
    for number in (5, 50):
        while Run.objects.count() < number:
            runs.ask(talk(), Message("user", "Hello"))
        with django_assert_max_num_queries(10) as captured:
            reader.get(address)
        assert not any('"state"' in query["sql"] for query in captured.captured_queries)
        counts.append(len(captured.captured_queries))
    assert counts[0] == counts[1]


def test_a_user_with_sessions_can_be_deleted_in_the_admin(boss, talk, alice):
    session, held = talk("Hello"), talk("Hello")
    runs.ask(session, Message("user", "Hello"))
    privacy.hold(held)
    boss.post(f"/admin/auth/user/{alice.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(pk=alice.pk).exists()
    assert list(ChatSession.objects.all()) == [held]
