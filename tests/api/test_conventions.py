"""What holds for every call: errors, strings, numbers, bodies that nobody should send, and who is asked first."""

from __future__ import annotations

import json
import time
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from django.test import override_settings
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.exceptions import APIException
from rest_framework.settings import api_settings
from rest_framework.throttling import SimpleRateThrottle

from django_chat_sessions import exceptions
from django_chat_sessions.api import errors
from django_chat_sessions.api.base import ChatViewSet
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import age

from .conftest import Caller, problem

pytestmark = pytest.mark.django_db


def row(session) -> ChatSession:
    return ChatSession.objects.get(uuid=session["id"])


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


# ------------------------------------------------------------------------------------------- bodies nobody should send


HOSTILE = {
    "nothing but an opening": b"{",
    "a trailing comma": b'{"title": "x",}',
    "two values": b"{} {}",
    "words": b"hello",
    "nan": b'{"metadata": {"a": NaN}}',
    "infinity": b'{"metadata": {"a": -Infinity}}',
    "an infinite number": b'{"metadata": {"a": 1e999}}',
    "ten thousand digits": b'{"metadata": {"a": ' + b"9" * 10_000 + b"}}",
    "invalid UTF-8": b'{"title": "\xff\xfe"}',
    "an encoded surrogate": b'{"title": "\xed\xa0\x80"}',
    "UTF-16": '{"title": "x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"title": "x"}',
    "deep arrays": b'{"metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "unclosed arrays": b"[" * 200_000,
    "deep objects": b'{"metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
    "one level too many": b'{"metadata": ' + b'{"a":' * 101 + b"1" + b"}" * 102,
    "a raw control character": b'{"title": "a\x00b"}',
    "a list": b"[]",
    "a string": b'"x"',
    "a number": b"5",
    "null": b"null",
    "true": b"true",
    "white space": b"   ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_body_is_a_problem_and_never_a_failure(name, api):
    session = api.open()
    for method, path in (("post", "sessions"), ("post", f"sessions/{session['id']}/messages"),
                         ("patch", f"sessions/{session['id']}/state"), ("patch", f"sessions/{session['id']}")):  # fmt: skip
        problem(api.call(method, path, raw=HOSTILE[name]), 400, "invalid_request")
    assert api.reads(f"sessions/{session['id']}")["last_sequence"] == 1


def test_nesting_as_deep_as_allowed_comes_back(api):
    deep = {"a": 1}
    for _ in range(90):
        deep = {"a": deep}
    session = api.open(metadata=deep, state=deep)
    assert session["metadata"] == deep
    assert api.reads(f"sessions/{session['id']}/state")["state"] == deep
    assert api.reads(f"sessions/{session['id']}/export?as=json")["session"]["metadata"] == deep


def test_of_a_repeated_key_the_last_one_counts(api):
    response = api.post("sessions", raw=b'{"agent": "silent", "title": "a", "title": "b"}')
    assert response.json()["title"] == "b"


def test_empty_body_is_an_empty_object(api):
    assert api.post("sessions").status_code == 201
    session = api.open()
    for path in ("resume", "heartbeat", "renew", "fork", "end"):
        assert api.post(f"sessions/{session['id']}/{path}").status_code in {200, 201}


@pytest.mark.parametrize(
    "query",
    ["%00", "%FF", "%ED%A0%80", "%", "%zz", "\\", "'", '"', "%25", "_", "a" * 50_000, "%00" * 999],
    ids=lambda text: text[:12],
)
def test_hostile_query_is_never_a_failure(query, api):
    session = api.open()
    names = (
        "agent",
        "application",
        "tag",
        "parent",
        "external_id",
        "search",
        "status",
        "created_after",
        "cursor",
        "owner",
    )
    for name in names:
        assert api.get(f"sessions?{name}={query}").status_code in {200, 400, 403}
    for path in ("events?type=", "messages?before=", "export?as=", "summary?tree=", "context?max_tokens="):
        assert api.get(f"sessions/{session['id']}/{path}{query}").status_code in {200, 400}


@pytest.mark.parametrize("sequence", ["0", "-1", "x", "%00", "٣", "1.0", "9" * 18, "9" * 19, "9" * 5000, "2%0A", "%20"])
def test_message_that_never_was_is_not_found(sequence, api):
    session = api.open()
    for method in ("get", "patch", "delete"):
        body = {"content": "x"} if method == "patch" else None
        response = api.call(method, f"sessions/{session['id']}/messages/{sequence}", body)
        problem(response, 404, "message_not_found")


@pytest.mark.parametrize("length", [1000, 100_000])
def test_very_long_path_is_not_found(length, api):
    problem(api.get(f"sessions/{'a' * length}"), 404, "session_not_found")
    problem(api.get(f"sessions/{uuid4()}/{'a' * length}"), 404, "session_not_found")


def test_hostile_headers_are_never_a_failure(api):
    session = api.open()
    for value in ("\x00", "\xff" * 64, "'" * 64, "é", " "):
        for name in ("X-Chat-Client", "If-Match", "Idempotency-Key", "Accept-Language"):
            response = api.post(f"sessions/{session['id']}/messages", {"content": "x"}, **{name: value})
            assert response.status_code in {200, 201, 400, 409, 412}, response.content


@pytest.mark.parametrize(
    "cursor", ["e30=", "fA==", "MjAyNnx4", "!!!!", "é", "%00", "MDAwMS0wMS0wMVQwMDowMDowMCswMDowMHww"]
)
def test_cursor_that_no_page_gave_is_refused(cursor, api):
    problem(api.get(f"sessions?cursor={cursor}"), 400, "invalid_request")


# ------------------------------------------------------------------------------------------------------ who comes first


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


@pytest.mark.parametrize(
    ("field", "code"),
    [("tags", "invalid_request"), ("messages", "message_limit_reached"), ("parts", "invalid_request")],
)
def test_million_wrong_items_are_refused_in_no_time_and_not_one_by_one(field, code, api):
    path = f"sessions/{api.open()['id']}/messages" if field == "parts" else "sessions"
    started = time.monotonic()
    response = api.post(path, raw=b'{"content": "x", "%s": [%s1]}' % (field.encode(), b"1," * 1_000_000))
    assert time.monotonic() - started < 3
    problem(response, 409 if code == "message_limit_reached" else 400, code)
    assert len(response.content) < 1000


def test_thousands_of_unknown_fields_are_refused_in_no_time(api):
    started = time.monotonic()
    response = api.post("sessions", raw=json.dumps({f"field{n}": n for n in range(50_000)}).encode())
    assert len(problem(response, 400, "invalid_request")["errors"]) == 50_000
    assert time.monotonic() - started < 5
