"""The routes of runs, line by line of the contract."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from django_chat_sessions.agents import Price, Usage
from django_chat_sessions.choices import Delivery
from django_chat_sessions.models import Run
from django_chat_sessions.operations import verification
from django_chat_sessions.testing import age

from .conftest import Caller, problem, row

pytestmark = pytest.mark.django_db

FIELDS = [
    "id", "status", "error", "input_sequence", "output_sequence", "created_at", "started_at", "first_token_at",
    "finished_at", "attempt", "input_tokens", "output_tokens", "cost",
]  # fmt: skip


def ask(api, session, text="hello", **fields):
    """Ask a question, and return the whole answer."""
    response = api.post(f"sessions/{session['id']}/messages", {"content": text, **fields})
    assert response.status_code in {201, 202}, response.content
    return response.json()


def again(api, session, body=None, **headers):
    return api.post(f"sessions/{session['id']}/runs", body, **headers)


def listed(api, session, query=""):
    return api.reads(f"sessions/{session['id']}/runs{query}")


def events(api, session, after=0):
    return api.reads(f"sessions/{session['id']}/events?after={after}&limit=100")["events"]


def types(api, session, after=0):
    return [event["type"] for event in events(api, session, after)]


def texts(api, session):
    return [message["content"] for message in api.reads(f"sessions/{session['id']}/messages")["messages"]]


@pytest.fixture
def session(api):
    """Return a session whose agent says how often it was asked."""
    return api.open(agent="count")


@pytest.fixture
def queued(api, session):
    """Return a run that nobody has begun: the test's transaction is not committed."""
    return ask(api, session, delivery="background")["run"]


# -------------------------------------------------------------------------------------------------------------- reading


def test_finished_run_looks_as_the_contract_says(api, session):
    told = ask(api, session)
    response = api.get(f"sessions/{session['id']}/runs/{told['run']['id']}")
    assert response.status_code == 200
    run = response.json()
    assert list(run) == FIELDS
    assert run == told["run"]
    assert UUID(run["id"]).version == 4
    assert (run["status"], run["error"], run["attempt"]) == ("succeeded", None, 1)
    assert (run["input_sequence"], run["output_sequence"]) == (2, told["reply"]["sequence"])
    instants = [run[name] for name in ("created_at", "started_at", "finished_at")]
    assert all(instant.endswith("Z") for instant in instants)
    assert instants == sorted(instants)
    assert (run["input_tokens"], run["output_tokens"], run["cost"]) == (None, None, None)
    assert api.get(f"sessions/{session['id']}/runs/{run['id'].upper()}/").json() == run


def test_queued_run_has_neither_begun_nor_said_anything(api, session, queued):
    assert list(queued) == FIELDS
    assert (queued["status"], queued["attempt"], queued["input_sequence"]) == ("queued", 1, 2)
    empty = ("error", "output_sequence", "started_at", "first_token_at", "finished_at", "input_tokens", "cost")
    assert [queued[name] for name in empty] == [None] * len(empty)
    assert api.reads(f"sessions/{session['id']}/runs/{queued['id']}") == queued


def test_failed_run_names_the_error_and_tells_no_more_of_it(api):
    session = api.open(agent="failing_midway")
    told = problem(api.post(f"sessions/{session['id']}/messages", {"content": "x"}), 502, "agent_failed")
    run = listed(api, session)["results"][0]
    assert run == told["run"]
    assert (run["status"], run["error"], run["output_sequence"]) == ("failed", "Broken", 4)
    assert "on purpose" not in str((told, events(api, session)))
    kept = api.reads(f"sessions/{session['id']}/messages/4")
    assert (kept["content"], kept["metadata"], kept["run"]) == ("So far ", {"cut_short": "failed"}, run["id"])


def test_tokens_and_cost_are_on_the_run_and_counted_on_the_session(api, agent):
    def respond(turn):
        yield "answer"
        yield Usage(1_000, 200)

    session = api.open(agent=agent(respond, price=Price(Decimal(3), Decimal(15))))
    told = ask(api, session)
    assert (told["run"]["input_tokens"], told["run"]["output_tokens"]) == (1_000, 200)
    assert Decimal(told["run"]["cost"]) == Decimal("0.006")
    assert told["session"]["token_count"] == 1_200
    assert listed(api, session)["results"] == [told["run"]]


