"""What tests of replicas can ask for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connections

from django_chat_sessions.routers import ReplicaRouter
from django_chat_sessions.testing import make_session, say
from tests.replicas.standby import Standby

FILES = "django.core.cache.backends.filebased.FileBasedCache"


class Patient(ReplicaRouter):
    """On a slow machine a test takes longer than a replica may lag."""

    max_lag_seconds = 3600.0


@pytest.fixture(scope="module")
def running_standby(django_db_setup: None) -> Iterator[Standby]:
    """Start a replica of the embedded server, which has the test database, too; it has the alias ``replica``."""
    url = os.environ.get("TEST_POSTGRES_URL")
    if url is None:
        pytest.skip("only with the embedded PostgreSQL, of which a replica can be made")
    directory = tempfile.mkdtemp(prefix="chat-sessions-")
    standby = Standby(Path(directory) / "standby", url)
    default = connections.settings["default"]
    connections.settings["replica"] = default | {
        "OPTIONS": default["OPTIONS"] | {"host": standby.host},
        # Nobody flushes it after a test.
        "TEST": default["TEST"] | {"MIRROR": "default"},
    }
    yield standby
    del connections.settings["replica"]
    standby.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def shared_cache(settings: Any, tmp_path: Path) -> Any:
    """Have a cache that other processes see."""
    settings.CACHES = {"default": {"BACKEND": FILES, "LOCATION": str(tmp_path / "cache")}}
    return caches["default"]


@pytest.fixture
def standby(running_standby: Standby, transactional_db: None, settings: Any, shared_cache: Any) -> Iterator[Standby]:
    """Have the replica, and the router and the middleware in the settings."""
    settings.DATABASE_ROUTERS = ["tests.replicas.conftest.Patient"]
    settings.MIDDLEWARE = ["django_chat_sessions.routers.ReplicaMiddleware", *settings.MIDDLEWARE]
    running_standby.caught_up()
    yield running_standby
    # A test may have had it lead elsewhere.
    connections["replica"].close()
    del connections["replica"]


@pytest.fixture
def answered_by() -> Callable[[Callable[[], Any]], tuple[str, Any]]:
    """Return a function that does something, and tells on which database it asked for sessions, with the result."""

    def answered_by(act: Callable[[], Any]) -> tuple[str, Any]:
        asked = set()

        def listen(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if "chat_sessions_chatsession" in sql:
                asked.add("replica" if context["connection"].alias == "replica" else "primary")
            return execute(sql, params, many, context)

        with connections["replica"].execute_wrapper(listen), connections["default"].execute_wrapper(listen):
            result = act()
        return " and ".join(sorted(asked)), result

    return answered_by


class Caller:
    """A user with a session, and the API."""

    def __init__(self, user: Any, api: Any) -> None:
        self.user, self.api = user, api
        self.session = make_session(user)
        say(self.session, "Hello")
        self.path = f"/api/chat/sessions/{self.session.uuid}"

    def get(self, path: str = "") -> Any:
        return self.api.get(f"{self.path}{path}")

    def write(self, text: str) -> None:
        answer = self.api.post(f"{self.path}/messages", {"content": text, "delivery": "store"})
        assert answer.status_code == 201, answer.content

    def said(self) -> list[str]:
        answer = self.get("/messages")
        assert answer.status_code == 200, answer.content
        return [message["content"] for message in answer.json()["messages"]]


@pytest.fixture
def call(standby: Standby, api_of: Any, django_user_model: Any) -> Callable[[str], Caller]:
    """Return a function that gives a caller whom the replica may answer."""

    def call(name: str) -> Caller:
        user = django_user_model.objects.create_user(name)
        caller = Caller(user, api_of(user))
        caller.write("What I wrote is noted")
        # So that this process has asked how far the primary is, before the replica is there.
        caller.get()
        standby.caught_up()
        return caller

    return call
