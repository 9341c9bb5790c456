"""A session whose agent is a model: what the log keeps of its answers, and what the model gets to see again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the extra openai")

from django_chat_sessions import agents
from django_chat_sessions.adapters.openai_chat import OpenAIChat, Tool
from django_chat_sessions.agents import Agent, Message, Price
from django_chat_sessions.choices import RunStatus
from django_chat_sessions.exceptions import AgentFailed
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import context, runs
from django_chat_sessions.testing import make_session
from django_chat_sessions.turns import CUT_SHORT
from tests.adapters import openai_server as server
from tests.adapters.openai_server import Ending, ModelServer, Reply

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as started:
        yield started


@pytest.fixture
def session(model: ModelServer, alice: Any) -> Iterator[ChatSession]:
    tools = [Tool("now", "Says what time it is.", {"type": "object", "properties": {}}, lambda: "noon")]
    chat = OpenAIChat(model="local", base_url=model.url, tools=tools, max_retries=0)
    agents.register(Agent("model", chat, price=Price(Decimal(1_000_000), Decimal(2_000_000))))
    yield make_session(alice, agent="model")
    agents.unregister("model")


def said(session: ChatSession) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in context.window(session).messages]


def test_answer_with_tools_is_stored_and_shown_to_the_model_again(session: ChatSession, model: ModelServer) -> None:
    asked = server.calls(("a", "now", "{}"), text="Let me see.")
    model.will(asked, server.said("It is ", "noon."), server.said("You are welcome."))
    run = runs.ask(session, Message("user", "What time is it?")).run
    runs.ask(session, Message("user", "Thanks"))

    assert said(session)[1:4] == [("assistant", "Let me see."), ("tool", "noon"), ("assistant", "It is noon.")]
    shown = model.requests[2].body["messages"]
    assert [message["role"] for message in shown] == ["user", "assistant", "tool", "assistant", "user"]
    # What the model sees again is what it saw and said at the time.
    assert shown[:3] == model.requests[1].body["messages"]
    assert run is not None
    assert (run.input_tokens, run.output_tokens, run.cost) == (30, 12, Decimal(54))


def test_answer_that_breaks_off_is_kept_and_the_next_one_goes_on(session: ChatSession, model: ModelServer) -> None:
    model.will(Reply([server.chunk({"content": "It dep"})], ending=Ending.DROP), server.said("Of course."))
    with pytest.raises(AgentFailed) as failed:
        runs.ask(session, Message("user", "Is it?"))
    assert failed.value.run.error == "ModelInterrupted"
    runs.ask(session, Message("user", "Go on"))
    assert said(session)[1:] == [("assistant", "It dep"), ("user", "Go on"), ("assistant", "Of course.")]
    assert context.window(session).messages[1].metadata == {CUT_SHORT: "failed"}


def test_cancelled_answer_leaves_the_models_server_within_a_second(session: ChatSession, model: ModelServer) -> None:
    model.will(Reply([server.chunk({"content": "It dep"})], ending=Ending.SILENCE))
    run = runs.start(session, Message("user", "Is it?")).run
    assert run is not None
    until = time.monotonic() + 10
    while not run.chunks.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    cancelled_at = time.monotonic()
    runs.cancel(session, run)
    assert model.wait_for_leave(model.requests[0]) - cancelled_at < 1
    assert run.status == RunStatus.CANCELLED
    assert said(session)[1:] == [("assistant", "It dep")]


def test_answers_of_several_sessions_share_a_connection(session: ChatSession, model: ModelServer, alice: Any) -> None:
    for one in (session, make_session(alice, agent="model"), session):
        runs.ask(one, Message("user", "Hello"))
    assert (len(model.requests), model.connections) == (3, 1)