def test_runs_are_listed_latest_first(api, session):
    made = [ask(api, session, str(number))["run"] for number in range(3)]
    assert listed(api, session) == {"results": made[::-1], "next": None}
    assert listed(api, api.open(agent="count")) == {"results": [], "next": None}


def test_pages_of_runs_put_together_are_the_whole_list_while_more_are_made(api, session):
    made = [ask(api, session, str(number))["run"]["id"] for number in range(5)]
    met, cursor = [], ""
    while cursor is not None:
        page = listed(api, session, f"?limit=2{cursor and f'&cursor={cursor}'}")
        assert page.keys() == {"results", "next"}
        met += [run["id"] for run in page["results"]]
        cursor = page["next"]
        ask(api, session, "meanwhile")
    assert met == made[::-1]


def test_last_page_of_runs_has_no_cursor_though_it_is_full(api, session):
    made = [ask(api, session, str(number))["run"]["id"] for number in range(4)]
    first = listed(api, session, "?limit=2")
    second = listed(api, session, f"?limit=2&cursor={first['next']}")
    assert [run["id"] for run in second["results"]] == made[1::-1]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *((f"limit={limit}", "limit") for limit in ("0", "101", "-1", "x", "1.5", "")),
        *((f"cursor={cursor}", "cursor") for cursor in ("x", "", "AAAA", "%00", "é", "1", "AAAAAAAAAAAAAAAAAAAAAA==")),
    ],
)
def test_wrong_page_of_runs_is_refused(query, name, api, session):
    told = problem(api.get(f"sessions/{session['id']}/runs?{query}"), 400, "invalid_request")
    assert told["errors"].keys() == {name}


def test_unknown_query_of_runs_is_ignored(api, session):
    assert listed(api, session, "?status=failed&format=sse&limit=100") == {"results": [], "next": None}


@pytest.mark.parametrize("name", ["x", "1", "0", "%00", "%0A", "a" * 300, "{00000000-0000-4000-8000-000000000000}"])
def test_run_that_never_was_is_not_found(name, api, session):
    ask(api, session)
    for run in (name, uuid4()):
        problem(api.get(f"sessions/{session['id']}/runs/{run}"), 404, "run_not_found")
        problem(api.post(f"sessions/{session['id']}/runs/{run}/cancel"), 404, "run_not_found")


@pytest.mark.parametrize("end", ["ended", "expired"])
def test_runs_of_a_session_that_is_over_stay_readable(end, api, session):
    run = ask(api, session)["run"]
    over(api, session, end)
    read = api.reads(f"sessions/{session['id']}/runs/{run['id']}")
    assert (read["id"], read["status"]) == (run["id"], "succeeded")
    assert listed(api, session) == {"results": [read], "next": None}


def over(api, session, end):
    if end == "ended":
        assert api.post(f"sessions/{session['id']}/end").status_code == 200
    else:
        age(row(session), days=1)


def test_runs_go_with_their_session(api, session, queued):
    assert api.delete(f"sessions/{session['id']}").status_code == 204
    for path in ("runs", f"runs/{queued['id']}"):
        problem(api.get(f"sessions/{session['id']}/{path}"), 404, "session_not_found")
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [("put", "runs"), ("delete", "runs"), ("patch", "runs/{}"), ("delete", "runs/{}"), ("get", "runs/{}/cancel"),
     ("post", "stream"), ("delete", "stream")],
)  # fmt: skip
def test_other_methods_are_refused(method, path, api, session, queued):
    response = api.call(method, f"sessions/{session['id']}/{path.format(queued['id'])}")
    problem(response, 405, "method_not_allowed")


# ------------------------------------------------------------------------------------------------------ answering again


