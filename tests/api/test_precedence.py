"""Where several things are wrong, which one a caller is told."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

import pytest
from django.test import override_settings

from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import age

from .conftest import Caller, problem, row

pytestmark = pytest.mark.django_db


def test_authentication_comes_before_everything(api):
    session = api.open()
    for path in (f"sessions/{session['id']}/messages", "sessions/x/messages", "sessions"):
        problem(Caller().post(path, {"unknown": 1}, If_Match='"99"'), 401, "not_authenticated")


def test_not_found_comes_before_a_wrong_body(api):
    problem(api.post(f"sessions/{uuid4()}/messages", raw=b"{"), 404, "session_not_found")
    problem(api.post("sessions", {"agent": "nobody", "unknown": 1}), 404, "agent_not_found")
    session = api.open()
    problem(api.patch(f"sessions/{session['id']}/messages/9", {"x": 1}), 404, "message_not_found")


def test_wrong_body_comes_before_the_end_of_the_session(api):
    session = api.open()
    path = f"sessions/{session['id']}"
    api.post(f"{path}/end")
    problem(api.post(f"{path}/messages", {"x": 1}), 400, "invalid_request")
    problem(api.post(f"{path}/events", {"type": "message"}), 400, "invalid_request")
    problem(api.patch(f"{path}/timeout", {"timeout_minutes": 1}), 400, "invalid_timeout")
    problem(api.post(f"{path}/messages", {"content": "x" * 40_000}), 400, "message_too_long")
    problem(api.patch(f"{path}/state", {"x": "y" * 300_000}), 400, "metadata_too_large")
    problem(api.post(f"{path}/messages", {"content": "x", "delivery": "wait"}), 400, "invalid_request")


def test_wrong_tab_name_comes_before_the_end_of_the_session(api, tab):
    session = tab("a").open(agent="per_tab")
    path = f"sessions/{session['id']}"
    said = tab("a").say(session, "hello", external_id="e")
    tab("a").post(f"{path}/end")
    for call in ("resume", "heartbeat", "renew", "end"):
        assert "client" in problem(api.post(f"{path}/{call}"), 400, "invalid_request")["errors"]
    repeat = {"content": said["content"], "external_id": "e", "delivery": "store"}
    assert "client" in problem(api.post(f"{path}/messages", repeat), 400, "invalid_request")["errors"]


def test_repeat_comes_before_the_end_of_the_session_and_before_if_match(api):
    session = api.open()
    path = f"sessions/{session['id']}"
    body = {"content": "hello", "external_id": "e"}
    first = api.post(f"{path}/messages", body)
    api.post(f"{path}/end")
    again = api.post(f"{path}/messages", body, If_Match='"1"')
    assert again.status_code == 200
    assert again.json()["message"] == first.json()["message"]
    problem(api.post(f"{path}/messages", {**body, "content": "x"}, If_Match='"1"'), 409, "external_id_conflict")


def test_end_of_the_session_comes_before_permission_and_if_match(api):
    session = api.open()
    path = f"sessions/{session['id']}"
    api.say(session, "hello")
    api.post(f"{path}/end")
    problem(api.post(f"{path}/messages", {"content": "x", "role": "system"}, If_Match='"1"'), 409, "session_ended")
    problem(api.post(f"{path}/renew", If_Match='"1"'), 409, "session_ended")
    problem(api.patch(f"{path}/messages/2", {"content": "x"}, If_Match='"1"'), 409, "session_ended")


def test_permission_comes_before_if_match(api, privileged):
    session = api.open()
    path = f"sessions/{session['id']}"
    problem(api.post(f"{path}/messages", {"content": "x", "role": "system"}, If_Match='"9"'), 403, "permission_denied")
    ChatSession.objects.filter(pk=row(session).pk).update(owner=privileged.user)
    privileged.say(session, "be kind", role="system")
    ChatSession.objects.filter(pk=row(session).pk).update(owner=api.user)
    problem(api.patch(f"{path}/messages/2", {"content": "x"}, If_Match='"9"'), 403, "permission_denied")
    problem(api.delete(f"{path}/messages/2", If_Match='"9"'), 403, "permission_denied")


def test_what_the_session_says_comes_before_if_match(api, tab):
    session = tab("a").open(agent="active_tab_wins")
    path = f"sessions/{session['id']}"
    problem(tab("b").post(f"{path}/messages", {"content": "x"}, If_Match='"9"'), 409, "client_conflict")
    full = api.open()
    api.say(full, "one")
    with override_settings(CHAT_SESSIONS={"MAX_MESSAGES": 1}):
        response = api.post(f"sessions/{full['id']}/messages", {"content": "two"}, If_Match='"9"')
        assert problem(response, 409, "message_limit_reached")["limit"] == 1


def test_if_match_comes_before_the_limit_of_renewals(api):
    session = api.open(timeout={"timeout_minutes": 10, "max_duration_minutes": 10})
    path = f"sessions/{session['id']}/renew"
    problem(api.post(path, If_Match='"9"'), 412, "sequence_conflict")
    assert problem(api.post(path), 422, "renewal_limit_reached")["max_duration_minutes"] == 10


def test_refused_role_of_a_history_comes_after_what_is_wrong_with_it(api):
    parent = api.open()
    api.post(f"sessions/{parent['id']}/end")
    words = {"role": "assistant", "content": "x"}
    problem(api.post("sessions", {"messages": [{**words, "content": "x" * 40_000}]}), 400, "message_too_long")
    problem(api.post("sessions", {"messages": [words], "parent": parent["id"]}), 409, "session_ended")
    problem(api.post("sessions", {"messages": [words]}), 403, "permission_denied")


def test_instant_of_expiry_is_told_with_410(api):
    session = api.open()
    expired = age(row(session), days=1)
    body = problem(api.post(f"sessions/{session['id']}/messages", {"content": "x"}), 410, "session_expired")
    assert datetime.fromisoformat(body["expires_at"]) == expired.expires_at
