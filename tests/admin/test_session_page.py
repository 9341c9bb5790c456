"""A session's page: the conversation as people had it, and everything else that there is to know."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import override_settings
from django.utils import timezone

from django_chat_sessions.admin import conversation, display
from django_chat_sessions.agents import Message
from django_chat_sessions.choices import Status
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import messages, opening, runs, sessions
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from tests.admin.conftest import SESSIONS, overdue, page

pytestmark = pytest.mark.django_db

#: What JSON may hold and HTML, UTF-8 or a database may not.
STRANGE = "a\0b\ud800c\ufdd0d<script>alert(1)</script>\u202e"


def places(response):
    return [item.sequence for item in response.context["page"].items]


def fact(response, label):
    facts = [fact for group in response.context["groups"] for fact in group.facts]
    return next(fact for fact in facts if fact.label == label)


def test_conversation_reads_as_a_conversation(reader, talk):
    session = talk("Create a task")
    messages.append(session, Message("assistant", "✓ Created"))
    messages.append(session, Message("system", "Be kind"))
    messages.append(session, Message("tool", '{"found": 3}'))
    body = reader.get(page(session)).content.decode()
    roles = re.findall(r"chat-message chat-message--(\w+)", body)
    assert roles == ["user", "assistant", "system", "tool"]
    assert body.index("Create a task") < body.index("✓ Created") < body.index("Be kind")


def test_an_edited_message_is_marked_and_stays_in_its_place(reader, talk):
    session = talk("Frist", "second")
    messages.edit(session, 2, "First")
    response = reader.get(page(session))
    body = response.content.decode()
    assert "Frist" not in body
    assert body.index("First") < body.index("second")
    assert body.count(">edited<") == 1
    assert places(response) == [2, 3]


def test_a_withdrawn_message_leaves_a_tombstone_in_its_place(reader, talk):
    session = talk("one", "two", "three", "four")
    messages.edit(session, 3, "two, edited")
    messages.withdraw(session, 3)
    messages.withdraw(session, 4)
    response = reader.get(page(session))
    assert places(response) == [2, 3, 4, 5]
    gone = [item.sequence for item in response.context["page"].items if item.is_withdrawn]
    assert gone == [3, 4]
    assert response.content.decode().count("This message was withdrawn.") == 2
    assert response.context["page"].items[2].withdrawn_at is not None


def test_a_conversation_of_withdrawn_messages_alone_can_be_read_through(reader, talk, monkeypatch):
    monkeypatch.setattr(conversation, "PAGE", 2)
    session = talk("one", "two", "three")
    for sequence in (2, 3, 4):
        messages.withdraw(session, sequence)
    latest = reader.get(page(session))
    assert places(latest) == [3, 4]
    assert places(reader.get(page(session) + latest.context["older"])) == [2]


def test_pages_lead_through_a_long_conversation_and_back(reader, talk, monkeypatch):
    monkeypatch.setattr(conversation, "PAGE", 3)
    session = talk(*(str(number) for number in range(8)))
    messages.edit(session, 4, "edited")
    messages.withdraw(session, 7)
    response, backwards = reader.get(page(session)), []
    assert response.context["newer"] is None
    while True:
        backwards.insert(0, places(response))
        if response.context["older"] is None:
            break
        response = reader.get(page(session) + response.context["older"])
    assert backwards == [[2, 3], [4, 5, 6], [7, 8, 9]]
    forwards = [places(response)]
    while response.context["newer"]:
        response = reader.get(page(session) + response.context["newer"])
        forwards.append(places(response))
    assert forwards == [[2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("cursor", ["before=0", "after=99", "before=x", "after=-1", f"before={10**30}", "before=²"])
def test_a_page_that_is_not_there_is_no_error(reader, talk, cursor):
    session = talk("Hello")
    for view in ("conversation", "timeline"):
        assert reader.get(f"{page(session)}?view={view}&{cursor}").status_code == 200


def test_whatever_was_written_is_escaped_and_breaks_nothing(reader, alice):
    everything = {STRANGE: [STRANGE]}
    session = opening.open(
        alice,
        agent="active_tab_wins",
        external_id=STRANGE,
        title=STRANGE,
        tags=[STRANGE],
        metadata=everything,
        environment=everything,
        state=everything,
        client=STRANGE,
        messages=[
            Message("user", STRANGE, external_id=STRANGE, metadata=everything),
            Message(
                "user", "", parts=[{"type": STRANGE, "x": STRANGE}, {"type": "file", "url": STRANGE}, {"type": "file"}]
            ),
        ],
    ).session
    child = opening.open(alice, parent=session, title=STRANGE, client="tab").session
    messages.record(session, "app.strange", everything)
    sessions.end(session, reason=STRANGE)
    addresses = [f"{page(session)}?view={view}" for view in ("conversation", "timeline", "answers", "data")]
    for address in [*addresses, page(child), SESSIONS, page(session, "history")]:
        response = reader.get(address)
        assert response.status_code == 200
        body = response.content.decode()
        assert "<script>alert" not in body
        assert "\0" not in body
    assert "a\\u0000b\\ud800c" in reader.get(page(session)).content.decode()


@pytest.mark.parametrize(
    ("url", "is_link"),
    [("https://example.org/a.pdf", True), ("javascript:alert(1)", False), ("data:text/html,x", False)],
)
def test_files_are_links_only_where_following_them_is_safe(reader, talk, url, is_link):
    session = talk()
    part = {"type": "file", "url": url, "media_type": "application/pdf", "name": "a.pdf"}
    messages.append(session, Message("user", "See", parts=[part]))
    body = reader.get(page(session)).content.decode()
    assert (f'href="{url}"' in body) is is_link
    assert "a.pdf" in body


def test_a_session_past_its_deadline_reads_as_expired(reader, talk):
    response = reader.get(page(overdue(talk("Hello"))))
    assert "chat-badge--expired" in response.content.decode()
    assert fact(response, "Expires").note.endswith("ago")


def test_timeouts_are_shown_with_where_they_come_from(reader, talk):
    session = talk(agent="hasty", timeout=TimeoutOverrides(max_duration_minutes=60, auto_renew=False))
    with override_settings(CHAT_SESSIONS={"WARNING_THRESHOLD_MINUTES": 7}):
        response = reader.get(page(session))
    assert (fact(response, "Mode").text, fact(response, "Mode").note) == ("aggressive", "from its agent")
    idle, longest, warning = (fact(response, name) for name in ("Idle timeout", "Maximum duration", "Warning"))
    assert (idle.text, idle.note) == ("5 min", "by its agent's mode")
    assert (longest.text, longest.note) == ("60 min", "from the session")
    assert (warning.text, warning.note) == ("1 min", "by its agent's mode")
    assert (fact(response, "Renewed by activity").text) == "no"


def test_a_timeout_that_gave_way_says_so(reader, talk):
    session = talk(timeout=TimeoutOverrides(timeout_minutes=5))
    with override_settings(CHAT_SESSIONS={"WARNING_THRESHOLD_MINUTES": 7, "MAX_DURATION_MINUTES": 5}):
        response = reader.get(page(session))
    assert fact(response, "Warning").text == "2 min"
    assert fact(response, "Warning").note == "from the settings, adjusted to the idle timeout"


def test_a_session_of_nobody_and_of_an_agent_that_is_gone_is_shown(reader, talk, alice):
    session = talk("Hello", application="shop")
    ChatSession.objects.update(agent="retired", owner=None, warned_at=timezone.now())
    response = reader.get(page(session))
    assert fact(response, "Owner").text == "nobody"
    assert fact(response, "Agent").note == "not registered"
    assert fact(response, "Application").text == "shop"
    assert fact(response, "Warned").at is not None
    assert reader.get(SESSIONS).status_code == 200


def test_what_is_nested_too_deeply_is_no_error():
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert "too deeply" in display.pretty(value)


def test_relatives_are_linked(reader, talk, alice):
    parent = talk("Hello", title="The parent")
    child = opening.open(alice, parent=parent, title="The child").session
    grandchild = opening.open(alice, parent=child).session
    fork = sessions_fork = opening.fork(parent, at=2)
    assert fact(reader.get(page(parent)), "Child").href == page(child)
    assert fact(reader.get(page(grandchild)), "Parent").href == page(child)
    assert fact(reader.get(page(grandchild)), "Root").href == page(parent)
    forked = fact(reader.get(page(fork)), "Forked from")
    assert (forked.href, forked.note) == (page(sessions_fork.forked_from), "at event 2")
    assert reader.get(SESSIONS, {"parent": parent.pk}).context["cl"].result_count == 1


def test_many_children_are_behind_a_link(reader, talk, alice, monkeypatch):
    from django_chat_sessions.admin import facts

    monkeypatch.setattr(facts, "NAMED", 2)
    parent = talk("Hello")
    for _ in range(3):
        opening.open(alice, parent=parent)
    response = reader.get(page(parent))
    assert fact(response, "").href == f"{SESSIONS}?parent={parent.pk}"


def test_answers_of_the_agent_are_listed_with_their_places(reader, talk):
    session = talk()
    asked = runs.ask(session, Message("user", "Hello"))
    response = reader.get(f"{page(session)}?view=answers")
    (answer,) = response.context["answers"]
    assert answer.run == asked.run
    assert answer.reply == f"?after={asked.reply.sequence - 1}#message-{asked.reply.sequence}"
    there = reader.get(page(session) + answer.question)
    assert places(there)[0] == asked.message.sequence


def test_timeline_tells_everything_newest_first(reader, talk, monkeypatch):
    monkeypatch.setattr(conversation, "PAGE", 3)
    session = talk("Hello", "there")
    sessions.change_state(session, {"colour": "blue"})
    messages.record(session, "app.clicked", {"button": "buy"})
    sessions.end(session, reason="enough")
    response = reader.get(f"{page(session)}?view=timeline")
    assert [line.type for line in response.context["page"].items] == ["session.ended", "app.clicked", "state.changed"]
    body = response.content.decode()
    assert "&quot;colour&quot;: &quot;blue&quot;" in body
    older = reader.get(page(session) + response.context["older"])
    assert places(older) == [3, 2, 1]
    assert older.context["older"] is None
    assert places(reader.get(page(session) + older.context["newer"])) == [6, 5, 4]


def test_data_is_shown_indented(reader, talk):
    session = talk(state={"tasks": [1]}, metadata={"plan": "gold"}, environment={"version": "2"})
    body = reader.get(f"{page(session)}?view=data").content.decode()
    for text in ("&quot;tasks&quot;: [\n", "gold", "&quot;version&quot;"):
        assert text in body


def test_a_session_is_found_by_its_public_id_too(reader, talk):
    session = talk("Hello")
    response = reader.get(f"{SESSIONS}{session.uuid}/change/")
    assert response.context["original"] == session


@pytest.mark.parametrize("key", ["999999", "x", "0b9e3f0e-7d0c-4c0f-9a55-0f5f0e9f0f0f", "²"])
def test_a_session_that_is_not_there_leads_back_to_the_list(reader, key):
    response = reader.get(f"{SESSIONS}{key}/change/", follow=True)
    assert response.redirect_chain[-1][0] == SESSIONS


def test_nothing_can_be_submitted_or_added(boss, talk):
    session = talk("Hello", title="Before")
    assert boss.post(page(session), {"title": "After"}).status_code == 405
    assert boss.get(f"{SESSIONS}add/").status_code == 403
    session.refresh_from_db()
    assert session.title == "Before"


def test_reading_writes_nothing(boss, talk):
    from django.contrib.admin.models import LogEntry

    session = talk("Hello")
    before = ChatSession.objects.values().get(pk=session.pk)
    for view in ("conversation", "timeline", "answers", "data"):
        boss.get(f"{page(session)}?view={view}")
    assert ChatSession.objects.values().get(pk=session.pk) == before
    assert not LogEntry.objects.exists()


def test_the_way_back_to_the_list_keeps_its_filters(reader, talk):
    session = talk("Hello")
    kept = "_changelist_filters=status%3Dactive"
    response = reader.get(f"{page(session)}?{kept}")
    assert 'href="/admin/chat_sessions/chatsession/?status=active"' in response.content.decode()
    assert all(kept in tab.href for tab in response.context["tabs"])


@pytest.mark.parametrize("view", ["conversation", "timeline", "answers", "data"])
def test_queries_do_not_grow_with_messages(reader, talk, alice, django_assert_max_num_queries, view):
    session, counts = talk("Hello"), []
    for number in (5, 50):
        while session.message_count < number:
            messages.append(session, Message("user", "Hello"))
            opening.open(alice, parent=session)
        messages.edit(session, 2, f"edited {number}")
        with django_assert_max_num_queries(10) as captured:
            reader.get(f"{page(session)}?view={view}")
        counts.append(len(captured.captured_queries))
    assert counts[0] == counts[1]


def test_every_status_has_a_badge_of_its_own():
    from pathlib import Path

    import django_chat_sessions

    css = (Path(django_chat_sessions.__file__).parent / "static/chat_sessions/admin.css").read_text()
    plain = {Status.ENDED}
    assert all(f".chat-badge--{status}" in css for status in Status.values if status not in plain)


def test_a_session_near_expiration_stands_out(reader, talk):
    session = talk("Hello")
    soon = timezone.now() + timedelta(seconds=30)
    ChatSession.objects.filter(pk=session.pk).update(expires_at=soon)
    body = reader.get(page(session)).content.decode()
    assert "chat-near" in body
    assert "less than a minute left" in body
