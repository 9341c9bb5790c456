"""The examples of what agents say, and of how answers are asked for and followed, do what the pages say."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent, Message
from django_chat_sessions.models import ChatSession, SessionEvent
from django_chat_sessions.operations import messages, runs
from django_chat_sessions.testing import make_session
from tests.docs.test_examples import agents_as_they_were, run

__all__ = ["agents_as_they_were"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("agents_as_they_were")]


def asked(alice: Any, respond: Any, text: str = "good morning") -> ChatSession:
    agents.register(Agent("example", respond))
    session = make_session(alice, agent="example")
    runs.ask(session, Message("user", text))
    return session


def types(session: ChatSession) -> list[str]:
    return list(SessionEvent.objects.filter(session=session).order_by("sequence").values_list("type", flat=True))


def test_tools_of_the_example_are_three_messages(alice: Any) -> None:
    session = asked(alice, run("agents.md", "def with_tools")["with_tools"])
    said = list(messages.everything(session))[1:]
    assert [message.role for message in said] == ["assistant", "tool", "assistant"]
    assert [message.content for message in said] == ["One moment. ", "closed", "On Sundays: closed."]
    assert [part["type"] for part in said[0].parts] == ["text", "tool_call"]
    assert session.state == {"asked_about": "Sunday"}


def test_usage_of_the_example_is_priced(alice: Any) -> None:
    run("agents.md", "def metered")
    session = make_session(alice, agent="metered")
    answer = runs.ask(session, Message("user", "hello"))
    assert answer.run is not None
    assert (answer.run.input_tokens, answer.run.output_tokens) == (1200, 2)
    assert answer.run.cost == Decimal("0.000304")
    assert session.token_count == 1202


@pytest.mark.parametrize("name", ["research", "research_async"])
def test_progress_of_the_examples_is_in_the_log(alice: Any, name: str) -> None:
    session = asked(alice, run("agents.md", "def research_async")[name])
    assert types(session)[2:] == ["run.started", "app.progress", "message", "run.succeeded"]


def test_patient_agent_of_the_example_stops(alice: Any, settings: Any) -> None:
    settings.CHAT_SESSIONS = {"RUNNER": "server"}
    stopped: list[bool] = []
    patient = run("agents.md", "def patient")["patient"]

    def watched(turn: Any) -> Any:
        try:
            yield from patient(turn)
        finally:
            stopped.append(True)

    agents.register(Agent("example", watched))
    session = make_session(alice, agent="example")
    following = run("runs.md", "def never_mind")
    name = following["ask_and_go"](session, "?")
    answer = runs.find(session, name)
    until = time.monotonic() + 10
    while answer.first_token_at is None and time.monotonic() < until:
        time.sleep(0.02)
        answer.refresh_from_db()
    assert following["never_mind"](session, name) == "cancelled"
    assert following["how_is_it"](session, name).startswith("cancelled: 0 ")
    said = list(messages.everything(session))[-1]
    assert said.metadata == {"cut_short": "cancelled"}
    until = time.monotonic() + 2
    while not stopped and time.monotonic() < until:
        time.sleep(0.02)
    assert stopped == [True]


def test_careful_agent_of_the_example_answers(alice: Any) -> None:
    session = asked(alice, run("agents.md", "async def careful")["careful"])
    assert [message.content for message in messages.everything(session)][1:] == ["goodmorning"]


def test_test_of_an_answer_in_the_background_passes(django_user_model: Any, settings: Any) -> None:
    run("quickstart.md", "def greet")
    run("testing.md", "in_the_background")["test_it_also_counts_in_the_background"](django_user_model, settings)


def test_application_of_the_example_serves_the_lifespan() -> None:
    import asyncio

    application = run("deployment.md", "with_lifespan")["application"]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])
        raise asyncio.CancelledError  # the server goes no further here

    async def serve() -> None:
        with pytest.raises(asyncio.CancelledError):
            await application({"type": "lifespan"}, receive, send)

    asyncio.run(serve())
    assert sent == ["lifespan.startup.complete"]
