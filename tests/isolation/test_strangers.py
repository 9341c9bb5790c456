"""Nobody learns of anybody else's session, by any route: it is as if it had never been."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from rest_framework.test import APIClient

from django_chat_sessions.agents import Message
from django_chat_sessions.api import queries
from django_chat_sessions.api.permissions import VIEW_ALL_SESSIONS
from django_chat_sessions.choices import Delivery
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import runs, sessions
from django_chat_sessions.testing import age, make_session, say

from .routes import BODIES, HER_RUN, OF_A_SESSION, OPEN_TO, ROUTES

pytestmark = pytest.mark.django_db

MALFORMED = [
    "x",
    "0",
    "-1",
    "null",
    "%00",
    "%FF%FE",
    "%0A",
    "..",
    "%2e%2e%2fsecret",
    "٣" * 32,
    "a" * 3000,
    "{00000000-0000-4000-8000-000000000000}",
    "urn:uuid:00000000-0000-4000-8000-000000000000",
    "00000000000040008000000000000000",
    "00000000-0000-4000-8000-00000000000",
    "' OR 1=1 --",
]


@pytest.fixture
def hers(alice):
    """Alice's session, with a question, its answer, another message and everything that could leak."""
    session = make_session(
        alice,
        agent="echo",
        external_id="hers",
        title="Her title",
        tags=["her-tag"],
        metadata={"secret": "her-metadata"},
    )
    asked = runs.ask(session, Message("user", "Her first words", external_id="hers"))
    say(session, "Her second words")
    # The routes know it by this name.
    Run.objects.filter(pk=asked.run.pk).update(uuid=HER_RUN)
    return session


@pytest.fixture
def as_bob(api_of, bob):
    return api_of(bob)


def public(session: ChatSession) -> str:
    return str(session.uuid)


def everything(session: ChatSession):
    """Return the rows of a session that a call could change."""
    row = ChatSession.objects.values().get(pk=session.pk)
    return row, list(session.runs.order_by("pk").values()), session.events.count()


def told(response):
    """Return all that an answer says."""
    return response.status_code, dict(response.headers), response.content


# --------------------------------------------------------------------------------------------------------- every route


def test_every_route_is_about_a_session_or_known_to_be_open_to_somebody():
    """A new route must be put here: about a session it is covered by what follows, else it is somebody's to judge."""
    assert {route.name for route in ROUTES if not route.is_about_a_session} <= OPEN_TO.keys()


def test_every_route_that_writes_has_a_body_to_be_tried_with():
    tried = {(route.name, route.method) for route in ROUTES if route.method in {"post", "patch", "put"}}
    assert tried == BODIES.keys()


@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_owner_is_let_in_so_that_the_others_prove_something(route, hers, api_of, alice):
    response = route.call(api_of(alice), public(hers))
    if route.name == "session-stream":
        # A WSGI server, like this client's, streams nothing; on a real ASGI server test_streams.py lets her in.
        assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    else:
        assert response.status_code in {200, 201, 202, 204}


@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_stranger_is_answered_as_for_an_id_that_was_never_given_out(route, hers, as_bob):
    before = everything(hers)
    strange, unknown = route.call(as_bob, public(hers)), route.call(as_bob, str(uuid4()))
    assert told(strange) == told(unknown)
    assert strange.status_code == 404
    assert strange.json()["code"] == "session_not_found"
    assert everything(hers) == before


@pytest.mark.parametrize("condition", ["ended", "expired", "swept"])
@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_stranger_cannot_tell_whether_a_session_is_over(route, condition, hers, as_bob):
    if condition == "ended":
        sessions.end(hers)
    else:
        age(hers, days=2)
    if condition == "swept":
        from django_chat_sessions.operations import expiry

        expiry.expire()
    assert told(route.call(as_bob, public(hers))) == told(route.call(as_bob, str(uuid4())))


