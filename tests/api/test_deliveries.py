"""How answers are delivered: in the background, and as streams where there is a server for them."""

from __future__ import annotations

import time

import pytest

from django_chat_sessions.operations import verification

from .conftest import problem, row
from .running import again, ask, cancel, events, listed, over, texts, types, wait_until_stored

pytestmark = pytest.mark.django_db


KEYS = ["message", "run", "session"]


def post(api, session, by="external_id", **fields):
    """Post a message with a name, given in one of the two ways."""
    body = {"content": "hello", **({by: "e"} if by == "external_id" else {}), **fields}
    headers = {} if by == "external_id" else {by: "e"}
    return api.post(f"sessions/{session['id']}/messages", body, **headers)


# --------------------------------------------------------------------------------------------------- in the background


def test_question_in_the_background_is_stored_and_its_run_queued(api, session):
    response = api.post(f"sessions/{session['id']}/messages", {"content": "hello", "delivery": "background"})
    assert response.status_code == 202
    told = response.json()
    assert list(told) == KEYS
    assert (told["message"]["sequence"], told["message"]["content"], told["message"]["role"]) == (2, "hello", "user")
    assert (told["run"]["status"], told["run"]["input_sequence"]) == ("queued", 2)
    assert (told["session"]["status"], told["session"]["message_count"]) == ("active", 1)
    assert response["ETag"] == f'"{told["session"]["last_sequence"]}"' == '"2"'
    assert texts(api, session) == ["hello"]
    assert listed(api, session)["results"] == [told["run"]]


@pytest.mark.django_db(transaction=True)
def test_question_in_the_background_is_answered_without_anybody_waiting(api, session):
    run = ask(api, session, delivery="background")["run"]
    until = time.monotonic() + 20
    while api.reads(f"sessions/{session['id']}/runs/{run['id']}")["status"] != "succeeded":
        assert time.monotonic() < until
        time.sleep(0.02)
    assert texts(api, session) == ["hello", "1"]
    repeat = ask(api, session, "and again", delivery="wait")
    assert repeat["reply"]["content"] == "2"
    assert verification.verify(row(session)) == []


@pytest.mark.parametrize("by", ["external_id", "Idempotency-Key"])
def test_repeat_of_a_question_in_the_background_is_answered_with_its_run_and_writes_nothing(by, api, session):
    first = post(api, session, by, delivery="background")
    assert first.status_code == 202
    before = events(api, session)
    repeats = {delivery: post(api, session, by, **delivery_of(delivery)) for delivery in (None, *DELIVERIES)}
    for delivery, repeat in repeats.items():
        told = repeat.json()
        assert repeat.status_code == 200
        assert told["message"] == first.json()["message"]
        assert told.get("run") == (None if delivery == "store" else first.json()["run"])
        assert told.get("reply") is None
        assert repeat["ETag"] == first["ETag"]
    assert events(api, session) == before
    assert listed(api, session)["results"] == [first.json()["run"]]
    problem(post(api, session, by, content="other", delivery="background"), 409, "external_id_conflict")


DELIVERIES = ["background", "wait", "store"]


def delivery_of(name):
    return {"delivery": name} if name else {}


@pytest.mark.parametrize("first", DELIVERIES)
def test_repeat_in_the_background_is_answered_with_what_came_first(first, api, session):
    said = post(api, session, delivery=first).json()
    before = events(api, session)
    repeat = post(api, session, delivery="background")
    assert (repeat.status_code, list(repeat.json())) == (200, KEYS)
    assert (repeat.json()["message"], repeat.json()["run"]) == (said["message"], said.get("run"))
    assert events(api, session) == before


@pytest.mark.parametrize("end", ["ended", "expired"])
def test_repeat_in_the_background_is_answered_after_the_session_is_over(end, api, session):
    first = post(api, session, delivery="background").json()
    over(api, session, end)
    before = events(api, session)
    body = {"content": "hello", "external_id": "e", "delivery": "background"}
    repeat = api.post(f"sessions/{session['id']}/messages", body, If_Match='"1"')
    assert (repeat.status_code, repeat.json()["session"]["status"]) == (200, end)
    assert repeat.json()["run"]["id"] == first["run"]["id"]
    assert events(api, session) == before
    status, code = (409, "session_ended") if end == "ended" else (410, "session_expired")
    problem(post(api, session, external_id="f", delivery="background"), status, code)


@pytest.mark.parametrize("delivery", ["background", "wait", "stream"])
def test_agent_that_only_stores_is_asked_in_no_way(delivery, api):
    session = api.open()
    told = problem(post(api, session, delivery=delivery), 400, "invalid_request")
    assert told["errors"].keys() == {"delivery"}
    assert types(api, session) == ["session.created"]


@pytest.mark.parametrize("delivery", ["background", "wait"])
def test_unavailable_agent_is_503_and_nothing_is_stored(delivery, api):
    session = api.open(agent="unavailable")
    problem(post(api, session, delivery=delivery), 503, "agent_unavailable")
    assert (types(api, session), listed(api, session)["results"]) == (["session.created"], [])
    assert post(api, session, delivery="store").status_code == 201


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
def test_words_in_the_agents_mouth_are_refused_in_the_background_too(role, api, session):
    problem(post(api, session, delivery="background", role=role), 403, "permission_denied")
    assert (types(api, session), listed(api, session)["results"]) == (["session.created"], [])


def test_question_in_the_background_keeps_to_if_match(api, session):
    path, body = f"sessions/{session['id']}/messages", {"content": "hello", "delivery": "background"}
    assert problem(api.post(path, body, If_Match='"9"'), 412, "sequence_conflict")["last_sequence"] == 1
    assert texts(api, session) == []
    assert api.post(path, body, If_Match='"1"').status_code == 202


