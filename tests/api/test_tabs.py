"""What several tabs of one person may do."""

from __future__ import annotations

import pytest

from .conftest import problem

pytestmark = pytest.mark.django_db


def test_single_finds_the_same_session_from_any_tab(tab):
    first = tab("a").open(agent="single")
    second = tab("b").post("sessions", {"agent": "single"})
    assert (second.status_code, second.json()["id"]) == (200, first["id"])
    assert second.json()["client"] is None
    assert tab("b").post(f"sessions/{first['id']}/heartbeat").status_code == 200


def test_per_tab_gives_each_tab_its_own_and_keeps_others_out(tab):
    first, second = tab("a").open(agent="per_tab"), tab("b").open(agent="per_tab")
    assert first["id"] != second["id"]
    assert (first["client"], second["client"]) == ("a", "b")
    assert tab("a").post("sessions", {"agent": "per_tab"}).json()["id"] == first["id"]
    for call in ("resume", "heartbeat", "renew", "end"):
        problem(tab("b").post(f"sessions/{first['id']}/{call}"), 409, "client_conflict")
    problem(tab("b").post(f"sessions/{first['id']}/messages", {"content": "x"}), 409, "client_conflict")
    problem(tab("b").patch(f"sessions/{first['id']}/state", {"a": 1}), 409, "client_conflict")
    assert tab("b").reads(f"sessions/{first['id']}")["id"] == first["id"]


def test_newest_tab_wins_and_the_other_has_to_resume(tab):
    session = tab("a").open(agent="active_tab_wins")
    path = f"sessions/{session['id']}"
    taken = tab("b").post("sessions", {"agent": "active_tab_wins"})
    assert (taken.status_code, taken.json()["id"], taken.json()["client"]) == (200, session["id"], "b")
    problem(tab("a").post(f"{path}/messages", {"content": "x"}), 409, "client_conflict")
    problem(tab("a").post(f"{path}/heartbeat"), 409, "client_conflict")
    back = tab("a").post(f"{path}/resume").json()["session"]
    assert back["client"] == "a"
    types = [event["type"] for event in tab("a").reads(f"{path}/events")["events"]]
    assert types == ["session.created", "session.superseded", "session.superseded"]
    assert tab("a").post(f"{path}/messages", {"content": "x", "delivery": "store"}).status_code == 201


@pytest.mark.parametrize("agent", ["per_tab", "active_tab_wins"])
def test_tab_that_does_not_say_its_name_is_refused(agent, api, tab):
    assert "client" in problem(api.post("sessions", {"agent": agent}), 400, "invalid_request")["errors"]
    session = tab("a").open(agent=agent)
    path = f"sessions/{session['id']}"
    for method, call, body in (
        ("post", "resume", None),
        ("post", "heartbeat", None),
        ("post", "renew", None),
        ("post", "end", None),
        ("post", "fork", None),
        ("post", "messages", {"content": "x"}),
        ("post", "events", {"type": "app.x"}),
        ("patch", "state", {"a": 1}),
        ("patch", "timeout", {"timeout_minutes": 60}),
    ):
        told = problem(api.call(method, f"{path}/{call}", body), 400, "invalid_request")
        assert told["errors"].keys() == {"client"}
    for call in ("", "/messages", "/events", "/state", "/context", "/summary", "/export"):
        assert api.get(path + call).status_code == 200


def test_tabs_name_has_at_most_64_characters(api, tab):
    assert tab("x" * 64).open(agent="per_tab")["client"] == "x" * 64
    assert "client" in problem(tab("x" * 65).post("sessions"), 400, "invalid_request")["errors"]
    session = api.open()
    assert "client" in problem(tab("x" * 65).get(f"sessions/{session['id']}"), 400, "invalid_request")["errors"]
