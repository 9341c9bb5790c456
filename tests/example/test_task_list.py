"""The rule-based assistant of the example."""

from __future__ import annotations

from typing import Any

import pytest

from django_chat_sessions.agents import Message, RequestContext, Turn
from example_project.assistants import chat_agents, task_list


class Conversation:
    """One session's worth of questions."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def ask(self, text: str) -> str:
        question = Message("user", text)
        return task_list.answer(Turn(RequestContext(), question, (question,), self.state))


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


def test_it_creates_a_task_and_marks_it_complete(talk: Conversation) -> None:
    assert talk.ask("Create a task: Review Q4 budget") == "✓ Created"
    assert talk.state["tasks"] == {"1": {"title": "Review Q4 budget", "done": False}}
    assert talk.ask("Mark it complete") == "✓ Marked complete"
    assert talk.state["tasks"]["1"]["done"] is True


@pytest.mark.parametrize(
    "text",
    [
        "create a task: Buy milk",
        "Create task Buy milk",
        "Please add a new task - Buy milk",
        "New task: Buy milk",
        "  add another task:   Buy\n milk ",
    ],
)
def test_it_understands_several_ways_to_ask_for_a_task(talk: Conversation, text: str) -> None:
    assert talk.ask(text) == "✓ Created"
    assert talk.state["tasks"]["1"]["title"] == "Buy milk"


@pytest.mark.parametrize(
    "text",
    [
        "Mark it complete",
        "mark it as done.",
        "Mark that completed!",
        "complete it",
        "Done",
        "Mark task 1 done",
        "it's done",
    ],
)
def test_it_understands_several_ways_to_say_that_it_is_done(talk: Conversation, text: str) -> None:
    talk.ask("Create a task: Buy milk")
    assert talk.ask(text) == "✓ Marked complete"


def test_it_asks_what_the_task_is(talk: Conversation) -> None:
    assert talk.ask("Create a task:") == task_list.NO_TITLE
    assert talk.state == {}


def test_it_says_so_when_nothing_is_open(talk: Conversation) -> None:
    assert talk.ask("Mark it complete") == task_list.NOTHING_OPEN
    talk.ask("Create a task: Buy milk")
    talk.ask("Mark it complete")
    assert talk.ask("Mark it complete") == task_list.NOTHING_OPEN


def test_it_goes_back_to_the_last_one_that_is_open(talk: Conversation) -> None:
    for title in ("One", "Two", "Three"):
        talk.ask(f"Create a task: {title}")
    talk.ask("Mark task 1 done")
    talk.ask("Mark it complete")
    assert [talk.state["tasks"][number]["done"] for number in "123"] == [True, False, True]
    assert talk.ask("Mark task 7 done") == "There is no task 7."


def test_it_shows_the_tasks(talk: Conversation) -> None:
    assert talk.ask("Show my tasks") == task_list.NO_TASKS
    talk.ask("Create a task: One")
    talk.ask("Mark it complete")
    talk.ask("Create a task: Two")
    assert talk.ask("What are my tasks?") == "1. ☑ One\n2. ☐ Two"


@pytest.mark.parametrize("text", ["", "Hello", "I have done nothing", "The task force met", "complete nonsense"])
def test_it_explains_itself_otherwise(talk: Conversation, text: str) -> None:
    assert talk.ask(text) == task_list.HELP
    assert talk.state == {}


@pytest.mark.parametrize("text", ["one", " one  two\n three ", "…", "a b"])
def test_the_slow_echo_loses_nothing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(chat_agents, "SECONDS_A_WORD", 0)
    question = Message("user", text)
    words = list(chat_agents.slow_echo(Turn(RequestContext(), question, (question,), {})))
    assert "".join(words) == text
    assert len(words) == len(text.split())
