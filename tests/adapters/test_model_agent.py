"""The example's agent for a real model, and the page of the docs about such agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the extra openai")

from django_chat_sessions import agents
from django_chat_sessions.adapters import openai_chat
from django_chat_sessions.adapters.openai_chat import OpenAIChat
from django_chat_sessions.turns import Message, Piece, RequestContext, ToolResult, Turn
from example_project.assistants import model_agent
from tests.adapters import openai_server as server
from tests.adapters.openai_server import ModelServer
from tests.docs import pages

PAGE = pages.DOCS / "models.md"


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as started:
        yield started


@pytest.fixture(autouse=True)
def agents_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in model_agent.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = agents.registered()
    yield
    for name in agents.registered():
        agents.unregister(name)
    for agent in before.values():
        agents.register(agent)


def said(responder: Any, turn: Turn) -> list[Piece]:
    async def collect() -> list[Piece]:
        return [piece async for piece in responder(turn)]

    return asyncio.run(collect())


def turn(text: str) -> Turn:
    question = Message("user", text)
    return Turn(RequestContext(), question, (question,), {})


def run(containing: str) -> dict[str, Any]:
    (block,) = [block for block in pages.blocks("python", page=PAGE) if containing in block.code]
    names: dict[str, Any] = {}
    exec(compile(block.code, str(block), "exec"), names)
    return names


# ---------------------------------------------------------------------------------------------------------- the example


def test_example_has_no_model_where_the_environment_names_none() -> None:
    model_agent.set_up()
    assert model_agent.NAME not in agents.registered()


def test_example_asks_the_model_that_the_environment_names(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_MODEL", "llama")
    model_agent.set_up()
    agent = agents.find(model_agent.NAME)
    assert agent.is_available
    assert "Hello " in said(agent.respond, turn("Hello"))
    assert model.requests[0].body["model"] == "llama"


def test_example_with_a_model_but_no_key_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "llama")
    model_agent.set_up()
    assert not agents.find(model_agent.NAME).is_available


def test_example_remembers(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    model_agent.set_up()
    asked = turn("My cat is called Ada. What time is it?")
    fact = '{"subject": "cat", "fact": "is called Ada"}'
    model.will(server.calls(("a", "remember", fact), ("b", "now", "{}")), server.said("Noted."))
    pieces = said(agents.find(model_agent.NAME).respond, asked)
    assert asked.state == {"facts": {"cat": "is called Ada"}}
    assert [piece.is_error for piece in pieces if isinstance(piece, ToolResult)] == [False, False]
    assert "cat: is called Ada" in model_agent.prompt(asked)


# ------------------------------------------------------------------------------------------------------------- the page


def test_page_lists_every_argument_and_its_default() -> None:
    rows = {pages.code(row[0])[0]: row[1] for row in pages.rows(PAGE, after="## Arguments")}
    assert list(rows) == [field.name for field in fields(OpenAIChat)]
    for field in fields(OpenAIChat):
        if rows[field.name] not in {"", "none"}:
            assert eval(pages.code(rows[field.name])[0]) == field.default


def test_page_lists_every_failure() -> None:
    listed = {pages.code(row[0])[0] for row in pages.rows(PAGE, after="## Failures")}
    failures = {name for name in openai_chat.__all__ if name.startswith("Model")}
    assert listed == failures - {"ModelFailed"}


def test_agent_of_the_page_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    run('"librarian",')
    agent = agents.find("librarian")
    assert not agent.is_available
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert agent.is_available


def test_summaries_of_the_page_are_the_clerks(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    run('"adviser",')
    summarize: Any = agents.find("adviser").summarize
    model.will(server.said("They met."))
    assert asyncio.run(summarize([Message("user", "Hello")], None)) == "They met."
    assert model.requests[0].body["model"] == "gpt-5.4-nano"


def test_servers_of_the_page_are_configured() -> None:
    names = run("ollama =")
    assert names["ollama"].is_configured()
    assert names["openrouter"].is_configured()


def test_tools_of_the_page_work(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    asked = turn("Where are Emma and Faust? Put them on my list.")
    calls = [
        ("a", "find_book", '{"title": "Emma"}'),
        ("b", "find_book", '{"title": "Faust"}'),
        ("c", "put_on_list", '{"title": "Emma"}'),
    ]
    model.will(server.calls(*calls), server.said("There."))
    pieces = said(run("def find_book")["librarian"], asked)
    assert [(piece.content, piece.is_error) for piece in pieces if isinstance(piece, ToolResult)] == [
        ('{"title": "Emma", "shelf": 3}', False),
        ("There is no book called Faust.", True),
        ("It is on the list.", False),
    ]
    assert asked.state == {"list": {"Emma": True}}