@pytest.mark.parametrize("body", [None, {}, {"delivery": "wait"}, {"input_sequence": None}, {"input_sequence": 2}])
def test_last_question_is_answered_again_and_the_old_answer_superseded(body, api, session):
    first = ask(api, session)
    response = again(api, session, body)
    assert response.status_code == 201
    told = response.json()
    assert list(told) == ["message", "reply", "run", "session"]
    assert told["message"] == first["message"]
    assert (told["reply"]["content"], told["reply"]["run"]) == ("2", told["run"]["id"])
    assert told["run"]["id"] != first["run"]["id"]
    assert (told["run"]["status"], told["run"]["input_sequence"]) == ("succeeded", 2)
    assert told["session"]["message_count"] == 2
    assert response["ETag"] == f'"{told["session"]["last_sequence"]}"'
    assert texts(api, session) == ["hello", "2"]
    problem(api.get(f"sessions/{session['id']}/messages/{first['reply']['sequence']}"), 404, "message_not_found")
    begun = next(event for event in events(api, session, 6) if event["type"] == "run.started")
    assert begun["data"]["supersedes"] == [first["reply"]["sequence"]]
    assert listed(api, session)["results"] == [told["run"], first["run"]]
    assert verification.verify(row(session)) == []


def test_earlier_question_is_answered_again_in_its_place(api, session):
    first, second = ask(api, session, "a"), ask(api, session, "b")
    told = again(api, session, {"input_sequence": first["message"]["sequence"]}).json()
    assert told["message"] == first["message"]
    assert texts(api, session) == ["a", "3", "b", "2"]
    assert told["reply"] == api.reads(f"sessions/{session['id']}/messages/{told['reply']['sequence']}")
    assert second["reply"] in api.reads(f"sessions/{session['id']}/messages")["messages"]


def test_failed_answer_can_be_asked_for_again(api, agent):
    failures = [ValueError(), None]

    def respond(turn):
        if (failure := failures.pop(0)) is not None:
            raise failure
        return "at last"

    session = api.open(agent=agent(respond))
    failed = problem(api.post(f"sessions/{session['id']}/messages", {"content": "x"}), 502, "agent_failed")
    told = again(api, session).json()
    assert (told["message"], told["reply"]["content"]) == (failed["message"], "at last")
    assert [run["status"] for run in listed(api, session)["results"]] == ["succeeded", "failed"]


def test_answer_that_fails_again_is_502_with_question_and_run(api):
    session = api.open(agent="failing")
    first = problem(api.post(f"sessions/{session['id']}/messages", {"content": "x"}), 502, "agent_failed")
    told = problem(again(api, session), 502, "agent_failed")
    assert told["message"] == first["message"]
    assert told["run"] == listed(api, session)["results"][0] != first["run"]


def test_answering_again_in_the_background_queues_a_run(api, session):
    first = ask(api, session)
    response = again(api, session, {"delivery": "background"})
    assert response.status_code == 202
    told = response.json()
    assert list(told) == ["message", "run", "session"]
    assert (told["message"], told["run"]["status"]) == (first["message"], "queued")
    assert listed(api, session)["results"] == [told["run"], first["run"]]
    # What it supersedes stays until it begins.
    assert texts(api, session) == ["hello", "1"]


def test_answering_again_as_a_stream_needs_an_asgi_server(api, session):
    ask(api, session)
    before = listed(api, session)
    problem(again(api, session, {"delivery": "stream"}), 406, "not_acceptable")
    problem(again(api, session, {"delivery": "stream"}, Accept="text/event-stream"), 406, "not_acceptable")
    assert listed(api, session) == before


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"delivery": "store"}, {"delivery"}),
        ({"delivery": None}, {"delivery"}),
        ({"delivery": 5}, {"delivery"}),
        ({"unknown": 1}, {"unknown"}),
        ({"content": "hello"}, {"content"}),
        ({"input_sequence": 0}, {"input_sequence"}),
        ({"input_sequence": "2"}, {"input_sequence"}),
        ({"input_sequence": True}, {"input_sequence"}),
        ({"input_sequence": 2**70}, {"input_sequence"}),
        ({"delivery": "later", "input_sequence": -1, "x": 1}, {"delivery", "input_sequence", "x"}),
        ([], {"body"}),
        ("wait", {"body"}),
    ],
)
def test_wrong_body_of_a_run_is_refused_with_all_that_is_wrong(body, names, api, session):
    ask(api, session)
    told = problem(again(api, session, body), 400, "invalid_request")
    assert told["errors"].keys() == names
    assert len(listed(api, session)["results"]) == 1


