"""No call asks the database more often because there is more in it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import AsyncRequestFactory
from django.test.utils import CaptureQueriesContext
from rest_framework.test import force_authenticate

from django_chat_sessions.agents import Message
from django_chat_sessions.api.urls import urlpatterns
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import runs
from django_chat_sessions.testing import make_session, say

from .conftest import Caller

pytestmark = pytest.mark.django_db

#: Calls by route, each with its body and how many statements it takes; savepoints of the test's own transaction are
#: not counted. A number that rises has to be meant.
CALLS: list[tuple[str, str, str, Any, dict[str, int]]] = [
    ("session-list", "get", "sessions", None, {"postgresql": 1, "sqlite": 1}),
    ("session-list", "get", "sessions?search=hello&status=created&tag=x", None, {"postgresql": 1, "sqlite": 1}),
    ("session-list", "post", "sessions", {"agent": "silent"}, {"postgresql": 4, "sqlite": 3}),
    ("session-detail", "get", "{path}", None, {"postgresql": 1, "sqlite": 1}),
    ("session-detail", "patch", "{path}", {"title": "new"}, {"postgresql": 5, "sqlite": 4}),
    ("session-resume", "post", "{path}/resume", None, {"postgresql": 4, "sqlite": 4}),
    ("session-heartbeat", "post", "{path}/heartbeat", None, {"postgresql": 2, "sqlite": 2}),
    ("session-renew", "post", "{path}/renew", None, {"postgresql": 5, "sqlite": 4}),
    ("session-timeout", "patch", "{path}/timeout", {"timeout_minutes": 60}, {"postgresql": 6, "sqlite": 5}),
    ("session-fork", "post", "{path}/fork", {"at": 1}, {"postgresql": 9, "sqlite": 8}),
    ("session-children", "get", "{path}/children", None, {"postgresql": 2, "sqlite": 2}),
    ("session-summary", "get", "{path}/summary", None, {"postgresql": 9, "sqlite": 8}),
    ("session-state", "get", "{path}/state", None, {"postgresql": 1, "sqlite": 1}),
    ("session-state", "patch", "{path}/state", {"a": 1}, {"postgresql": 5, "sqlite": 4}),
    ("session-context", "get", "{path}/context", None, {"postgresql": 3, "sqlite": 3}),
    ("session-export", "get", "{path}/export", None, {"postgresql": 3, "sqlite": 3}),
    ("message-list", "get", "{path}/messages", None, {"postgresql": 2, "sqlite": 2}),
    ("message-list", "get", "{path}/messages?after=5", None, {"postgresql": 2, "sqlite": 2}),
    ("message-list", "post", "{path}/messages", {"content": "x", "delivery": "store"}, {"postgresql": 2, "sqlite": 3}),
    ("message-detail", "get", "{path}/messages/2", None, {"postgresql": 2, "sqlite": 2}),
    ("message-detail", "patch", "{path}/messages/2", {"content": "x"}, {"postgresql": 11, "sqlite": 10}),
    ("event-list", "get", "{path}/events", None, {"postgresql": 2, "sqlite": 2}),
    ("event-list", "post", "{path}/events", {"type": "app.x"}, {"postgresql": 3, "sqlite": 4}),
    ("session-end", "post", "{path}/end", None, {"postgresql": 16, "sqlite": 14}),
    ("message-detail", "delete", "{path}/messages/2", None, {"postgresql": 12, "sqlite": 9}),
    ("session-detail", "delete", "{path}", None, {"postgresql": 22, "sqlite": 20}),
    ("agent-query", "post", "agents/echo/query", {"content": "x"}, {"postgresql": 0, "sqlite": 0}),
    ("health", "get", "sessions/health", None, {"postgresql": 1, "sqlite": 1}),
    ("metrics", "get", "sessions/metrics", None, {"postgresql": 11, "sqlite": 10}),
]

#: The same of calls about answers; of those marked as alive, one that is queued.
RUNS: list[tuple[str, str, str, Any, bool, dict[str, int]]] = [
    ("run-list", "get", "{path}/runs?limit=100", None, False, {"postgresql": 2, "sqlite": 2}),
    ("run-list", "get", "{path}/runs?limit=1", None, True, {"postgresql": 2, "sqlite": 2}),
    ("run-list", "post", "{path}/runs", {"delivery": "background"}, False, {"postgresql": 7, "sqlite": 6}),
    ("run-list", "post", "{path}/runs", {"delivery": "wait"}, False, {"postgresql": 26, "sqlite": 24}),
    ("run-detail", "get", "{path}/runs/{run}", None, True, {"postgresql": 2, "sqlite": 2}),
    ("run-cancel", "post", "{path}/runs/{run}/cancel", None, True, {"postgresql": 8, "sqlite": 7}),
    ("run-cancel", "post", "{path}/runs/{run}/cancel", None, False, {"postgresql": 5, "sqlite": 4}),
    (
        "message-list",
        "post",
        "{path}/messages",
        {"content": "x", "delivery": "background"},
        False,
        {"postgresql": 7, "sqlite": 6},
    ),
    (
        "message-list",
        "post",
        "{path}/messages",
        {"content": "x", "delivery": "wait"},
        False,
        {"postgresql": 19, "sqlite": 17},
    ),
]


def statements(api: Caller, method: str, path: str, body: Any) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        response = api.call(method, path, body)
    assert response.status_code in {200, 201, 202, 204}, response.content
    return [query["sql"] for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]]


def filled(user: Any, rows: int, *, children: int) -> ChatSession:
    """Make a session with that many messages and children, and that many more sessions beside it."""
    session = make_session(user, agent="silent")
    for number in range(rows):
        say(session, f"hello {number}")
        make_session(user, agent="silent", title="hello", tags=["x"])
    for _ in range(children):
        make_session(user, agent="silent", parent=session)
    return session


@pytest.mark.parametrize(
    ("method", "path", "body", "most"), [call[1:] for call in CALLS], ids=[f"{c[1]} {c[2]}" for c in CALLS]
)
def test_number_of_statements_does_not_grow(method, path, body, most, django_user_model):
    counts = []
    for rows in (1, 50):
        user = django_user_model.objects.create_user(f"owner of {rows}", is_staff=True)
        user.user_permissions.add(Permission.objects.get(codename="view_metrics"))
        user = django_user_model.objects.get(pk=user.pk)
        user.get_all_permissions()
        session = filled(user, rows, children=rows)
        target = path.format(path=f"sessions/{session.uuid}")
        counts.append(statements(Caller(user), method, target, body))
    one, fifty = map(len, counts)
    assert one == fifty, "\n".join(counts[1])
    assert one <= most[connection.vendor], "\n".join(counts[0])


@pytest.mark.parametrize(
    ("method", "path", "body", "is_alive", "most"),
    [call[1:] for call in RUNS],
    ids=[f"{c[1]} {c[2]} {c[3]}" for c in RUNS],
)
def test_number_of_statements_does_not_grow_with_the_answers(method, path, body, is_alive, most, django_user_model):
    counts = []
    # Of both, more than a window takes.
    for rows in (30, 50):
        user = django_user_model.objects.create_user(f"asked {rows}")
        session = make_session(user, agent="echo")
        for number in range(rows):
            run = runs.ask(session, Message("user", f"question {number}")).run
        if is_alive:
            run = runs.start(session, Message("user", "one more")).run
        target = path.format(path=f"sessions/{session.uuid}", run=run.uuid)
        counts.append(statements(Caller(user), method, target, body))
    thirty, fifty = map(len, counts)
    assert thirty == fifty, "\n".join(counts[1])
    assert thirty <= most[connection.vendor], "\n".join(counts[0])


def test_opening_a_stream_asks_as_often_however_much_there_is(alice):
    """Ask as an ASGI server does, without reading what is streamed."""
    view = next(pattern.callback for pattern in urlpatterns if pattern.name == "session-stream")
    session = make_session(alice, agent="echo")
    for query, most in (("", 2), ("?after=0", 1), ("?after=3.1", 1)):
        for _ in range(10):
            runs.ask(session, Message("user", "question"))
        request = AsyncRequestFactory().get(f"/{query}")
        force_authenticate(request, alice)
        with CaptureQueriesContext(connection) as captured:
            response = view(request, session=str(session.uuid))
        assert (response.status_code, response.streaming) == (200, True)
        assert len(captured) <= most


def test_every_route_is_counted():
    routes = {
        (pattern.name, method)
        for pattern in urlpatterns
        for method in pattern.callback.actions
        if method != "head" and pattern.name != "nowhere"
    }
    assert routes == {call[:2] for call in (*CALLS, *RUNS, ("session-stream", "get"))}
