"""Where several things are wrong, which one a caller is told."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

import pytest
from django.test import override_settings

from django_chat_sessions.choices import Delivery
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import age

from .conftest import Caller, problem, row
from .running import again, ask, cancel, listed, over

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


# ----------------------------------------------------------------------------------------------------------------- runs


def test_authentication_comes_before_everything_about_runs(session, api, queued):
    for path in (f"sessions/{session['id']}/runs", f"sessions/{session['id']}/runs/{queued['id']}/cancel"):
        problem(Caller().post(path, {"unknown": 1}, If_Match='"99"'), 401, "not_authenticated")
    for path in ("runs", f"runs/{queued['id']}", "stream"):
        problem(Caller().get(f"sessions/{session['id']}/{path}?limit=0&after=x"), 401, "not_authenticated")


def test_not_found_comes_before_what_is_wrong_with_a_call_about_runs(api, session):
    never = uuid4()
    problem(api.post(f"sessions/{never}/runs", raw=b"{"), 404, "session_not_found")
    problem(api.get(f"sessions/{never}/runs?limit=0"), 404, "session_not_found")
    problem(api.get(f"sessions/{never}/stream?after=x"), 404, "session_not_found")
    for raw in (b"{", b'{"unknown": 1}', b"[]"):
        response = api.call("post", f"sessions/{session['id']}/runs/{never}/cancel", raw=raw, If_Match='"9"')
        problem(response, 404, "run_not_found")


def test_wrong_body_of_a_run_comes_before_the_end_of_the_session(api, session):
    run = ask(api, session)["run"]
    over(api, session, "ended")
    for body in ({"unknown": 1}, {"delivery": "store"}, {"input_sequence": 0}):
        problem(again(api, session, body), 400, "invalid_request")
    problem(cancel(api, session, run, {"unknown": 1}), 400, "invalid_request")


def test_question_that_never_was_comes_before_the_end_of_the_session(api, session):
    ask(api, session)
    over(api, session, "ended")
    for sequence in (1, 999):
        problem(again(api, session, {"input_sequence": sequence}), 400, "invalid_request")


@pytest.mark.parametrize("delivery", [None, *(value for value in Delivery.values if value not in {"store", "stream"})])
@pytest.mark.parametrize(("end", "status"), [("ended", 409), ("expired", 410)])
def test_end_of_the_session_comes_before_if_match_of_a_run(end, status, delivery, api, session):
    ask(api, session)
    over(api, session, end)
    body = {"delivery": delivery} if delivery else {}
    told = problem(again(api, session, body, If_Match='"1"'), status, f"session_{end}")
    assert ("expires_at" in told) is (end == "expired")
    assert len(listed(api, session)["results"]) == 1


def test_expired_session_comes_before_if_match_when_a_run_is_cancelled(api, session, queued):
    over(api, session, "expired")
    problem(cancel(api, session, queued, If_Match='"1"'), 410, "session_expired")


def test_if_match_comes_before_the_run_in_progress(api, session, queued):
    problem(again(api, session, If_Match='"1"'), 412, "sequence_conflict")
    assert problem(again(api, session, If_Match='"2"'), 409, "run_in_progress")["run"] == queued["id"]


@pytest.mark.parametrize("agent_name", ["per_tab", "active_tab_wins"])
def test_tab_has_to_say_its_name_and_has_to_be_the_right_one(agent_name, api, tab):
    session = tab("a").open(agent=agent_name)
    finished = ask(tab("a"), session)["run"]
    for caller, status, code in ((api, 400, "invalid_request"), (tab("b"), 409, "client_conflict")):
        problem(again(caller, session, If_Match='"1"'), status, code)
        run = ask(tab("a"), session, delivery="background")["run"]
        problem(cancel(caller, session, run, If_Match='"1"'), status, code)
        assert cancel(tab("a"), session, run).json()["status"] == "cancelled"
    assert problem(cancel(api, session, finished), 400, "invalid_request")["errors"].keys() == {"client"}
    assert cancel(tab("b"), session, finished).json() == finished
    for path in ("runs", f"runs/{finished['id']}"):
        assert api.get(f"sessions/{session['id']}/{path}").status_code == 200
    over(tab("a"), session, "ended")
    assert "client" in problem(again(api, session), 400, "invalid_request")["errors"]