@pytest.mark.parametrize("sequence", [1, 3, 4, 999, 2**63 - 1])
def test_only_a_question_can_be_answered_again(sequence, api, session):
    ask(api, session)
    told = problem(again(api, session, {"input_sequence": sequence}), 400, "invalid_request")
    assert told["errors"].keys() == {"input_sequence"}
    assert len(listed(api, session)["results"]) == 1


def test_where_nothing_was_asked_nothing_is_answered_again(api, session):
    assert problem(again(api, session), 400, "invalid_request")["errors"].keys() == {"input_sequence"}
    ask(api, session)
    assert api.delete(f"sessions/{session['id']}/messages/2").status_code == 204
    for body in ({}, {"input_sequence": 2}):
        assert problem(again(api, session, body), 400, "invalid_request")["errors"].keys() == {"input_sequence"}


@pytest.mark.parametrize("delivery", [None, "wait", "background", "stream"])
def test_agent_that_only_stores_answers_nothing_again(delivery, api):
    session = api.open()
    api.say(session, "hello")
    body = {"delivery": delivery} if delivery else {}
    assert problem(again(api, session, body), 400, "invalid_request")["errors"].keys() == {"delivery"}


@pytest.mark.parametrize("delivery", ["wait", "background"])
def test_unavailable_agent_answers_nothing_again_and_nothing_is_written(delivery, api):
    session = api.open(agent="unavailable")
    api.say(session, "hello")
    problem(again(api, session, {"delivery": delivery}), 503, "agent_unavailable")
    assert types(api, session) == ["session.created", "message"]
    assert listed(api, session)["results"] == []


def test_answering_again_keeps_to_if_match(api, session):
    last = ask(api, session)["session"]["last_sequence"]
    assert problem(again(api, session, If_Match='"2"'), 412, "sequence_conflict")["last_sequence"] == last
    assert again(api, session, If_Match=f'"{last}"').status_code == 201


# ----------------------------------------------------------------------------------------------------------- cancelling


def cancel(api, session, run, body=None, **headers):
    return api.post(f"sessions/{session['id']}/runs/{run['id']}/cancel", body, **headers)


def test_queued_run_is_cancelled_and_the_session_can_be_asked_again(api, session, queued):
    response = cancel(api, session, queued)
    assert response.status_code == 202
    run = response.json()
    changed = {"status": "cancelled", "finished_at": run["finished_at"]}
    assert run == {**queued, **changed}
    assert datetime.fromisoformat(run["finished_at"]) >= datetime.fromisoformat(run["created_at"])
    assert api.reads(f"sessions/{session['id']}/runs/{run['id']}") == run
    last = events(api, session)[-1]
    assert (last["type"], last["data"]) == ("run.cancelled", {"run": run["id"], "output_sequence": None})
    assert texts(api, session) == ["hello"]
    assert ask(api, session, "next")["reply"]["content"] == "1"
    assert ask(api, session, "after", delivery="background")["run"]["status"] == "queued"
    assert verification.verify(row(session)) == []


@pytest.mark.parametrize("agent_name", ["count", "failing"])
def test_finished_run_is_cancelled_without_a_change(agent_name, api):
    session = api.open(agent=agent_name)
    api.post(f"sessions/{session['id']}/messages", {"content": "x"})
    run = listed(api, session)["results"][0]
    before = events(api, session)
    for _ in range(2):
        response = cancel(api, session, run)
        assert (response.status_code, response.json()) == (202, run)
    assert events(api, session) == before


def test_cancelling_twice_changes_nothing_more(api, session, queued):
    first = cancel(api, session, queued).json()
    before = events(api, session)
    again_ = cancel(api, session, queued)
    assert (again_.status_code, again_.json()) == (202, first)
    assert events(api, session) == before


@pytest.mark.parametrize("end", ["ended", "expired"])
def test_finished_run_of_a_session_that_is_over_is_cancelled_without_a_change(end, api, session):
    run = ask(api, session)["run"]
    over(api, session, end)
    run = api.reads(f"sessions/{session['id']}/runs/{run['id']}")
    response = cancel(api, session, run)
    assert (response.status_code, response.json()) == (202, run)


def test_cancelling_takes_no_body(api, session, queued):
    told = problem(cancel(api, session, queued, {"reason": "x"}), 400, "invalid_request")
    assert told["errors"].keys() == {"reason"}
    assert cancel(api, session, queued, {}).status_code == 202