@pytest.mark.parametrize("body", [{"unknown": 1}, ["no", "object"], {"content": 5, "type": 5, "title": 5}])
@pytest.mark.parametrize("route", [route for route in OF_A_SESSION if route.method in {"post", "patch"}], ids=str)
def test_stranger_is_not_even_told_that_the_body_is_wrong(route, body, hers, as_bob):
    response = route.call(as_bob, public(hers), body)
    assert told(response) == told(route.call(as_bob, str(uuid4())))


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": '"6"'},
        {"If-Match": '"1"'},
        {"X-Chat-Client": "x" * 65},
        {"Idempotency-Key": "hers"},
        {"Last-Event-ID": "1"},
        {"Last-Event-ID": "x"},
    ],
    ids=lambda headers: " ".join(f"{name}: {value[:20]}" for name, value in headers.items()),
)
@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_stranger_learns_nothing_by_headers(route, headers, hers, as_bob):
    asked = route.call(as_bob, public(hers), **headers)
    assert told(asked) == told(route.call(as_bob, str(uuid4())))


@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_stranger_learns_nothing_by_asking_for_a_stream_of_events(route, hers, as_bob):
    asked, unknown = (
        route.call(as_bob, session, Accept="text/event-stream") for session in (public(hers), str(uuid4()))
    )
    assert told(asked) == told(unknown)
    assert asked.status_code in {404, 406}


@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_malformed_id_is_an_id_that_was_never_given_out(route, malformed, as_bob):
    path = route.path("SESSION").replace("SESSION", malformed)
    never = route.path(str(uuid4()))
    arguments = {} if route.method == "get" else {"data": {}, "format": "json"}
    asked, expected = (getattr(as_bob, route.method)(address, **arguments) for address in (path, never))
    assert (asked.status_code, asked.content) == (expected.status_code, expected.content)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("route", [route for route in ROUTES if OPEN_TO.get(route.name) != "anybody"], ids=str)
def test_anonymous_is_refused_whatever_they_ask_for(route, slash, hers):
    anonymous = APIClient()
    answers = []
    for session in (public(hers), str(uuid4()), "x"):
        send = getattr(anonymous, route.method)
        arguments = {} if route.method == "get" else {"data": {"unknown": 1}, "format": "json"}
        answers.append(told(send(route.path(session) + slash, **arguments)))
    assert {status for status, *_ in answers} == {401}
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_staff_without_the_permission_is_a_stranger(route, hers, api_of, django_user_model):
    staff = api_of(django_user_model.objects.create_user("staff", is_staff=True))
    assert told(route.call(staff, public(hers))) == told(route.call(staff, str(uuid4())))


@pytest.mark.parametrize("route", OF_A_SESSION, ids=str)
def test_permission_to_list_everybodys_opens_no_session(route, hers, api_of, supporter):
    assert route.call(api_of(supporter), public(hers)).status_code == 404


@pytest.mark.parametrize("path", ["sessions/{}/unknown", "sessions/{}/messages/2/versions", "sessions/{}//"])
@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_paths_that_are_no_route_tell_nothing(path, method, hers, as_bob, api_of, alice):
    asked = [
        told(getattr(api, method)("/api/chat/" + path.format(session), format="json"))
        for api in (as_bob, api_of(alice))
        for session in (public(hers), str(uuid4()))
    ]
    assert asked.count(asked[0]) == len(asked)
    assert asked[0][0] == 404


# ------------------------------------------------------------------------------------------------- runs within sessions


DELIVERIES = [{"delivery": str(delivery)} for delivery in Delivery]


@pytest.mark.parametrize("body", [{}, *DELIVERIES, {"input_sequence": 2}, {"input_sequence": 999}], ids=str)
@pytest.mark.parametrize("name", ["messages", "runs"])
def test_no_delivery_asks_somebody_elses_agent(name, body, hers, as_bob):
    before = everything(hers)
    body = {"content": "mine", **body} if name == "messages" else body
    strange, unknown = (
        as_bob.post(f"/api/chat/sessions/{session}/{name}", body, format="json") for session in (hers.uuid, uuid4())
    )
    assert told(strange) == told(unknown)
    assert strange.json()["code"] == "session_not_found"
    assert everything(hers) == before


@pytest.fixture
def run_calls(api_of):
    """Return a function that calls each route of a run and returns what is told."""

    def run_calls(user, session, run, body=None):
        path = f"/api/chat/sessions/{session}/runs/{run}"
        api = api_of(user)
        return [told(api.get(path)), told(api.post(f"{path}/cancel", body or {}, format="json"))]

    return run_calls


