"""A caller of the API, as the tests speak of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent, Turn
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations.runner import RUNNER

MOUNT = "/api/chat/"


class Caller:
    """Somebody who calls, perhaps from a named tab."""

    def __init__(self, user: Any = None, client: str | None = None) -> None:
        self.user = user
        self.http = APIClient(headers={"X-Chat-Client": client} if client else None, raise_request_exception=True)
        if user is not None:
            self.http.force_authenticate(user)

    def call(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Any:
        content = {} if raw is None and body is None else {"data": json.dumps(body) if raw is None else raw}
        kind = {} if not content else {"content_type": headers.pop("content_type", "application/json")}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        # As it stands: no client of ours encodes what a hostile one would not.
        if method == "get" and "?" in path:
            path, _, query = path.partition("?")
            return self.http.generic("GET", MOUNT + path, QUERY_STRING=query.encode().decode("latin-1"), headers=named)
        return self.http.generic(method.upper(), MOUNT + path, **content, **kind, headers=named)

    def get(self, path: str, **headers: str) -> Any:
        return self.call("get", path, **headers)

    def post(self, path: str, body: Any = None, **headers: Any) -> Any:
        return self.call("post", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: Any) -> Any:
        return self.call("patch", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.call("delete", path, **headers)

    def open(self, **body: Any) -> dict[str, Any]:
        """Open a session of an agent that only stores, unless the body says otherwise."""
        response = self.post("sessions", {"agent": "silent", **body})
        assert response.status_code == 201, response.content
        return response.json()

    def say(self, session: dict[str, Any], content: str, **fields: Any) -> dict[str, Any]:
        response = self.post(f"sessions/{session['id']}/messages", {"content": content, "delivery": "store", **fields})
        assert response.status_code == 201, response.content
        return response.json()["message"]

    def reads(self, path: str, **headers: str) -> Any:
        """Get something that must be there."""
        response = self.get(path, **headers)
        assert response.status_code == 200, response.content
        return response.json()


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is the problem that the contract says, and return its body."""
    assert (response.status_code, response.get("Content-Type")) == (status, "application/problem+json"), (
        response.status_code,
        response.content[:500],
    )
    body = response.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert all(body[name] for name in ("type", "title", "detail"))
    return body


def row(session: dict[str, Any]) -> ChatSession:
    """Return the row of a session that the API answered."""
    return ChatSession.objects.get(uuid=session["id"])


@pytest.fixture
def api(alice) -> Caller:
    return Caller(alice)


@pytest.fixture
def stranger(bob) -> Caller:
    return Caller(bob)


@pytest.fixture
def tab(alice):
    """Return a function that gives Alice's tab of that name."""
    return lambda name: Caller(alice, name)


@pytest.fixture
def privileged(django_user_model) -> Caller:
    """Return a user with the permission to write in any role."""
    from django.contrib.auth.models import Permission

    user = django_user_model.objects.create_user("narrator")
    user.user_permissions.add(Permission.objects.get(codename="write_any_role"))
    return Caller(user)


class Speaker:
    """An agent that says something, and then the rest as soon as it may.

    Attributes:
        has_begun: set when the beginning is said.
        may_finish: set when the rest may be.
    """

    name = "speaker"
    beginning, rest = "So far", ", so good"

    def __init__(self) -> None:
        self.has_begun, self.may_finish = threading.Event(), threading.Event()

    def respond(self, turn: Turn) -> Iterator[str]:
        yield self.beginning
        self.has_begun.set()
        while not self.may_finish.wait(0.02) and not turn.is_cancelled:
            pass
        yield self.rest


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    """Register an agent that can be met in the middle of its answer, by a test with real transactions."""
    found = Speaker()
    agents.register(Agent(found.name, found.respond))
    yield found
    found.may_finish.set()
    assert RUNNER.wait(10)
    agents.unregister(found.name)


@pytest.fixture
def agent() -> Iterator[Any]:
    """Return a function that registers an agent for the test and returns its name."""
    known = set(agents.registered())

    def agent(respond: Any, **options: Any) -> str:
        return agents.register(Agent("asked", respond, **options)).name

    yield agent
    for name in set(agents.registered()) - known:
        agents.unregister(name)


@pytest.fixture
def session(api) -> dict[str, Any]:
    """Return a session whose agent says how often it was asked."""
    return api.open(agent="count")


@pytest.fixture
def queued(api, session) -> dict[str, Any]:
    """Return a run of it that nobody has begun: the test's transaction is not committed."""
    body = {"content": "hello", "delivery": "background"}
    response = api.post(f"sessions/{session['id']}/messages", body)
    assert response.status_code == 202, response.content
    return response.json()["run"]
