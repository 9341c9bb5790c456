"""The routes of messages and events, line by line of the contract."""

from __future__ import annotations

import pytest
from django.test import override_settings

from django_chat_sessions.choices import RunStatus
from django_chat_sessions.models import Run
from django_chat_sessions.testing import age, say

from .conftest import problem, row

pytestmark = pytest.mark.django_db

KEYS = set(
    "sequence external_id role content parts metadata run token_count created_at edited_at".split()  # noqa: SIM905
)
RUN = (
    "id status error input_sequence output_sequence created_at started_at first_token_at finished_at attempt"
    " input_tokens output_tokens cost"
)


# -------------------------------------------------------------------------------------------------------------- posting


def test_stored_message_looks_as_the_contract_says(api):
    session = api.open()
    response = api.post(f"sessions/{session['id']}/messages", {"content": "hello"})
    assert response.status_code == 201
    assert response.json().keys() == {"message", "session"}
    message = response.json()["message"]
    assert message.keys() == KEYS
    assert (message["sequence"], message["role"], message["content"]) == (2, "user", "hello")
    assert (message["parts"], message["metadata"], message["edited_at"], message["run"]) == ([], {}, None, None)
    assert response["ETag"] == '"2"'
    read = response.json()["session"]
    assert (read["status"], read["message_count"], read["last_sequence"]) == ("active", 1, 2)
    assert api.reads(f"sessions/{session['id']}/messages/2") == message


def test_waiting_answers_with_reply_and_run(api):
    session = api.open(agent="count")
    response = api.post(f"sessions/{session['id']}/messages", {"content": "hello"})
    assert response.status_code == 201
    body = response.json()
    assert body.keys() == {"message", "session", "reply", "run"}
    assert (body["reply"]["role"], body["reply"]["content"]) == ("assistant", "1")
    assert body["reply"]["run"] == body["run"]["id"]
    assert " ".join(body["run"]) == RUN
    assert body["run"]["status"] == "succeeded"
    assert body["run"]["input_sequence"] == body["message"]["sequence"] == 2
    assert body["run"]["output_sequence"] == body["reply"]["sequence"]
    assert body["session"]["last_sequence"] == int(response["ETag"].strip('"'))
    assert api.reads(f"sessions/{session['id']}/state")["state"] == {"asked": 1}
    assert api.reads(f"sessions/{session['id']}/messages")["messages"] == [body["message"], body["reply"]]


def test_of_several_replies_the_last_is_told(api):
    session = api.open(agent="several")
    body = api.post(f"sessions/{session['id']}/messages", {"content": "x"}).json()
    assert body["reply"]["content"] == "Second."
    assert body["session"]["message_count"] == 3


def test_storing_alone_asks_no_agent(api):
    session = api.open(agent="echo")
    response = api.post(f"sessions/{session['id']}/messages", {"content": "hello", "delivery": "store"})
    assert response.json().keys() == {"message", "session"}
    assert not Run.objects.exists()


def test_waiting_for_an_agent_that_only_stores_is_refused(api):
    session = api.open()
    told = problem(
        api.post(f"sessions/{session['id']}/messages", {"content": "x", "delivery": "wait"}), 400, "invalid_request"
    )
    assert told["errors"].keys() == {"delivery"}
    assert api.reads(f"sessions/{session['id']}")["message_count"] == 0


def test_agent_that_fails_is_502_and_the_question_is_stored(api):
    session = api.open(agent="failing")
    path = f"sessions/{session['id']}/messages"
    told = problem(api.post(path, {"content": "hello", "external_id": "e"}), 502, "agent_failed")
    assert (told["message"]["content"], told["message"]["sequence"]) == ("hello", 2)
    assert (told["run"]["status"], told["run"]["output_sequence"]) == ("failed", None)
    assert "on purpose" not in str(told)
    assert api.reads(path)["messages"] == [told["message"]]
    again = api.post(path, {"content": "hello", "external_id": "e"})
    assert (again.status_code, again.json()["reply"]) == (200, None)
    assert again.json()["run"]["id"] == told["run"]["id"]


def test_agent_that_cannot_answer_now_is_503_and_nothing_is_stored(api):
    session = api.open(agent="unavailable")
    path = f"sessions/{session['id']}/messages"
    problem(api.post(path, {"content": "hello"}), 503, "agent_unavailable")
    assert api.reads(path)["messages"] == []
    assert api.post(path, {"content": "hello", "delivery": "store"}).status_code == 201


