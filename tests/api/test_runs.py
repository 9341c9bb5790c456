"""The routes of runs, line by line of the contract."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from django_chat_sessions.agents import Price, Usage
from django_chat_sessions.models import Run
from django_chat_sessions.operations import verification

from .conftest import problem, row
from .running import again, ask, cancel, events, listed, over, texts, types

pytestmark = pytest.mark.django_db

FIELDS = [
    "id", "status", "error", "input_sequence", "output_sequence", "created_at", "started_at", "first_token_at",
    "finished_at", "attempt", "input_tokens", "output_tokens", "cost",
]  # fmt: skip


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