def test_queued_answer_is_in_progress(api, session, queued):
    path = f"sessions/{session['id']}/messages"
    for delivery in ("wait", "background"):
        told = problem(api.post(path, {"content": "more", "delivery": delivery}), 409, "run_in_progress")
        assert told["run"] == queued["id"]
    assert texts(api, session) == ["hello"]
    assert api.say(session, "aside")["content"] == "aside"


# ---------------------------------------------------------------------------------------------- in the middle of it all


@pytest.mark.django_db(transaction=True)
def test_running_answer_is_cancelled_and_what_it_said_is_kept(api, speaker):
    session = api.open(agent=speaker.name)
    run = ask(api, session, delivery="background")["run"]
    wait_until_stored(api, session)
    running = listed(api, session)["results"][0]
    assert (running["id"], running["status"], running["output_sequence"]) == (run["id"], "running", None)
    response = cancel(api, session, run)
    told = response.json()
    assert (response.status_code, told["status"], told["output_sequence"]) == (202, "cancelled", 4)
    assert told["first_token_at"] >= told["started_at"]
    said = api.reads(f"sessions/{session['id']}/messages/4")
    assert (said["content"], said["metadata"], said["run"]) == ("So far", {"cut_short": "cancelled"}, run["id"])
    assert types(api, session, 2) == ["run.started", "message", "run.cancelled"]
    speaker.may_finish.set()
    assert ask(api, session, "go on", delivery="wait")["reply"]["content"] == "So far, so good"
    assert texts(api, session) == ["hello", "So far", "go on", "So far, so good"]
    assert verification.verify(row(session)) == []


@pytest.mark.django_db(transaction=True)
def test_session_that_ends_in_mid_answer_cancels_it_first_and_keeps_what_it_said(api, speaker):
    session = api.open(agent=speaker.name)
    run = ask(api, session, delivery="background")["run"]
    wait_until_stored(api, session)
    assert api.post(f"sessions/{session['id']}/end").json()["status"] == "ended"
    assert types(api, session, 2) == ["run.started", "message", "run.cancelled", "session.ended"]
    said = api.reads(f"sessions/{session['id']}/messages/4")
    assert (said["content"], said["metadata"]) == ("So far", {"cut_short": "cancelled"})
    read = api.reads(f"sessions/{session['id']}/runs/{run['id']}")
    assert (read["status"], read["output_sequence"]) == ("cancelled", 4)
    speaker.may_finish.set()
    assert verification.verify(row(session)) == []


@pytest.mark.django_db(transaction=True)
def test_while_an_answer_is_given_nothing_else_is_asked(api, speaker):
    session = api.open(agent=speaker.name)
    path = f"sessions/{session['id']}/messages"
    run = ask(api, session, delivery="background")["run"]
    wait_until_stored(api, session)
    for delivery in ("wait", "background"):
        told = problem(api.post(path, {"content": "more", "delivery": delivery}), 409, "run_in_progress")
        assert told["run"] == run["id"]
        assert problem(again(api, session, {"delivery": delivery}), 409, "run_in_progress")["run"] == run["id"]
    assert texts(api, session) == ["hello"]
    assert api.say(session, "aside")["sequence"] == 4
    assert api.reads(f"sessions/{session['id']}/runs/{run['id']}")["status"] == "running"


# ----------------------------------------------------------------------------------------------------- streams, by WSGI


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "application/json"])
def test_question_to_be_streamed_needs_an_asgi_server_and_nothing_is_stored(accept, api, session):
    path, body = f"sessions/{session['id']}/messages", {"content": "hello", "delivery": "stream", "external_id": "e"}
    problem(api.post(path, body, Accept=accept), 406, "not_acceptable")
    assert (types(api, session), listed(api, session)["results"]) == (["session.created"], [])
    assert api.post(path, {**body, "delivery": "background"}).status_code == 202


def test_stream_needs_an_asgi_server_and_says_what_does_without(api, session):
    for headers in ({}, {"Accept": "text/event-stream"}, {"Last-Event-ID": "1"}):
        told = problem(api.get(f"sessions/{session['id']}/stream", **headers), 406, "not_acceptable")
        assert "events?wait=" in told["detail"]
    over(api, session, "ended")
    problem(api.get(f"sessions/{session['id']}/stream"), 406, "not_acceptable")


@pytest.mark.parametrize("place", ["x", "1.", ".1", "-1", "1.2.3", "1e3", "1 ", "+1", "1" * 40])
def test_malformed_place_in_a_stream_is_refused_and_the_header_wins(place, api, session):
    path = f"sessions/{session['id']}/stream"
    for given, other in (("after", ""), ("Last-Event-ID", "?after=1")):
        query, headers = (f"?after={place.replace('+', '%2B').replace(' ', '%20')}", {}) if not other else (other, {})
        headers = {"Last-Event-ID": place} if other else headers
        assert problem(api.get(path + query, **headers), 400, "invalid_request")["errors"].keys() == {given}
    problem(api.get(f"{path}?after={place.strip()}x", **{"Last-Event-ID": "1.2"}), 406, "not_acceptable")


@pytest.mark.django_db(transaction=True)
def test_long_polling_brings_the_answer_where_there_is_no_stream(api, speaker):
    session = api.open(agent=speaker.name)
    last = ask(api, session, delivery="background")["message"]["sequence"]
    speaker.may_finish.set()
    seen, until = [], time.monotonic() + 20
    while "run.succeeded" not in seen and time.monotonic() < until:
        page = api.reads(f"sessions/{session['id']}/events?after={last}&wait=5")
        seen += [event["type"] for event in page["events"]]
        last = page["cursors"]["after"] or last
    assert seen == ["run.started", "message", "run.succeeded"]
