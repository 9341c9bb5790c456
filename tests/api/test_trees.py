"""Children, forks, state and figures, line by line of the contract."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.test import override_settings

from django_chat_sessions.testing import age

from .conftest import problem, row

pytestmark = pytest.mark.django_db


def test_child_knows_its_parent_and_root(api):
    parent = api.open()
    child = api.open(parent=parent["id"])
    grandchild = api.open(parent=child["id"])
    assert (child["parent"], child["root"]) == (parent["id"], parent["id"])
    assert (grandchild["parent"], grandchild["root"]) == (child["id"], parent["id"])
    listed = api.reads(f"sessions/{parent['id']}/children")
    assert ([item["id"] for item in listed["results"]], listed["next"]) == ([child["id"]], None)


def test_parent_that_is_over_or_too_deep_takes_no_child(api):
    parent = api.open()
    expired = api.open()
    api.post(f"sessions/{parent['id']}/end")
    age(row(expired), days=1)
    problem(api.post("sessions", {"parent": parent["id"]}), 409, "session_ended")
    problem(api.post("sessions", {"parent": expired["id"]}), 410, "session_expired")
    session = api.open()
    with override_settings(CHAT_SESSIONS={"MAX_DEPTH": 2}):
        child = api.open(parent=session["id"])
        assert "parent" in problem(api.post("sessions", {"parent": child["id"]}), 400, "invalid_request")["errors"]


def test_childs_context_lays_its_state_over_its_parents(api):
    parent = api.open(state={"a": 1, "b": {"x": 1, "y": 2}})
    child = api.open(parent=parent["id"], state={"b": {"y": 3}, "c": 4})
    assert api.reads(f"sessions/{child['id']}/state")["state"] == {"b": {"y": 3}, "c": 4}
    assert api.reads(f"sessions/{child['id']}/context")["state"] == {"a": 1, "b": {"x": 1, "y": 3}, "c": 4}
    api.patch(f"sessions/{parent['id']}/state", {"a": 9})
    assert api.reads(f"sessions/{child['id']}/context")["state"]["a"] == 9


def test_fork_takes_the_conversation_and_state_up_to_a_sequence(api):
    session = api.open(title="old", state={"n": 1}, tags=["t"])
    path = f"sessions/{session['id']}"
    api.say(session, "one", external_id="e1")
    api.patch(f"{path}/state", {"n": 2})
    api.say(session, "two")
    forked = api.post(f"{path}/fork", {"at": 2, "title": "new"})
    assert forked.status_code == 201
    copy = forked.json()
    assert copy["forked_from"] == {"id": session["id"], "sequence": 2}
    assert (copy["parent"], copy["title"], copy["tags"], copy["message_count"]) == (None, "new", ["t"], 1)
    assert forked["ETag"] == f'"{copy["last_sequence"]}"'
    message = api.reads(f"sessions/{copy['id']}/messages")["messages"][0]
    assert (message["content"], message["external_id"], message["run"]) == ("one", None, None)
    assert message["created_at"] == api.reads(f"{path}/messages/2")["created_at"]
    assert api.reads(f"sessions/{copy['id']}/state")["state"] == {"n": 1}
    types = [event["type"] for event in api.reads(f"sessions/{copy['id']}/events")["events"]]
    assert types == ["session.created", "session.forked", "message"]
    for wrong in (0, 5, -1):
        assert "at" in problem(api.post(f"{path}/fork", {"at": wrong}), 400, "invalid_request")["errors"]


def test_session_that_is_over_can_be_forked_and_continued(api):
    session = api.open(external_id="e", title="old")
    api.say(session, "one")
    api.post(f"sessions/{session['id']}/end")
    whole = api.post(f"sessions/{session['id']}/fork").json()
    assert whole["forked_from"] == {"id": session["id"], "sequence": 3}
    more = api.open(continue_from=session["id"], messages=[{"content": "two"}])
    assert [m["content"] for m in api.reads(f"sessions/{more['id']}/messages")["messages"]] == ["one", "two"]
    assert (more["title"], more["status"], more["agent"]) == ("old", "active", "silent")


def test_children_and_continuations_are_new_whatever_the_strategy(api, tab):
    one = tab("a").open(agent="single")
    child = tab("a").post("sessions", {"agent": "single", "parent": one["id"]})
    more = tab("a").post("sessions", {"agent": "single", "continue_from": one["id"]})
    fork = tab("a").post(f"sessions/{one['id']}/fork")
    assert [response.status_code for response in (child, more, fork)] == [201, 201, 201]
    assert len({one["id"], *(response.json()["id"] for response in (child, more, fork))}) == 4


# -------------------------------------------------------------------------------------------------- state and summary


def test_state_is_changed_by_a_merge_patch(api):
    session = api.open(state={"a": {"b": 1, "c": 2}, "d": [1]})
    path = f"sessions/{session['id']}/state"
    response = api.patch(path, {"a": {"b": None, "e": {"f": None}}, "d": {"g": 1}, "h": None})
    assert response.json() == {"state": {"a": {"c": 2, "e": {}}, "d": {"g": 1}}, "last_sequence": 2}
    assert response["ETag"] == '"2"'
    again = api.patch(path, {"d": {"g": 1}}, content_type="application/merge-patch+json")
    assert (again.status_code, again.json()["last_sequence"]) == (200, 2)
    for wrong in ([], None, "x", 5):
        problem(api.call("patch", path, raw=str(wrong).replace("None", "null").encode()), 400, "invalid_request")
    told = problem(api.patch(path, {"a": "x" * 300_000}), 400, "metadata_too_large")
    assert told["limit"] == 262_144


def test_context_fits_its_budget_and_keeps_system_messages(privileged):
    session = privileged.open()
    privileged.say(session, "be kind", role="system")
    for number in range(4):
        privileged.say(session, f"number {number}")
    path = f"sessions/{session['id']}/context"
    window = privileged.reads(f"{path}?max_messages=2")
    assert [message["content"] for message in window["messages"]] == ["be kind", "number 3"]
    assert window["truncated"] is True
    whole = privileged.reads(path)
    assert (len(whole["messages"]), whole["truncated"], whole["summary"]) == (5, False, None)
    assert [m["content"] for m in privileged.reads(f"{path}?max_tokens=3")["messages"]] == ["be kind"]


def test_summary_counts_a_session_or_its_tree(api):
    session = api.open(agent="echo")
    child = api.open(parent=session["id"])
    api.post(f"sessions/{session['id']}/messages", {"content": "hello"})
    api.say(child, "below")
    path = f"sessions/{session['id']}/summary"
    alone, tree = api.reads(path), api.reads(f"{path}?tree=true")
    assert alone["messages_by_role"] == {"user": 1, "assistant": 1}
    assert alone["events_by_type"] == {"session.created": 1, "message": 2, "run.started": 1, "run.succeeded": 1}
    assert (alone["message_count"], alone["sessions"], alone["runs"]) == (2, 1, {"succeeded": 1})
    assert alone["first_reply_seconds"] >= 0
    assert alone["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost": None}
    assert tree["messages_by_role"] == {"user": 2, "assistant": 1}
    assert (tree["message_count"], tree["sessions"]) == (3, 2)
    assert (
        alone.keys()
        == tree.keys()
        == {
            "duration_seconds",
            "messages_by_role",
            "events_by_type",
            "message_count",
            "token_count",
            "renewal_count",
            "first_reply_seconds",
            "runs",
            "usage",
            "sessions",
        }
    )


def test_ids_are_read_in_either_case(api):
    session = api.open()
    assert api.reads(f"sessions/{session['id'].upper()}")["id"] == session["id"]
    problem(api.get(f"sessions/{uuid4()}"), 404, "session_not_found")
