"""The routes of events, line by line of the contract."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from django.db import connection

from django_chat_sessions.testing import make_session

from .conftest import Caller, problem

pytestmark = pytest.mark.django_db


def test_event_looks_as_the_contract_says(api):
    session = api.open()
    path = f"sessions/{session['id']}/events"
    response = api.post(path, {"type": "app.clicked", "data": {"a": [1, None]}})
    assert response.status_code == 201
    event = response.json()
    assert sorted(event) == ["created_at", "data", "sequence", "type"]
    assert (event["sequence"], event["type"], event["data"]) == (2, "app.clicked", {"a": [1, None]})
    assert response["ETag"] == '"2"'
    assert api.reads(path)["events"][-1] == event
    assert api.post(path, {"type": "app.x"}).json()["data"] == {}


@pytest.mark.parametrize(
    "kind", ["message", "session.ended", "app.", "app", "app.a b", "app." + "x" * 61, "App.x", "app.é", "", 5, None]
)
def test_event_of_a_type_that_is_not_the_applications_is_refused(kind, api):
    session = api.open()
    told = problem(api.post(f"sessions/{session['id']}/events", {"type": kind}), 400, "invalid_request")
    assert told["errors"].keys() == {"type"}


def test_event_does_not_tell_the_servers_own_keys(api):
    session = api.open()
    created = api.reads(f"sessions/{session['id']}/events")["events"][0]
    assert created["type"] == "session.created"
    assert "owner" not in created["data"]
    kept = api.post(f"sessions/{session['id']}/events", {"type": "app.x", "data": {"owner": "me"}}).json()
    assert kept["data"] == {"owner": "me"}


def test_unknown_type_filters_everything_out(api):
    session = api.open()
    for kind in ("nothing", "mess%00age", "%FF", "message"):
        assert api.reads(f"sessions/{session['id']}/events?type={kind}")["events"] == []


def test_waiting_ends_with_its_time(api):
    session = api.open()
    started = time.monotonic()
    page = api.reads(f"sessions/{session['id']}/events?after=1&wait=0.3")
    assert 0.25 < time.monotonic() - started < 5
    assert (page["events"], page["cursors"]) == ([], {"before": None, "after": None})


def test_waiting_does_not_hold_what_is_there_already(api):
    session = api.open()
    started = time.monotonic()
    assert len(api.reads(f"sessions/{session['id']}/events?after=0&wait=20")["events"]) == 1
    api.post(f"sessions/{session['id']}/end")
    assert api.reads(f"sessions/{session['id']}/events?after=2&wait=20")["events"] == []
    assert time.monotonic() - started < 5


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", ["after=1&wait=20", "wait=20", "after=1&wait=20&type=app.there"])
def test_waiting_is_answered_when_something_happens(query, alice):
    api = Caller(alice)
    session = api.open()
    stored = make_session(alice)
    assert stored.pk
    answers: list[dict] = []

    def wait() -> None:
        with closing(connection):
            answers.append(Caller(alice).reads(f"sessions/{session['id']}/events?{query}"))

    waiting = threading.Thread(target=wait)
    started = time.monotonic()
    waiting.start()
    time.sleep(0.3)
    if "type" in query:
        api.post(f"sessions/{session['id']}/events", {"type": "app.other"})
    api.post(f"sessions/{session['id']}/events", {"type": "app.there", "data": {"a": 1}})
    waiting.join(timeout=15)
    assert 0.3 < time.monotonic() - started < 10
    assert answers[0]["events"][0]["data"] == {"a": 1}