def test_question_during_an_answer_is_409_and_not_stored(api):
    session = api.open(agent="echo")
    path = f"sessions/{session['id']}/messages"
    run = api.post(path, {"content": "first"}).json()["run"]["id"]
    Run.objects.update(status=RunStatus.RUNNING, expires_at=row(session).expires_at)
    told = problem(api.post(path, {"content": "second"}), 409, "run_in_progress")
    assert told["run"] == run
    problem(api.post(path, {"content": "second"}, If_Match='"1"'), 412, "sequence_conflict")
    assert api.post(path, {"content": "aside", "delivery": "store"}).status_code == 201


@pytest.mark.parametrize("delivery", ["later", "", None, 5, ["store"]])
def test_unknown_delivery_is_refused(delivery, api):
    session = api.open()
    body = {"content": "x", "delivery": delivery}
    told = problem(api.post(f"sessions/{session['id']}/messages", body), 400, "invalid_request")
    assert told["errors"].keys() == {"delivery"}


def test_text_of_parts_is_the_content_where_none_came(api):
    session = api.open()
    parts = [
        {"type": "text", "text": "a"},
        {"type": "file", "url": "https://x/y.pdf", "media_type": "application/pdf", "name": "y"},
        {"type": "text", "text": "b"},
        {"type": "mine", "anything": [1]},
    ]
    message = api.post(f"sessions/{session['id']}/messages", {"parts": parts}).json()["message"]
    assert (message["content"], message["parts"]) == ("ab", parts)
    both = api.post(f"sessions/{session['id']}/messages", {"content": "c", "parts": parts}).json()["message"]
    assert (both["content"], both["parts"]) == ("c", parts)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ("x", "parts"),
        ([5], "parts.0"),
        ([{"text": "x"}], "parts.0.type"),
        ([{"type": "text"}], "parts.0.text"),
        ([{"type": "mine"}, {"type": "file", "url": 5}], "parts.1.url"),
        ([{"type": ""}], "parts.0.type"),
    ],
)
def test_wrong_part_is_named(parts, name, api):
    session = api.open()
    told = problem(api.post(f"sessions/{session['id']}/messages", {"parts": parts}), 400, "invalid_request")
    assert told["errors"].keys() == {name}


@pytest.mark.parametrize("body", [{}, {"content": ""}, {"parts": []}, {"content": "", "parts": []}, {"content": None}])
def test_message_has_to_say_something(body, api):
    session = api.open()
    told = problem(api.post(f"sessions/{session['id']}/messages", body), 400, "invalid_request")
    assert told["errors"].keys() == {"content"}


def test_message_that_is_too_long_is_refused_with_the_limit(api):
    path = f"sessions/{api.open()['id']}/messages"
    assert api.post(path, {"content": "é" * 32_768}).status_code == 201
    assert problem(api.post(path, {"content": "x" * 32_769}), 400, "message_too_long")["limit"] == 32_768
    parts = [{"type": "text", "text": "x" * 262_145}]
    assert problem(api.post(path, {"content": "x", "parts": parts}), 400, "message_too_long")["limit"] == 262_144
    body = {"content": "x", "metadata": {"a": "x" * 17_000}}
    assert problem(api.post(path, body), 400, "metadata_too_large")["limit"] == 16_384


def test_session_takes_as_many_messages_as_the_settings_allow(api):
    session = api.open()
    api.say(session, "one")
    with override_settings(CHAT_SESSIONS={"MAX_MESSAGES": 1}):
        told = problem(api.post(f"sessions/{session['id']}/messages", {"content": "two"}), 409, "message_limit_reached")
    assert told["limit"] == 1


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
def test_other_roles_need_a_permission(role, api, privileged):
    session = api.open()
    body = {"content": "x", "role": role}
    problem(api.post(f"sessions/{session['id']}/messages", body), 403, "permission_denied")
    assert api.reads(f"sessions/{session['id']}")["message_count"] == 0
    assert privileged.say(privileged.open(), "x", role=role)["role"] == role


# -------------------------------------------------------------------------------------------------------------- repeats


