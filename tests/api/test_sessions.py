"""The routes of sessions, line by line of the contract."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.test import override_settings

from django_chat_sessions.operations import privacy, sessions
from django_chat_sessions.testing import age

from .conftest import problem, row

pytestmark = pytest.mark.django_db

KEYS = (
    "id external_id agent application title status is_near_expiration parent root forked_from strategy client tags"
    " metadata environment timeout created_at last_activity_at expires_at time_remaining_seconds ended_at end_reason"
    " renewal_count message_count token_count last_sequence"
)


def capture(request):
    return {"user_agent": request.headers.get("User-Agent", ""), "source": "the server"}


# ------------------------------------------------------------------------------------------------------------- opening


def test_session_looks_as_the_contract_says(api):
    session = api.open()
    assert " ".join(session) == KEYS
    assert list(session["timeout"]) == [
        "mode",
        "timeout_minutes",
        "max_duration_minutes",
        "warning_threshold_minutes",
        "auto_renew",
    ]
    assert session["timeout"] == {
        "mode": "standard",
        "timeout_minutes": 30,
        "max_duration_minutes": 720,
        "warning_threshold_minutes": 5,
        "auto_renew": True,
    }
    assert (session["status"], session["last_sequence"], session["strategy"]) == ("created", 1, "multiple")
    assert session["root"] == session["id"]
    assert 1799 < session["time_remaining_seconds"] <= 1800
    for name in ("external_id", "parent", "forked_from", "client", "ended_at"):
        assert session[name] is None


def test_opening_needs_no_body_and_takes_the_default_agent(api):
    response = api.post("sessions")
    assert response.status_code == 201
    assert response.json()["agent"] == "echo"
    assert response["ETag"] == '"1"'


def test_opening_keeps_what_it_was_given(api):
    given = {
        "application": "shop",
        "external_id": "e-1",
        "title": "Review Q4 budget",
        "metadata": {"a": [1]},
        "environment": {"version": "1.2"},
        "tags": ["x", "y"],
    }
    session = api.open(**given)
    assert {name: session[name] for name in given} == given


def test_unknown_agent_is_404(api):
    problem(api.post("sessions", {"agent": "nobody"}), 404, "agent_not_found")


def test_external_id_finds_the_live_session_unchanged(api):
    session = api.open(external_id="e-1", title="first")
    again = api.post("sessions", {"agent": "silent", "external_id": "e-1", "title": "second", "metadata": {"a": 1}})
    assert again.status_code == 200
    assert again.json()["id"] == session["id"]
    assert (again.json()["title"], again.json()["metadata"]) == ("first", {})
    assert again["ETag"] == '"1"'


def test_external_id_is_the_owners_the_agents_and_the_applications_own(api, stranger):
    ids = {
        api.open(external_id="e")["id"],
        api.open(external_id="e", application="other")["id"],
        api.open(external_id="e", agent="hasty")["id"],
        stranger.open(external_id="e")["id"],
    }
    assert len(ids) == 4


@pytest.mark.parametrize("end", ["ended", "expired"])
def test_external_id_of_a_session_that_is_over_opens_a_new_one(end, api):
    session = api.open(external_id="e-1")
    api.post(f"sessions/{session['id']}/end") if end == "ended" else age(row(session), days=1)
    assert api.open(external_id="e-1")["id"] != session["id"]
    assert api.reads(f"sessions/{session['id']}")["status"] == end


def test_opening_with_a_history(api, privileged):
    history = [{"role": "system", "content": "Be kind"}, {"content": "hello", "external_id": "m", "metadata": {"a": 1}}]
    session = privileged.open(messages=history)
    assert (session["status"], session["message_count"], session["last_sequence"]) == ("active", 2, 3)
    read = privileged.reads(f"sessions/{session['id']}/messages")["messages"]
    assert [(item["role"], item["content"], item["external_id"]) for item in read] == [
        ("system", "Be kind", None),
        ("user", "hello", "m"),
    ]
    problem(api.post("sessions", {"messages": history}), 403, "permission_denied")
    assert api.open(messages=history[1:])["message_count"] == 1


def test_history_with_two_messages_of_one_name_is_refused(api):
    history = [{"content": "a", "external_id": "x"}, {"content": "b"}, {"content": "c", "external_id": "x"}]
    told = problem(api.post("sessions", {"messages": history}), 400, "invalid_request")
    assert told["errors"].keys() == {"messages.2.external_id"}


def test_history_longer_than_allowed_is_refused(api):
    with override_settings(CHAT_SESSIONS={"MAX_MESSAGES": 1}):
        body = {"messages": [{"content": "a"}, {"content": "b"}]}
        assert problem(api.post("sessions", body), 409, "message_limit_reached")["limit"] == 1


def test_environment_is_the_clients_and_the_servers_and_never_changes(api):
    with override_settings(CHAT_SESSIONS={"CAPTURE": "tests.api.test_sessions.capture"}):
        response = api.post("sessions", {"environment": {"page": "/", "source": "mine"}}, User_Agent="Browser/1")
    session = response.json()
    assert session["environment"] == {"page": "/", "source": "the server", "user_agent": "Browser/1"}
    told = problem(api.patch(f"sessions/{session['id']}", {"environment": {}}), 400, "invalid_request")
    assert told["errors"].keys() == {"environment"}


def test_too_many_live_sessions_are_429(api):
    with override_settings(CHAT_SESSIONS={"MAX_LIVE_SESSIONS": 1}):
        session = api.open()
        assert problem(api.post("sessions", {}), 429, "session_limit_reached")["limit"] == 1
        api.post(f"sessions/{session['id']}/end")
        api.open()


@pytest.mark.parametrize(
    ("timeout", "bounds"),
    [
        ({"timeout_minutes": 4}, (5, 1440)),
        ({"timeout_minutes": 1441}, (5, 1440)),
        ({"timeout_minutes": 60, "max_duration_minutes": 59}, (60, 10_080)),
        ({"max_duration_minutes": 10_081}, (30, 10_080)),
        ({"timeout_minutes": 10, "warning_threshold_minutes": 10}, (0, 9)),
        ({"warning_threshold_minutes": -1}, (0, 29)),
        ({"timeout_minutes": 10**30}, (5, 1440)),
    ],
)
def test_timeout_out_of_bounds_is_refused_with_the_bounds(timeout, bounds, api):
    told = problem(api.post("sessions", {"timeout": timeout}), 400, "invalid_timeout")
    assert (told["min_minutes"], told["max_minutes"]) == bounds
    session = api.open()
    told = problem(api.patch(f"sessions/{session['id']}/timeout", timeout), 400, "invalid_timeout")
    assert (told["min_minutes"], told["max_minutes"]) == bounds
    assert api.reads(f"sessions/{session['id']}")["last_sequence"] == 1


@pytest.mark.parametrize("field", ["metadata", "environment"])
def test_json_that_is_too_large_is_refused_with_the_limit(field, api):
    told = problem(api.post("sessions", {field: {"a": "x" * 20_000}}), 400, "metadata_too_large")
    assert told["limit"] == 16_384


# --------------------------------------------------------------------------------------------- reading, changing, going


def test_reading_is_not_activity(api):
    session = api.open()
    age(row(session), minutes=3)
    before = api.reads(f"sessions/{session['id']}")
    for path in ("", "/messages", "/events", "/state", "/context", "/summary", "/children", "/export"):
        assert api.get(f"sessions/{session['id']}{path}").status_code == 200
    after = api.reads(f"sessions/{session['id']}")
    assert after["last_activity_at"] == before["last_activity_at"]
    assert after["expires_at"] == before["expires_at"]


def test_near_expiration_is_told_within_the_warning_threshold(api):
    session = api.open()
    age(row(session), minutes=24)
    assert api.reads(f"sessions/{session['id']}")["is_near_expiration"] is False
    age(row(session), minutes=2)
    assert api.reads(f"sessions/{session['id']}")["is_near_expiration"] is True
    age(row(session), minutes=10)
    assert api.reads(f"sessions/{session['id']}")["is_near_expiration"] is False


def test_session_past_its_deadline_reads_as_expired_before_any_sweep(api):
    session = api.open()
    age(row(session), days=1)
    read = api.reads(f"sessions/{session['id']}")
    assert (read["status"], read["time_remaining_seconds"], read["last_sequence"]) == ("expired", 0, 1)
    assert read["ended_at"] == read["expires_at"]
    for method, path, body in (
        ("post", "messages", {"content": "x"}),
        ("post", "events", {"type": "app.x"}),
        ("post", "resume", None),
        ("post", "heartbeat", None),
        ("post", "renew", None),
        ("post", "end", None),
        ("patch", "state", {"a": 1}),
        ("patch", "timeout", {"timeout_minutes": 60}),
    ):
        problem(api.call(method, f"sessions/{session['id']}/{path}", body), 410, "session_expired")


def test_owner_may_rename_tag_and_describe_even_what_is_over(api):
    session = api.open(tags=["a"], metadata={"a": 1})
    path = f"sessions/{session['id']}"
    api.post(f"{path}/end")
    response = api.patch(path, {"title": "new", "tags": ["b", "b"], "metadata": {"b": 2}})
    assert response.status_code == 200
    assert response["ETag"] == '"3"'
    read = response.json()
    assert (read["title"], read["tags"], read["metadata"]) == ("new", ["b", "b"], {"b": 2})
    event = api.reads(f"{path}/events?type=session.changed")["events"][0]
    assert event["data"] == {"title": "new", "tags": ["b", "b"], "metadata": {"b": 2}}


def test_change_that_changes_nothing_is_no_event(api):
    session = api.open(title="x")
    assert api.patch(f"sessions/{session['id']}", {"title": "x"}).json()["last_sequence"] == 1
    assert api.patch(f"sessions/{session['id']}", {}).json()["last_sequence"] == 1
    assert api.patch(f"sessions/{session['id']}", {"tags": [], "metadata": {}}).json()["last_sequence"] == 1


def test_title_and_tags_have_their_limits(api):
    session = api.open(title="x" * 200, tags=["x" * 64] * 50)
    for body in ({"title": "x" * 201}, {"tags": ["x" * 65]}, {"tags": ["x"] * 51}, {"tags": [""]}, {"title": None}):
        problem(api.patch(f"sessions/{session['id']}", body), 400, "invalid_request")


def test_deleted_session_is_gone_with_all_below_it(api):
    session = api.open()
    child = api.open(parent=session["id"])
    grandchild = api.open(parent=child["id"])
    copy = api.post(f"sessions/{session['id']}/fork").json()
    assert api.delete(f"sessions/{session['id']}").status_code == 204
    for gone in (session, child, grandchild):
        problem(api.get(f"sessions/{gone['id']}"), 404, "session_not_found")
        problem(api.delete(f"sessions/{gone['id']}"), 404, "session_not_found")
    assert api.reads(f"sessions/{copy['id']}")["forked_from"] is None


def test_deletion_is_refused_where_one_below_is_held(api):
    session = api.open()
    child = api.open(parent=session["id"])
    privacy.hold(row(child))
    problem(api.delete(f"sessions/{session['id']}"), 409, "legal_hold")
    problem(api.delete(f"sessions/{session['id']}", If_Match='"99"'), 409, "legal_hold")
    assert api.reads(f"sessions/{child['id']}")["parent"] == session["id"]


# --------------------------------------------------------------------------------------------------------- time and end


def test_resuming_tells_how_long_it_was_idle_and_what_a_model_sees(api):
    session = api.open(state={"a": 1})
    for number in range(3):
        api.say(session, f"message {number}")
    age(row(session), minutes=6)
    response = api.post(f"sessions/{session['id']}/resume", {"max_messages": 2})
    body = response.json()
    assert body.keys() == {"session", "idle_seconds", "context"}
    assert 360 <= body["idle_seconds"] < 370
    assert (body["session"]["status"], body["session"]["last_sequence"]) == ("resumed", 5)
    assert response["ETag"] == '"5"'
    assert body["context"].keys() == {"messages", "summary", "state", "truncated"}
    assert [message["content"] for message in body["context"]["messages"]] == ["message 1", "message 2"]
    assert (body["context"]["truncated"], body["context"]["state"]) == (True, {"a": 1})


def test_resuming_soon_is_no_event(api):
    session = api.open()
    body = api.post(f"sessions/{session['id']}/resume").json()
    assert (body["session"]["status"], body["session"]["last_sequence"]) == ("created", 1)
    assert 0 <= body["idle_seconds"] < 60


def test_heartbeat_moves_the_deadline_without_an_event(api):
    session = api.open()
    age(row(session), minutes=4)
    old = api.reads(f"sessions/{session['id']}")
    read = api.post(f"sessions/{session['id']}/heartbeat").json()
    assert read["expires_at"] > old["expires_at"]
    assert (read["status"], read["last_sequence"]) == ("created", 1)


def test_heartbeat_leaves_the_deadline_where_activity_does_not_renew(api):
    session = api.open(timeout={"auto_renew": False})
    age(row(session), minutes=4)
    old = api.reads(f"sessions/{session['id']}")
    path = f"sessions/{session['id']}"
    assert api.post(f"{path}/heartbeat").json()["expires_at"] == old["expires_at"]
    renewed = api.post(f"{path}/renew").json()
    assert renewed["expires_at"] > old["expires_at"]
    assert (renewed["renewal_count"], renewed["last_sequence"]) == (1, 2)


def test_renewal_at_the_maximum_is_422(api):
    session = api.open(timeout={"timeout_minutes": 10, "max_duration_minutes": 12})
    assert api.post(f"sessions/{session['id']}/renew").status_code == 200
    age(row(session), minutes=3)
    assert api.post(f"sessions/{session['id']}/renew").status_code == 200
    told = problem(api.post(f"sessions/{session['id']}/renew"), 422, "renewal_limit_reached")
    assert told["max_duration_minutes"] == 12


def test_timeouts_merge_and_null_returns_a_field_to_the_inherited(api):
    session = api.open(timeout={"timeout_minutes": 60})
    path = f"sessions/{session['id']}/timeout"
    assert api.patch(path, {"warning_threshold_minutes": 20}).json()["timeout"]["timeout_minutes"] == 60
    assert api.patch(path, {"timeout_minutes": None}).json()["timeout"]["timeout_minutes"] == 30
    aggressive = api.patch(path, {"mode": "aggressive", "timeout_minutes": 45}).json()["timeout"]
    assert (aggressive["mode"], aggressive["timeout_minutes"], aggressive["warning_threshold_minutes"]) == (
        "aggressive",
        45,
        20,
    )
    response = api.patch(path, {"mode": None, "timeout_minutes": None, "warning_threshold_minutes": None})
    assert response.json()["timeout"] == api.open()["timeout"]


def test_changed_timeout_moves_the_deadline_from_the_last_renewal(api):
    session = api.open()
    changed = api.patch(f"sessions/{session['id']}/timeout", {"timeout_minutes": 60}).json()
    moved = datetime.fromisoformat(changed["expires_at"]) - datetime.fromisoformat(session["expires_at"])
    assert moved == timedelta(minutes=30)


def test_agents_timeouts_lie_between_the_sessions_and_the_global(api):
    assert api.open(agent="hasty")["timeout"]["timeout_minutes"] == 5
    assert api.open(agent="hasty", timeout={"timeout_minutes": 50})["timeout"] == {
        "mode": "aggressive",
        "timeout_minutes": 50,
        "max_duration_minutes": 720,
        "warning_threshold_minutes": 1,
        "auto_renew": True,
    }


def test_end_keeps_the_reason_and_ending_twice_is_409(api):
    session = api.open()
    path = f"sessions/{session['id']}"
    response = api.post(f"{path}/end", {"reason": "x" * 200})
    read = response.json()
    assert (read["status"], read["end_reason"], read["time_remaining_seconds"]) == ("ended", "x" * 200, 0)
    assert read["ended_at"].endswith("Z")
    assert response["ETag"] == '"2"'
    problem(api.post(f"{path}/end"), 409, "session_ended")
    problem(api.post(f"{path}/end", {"reason": "x" * 201}), 400, "invalid_request")
    assert api.reads(f"{path}/messages")["messages"] == []


def test_failed_session_is_over_as_well(api):
    session = api.open()
    sessions.fail(row(session), reason="broken")
    problem(api.post(f"sessions/{session['id']}/messages", {"content": "x"}), 409, "session_ended")
    assert api.reads(f"sessions/{session['id']}")["status"] == "failed"


def test_ending_a_parent_ends_its_children(api):
    parent = api.open()
    child = api.open(parent=parent["id"])
    api.post(f"sessions/{parent['id']}/end")
    read = api.reads(f"sessions/{child['id']}")
    assert (read["status"], read["end_reason"]) == ("ended", "parent_ended")
