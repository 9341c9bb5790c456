"""What staff does to sessions: who may, what comes of it, and that it is written down."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.test import Client

from django_chat_sessions.admin import acting
from django_chat_sessions.choices import EndReason, Status
from django_chat_sessions.exceptions import ChatSessionError
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import opening, privacy, sessions, verification
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from tests.admin.conftest import SESSIONS, overdue, page, said, staff

pytestmark = pytest.mark.django_db

COMMANDS = ("end", "renew", "hold", "release", "delete")


def act(client, action, *chosen, **more):
    data = {"action": action, "_selected_action": [session.pk for session in chosen], **more}
    return client.post(SESSIONS, data, follow=True)


def logged():
    return [
        (entry.action_flag, entry.object_id, entry.get_change_message()) for entry in LogEntry.objects.order_by("pk")
    ]


# ------------------------------------------------------------------------------------------------- on selected ones


def test_selected_sessions_are_ended_by_staff(support, talk):
    chosen = [talk("Hello"), talk("Hello")]
    response = act(support, "end_selected", *chosen)
    for session in chosen:
        session.refresh_from_db()
        assert (session.status, session.end_reason) == (Status.ENDED, EndReason.ADMIN)
    assert said(response) == ["Ended 2 sessions."]
    assert sorted(logged()) == sorted((CHANGE, str(session.pk), "Ended.") for session in chosen)


def test_one_refusal_leaves_the_others_alone(support, talk):
    over, late, live = talk("Hello", title="The first"), overdue(talk("Hello")), talk("Hello")
    sessions.end(over)
    response = act(support, "end_selected", over, late, live)
    live.refresh_from_db()
    assert live.status == Status.ENDED
    first, *others = said(response)
    assert first == "Ended 1 session."
    assert any("The first" in text and "over already" in text for text in others)
    assert any(str(late.uuid) in text and "expired" in text for text in others)
    assert logged() == [(CHANGE, str(live.pk), "Ended.")]


def test_a_parent_and_its_child_end_together_without_a_complaint(support, talk, alice):
    parent = talk("Hello")
    child = opening.open(alice, parent=parent).session
    assert said(act(support, "end_selected", parent, child)) == ["Ended 2 sessions."]


def test_selected_sessions_are_renewed(support, talk):
    session = talk("Hello", timeout=TimeoutOverrides(auto_renew=False))
    full = talk("Hello", timeout=TimeoutOverrides(timeout_minutes=30, max_duration_minutes=30))
    before = session.expires_at
    response = act(support, "renew_selected", session, full)
    session.refresh_from_db()
    assert session.expires_at > before
    assert session.renewal_count == 1
    assert said(response)[0] == "Renewed 1 session."
    assert "maximum duration" in said(response)[1]


def test_many_refusals_are_summed_up(support, talk, monkeypatch):
    monkeypatch.setattr(acting, "EXPLAINED", 1)
    chosen = [overdue(talk()) for _ in range(3)]
    assert said(act(support, "renew_selected", *chosen))[1:] == ["… and 2 more refused."]


def test_an_action_takes_no_more_than_its_limit(support, talk, monkeypatch):
    monkeypatch.setattr(acting, "ACTION_LIMIT", 1)
    chosen = [talk("Hello"), talk("Hello")]
    response = act(support, "end_selected", chosen[0], select_across="1")
    assert "at the most" in said(response)[0]
    assert not ChatSession.objects.filter(status=Status.ENDED).exists()


def test_selected_sessions_are_deleted_after_a_question(boss, talk):
    held, other, kept = talk("Hello"), talk("Hello"), talk("Hello")
    privacy.hold(held)
    asked = act(boss, "delete_selected", held, other)
    assert "1 of 2 sessions are under legal hold" in asked.content.decode()
    assert ChatSession.objects.count() == 3
    response = act(boss, "delete_selected", held, other, post="yes")
    assert set(ChatSession.objects.all()) == {held, kept}
    assert said(response)[0] == "Deleted 1 session."
    assert "legal hold" in said(response)[1]
    assert logged() == [(DELETION, str(other.pk), "")]


# --------------------------------------------------------------------------------------------------- on one session


def test_ending_asks_first(support, talk):
    session = talk("Hello")
    asked = support.get(page(session, "end"))
    session.refresh_from_db()
    assert session.status == Status.ACTIVE
    assert "csrfmiddlewaretoken" in asked.content.decode()
    response = support.post(page(session, "end"), follow=True)
    session.refresh_from_db()
    assert (session.status, session.end_reason) == (Status.ENDED, EndReason.ADMIN)
    assert response.redirect_chain[-1][0] == page(session)
    assert said(response) == ["Ended."]
    assert logged() == [(CHANGE, str(session.pk), "Ended.")]
    assert verification.verify(session) == []


def test_renewing_from_the_page(support, talk):
    session = talk("Hello", timeout=TimeoutOverrides(auto_renew=False))
    assert said(support.post(page(session, "renew"), follow=True)) == ["Renewed."]
    session.refresh_from_db()
    assert session.renewal_count == 1


def test_a_hold_needs_a_reason_and_is_released_with_one(support, talk):
    session = talk("Hello")
    assert support.post(page(session, "hold"), {"reason": " "}).context["form"].errors
    support.post(page(session, "hold"), {"reason": "Case 4711"})
    session.refresh_from_db()
    assert session.is_held
    assert "Nothing to do" in said(support.post(page(session, "hold"), {"reason": "Again"}, follow=True))[-1]
    support.post(page(session, "release"), {"reason": "Closed"})
    session.refresh_from_db()
    assert not session.is_held
    assert [message for _, _, message in logged()] == [
        "Placed under legal hold. Reason: Case 4711",
        "Released from legal hold. Reason: Closed",
    ]
    held, released = session.events.filter(type__in=["session.held", "session.released"]).order_by("sequence")
    assert (held.data["reason"], released.data["reason"]) == ("Case 4711", "Closed")


def test_deleting_takes_everything_below(boss, talk, alice):
    session, other = talk("Hello"), talk("Hello")
    opening.open(alice, parent=session)
    asked = boss.get(page(session, "delete"))
    assert "Sessions: 2. Messages: 1." in asked.content.decode()
    response = boss.post(page(session, "delete"), {"post": "yes"}, follow=True)
    assert response.redirect_chain[-1][0] == SESSIONS
    assert list(ChatSession.objects.all()) == [other]
    assert logged() == [(DELETION, str(session.pk), "")]


def test_deleting_what_is_held_is_refused_in_words(boss, talk, alice):
    session = talk("Hello")
    privacy.hold(opening.open(alice, parent=session).session)
    response = boss.post(page(session, "delete"), {"post": "yes"}, follow=True)
    assert response.status_code == 200
    assert "legal hold" in said(response)[0]
    assert ChatSession.objects.count() == 2
    assert logged() == []


@pytest.mark.parametrize("command", ["end", "renew"])
def test_a_refusal_on_the_page_is_a_message(support, talk, command):
    session = overdue(talk("Hello"))
    assert said(support.post(page(session, command), follow=True)) == ["It has expired."]
    assert logged() == []


def test_what_is_not_logged_is_not_done(support, talk, monkeypatch):
    from django_chat_sessions.admin import ChatSessionAdmin

    class Unlogged(ChatSessionError):
        """The log is full."""

    def fail(*args, **kwargs):
        raise Unlogged

    monkeypatch.setattr(ChatSessionAdmin, "log_change", fail)
    session = talk("Hello")
    assert said(support.post(page(session, "end"), follow=True)) == ["The log is full."]
    session.refresh_from_db()
    assert session.status == Status.ACTIVE


def test_history_tells_what_staff_did(support, talk):
    session = talk("Hello")
    support.post(page(session, "end"))
    assert "Ended." in support.get(page(session, "history")).content.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_session_that_is_gone_is_no_error(boss, command):
    response = boss.post(f"{SESSIONS}999/{command}/", {"post": "yes", "reason": "x"}, follow=True)
    assert response.redirect_chain[-1][0] == SESSIONS


# -------------------------------------------------------------------------------------------------------- who may


def test_who_may_only_view_reads_and_sees_no_action(reader, talk):
    session = talk("Hello")
    shown = reader.get(page(session))
    assert shown.context["commands"] == []
    assert "Hello" in shown.content.decode()
    assert reader.get(SESSIONS).context["action_form"] is None
    for command in COMMANDS:
        assert reader.get(page(session, command)).status_code == 403
        assert reader.post(page(session, command), {"post": "yes", "reason": "x"}).status_code == 403
    act(reader, "end_selected", session)
    session.refresh_from_db()
    assert session.status == Status.ACTIVE


def test_who_may_change_ends_and_renews_but_does_not_delete(support, talk):
    session = talk("Hello")
    names = [command.name for command in support.get(page(session)).context["commands"]]
    assert names == ["end", "renew", "hold"]
    offered = [name for name, _ in support.get(SESSIONS).context["action_form"].fields["action"].choices]
    assert offered == ["", "end_selected", "renew_selected"]
    assert support.post(page(session, "delete"), {"post": "yes"}).status_code == 403
    act(support, "delete_selected", session, post="yes")
    assert ChatSession.objects.filter(pk=session.pk).exists()


def test_only_what_makes_sense_is_offered(boss, talk):
    session = talk("Hello")
    sessions.end(session)
    assert [command.name for command in boss.get(page(session)).context["commands"]] == ["hold", "delete"]
    privacy.hold(session)
    assert [command.name for command in boss.get(page(session)).context["commands"]] == ["release"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_post_from_elsewhere_is_refused(talk, django_user_model, command):
    django_user_model.objects.create_superuser("root")
    client = Client(enforce_csrf_checks=True)
    client.force_login(django_user_model.objects.get(username="root"))
    session = talk("Hello")
    assert client.post(page(session, command), {"post": "yes", "reason": "x"}).status_code == 403


@pytest.mark.parametrize("command", COMMANDS)
def test_strangers_are_sent_to_log_in(client, talk, command):
    session = talk("Hello")
    assert client.post(page(session, command)).status_code == 302
    assert client.get(page(session)).status_code == 302
    session.refresh_from_db()
    assert session.status == Status.ACTIVE


def test_staff_of_other_matters_sees_nothing(talk):
    other = staff("gardener", "view_user")
    session = talk("Hello")
    assert other.get(page(session)).status_code == 403
    assert other.get(page(session, "history")).status_code == 403