@pytest.mark.parametrize("by", ["external_id", "Idempotency-Key"])
@pytest.mark.parametrize("agent", ["silent", "count"])
def test_repeat_is_answered_with_the_first_result_and_writes_nothing(by, agent, api):
    session = api.open(agent=agent)
    path = f"sessions/{session['id']}/messages"

    def post(**body):
        headers = {} if by == "external_id" else {by: "e"}
        return api.post(path, {"content": "hello", **({"external_id": "e"} if not headers else {}), **body}, **headers)

    first = post()
    again = [post(), post(delivery="store"), post(metadata={}), post(role="user")]
    assert [first.status_code, *(response.status_code for response in again)] == [201, 200, 200, 200, 200]
    assert {response.json()["message"]["sequence"] for response in again} == {first.json()["message"]["sequence"]}
    assert again[0].json()["message"] == first.json()["message"]
    assert first.json()["message"]["external_id"] == "e"
    assert again[0].json().get("reply") == first.json().get("reply")
    assert again[0].json().get("run") == first.json().get("run")
    assert again[0]["ETag"] == first["ETag"]
    for other in ({"content": "x"}, {"metadata": {"a": 1}}, {"parts": [{"type": "text", "text": "hello"}]}):
        problem(post(**other), 409, "external_id_conflict")


@pytest.mark.parametrize("end", ["ended", "expired"])
def test_repeat_is_answered_after_the_session_is_over(end, api):
    session = api.open(agent="count")
    path = f"sessions/{session['id']}"
    body = {"content": "hello", "external_id": "e"}
    first = api.post(f"{path}/messages", body)
    api.post(f"{path}/end") if end == "ended" else age(row(session), days=1)
    again = api.post(f"{path}/messages", body)
    assert (again.status_code, again.json()["session"]["status"]) == (200, end)
    assert again.json()["message"] == first.json()["message"] or end == "expired"
    assert again.json()["reply"]["content"] == "1"
    assert api.post(f"{path}/messages", {**body, "delivery": "store"}).status_code == 200
    status, code = (409, "session_ended") if end == "ended" else (410, "session_expired")
    problem(api.post(f"{path}/messages", {"content": "hello", "external_id": "f"}), status, code)


def test_repeat_of_an_edited_message_counts_by_what_was_sent(api):
    session = api.open()
    path = f"sessions/{session['id']}/messages"
    api.say(session, "hello", external_id="e")
    api.patch(f"{path}/2", {"content": "edited"})
    again = api.post(path, {"content": "hello", "external_id": "e"})
    assert (again.status_code, again.json()["message"]["content"]) == (200, "edited")
    problem(api.post(path, {"content": "edited", "external_id": "e"}), 409, "external_id_conflict")
    api.delete(f"{path}/2")
    problem(api.post(path, {"content": "hello", "external_id": "e"}), 409, "external_id_conflict")


def test_repeat_in_a_role_that_needs_a_permission_writes_nothing_and_is_answered(api):
    session = api.open()
    say(row(session), "be kind", role="system", external_id="e")
    body = {"content": "be kind", "role": "system", "external_id": "e"}
    again = api.post(f"sessions/{session['id']}/messages", body)
    assert (again.status_code, again.json()["message"]["sequence"]) == (200, 2)


def test_same_name_in_another_session_is_no_repeat(api):
    first, second = api.open(), api.open()
    assert api.say(first, "hello", external_id="e")["content"] == "hello"
    assert api.say(second, "other", external_id="e")["content"] == "other"


def test_names_have_their_limit(api):
    path = f"sessions/{api.open()['id']}/messages"
    for body, headers in (
        ({"external_id": "x" * 201}, {}),
        ({}, {"Idempotency-Key": "x" * 201}),
        ({"external_id": ""}, {}),
    ):
        told = problem(api.post(path, {"content": "x", **body}, **headers), 400, "invalid_request")
        assert told["errors"].keys() == {"external_id"}
    assert api.post(path, {"content": "x", "external_id": "x" * 200}).status_code == 201
    assert api.post(path, {"content": "x", "external_id": None}).status_code == 201


# ------------------------------------------------------------------------------------------------ reading and revising


@pytest.fixture
def ten(api):
    """Give a session with ten messages, sequences 2 to 11."""
    session = api.open()
    for number in range(2, 12):
        say(row(session), f"number {number}")
    return f"sessions/{session['id']}"


PAGES = [
    ("", [*range(2, 12)], False),
    ("limit=3", [9, 10, 11], True),
    ("before=9&limit=3", [6, 7, 8], True),
    ("before=4&limit=3", [2, 3], False),
    ("before=5&limit=3", [2, 3, 4], False),
    ("after=2&limit=3", [3, 4, 5], True),
    ("after=8&limit=3", [9, 10, 11], False),
    ("after=0&limit=2", [2, 3], True),
    ("after=11", [], False),
    ("before=2", [], False),
    ("after=3&before=6", [4, 5], False),
    ("after=3&before=9&limit=2", [7, 8], True),
    ("after=9&before=3", [], False),
    ("after=500", [], False),
    ("before=9223372036854775807&limit=1", [11], True),
]


