"""Threads that begin at the same instant, each with a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections

from django_chat_sessions import agents
from tests.operations.conftest import agent, configured  # noqa: F401 - fixtures
from tests.operations.reading import differences

#: After this many seconds a thread hangs.
PATIENCE = 60


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Run functions in threads that start together; return what each returned or raised, in order."""
    barrier = threading.Barrier(len(functions))
    outcomes: list[Any] = [None] * len(functions)

    def run(number: int, function: Callable[[], Any]) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(PATIENCE)
            outcomes[number] = function()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            outcomes[number] = error
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=run, args=(number, function), daemon=True) for number, function in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return outcomes


def unexpected(outcomes: list[Any], *expected: type[BaseException]) -> list[BaseException]:
    """Return the errors among outcomes that are none of the expected ones."""
    return [found for found in outcomes if isinstance(found, BaseException) and not isinstance(found, expected)]


@pytest.fixture(autouse=True)
def sound_logs(transactional_db: None) -> Iterator[None]:
    """Hold every session to its log afterwards."""
    yield
    assert differences() == []


@pytest.fixture
def alice(transactional_db: None) -> User:
    """Return a user that every thread can see."""
    return User.objects.create(username="alice")


@pytest.fixture(params=["immediate", "deferred"])
def transactions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run on SQLite both with transactions that begin by locking, and with its default, which do not."""
    if connection.vendor != "sqlite":
        if request.param == "deferred":
            pytest.skip("only on sqlite")
        return ""
    if request.param == "deferred":
        options = {
            key: value for key, value in connection.settings_dict["OPTIONS"].items() if key != "transaction_mode"
        }
        monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    return str(request.param)


@pytest.fixture(autouse=True)
def known_agents() -> dict[str, agents.Agent]:
    """Return the agents, all imported before any thread asks for one."""
    return agents.registered()