def test_run_in_somebody_elses_session_is_one_of_a_session_that_never_was(hers, bob, run_calls):
    queued = runs.start(hers, Message("user", "Her third words")).run
    before = everything(hers)
    for body in ({}, {"unknown": 1}):
        answers = [
            run_calls(bob, session, run, body)
            for session in (public(hers), str(uuid4()))
            for run in (HER_RUN, queued.uuid, uuid4(), "x")
        ]
        assert answers.count(answers[0]) == len(answers)
        assert {(status, json.loads(content)["code"]) for status, _, content in answers[0]} == {
            (404, "session_not_found")
        }
    assert everything(hers) == before


@pytest.mark.parametrize("whose", ["somebody else's", "one's own other"])
def test_run_of_another_session_is_a_run_that_never_was(whose, hers, alice, bob, run_calls):
    queued = runs.start(hers, Message("user", "Her third words")).run
    before = everything(hers)
    user = bob if whose == "somebody else's" else alice
    other = make_session(user, agent="echo")
    runs.ask(other, Message("user", "Mine"))
    for body in ({}, {"unknown": 1}):
        answers = [run_calls(user, other.uuid, run, body) for run in (HER_RUN, queued.uuid, uuid4())]
        assert answers[0] == answers[1] == answers[2]
        assert {(status, json.loads(content)["code"]) for status, _, content in answers[0]} == {(404, "run_not_found")}
    assert everything(hers) == before


@pytest.mark.parametrize("malformed", [name for name in MALFORMED if "%2f" not in name])
def test_malformed_id_of_a_run_is_an_id_that_was_never_given_out(malformed, hers, alice, run_calls):
    assert run_calls(alice, public(hers), malformed) == run_calls(alice, public(hers), uuid4())
    assert run_calls(alice, public(hers), malformed)[0][0] == 404


def test_list_of_runs_shows_those_of_its_session_alone(hers, alice, bob, api_of):
    own, his = make_session(alice, agent="echo"), make_session(bob, agent="echo")
    for session in (own, his):
        runs.ask(session, Message("user", "Mine"))
    for user, session in ((alice, hers), (alice, own), (bob, his)):
        listed = api_of(user).get(f"/api/chat/sessions/{session.uuid}/runs").json()["results"]
        assert [item["id"] for item in listed] == [str(run.uuid) for run in session.runs.all()]


def test_cursor_of_somebody_elses_runs_is_one_that_no_page_gave(hers, bob, api_of, alice):
    for _ in range(2):
        runs.ask(hers, Message("user", "More"))
    cursor = api_of(alice).get(f"/api/chat/sessions/{hers.uuid}/runs?limit=1").json()["next"]
    his = make_session(bob, agent="echo")
    asked = runs.ask(his, Message("user", "Mine")).run
    never = queries.run_cursor(uuid4())
    path = f"/api/chat/sessions/{his.uuid}/runs"
    strange, unknown = (api_of(bob).get(f"{path}?cursor={given}") for given in (cursor, never))
    assert told(strange) == told(unknown)
    assert (strange.status_code, [*strange.json()["errors"]]) == (400, ["cursor"])
    assert api_of(bob).get(f"{path}?cursor={queries.run_cursor(asked.uuid)}").json() == {"results": [], "next": None}


# ------------------------------------------------------------------------------------------ what a body or query names


@pytest.mark.parametrize("field", ["parent", "continue_from"])
def test_somebody_elses_session_named_in_a_body_does_not_exist(field, hers, as_bob):
    strange = as_bob.post("/api/chat/sessions", {field: public(hers)})
    unknown = as_bob.post("/api/chat/sessions", {field: str(uuid4())})
    malformed = as_bob.post("/api/chat/sessions", {field: "x\x00"})
    assert told(strange) == told(unknown) == told(malformed)
    assert strange.status_code == 404
    assert not ChatSession.objects.exclude(pk=hers.pk).exists()


@pytest.mark.parametrize("field", ["parent", "continue_from"])
def test_somebody_elses_session_does_not_exist_before_anything_else_is_wrong(field, hers, as_bob):
    asked = as_bob.post("/api/chat/sessions", {field: public(hers), "unknown": 1})
    assert told(asked) == told(as_bob.post("/api/chat/sessions", {field: str(uuid4()), "unknown": 1}))
    assert asked.status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "",
        "search=her",
        "search=Her+second",
        "tag=her-tag",
        "agent=echo",
        "external_id=hers",
        "parent={id}",
        "status=active",
        "created_after=2000-01-01T00:00:00Z",
        "created_before=2999-01-01T00:00:00Z",
        "limit=100",
        "user=alice",
        "owner_id=1",
    ],
)
def test_no_list_shows_somebody_elses_session(query, hers, alice, as_bob):
    make_session(alice, parent=hers)
    response = as_bob.get("/api/chat/sessions?" + query.format(id=public(hers)))
    assert response.status_code == 200
    assert response.json() == {"results": [], "next": None}


