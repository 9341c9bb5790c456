"""Questions that are answered again, and what an agent may say besides text."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent, Message, Price, StateChange, ToolCall, ToolResult, Usage
from django_chat_sessions.exceptions import AgentFailed, InvalidRequest, RunInProgress
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import figures, messages, opening, runs, sessions, verification
from django_chat_sessions.testing import make_session, say
from tests.operations.reading import fresh, texts, types

pytestmark = pytest.mark.django_db

QUESTION = Message("user", "q")


@pytest.fixture
def agent() -> Any:
    def agent(respond: Any, **options: Any) -> str:
        agents.register(Agent("asked", respond, **options))
        return "asked"

    yield agent
    agents.unregister("asked")


@pytest.fixture
def counting(agent: Any) -> str:
    def count(turn: Any) -> str:
        said.append([message.content for message in turn.messages])
        return f"answer {len(said)}"

    said: list[list[str]] = []
    return agent(count)


def is_sound(session: ChatSession) -> bool:
    return verification.verify(session) == []


def test_the_new_answer_replaces_the_old_one_which_the_agent_does_not_see(alice: Any, agent: Any) -> None:
    seen: list[list[str]] = []
    agent(lambda turn: seen.append([message.content for message in turn.messages]) or f"answer {len(seen)}")
    session = make_session(alice, agent="asked")
    first = runs.ask(session, QUESTION)
    second = runs.ask_again(session)
    assert texts(session) == ["q", "answer 2"]
    assert seen == [["q"], ["q"]]
    assert second.reply.sequence > first.reply.sequence
    assert (second.message.sequence, second.run.input_sequence) == (2, 2)
    assert fresh(session).message_count == 2
    assert is_sound(session)


def test_an_answer_that_was_edited_and_one_without_a_run_are_replaced_too(alice: Any, counting: str) -> None:
    session = make_session(alice, agent=counting)
    asked = runs.ask(session, QUESTION)
    messages.edit(session, asked.reply.sequence, "corrected")
    say(session, "and by a person", role="assistant")
    runs.ask_again(session)
    assert texts(session) == ["q", "answer 2"]
    assert is_sound(session)


def test_an_earlier_question_is_answered_in_its_place_with_what_was_known_then(alice: Any, agent: Any) -> None:
    seen: list[list[str]] = []
    agent(lambda turn: seen.append([message.content for message in turn.messages]) or f"answer {len(seen)}")
    session = make_session(alice, agent="asked")
    runs.ask(session, Message("user", "one"))
    runs.ask(session, Message("user", "two"))
    again = runs.ask_again(session, input_sequence=2)
    assert texts(session) == ["one", "answer 3", "two", "answer 2"]
    assert seen[-1] == ["one"]
    assert messages.find(session, again.reply.sequence).content == "answer 3"
    runs.ask_again(session, input_sequence=2)
    assert texts(session) == ["one", "answer 4", "two", "answer 2"]
    assert is_sound(session)


def test_an_answer_with_more_messages_than_there_is_room_for_is_kept_whole(alice: Any, agent: Any) -> None:
    number = [1]
    agent(lambda turn: [Message("assistant", f"{i}") for i in range(number[0])])
    session = make_session(alice, agent="asked")
    runs.ask(session, Message("user", "one"))
    runs.ask(session, Message("user", "two"))
    number[0] = 9
    runs.ask_again(session, input_sequence=2)
    assert sorted(texts(session)) == sorted(["one", "two", "0", *map(str, range(9))])
    assert is_sound(session)


def test_a_failed_answer_is_tried_again(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> Any:
        yield "half"
        if not tries:
            tries.append(1)
            raise ValueError
        yield " and whole"

    tries: list[int] = []
    agent(respond)
    session = make_session(alice, agent="asked")
    with pytest.raises(AgentFailed):
        runs.ask(session, QUESTION)
    assert texts(session) == ["q", "half"]
    runs.ask_again(session)
    assert texts(session) == ["q", "half and whole"]
    assert is_sound(session)


def test_there_has_to_be_a_question(alice: Any, counting: str) -> None:
    session = make_session(alice, agent=counting)
    for sequence in (None, 1, 99):
        with pytest.raises(InvalidRequest) as refusal:
            runs.ask_again(session, input_sequence=sequence)
        assert list(refusal.value.errors) == ["input_sequence"]
    assert types(session) == ["session.created"]


def test_a_fork_takes_the_answer_that_counts(alice: Any, counting: str) -> None:
    session = make_session(alice, agent=counting)
    runs.ask(session, QUESTION)
    runs.ask_again(session)
    assert texts(opening.fork(session)) == ["q", "answer 2"]


# --------------------------------------------------------------------------------------------------------- other pieces


def test_text_and_the_calls_after_it_are_one_message_and_results_are_the_tools(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> Any:
        yield "Let me "
        yield "look."
        yield ToolCall("1", "weather", {"city": "Oslo"})
        yield ToolCall("2", "weather", {"city": "Rome"})
        yield ToolResult("1", "rain", "weather")
        yield ToolResult("2", "boom", "weather", is_error=True)
        yield "It rains."

    agent(respond)
    session = make_session(alice, agent="asked")
    asked = runs.ask(session, QUESTION)
    said = list(messages.everything(session))[1:]
    assert [(message.role, message.content) for message in said] == [
        ("assistant", "Let me look."), ("tool", "rain"), ("tool", "boom"), ("assistant", "It rains."),
    ]  # fmt: skip
    assert said[0].parts == (
        {"type": "text", "text": "Let me look."},
        {"type": "tool_call", "id": "1", "name": "weather", "arguments": {"city": "Oslo"}},
        {"type": "tool_call", "id": "2", "name": "weather", "arguments": {"city": "Rome"}},
    )
    assert said[2].parts == ({"type": "tool_result", "id": "2", "name": "weather", "is_error": True},)
    assert {message.run for message in said} == {str(asked.run.uuid)}
    assert asked.reply.content == "It rains."
    assert asked.run.output_sequence == said[3].sequence
    assert is_sound(session)


def test_a_change_of_state_is_recorded_as_it_is_said_and_once(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> Any:
        turn.state["own"] = 1
        yield StateChange({"said": {"a": 1}})
        seen.append(dict(fresh(session).state))
        turn.state["own"] = 2
        yield "done"

    seen: list[Any] = []
    agent(respond)
    session = make_session(alice, agent="asked")
    runs.ask(session, QUESTION)
    assert seen == [{"said": {"a": 1}}]
    assert fresh(session).state == {"said": {"a": 1}, "own": 2}
    assert types(session).count("state.changed") == 2


def test_usage_is_added_up_and_priced_and_counted(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> Any:
        yield Usage(1000, 10)
        yield "x"
        yield Usage(500, 20)

    agent(respond, price=Price(Decimal(2), Decimal(10)))
    session = make_session(alice, agent="asked")
    run = runs.ask(session, QUESTION).run
    assert (run.input_tokens, run.output_tokens, run.cost) == (1500, 30, Decimal("0.0033"))
    assert fresh(session).token_count == 1530
    found = figures.summarize(session)
    assert found.token_count == 1530
    assert {**found.usage, "cost": Decimal(found.usage["cost"])} == {
        "input_tokens": 1500, "output_tokens": 30, "cost": Decimal("0.0033"),
    }  # fmt: skip
    assert is_sound(session)


def test_tokens_that_a_message_counts_are_not_counted_twice(alice: Any, agent: Any) -> None:
    agent(lambda turn: [Message("assistant", "x", token_count=7), Usage(10, 7)])
    session = make_session(alice, agent="asked")
    run = runs.ask(session, QUESTION).run
    assert (run.input_tokens, run.output_tokens) == (10, 7)
    assert fresh(session).token_count == 17
    assert is_sound(session)


def test_a_failed_answer_is_paid_for_too(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> Any:
        yield Usage(3, 4, Decimal("0.5"))
        raise ValueError

    agent(respond)
    session = make_session(alice, agent="asked")
    with pytest.raises(AgentFailed):
        runs.ask(session, QUESTION)
    assert (Run.objects.get().cost, fresh(session).token_count) == (Decimal("0.5"), 7)
    assert is_sound(session)


def test_a_turn_appends_events_of_the_application(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> Any:
        turn.record("app.progress", {"percent": 50})
        yield "done"

    agent(respond)
    session = make_session(alice, agent="asked")
    runs.ask(session, QUESTION)
    assert types(session)[2:] == ["run.started", "app.progress", "message", "run.succeeded"]


def test_an_asynchronous_turn_does_too_in_the_order_in_which_it_speaks(alice: Any, agent: Any) -> None:
    async def respond(turn: Any) -> Any:
        yield ToolCall("1", "look")
        yield ToolResult("1", "seen")
        await turn.arecord("app.progress", {"percent": 50})
        with pytest.raises(InvalidRequest):
            await turn.arecord("session.ended", {})
        yield "done"

    agent(respond)
    session = make_session(alice, agent="asked")
    runs.ask(session, QUESTION)
    expected = ["run.started", "message", "message", "app.progress", "message", "run.succeeded"]
    assert types(session)[2:] == expected


def test_ending_a_session_keeps_what_is_being_said_and_cancels_the_rest(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> Any:
        yield "so far"
        sessions.end(fresh(session))
        cancelled.append(turn.is_cancelled)
        yield " and never heard"

    cancelled: list[bool] = []
    agent(respond)
    session = make_session(alice, agent="asked")
    asked = runs.ask(session, QUESTION)
    assert asked.run.status == "cancelled"
    assert types(session)[-2:] == ["run.cancelled", "session.ended"]
    assert is_sound(session)


def test_one_question_at_a_time_holds_for_repeats_too(alice: Any, agent: Any) -> None:
    def respond(turn: Any) -> str:
        with pytest.raises(RunInProgress):
            runs.ask_again(fresh(session))
        return "x"

    agent(respond)
    session = make_session(alice, agent="asked")
    assert runs.ask(session, QUESTION).reply.content == "x"
