"""What the tests of operations can ask for. After each, every session's row is what its log says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_chat_sessions import agents, signals
from django_chat_sessions.agents import Agent, Message
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import runs
from django_chat_sessions.testing import make_session
from tests.operations.reading import differences


@pytest.fixture(autouse=True)
def sound_logs(request: pytest.FixtureRequest, db: None) -> Iterator[None]:
    """Hold every session to its log afterwards, but where the test itself spoils one (``spoilt``)."""
    yield
    if "spoilt" not in request.fixturenames:
        assert differences() == []


@pytest.fixture
def spoilt() -> None:
    """Say that the test spoils a session on purpose."""


@pytest.fixture
def session(alice: Any) -> ChatSession:
    """Return a session of alice's that only stores."""
    return make_session(alice, agent="silent")


@pytest.fixture
def configured(settings: Any) -> Callable[..., None]:
    """Return a function that changes keys of ``CHAT_SESSIONS``."""

    def configured(**keys: Any) -> None:
        settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, **keys}

    return configured


@pytest.fixture
def agent() -> Iterator[Callable[..., Agent]]:
    """Return a function that registers an agent for the test; again under its name, it is changed."""
    before = agents.registered()

    def agent(name: str, respond: Any = None, **fields: Any) -> Agent:
        return agents.register(Agent(name, respond, **fields))

    yield agent
    for name in agents.registered():
        agents.unregister(name)
    for known in before.values():
        agents.register(known)


@pytest.fixture
def die(monkeypatch: pytest.MonkeyPatch) -> Callable[[ChatSession], None]:
    """Return a function that asks a session's agent in a process that dies before it answers."""

    def die(session: ChatSession) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(runs, "_answer", lambda *args: None)
            runs.ask(session, Message("user", "q"))

    return die


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Return a list that fills with the signals that are sent, by name."""
    names = [name for name in vars(signals) if name.startswith(("session_", "events_"))]
    said: list[tuple[str, dict[str, Any]]] = []
    receivers = {name: lambda name=name, **given: said.append((name, given)) for name in names}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    yield said
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)