def test_cursor_of_somebody_elses_list_leads_nowhere(hers, alice, api_of, as_bob, bob):
    for _ in range(3):
        make_session(alice)
    cursor = api_of(alice).get("/api/chat/sessions?limit=1").json()["next"]
    own = make_session(bob)
    age(own, days=1)
    listed = as_bob.get(f"/api/chat/sessions?cursor={cursor}").json()
    assert [item["id"] for item in listed["results"]] == [public(own)]


@pytest.mark.parametrize("owner", ["all", "alice", "bob", "nobody", ""])
@pytest.mark.parametrize("kind", ["user", "staff", "permitted but no staff"])
def test_owner_is_refused_to_whoever_is_not_staff_with_the_permission(owner, kind, hers, api_of, bob):
    bob.is_staff = kind == "staff"
    bob.save()
    if kind.startswith("permitted"):
        permit(bob)
    response = api_of(bob).get(f"/api/chat/sessions?owner={owner}")
    assert response.status_code == 403
    assert response.json()["code"] == "permission_denied"


@pytest.fixture
def supporter(django_user_model):
    user = django_user_model.objects.create_user("support", is_staff=True)
    permit(user)
    return user


def permit(user) -> None:
    user.user_permissions.add(Permission.objects.get(codename=VIEW_ALL_SESSIONS.partition(".")[2]))


def test_staff_with_the_permission_lists_everybodys_or_one_persons(hers, bob, api_of, supporter):
    his = make_session(bob)
    api = api_of(supporter)

    def ids(owner: str) -> set[str]:
        return {item["id"] for item in api.get(f"/api/chat/sessions?{owner}").json()["results"]}

    assert ids("owner=all") == {public(hers), public(his)}
    assert ids("owner=bob") == {public(his)}
    assert ids("owner=nobody") == set()
    assert ids("owner=bo%00b") == set()
    assert ids("") == set()


def test_nothing_that_a_stranger_says_finds_or_moves_another_ones_session(hers, as_bob):
    as_bob.post("/api/chat/sessions", {"agent": "echo", "external_id": "hers"})
    as_bob.post("/api/chat/sessions", {"agent": "single"}, headers={"X-Chat-Client": "tab"})
    assert ChatSession.objects.filter(owner=hers.owner).count() == 1


def test_children_and_figures_of_a_tree_are_the_owners_alone(hers, alice, api_of, as_bob):
    child = make_session(alice, parent=hers)
    assert api_of(alice).get(f"/api/chat/sessions/{public(hers)}/summary?tree=true").json()["sessions"] == 2
    for path in ("children", "summary?tree=true", "context"):
        assert as_bob.get(f"/api/chat/sessions/{public(child)}/{path}").status_code == 404


# ----------------------------------------------------------------------------------------------- what an owner is shown


#: Names under which a database id, or what is the server's alone, would be told.
PRIVATE = {"owner", "owner_id", "session_id", "pk", "tenant", "slot", "root_id", "parent_id", "is_held"}

#: What of a run is the server's alone.
PRIVATE |= {"worker", "context", "heartbeat_at", "spoken_sequence", "is_repeat"}


def is_read(route) -> bool:
    """Tell whether a route shows a session; a stream does on an ASGI server alone."""
    return route.method == "get" and route.name != "session-stream"


@pytest.mark.parametrize("query", ["", "?as=jsonl"])
@pytest.mark.parametrize("route", [route for route in OF_A_SESSION if is_read(route)], ids=str)
def test_database_ids_never_leave_the_server(route, query, hers, api_of, alice):
    make_session(alice, parent=hers)
    response = api_of(alice).get(route.path(public(hers)) + query)
    assert response.status_code == 200
    for line in response.content.decode().splitlines():
        assert not keys_of(json.loads(line)) & PRIVATE


def keys_of(value) -> set[str]:
    if isinstance(value, dict):
        return value.keys() | set().union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()