@pytest.mark.parametrize(("query", "sequences", "has_more"), PAGES)
def test_page_of_messages_is_oldest_first_and_looks_in_the_direction_walked(query, sequences, has_more, ten, api):
    page = api.reads(f"{ten}/messages?{query}")
    assert list(page) == ["messages", "has_more", "cursors"]
    assert [message["sequence"] for message in page["messages"]] == sequences
    assert page["has_more"] is has_more
    ends = {"before": sequences[0], "after": sequences[-1]} if sequences else {"before": None, "after": None}
    assert page["cursors"] == ends


@pytest.mark.parametrize(("query", "sequences", "has_more"), [page for page in PAGES if "0&" not in page[0]])
def test_page_of_events_is_a_page_like_any_other(query, sequences, has_more, ten, api):
    page = api.reads(f"{ten}/events?type=message&{query}")
    assert [event["sequence"] for event in page["events"]] == sequences
    assert [event["data"]["sequence"] for event in page["events"]] == sequences
    assert page["has_more"] is has_more


def test_walking_either_way_meets_every_message_once_while_others_arrive(ten, api):
    session = {"id": ten.partition("/")[2]}
    met: list[int] = []
    cursor = ""
    while True:
        page = api.reads(f"{ten}/messages?limit=3{cursor}")
        met = [message["sequence"] for message in page["messages"]] + met
        api.say(session, "meanwhile")
        if not page["has_more"]:
            break
        cursor = f"&before={page['cursors']['before']}"
    assert met == list(range(2, 12))
    forward, cursor = [], 0
    while True:
        page = api.reads(f"{ten}/messages?limit=3&after={cursor}")
        forward += [message["sequence"] for message in page["messages"]]
        if not page["has_more"]:
            break
        cursor = page["cursors"]["after"]
    assert forward == sorted(set(forward))
    assert set(met) < set(forward)


def test_edited_message_keeps_its_place_and_says_when(ten, api):
    response = api.patch(f"{ten}/messages/5", {"content": "edited"})
    assert response.status_code == 200
    message = response.json()
    assert (message["sequence"], message["content"]) == (5, "edited")
    assert message["edited_at"].endswith("Z")
    page = api.reads(f"{ten}/messages")["messages"]
    assert [item["sequence"] for item in page] == list(range(2, 12))
    assert page[3] == message == api.reads(f"{ten}/messages/5")
    event = api.reads(f"{ten}/events?after=11")["events"][0]
    assert (event["type"], event["sequence"], event["data"]) == ("message.edited", 12, message)
    assert api.reads(ten)["message_count"] == 10
    problem(api.get(f"{ten}/messages/12"), 404, "message_not_found")


def test_withdrawn_message_leaves_a_tombstone_and_no_content(ten, api):
    api.patch(f"{ten}/messages/5", {"content": "edited secret"})
    assert api.delete(f"{ten}/messages/5").status_code == 204
    for method, body in (("get", None), ("patch", {"content": "x"}), ("delete", None)):
        problem(api.call(method, f"{ten}/messages/5", body), 404, "message_not_found")
    assert 5 not in [message["sequence"] for message in api.reads(f"{ten}/messages")["messages"]]
    everything = api.get(f"{ten}/events?limit=100").content.decode() + api.get(f"{ten}/export").content.decode()
    assert "number 5" not in everything
    assert "edited secret" not in everything
    last = api.reads(f"{ten}/events")["events"][-1]
    assert (last["type"], last["data"]) == ("message.deleted", {"sequence": 5})
    assert api.reads(ten)["message_count"] == 9


def test_only_ones_own_messages_can_be_revised(api):
    session = api.open(agent="echo")
    path = f"sessions/{session['id']}/messages"
    reply = api.post(path, {"content": "hello"}).json()["reply"]["sequence"]
    problem(api.patch(f"{path}/{reply}", {"content": "x"}), 403, "permission_denied")
    problem(api.delete(f"{path}/{reply}"), 403, "permission_denied")
    problem(api.patch(f"{path}/1", {"content": "x"}), 404, "message_not_found")


@pytest.mark.parametrize("body", [{}, {"content": ""}, {"content": None}, {"content": "x", "role": "user"}])
def test_edit_takes_a_content_and_nothing_else(body, ten, api):
    problem(api.patch(f"{ten}/messages/5", body), 400, "invalid_request")
