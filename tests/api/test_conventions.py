"""What holds for every call: errors, strings, numbers, bodies that nobody should send, and who is asked first."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pytest
from django.test import override_settings
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.exceptions import APIException
from rest_framework.throttling import SimpleRateThrottle

from django_chat_sessions import exceptions
from django_chat_sessions.api import errors
from django_chat_sessions.api.base import ChatViewSet

from .conftest import Caller, problem

pytestmark = pytest.mark.django_db


# ---------------------------------------------------------------------------------------------------------- the errors


def test_every_error_of_ours_has_a_status_and_a_code():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    assert below(exceptions.ChatSessionError) == set(errors.TABLE)


@pytest.mark.parametrize("slash", ["", "/"])
def test_every_call_is_answered_with_and_without_a_slash(slash, api):
    opened = api.post(f"sessions{slash}", {"agent": "silent"})
    assert opened.status_code == 201
    path = f"sessions/{opened.json()['id']}"
    assert api.get(f"{path}{slash}").status_code == 200
    assert api.post(f"{path}/messages{slash}", {"content": "hello"}).status_code == 201
    assert api.get(f"{path}/messages/2{slash}").status_code == 200
    assert api.get(f"sessions/health{slash}").status_code == 200


@pytest.mark.parametrize(
    "classes",
    [[SessionAuthentication], [SessionAuthentication, TokenAuthentication], [TokenAuthentication]],
    ids=["session", "session first", "token"],
)
def test_nobody_is_401_whatever_authentication_comes_first(classes, monkeypatch, db):
    monkeypatch.setattr(ChatViewSet, "authentication_classes", classes)
    response = Caller().get("sessions")
    problem(response, 401, "not_authenticated")
    assert (response.get("WWW-Authenticate") == "Token") == (TokenAuthentication in classes)


def test_wrong_token_is_401(db):
    problem(Caller().get("sessions", Authorization="Token wrong"), 401, "not_authenticated")


def test_method_that_a_route_does_not_know_is_405(api):
    response = api.call("put", "sessions")
    problem(response, 405, "method_not_allowed")
    assert set(response["Allow"].split(", ")) == {"GET", "POST", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/xml", "nonsense"])
def test_answer_in_no_acceptable_type_is_406(accept, api):
    problem(api.get("sessions", Accept=accept), 406, "not_acceptable")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/*", "application/json;indent=2", "text/html, */*;q=0.1"]
)
def test_answer_is_json_to_whoever_takes_it(accept, api):
    response = api.get("sessions", Accept=accept)
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


def test_whoever_accepts_problem_details_alone_gets_an_answer_as_what_it_is(api):
    assert api.get("sessions", Accept="application/problem+json")["Content-Type"] == "application/json"
    problem(api.get("sessions/x", Accept="application/problem+json"), 404, "session_not_found")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "x"])
def test_body_of_another_type_is_415(kind, api):
    problem(api.post("sessions", raw=b"title=x", content_type=kind), 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON;x=y"])
def test_json_by_any_of_its_names_is_taken(kind, api):
    assert api.post("sessions", raw=b'{"agent": "silent"}', content_type=kind).status_code == 201


def test_body_that_is_too_large_is_413(api):
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        problem(api.post("sessions", {"title": "x" * 1000}), 413, "payload_too_large")
        assert api.post("sessions", {"title": "x" * 100}).status_code == 201


def test_too_many_query_parameters_are_a_problem_like_any_other(api):
    problem(api.get("sessions?" + "&".join(f"a{n}=1" for n in range(1500))), 400, "invalid_request")


def test_throttled_caller_is_told_when_to_come_back(api, monkeypatch):
    class Throttle(SimpleRateThrottle):
        rate = "1/hour"

        def get_cache_key(self, request, view):
            return f"throttle-of-the-test-{request.user.pk}-{id(monkeypatch)}"

    monkeypatch.setattr(ChatViewSet, "throttle_classes", [Throttle])
    assert api.get("sessions").status_code == 200
    response = api.get("sessions")
    problem(response, 429, "throttled")
    assert 0 < int(response["Retry-After"]) <= 3601
    assert api.get("sessions/health").status_code == 200


def test_refusal_of_the_hosts_own_keeps_its_status_and_code(api, monkeypatch):
    class PaymentRequired(APIException):
        status_code, default_code, default_detail = 402, "payment_required", "Pay first."

    def refuse(self, request):
        raise PaymentRequired

    monkeypatch.setattr(ChatViewSet, "check_permissions", refuse)
    assert problem(api.get("sessions"), 402, "payment_required")["detail"] == "Pay first."


def test_what_is_nobodys_fault_but_the_servers_is_not_hidden(api, monkeypatch):
    monkeypatch.setattr(ChatViewSet, "check_throttles", lambda self, request: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        api.get("sessions")


def test_answers_are_kept_out_of_caches(api):
    session = api.open()
    for response in (api.get("sessions"), api.get(f"sessions/{session['id']}/export"), api.get("sessions/x")):
        assert response["Cache-Control"] == "private, no-store"


def test_unknown_query_parameters_are_ignored(api):
    assert api.reads("sessions?unknown=1&format=xml&limit=5") == {"results": [], "next": None}


def test_all_wrong_fields_are_named_at_once(api):
    body = {"unknown": 1, "title": 5, "tags": ["a", 5], "timeout": {"mode": "x", "y": 1}, "messages": [{"role": "x"}]}
    told = problem(api.post("sessions", body), 400, "invalid_request")["errors"]
    assert told.keys() == {
        "unknown",
        "title",
        "tags.1",
        "timeout.mode",
        "timeout.y",
        "messages.0.role",
        "messages.0.content",
    }
    assert all(isinstance(text, str) for texts in told.values() for text in texts)


def test_missing_and_unknown_fields_of_a_message_are_named_together(api):
    path = f"sessions/{api.open()['id']}/messages"
    assert problem(api.post(path, {"x": 1}), 400, "invalid_request")["errors"].keys() == {"x", "content"}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("heartbeat", "x"),
        ("renew", "x"),
        ("resume", "x"),
        ("end", "x"),
        ("fork", "x"),
        ("messages", "x"),
        ("events", "x"),
        ("heartbeat", "client"),
        ("end", "owner"),
    ],
)
def test_each_post_refuses_a_field_that_it_does_not_know(path, field, api):
    session = api.open()
    told = problem(api.post(f"sessions/{session['id']}/{path}", {field: 1}), 400, "invalid_request")
    assert field in told["errors"]
    assert api.reads(f"sessions/{session['id']}")["last_sequence"] == 1


@pytest.mark.parametrize("field", ["id", "status", "owner", "client", "created_at", "last_sequence", "is_held"])
def test_fields_of_a_session_that_are_not_the_callers_are_refused(field, api):
    assert field in problem(api.post("sessions", {field: "x"}), 400, "invalid_request")["errors"]
    session = api.open()
    assert field in problem(api.patch(f"sessions/{session['id']}", {field: "x"}), 400, "invalid_request")["errors"]


# -------------------------------------------------------------------------------------------- instants, ids and strings


def test_instants_are_utc_and_end_in_z(api):
    session = api.open()
    message = api.say(session, "hello")
    event = api.reads(f"sessions/{session['id']}/events")["events"][0]
    instants = [session["created_at"], session["last_activity_at"], session["expires_at"]]
    instants += [message["created_at"], event["created_at"], api.reads("sessions/health")["timestamp"]]
    for instant in instants:
        assert instant.endswith("Z")
        assert datetime.fromisoformat(instant).utcoffset().total_seconds() == 0


def test_public_ids_are_random_uuids(api):
    ids = [UUID(api.open()["id"]) for _ in range(3)]
    assert {id_.version for id_ in ids} == {4}
    assert len(set(ids)) == 3


STRINGS = [
    "  kept  ",
    "\n\t",
    "a\x00b",
    "\x00",
    "\ud800",
    "x\udfff\ud83d",
    "\ufdd0",
    "\ufdd00000",
    "😀",
    "\\u0000",
    "\u2028",
]


@pytest.mark.parametrize("text", STRINGS, ids=ascii)
def test_strings_come_back_as_sent(text, api):
    body = {"title": text, "application": text, "external_id": text, "tags": [text]}
    body |= {"metadata": {text: [text]}, "environment": {text: text}, "state": {text: {text: text}}}
    session = api.open(**body)
    path = f"sessions/{session['id']}"
    for read in (session, api.reads(path), api.reads("sessions")["results"][0]):
        assert {name: read[name] for name in body if name != "state"} == {n: v for n, v in body.items() if n != "state"}
    assert api.reads(f"{path}/state")["state"] == body["state"]
    said = {"content": text + ".", "external_id": text, "metadata": {text: text}, "parts": [{"type": text, text: text}]}
    message = api.say(session, **said)
    for read in (
        message,
        api.reads(f"{path}/messages/2"),
        api.reads(f"{path}/messages")["messages"][0],
        api.reads(f"{path}/events?after=1")["events"][0]["data"],
        api.reads(f"{path}/context")["messages"][0],
        api.reads(f"{path}/export")["messages"][0],
    ):
        assert {name: read[name] for name in said} == said
    event = api.post(f"{path}/events", {"type": "app.x", "data": {text: text}}).json()
    assert event["data"] == {text: text}
    assert api.post(f"{path}/end", {"reason": text}).json()["end_reason"] == text


def test_numbers_come_back_as_sent(api):
    numbers = {"zero": 0, "big": 10**30, "small": -(10**30), "real": 0.1, "tiny": 1e-300, "true": True, "null": None}
    session = api.open(metadata=numbers)
    read = api.reads(f"sessions/{session['id']}")["metadata"]
    assert read == numbers
    assert read["true"] is True


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1.5",
        "limit=x",
        "limit=",
        "limit=1_0",
        "limit=٣",
        "limit=" + "9" * 5000,
        *("before=-1", "after=-1", "before=9223372036854775808", "after=" + "9" * 10_000, "after=1e3"),
    ],
)
def test_number_out_of_range_is_refused_and_not_clamped(query, api):
    session = api.open()
    name = query.partition("=")[0]
    for path in ("messages", "events"):
        told = problem(api.get(f"sessions/{session['id']}/{path}?{query}"), 400, "invalid_request")
        assert told["errors"].keys() == {name}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "status=x", "status=", "cursor=x", "created_after=x", "cursor="]
)
def test_wrong_filter_of_a_list_is_refused_by_name(query, api):
    told = problem(api.get(f"sessions?{query}"), 400, "invalid_request")
    assert told["errors"].keys() == {query.partition("=")[0]}


@pytest.mark.parametrize("query", ["wait=-1", "wait=30.1", "wait=31", "wait=nan", "wait=inf", "wait=x", "wait=1e1"])
def test_waiting_out_of_range_is_refused(query, api):
    session = api.open()
    problem(api.get(f"sessions/{session['id']}/events?{query}"), 400, "invalid_request")


@pytest.mark.parametrize(
    "path", ["context?max_messages=0", "context?max_tokens=-5", "summary?tree=maybe", "export?as=pdf"]
)
def test_wrong_query_of_other_reads_is_refused(path, api):
    session = api.open()
    problem(api.get(f"sessions/{session['id']}/{path}"), 400, "invalid_request")


@pytest.mark.parametrize("value", ["5", 5.5, True, [], {}, 10**40, -1, 0])
def test_number_in_a_body_is_a_number_in_range(value, api):
    session = api.open()
    path = f"sessions/{session['id']}"
    problem(api.post(f"{path}/fork", {"at": value}), 400, "invalid_request")
    problem(api.post(f"{path}/resume", {"max_messages": value}), 400, "invalid_request")
