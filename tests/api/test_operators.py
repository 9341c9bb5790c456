"""Health, metrics, exports, and what callers are told while the database is away."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from datetime import datetime

import pytest
from django.contrib.auth.models import Permission
from django.core.asgi import get_asgi_application
from django.db import connection
from rest_framework.authtoken.models import Token

from django_chat_sessions.testing import age, make_session, say

from .conftest import MOUNT, Caller, problem

pytestmark = pytest.mark.django_db


# --------------------------------------------------------------------------------------------------- health and metrics


def test_health_needs_nobody_and_counts_nothing(db):
    response = Caller().get("sessions/health")
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {"status", "timestamp", "database"}
    assert (body["status"], body["database"]) == ("healthy", "ok")
    assert datetime.fromisoformat(body["timestamp"])


@pytest.mark.parametrize("authorization", ["Token wrong", "Bearer x", "Basic !!!", "\x00"])
def test_health_does_not_mind_who_asks(authorization, db):
    assert Caller().get("sessions/health", Authorization=authorization).status_code == 200


@pytest.mark.parametrize("staff", [True, False])
@pytest.mark.parametrize("permitted", [True, False])
def test_metrics_need_staff_with_the_permission(staff, permitted, django_user_model):
    user = django_user_model.objects.create_user("operator", is_staff=staff)
    if permitted:
        user.user_permissions.add(Permission.objects.get(codename="view_metrics"))
    response = Caller(user).get("sessions/metrics")
    if staff and permitted:
        assert response.status_code == 200
    else:
        problem(response, 403, "permission_denied")


def test_metrics_count_what_readers_see(admin_user, alice):
    for days in (0, 1):
        session = make_session(alice)
        say(session, "hello")
        age(session, days=days)
    body = Caller(admin_user).reads("sessions/metrics")
    assert (body["sessions"]["active"], body["sessions"]["expired"]) == (1, 1)
    assert (body["live"], body["due"], body["messages"]) == (1, 1, 2)


# --------------------------------------------------------------------------------------------------------------- export


@pytest.fixture
def talk(api):
    session = api.open(title="Review\n# Q4", agent="echo")
    api.post(f"sessions/{session['id']}/messages", {"content": "hello \ud800 *you*"})
    api.post(
        f"sessions/{session['id']}/messages",
        {"content": "", "delivery": "store", "parts": [{"type": "file", "url": "https://x/y"}]},
    )
    return f"sessions/{session['id']}"


@pytest.mark.parametrize("query", ["", "?as=json"])
def test_export_is_the_whole_session(query, talk, api):
    response = api.get(f"{talk}/export{query}")
    assert response["Content-Type"] == "application/json"
    assert response["Content-Disposition"].startswith('attachment; filename="')
    body = response.json()
    assert list(body) == ["format_version", "exported_at", "session", "messages", "events"]
    assert body["format_version"] == 1
    assert body["exported_at"].endswith("Z")
    assert body["session"]["id"] == talk.partition("/")[2]
    assert body["messages"] == api.reads(f"{talk}/messages")["messages"]
    assert body["events"] == api.reads(f"{talk}/events")["events"]


def test_export_by_lines_is_an_event_a_line(talk, api):
    response = api.get(f"{talk}/export?as=jsonl")
    assert response["Content-Type"] == "application/x-ndjson"
    lines = response.content.decode().splitlines()
    assert [json.loads(line) for line in lines] == api.reads(f"{talk}/events")["events"]


def test_export_as_markdown_is_for_people(talk, api):
    response = api.get(f"{talk}/export?as=markdown")
    assert response["Content-Type"].split(";")[0] == "text/markdown"
    text = response.content.decode()
    assert text.startswith("# Review # Q4\n")
    assert "hello ? *you*" in text
    assert "https://x/y" in text


@pytest.mark.parametrize("accept", ["text/markdown", "application/x-ndjson", "*/*"])
def test_export_is_given_to_whoever_accepts_its_type(accept, talk, api):
    assert api.get(f"{talk}/export?as=markdown", Accept=accept).status_code == 200
    problem(api.get("sessions/x/export?as=markdown", Accept=accept), 404, "session_not_found")


def test_long_conversation_is_exported_whole(api, alice):
    session = make_session(alice, agent="silent", messages=[])
    for number in range(510):
        say(session, str(number))
    body = api.reads(f"sessions/{session.uuid}/export")
    assert [message["content"] for message in body["messages"]] == [str(number) for number in range(510)]
    assert [event["sequence"] for event in body["events"]] == list(range(1, 512))


# -------------------------------------------------------------------------------------------------- without a database


@contextmanager
def away():
    """Let the database be away, for real: its connection is closed, and there is no getting another."""
    settings = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict |= {"NAME": "/nowhere/at.all"} if connection.vendor == "sqlite" else {"HOST": "/nowhere"}
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.clear()
        connection.settings_dict.update(settings)


@pytest.fixture
def at_home(transactional_db, alice):
    """Give a caller, a session, and a database that can be taken away."""
    api = Caller(alice)
    return api, api.open(agent="echo")


def test_callers_are_told_that_the_database_is_away(at_home):
    api, session = at_home
    path = f"sessions/{session['id']}"
    with away():
        for method, target, body in (
            ("get", "sessions", None),
            ("post", "sessions", {}),
            ("get", path, None),
            ("delete", path, None),
            ("get", f"{path}/messages", None),
            ("post", f"{path}/messages", {"content": "x"}),
            ("post", f"{path}/messages", {"content": "x", "delivery": "store"}),
            ("get", f"{path}/events?wait=5", None),
            ("get", f"{path}/export", None),
        ):
            response = api.call(method, target, body)
            problem(response, 503, "database_unavailable")
            assert int(response["Retry-After"]) > 0
    assert api.reads(path)["last_sequence"] == 1


def test_authentication_that_needs_the_database_is_503_as_well(at_home):
    api, _ = at_home
    token = Token.objects.create(user=api.user).key
    with away():
        problem(Caller().get("sessions", Authorization=f"Token {token}"), 503, "database_unavailable")
    assert Caller().get("sessions", Authorization=f"Token {token}").status_code == 200


def test_health_tells_that_the_database_is_away(at_home):
    with away():
        body = problem(Caller().get("sessions/health"), 503, "database_unavailable")
        assert body["database"] == "unavailable"
    assert Caller().get("sessions/health").status_code == 200


@pytest.mark.postgres
def test_connection_that_the_server_ends_is_503_once(at_home):
    from django.db import close_old_connections

    api, session = at_home
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    ended = connection.copy()
    with ended.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    ended.close()
    problem(api.get(f"sessions/{session['id']}"), 503, "database_unavailable")
    close_old_connections()
    assert api.get(f"sessions/{session['id']}").status_code == 200


# ----------------------------------------------------------------------------------------------- bodies without length


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("chunks", "status", "title"), [([b'{"ti', b'tle": "x"}'], 201, "x"), ([b""], 201, ""), ([b"{"], 400, None)]
)
def test_body_in_chunks_is_a_body(chunks, status, title, alice):
    """Node.js and others send no Content-Length with a stream; Django REST framework takes that for no body."""
    token = Token.objects.create(user=alice).key
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict] = []

    async def receive():
        return messages.pop(0) if messages else await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{MOUNT}sessions",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"transfer-encoding", b"chunked"),
            (b"authorization", f"Token {token}".encode()),
        ],
    }
    asyncio.run(get_asgi_application()(scope, receive, send))
    body = json.loads(b"".join(message.get("body", b"") for message in sent))
    assert sent[0]["status"] == status
    assert body.get("title") == title or status == 400