def test_cancelling_keeps_to_if_match_unless_there_is_nothing_to_cancel(api, session, queued):
    assert problem(cancel(api, session, queued, If_Match='"1"'), 412, "sequence_conflict")["last_sequence"] == 2
    assert api.reads(f"sessions/{session['id']}/runs/{queued['id']}") == queued
    assert cancel(api, session, queued, If_Match='"2"').status_code == 202
    assert cancel(api, session, queued, If_Match='"2"').status_code == 202


def test_session_that_ends_cancels_what_is_queued(api, session, queued):
    api.post(f"sessions/{session['id']}/end")
    run = api.reads(f"sessions/{session['id']}/runs/{queued['id']}")
    assert (run["status"], run["output_sequence"]) == ("cancelled", None)
    assert types(api, session) == ["session.created", "message", "run.cancelled", "session.ended"]
    assert cancel(api, session, queued).json() == run


# ---------------------------------------------------------------------------------------------- in the middle of it all


@pytest.mark.django_db(transaction=True)
def test_running_answer_is_cancelled_and_what_it_said_is_kept(api, speaker):
    session = api.open(agent=speaker.name)
    run = ask(api, session, delivery="background")["run"]
    assert speaker.has_begun.wait(10)
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
    assert speaker.has_begun.wait(10)
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
    assert speaker.has_begun.wait(10)
    for delivery in ("wait", "background"):
        told = problem(api.post(path, {"content": "more", "delivery": delivery}), 409, "run_in_progress")
        assert told["run"] == run["id"]
        assert problem(again(api, session, {"delivery": delivery}), 409, "run_in_progress")["run"] == run["id"]
    assert texts(api, session) == ["hello"]
    assert api.say(session, "aside")["sequence"] == 4
    assert api.reads(f"sessions/{session['id']}/runs/{run['id']}")["status"] == "running"


# ----------------------------------------------------------------------------------------------------------- precedence


def test_authentication_comes_before_everything(session, api, queued):
    for path in (f"sessions/{session['id']}/runs", f"sessions/{session['id']}/runs/{queued['id']}/cancel"):
        problem(Caller().post(path, {"unknown": 1}, If_Match='"99"'), 401, "not_authenticated")
    for path in ("runs", f"runs/{queued['id']}", "stream"):
        problem(Caller().get(f"sessions/{session['id']}/{path}?limit=0&after=x"), 401, "not_authenticated")


def test_not_found_comes_before_what_is_wrong_with_the_call(api, session):
    never = uuid4()
    problem(api.post(f"sessions/{never}/runs", raw=b"{"), 404, "session_not_found")
    problem(api.get(f"sessions/{never}/runs?limit=0"), 404, "session_not_found")
    problem(api.get(f"sessions/{never}/stream?after=x"), 404, "session_not_found")
    for raw in (b"{", b'{"unknown": 1}', b"[]"):
        response = api.call("post", f"sessions/{session['id']}/runs/{never}/cancel", raw=raw, If_Match='"9"')
        problem(response, 404, "run_not_found")


def test_wrong_body_comes_before_the_end_of_the_session(api, session):
    run = ask(api, session)["run"]
    over(api, session, "ended")
    for body in ({"unknown": 1}, {"delivery": "store"}, {"input_sequence": 999}, {"input_sequence": 1}):
        problem(again(api, session, body), 400, "invalid_request")
    problem(cancel(api, session, run, {"unknown": 1}), 400, "invalid_request")


@pytest.mark.parametrize("delivery", [None, *(value for value in Delivery.values if value not in {"store", "stream"})])
@pytest.mark.parametrize(("end", "status"), [("ended", 409), ("expired", 410)])
def test_end_of_the_session_comes_before_if_match(end, status, delivery, api, session):
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


# ------------------------------------------------------------------------------------------------------ streams, by WSGI


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
    seen, until = [], datetime.now() + timedelta(seconds=20)
    while "run.succeeded" not in seen and datetime.now() < until:
        page = api.reads(f"sessions/{session['id']}/events?after={last}&wait=5")
        seen += [event["type"] for event in page["events"]]
        last = page["cursors"]["after"] or last
    assert seen == ["run.started", "message", "run.succeeded"]
