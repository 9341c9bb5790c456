"""Questions outside of any session: who answers them, for how long, and what is left of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction

from django_chat_sessions import agents
from django_chat_sessions.agents import (
    Agent,
    Message,
    Price,
    RequestContext,
    StateChange,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
)
from django_chat_sessions.exceptions import (
    AgentFailed,
    AgentNotFound,
    AgentUnavailable,
    InvalidRequest,
    MessageLimitReached,
    MessageTooLong,
)
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import performing, sealing, stateless
from django_chat_sessions.operations.stateless import Answered

pytestmark = pytest.mark.django_db

#: A test that needs the agent in a thread of its own is outside of any transaction.
outside = pytest.mark.django_db(transaction=True)


def ask(owner: Any, text: str = "?", *, agent: str, after: Answered | None = None, **more: Any) -> Answered:
    before = None if after is None else sealing.unseal(after.transcript or "", owner)
    return stateless.ask(owner, Message("user", text), agent=agent, transcript=before, **more)


def said(answered: Answered) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in answered.messages]


def reads(answered: Answered, owner: Any) -> list[str]:
    return [message.content for message in sealing.unseal(answered.transcript or "", owner).messages]


# --------------------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize("name", ["echo", "echo_async", "pieces", "pieces_async"])
@outside
def test_every_kind_of_responder_answers(name: str, alice: Any) -> None:
    answered = ask(alice, "good morning", agent=name)
    assert said(answered) == [("user", "good morning"), ("assistant", "good morning")]
    assert answered.reply == answered.messages[-1]
    assert not ChatSession.objects.exists()


def test_answer_asks_the_database_nothing(alice: Any, django_assert_num_queries: Any) -> None:
    first = ask(alice, "a", agent="count")
    with django_assert_num_queries(0):
        second = ask(alice, "b", agent="count", after=first)
    assert second.reply is not None
    assert second.reply.content == "2"


def test_agent_gets_the_conversation_the_state_and_who_asked(alice: Any, agent: Any) -> None:
    turns: list[Turn] = []

    def attentive(turn: Turn) -> str:
        turns.append(turn)
        turn.record("app.heard", {})
        turn.state["heard"] = [*turn.state.get("heard", []), turn.question.content]
        return "yes"

    agent("attentive", attentive)
    first = ask(alice, "one", agent="attentive")
    context = RequestContext(user=alice)
    second = ask(alice, "two", agent="attentive", after=first, context=context)
    turn = turns[-1]
    assert [message.content for message in turn.messages] == ["one", "yes", "two"]
    assert turn.question is turn.messages[-1]
    assert (turn.run, turn.context) == (None, context)
    assert sealing.unseal(second.transcript or "", alice).state == {"heard": ["one", "two"]}
    assert reads(second, alice) == ["one", "yes", "two", "yes"]


def test_tool_calls_states_and_usage_are_put_together(alice: Any, agent: Any) -> None:
    def busy(turn: Turn) -> Iterator[Any]:
        yield "Let me "
        yield "look."
        yield ToolCall("c1", "search", {"for": "x"})
        yield ToolResult("c1", "found", "search")
        yield StateChange({"seen": turn.state, "gone": None, "nested": {"a": 1}})
        yield Usage(10, 5)
        yield "Here."
        yield Usage(1, 2)

    agent("busy", busy, price=Price(Decimal(1_000_000), Decimal(2_000_000)))
    answered = ask(alice, agent="busy")
    assert said(answered) == [("user", "?"), ("assistant", "Let me look."), ("tool", "found"), ("assistant", "Here.")]
    assert [part["type"] for part in answered.messages[1].parts] == ["text", "tool_call"]
    assert (answered.input_tokens, answered.output_tokens, answered.cost) == (11, 7, Decimal(25))
    transcript = sealing.unseal(answered.transcript or "", alice)
    assert transcript.messages == answered.messages
    assert transcript.state == {"seen": {}, "nested": {"a": 1}}


def test_usage_that_nobody_counted_is_unknown(alice: Any) -> None:
    answered = ask(alice, agent="echo")
    assert (answered.input_tokens, answered.output_tokens, answered.cost) == (None, None, None)


def test_agent_that_says_nothing_leaves_the_question(alice: Any, agent: Any) -> None:
    agent("mute", lambda turn: None)
    answered = ask(alice, agent="mute")
    assert (answered.reply, said(answered)) == (None, [("user", "?")])


def test_long_transcript_is_shown_as_far_as_it_fits_and_kept_whole(alice: Any, agent: Any) -> None:
    seen: list[list[str]] = []
    agent("narrow", lambda turn: seen.append([m.content for m in turn.messages]) or "ok", window_messages=3)
    answered = None
    for text in "abc":
        answered = ask(alice, text, agent="narrow", after=answered)
    assert answered is not None
    assert seen[-1] == ["b", "ok", "c"]
    assert reads(answered, alice) == ["a", "ok", "b", "ok", "c", "ok"]


def test_question_is_seen_however_long_it_is(alice: Any, agent: Any) -> None:
    agent("tiny", lambda turn: " ".join(message.content for message in turn.messages), window_tokens=1)
    answered = ask(alice, "long " * 50, agent="tiny")
    assert answered.reply is not None
    assert answered.reply.content == "long " * 50


# ------------------------------------------------------------------------------------------------------ what is refused


def test_what_cannot_be_asked_is_refused(alice: Any, configured: Any) -> None:
    with pytest.raises(AgentNotFound):
        ask(alice, agent="nobody")
    with pytest.raises(InvalidRequest) as silent:
        ask(alice, agent="silent")
    assert list(silent.value.errors) == ["agent"]
    with pytest.raises(InvalidRequest) as narrator:
        stateless.ask(alice, Message("assistant", "I said so"), agent="echo")
    assert list(narrator.value.errors) == ["role"]
    with pytest.raises(AgentUnavailable):
        ask(alice, agent="unavailable")
    other = ask(alice, agent="echo")
    with pytest.raises(InvalidRequest) as foreign:
        ask(alice, agent="pieces", after=other)
    assert list(foreign.value.errors) == ["transcript"]
    configured(MAX_MESSAGE_LENGTH=3)
    with pytest.raises(MessageTooLong):
        ask(alice, "four", agent="echo")


def test_conversation_is_no_longer_than_a_session_may_be(alice: Any, configured: Any, agent: Any) -> None:
    configured(MAX_MESSAGES=3)
    first = ask(alice, agent="echo")
    second = ask(alice, agent="echo", after=first)
    assert len(second.messages) == 2
    assert second.transcript is None
    configured(MAX_MESSAGES=2)
    with pytest.raises(MessageLimitReached):
        ask(alice, agent="echo", after=first)


@pytest.mark.parametrize("name", ["failing", "failing_midway"])
@pytest.mark.parametrize("place", ["in a transaction", "outside"])
@outside
def test_agent_that_raises_has_failed(name: str, place: str, alice: Any) -> None:
    around = transaction.atomic() if place == "in a transaction" else nullcontext()
    with around, pytest.raises(AgentFailed) as failed:
        ask(alice, agent=name)
    assert "stored" in str(failed.value)
    assert type(failed.value.__cause__).__name__ == "Broken"


UNSTORABLE = {
    "a number": 5,
    "a state that is no JSON": {"state": object()},
    "a state that is too large": {"state": "x" * 300_000},
    "a message that is too long": {"message": "x" * 33_000},
}


@pytest.mark.parametrize("wrong", UNSTORABLE.values(), ids=UNSTORABLE)
def test_agent_that_says_what_nobody_could_store_has_failed(wrong: Any, alice: Any, agent: Any) -> None:
    def odd(turn: Turn) -> Any:
        if not isinstance(wrong, dict):
            return wrong
        turn.state.update(wrong)
        return wrong.get("message", "ok")

    agent("odd", odd)
    with pytest.raises(AgentFailed):
        ask(alice, agent="odd")


def test_interruption_of_the_program_is_nothing_that_an_agent_did(alice: Any, agent: Any) -> None:
    def interrupted(turn: Turn) -> str:
        raise KeyboardInterrupt

    agent("interrupted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(alice, agent="interrupted")


@outside
def test_agent_that_leaves_the_program_ends_its_answer_alone(alice: Any, agent: Any) -> None:
    def leaving(turn: Turn) -> str:
        raise SystemExit

    agent("leaving", leaving)
    with pytest.raises(AgentFailed):
        ask(alice, agent="leaving")


# ------------------------------------------------------------------------------------------------------------ the time


@outside
def test_patient_responder_is_told_that_its_time_is_over(alice: Any, agent: Any) -> None:
    told = threading.Event()

    def patient(turn: Turn) -> str:
        if turn.cancellation.wait(20):
            told.set()
        return "too late"

    agent("patient", patient, time_limit_seconds=0.1)
    began = time.monotonic()
    with pytest.raises(AgentFailed):
        ask(alice, agent="patient")
    assert time.monotonic() - began < 5
    assert told.wait(5)


@pytest.mark.parametrize("way", ["sync", "async"])
@outside
def test_who_waits_for_long_keeps_no_connection(way: str, alice: Any, agent: Any) -> None:
    mine = connections["default"]
    assert mine.connection is not None

    def slow(turn: Turn) -> str:
        until = time.monotonic() + 10
        while mine.connection is not None and time.monotonic() < until:
            time.sleep(0.01)
        return "let go" if mine.connection is None else "kept"

    agent("slow", slow)
    call = stateless.ask if way == "sync" else async_to_sync(stateless.aask)
    answered = call(alice, Message("user", "?"), agent="slow")
    assert answered.reply is not None
    assert answered.reply.content == "let go"


@outside
def test_responder_that_does_not_stop_is_interrupted(alice: Any, agent: Any) -> None:
    ended: list[str] = []
    over = threading.Event()

    def stubborn(turn: Turn) -> str:
        try:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                time.sleep(0.01)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise
        finally:
            over.set()
        return "too late"

    agent("stubborn", stubborn, time_limit_seconds=0.1)
    with pytest.raises(AgentFailed):
        ask(alice, agent="stubborn")
    assert over.wait(performing.INTERRUPT_SECONDS + 5)
    assert ended == ["Stopped"]


@outside
def test_async_responder_is_cancelled_when_its_time_is_over(alice: Any, agent: Any) -> None:
    ended = threading.Event()

    async def endless(turn: Turn) -> AsyncIterator[str]:
        try:
            while True:
                yield "on and "
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    agent("endless", endless, time_limit_seconds=0.2)
    with pytest.raises(AgentFailed):
        ask(alice, agent="endless")
    assert ended.wait(5)


@outside
def test_generator_that_goes_on_and_on_ends_where_it_is_cancelled(alice: Any, agent: Any) -> None:
    began, ended = threading.Event(), threading.Event()

    def endless(turn: Turn) -> Iterator[str]:
        try:
            while True:
                yield "on and "
                began.set()
                time.sleep(0.01)
        finally:
            ended.set()

    agent("endless", endless)

    async def give_up() -> None:
        asking = asyncio.create_task(stateless.aask(alice, Message("user", "?"), agent="endless"))
        await asyncio.to_thread(began.wait, 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    async_to_sync(give_up)()
    assert ended.wait(5)


@pytest.mark.parametrize("kind", ["sync", "async"])
@outside
def test_agents_work_is_stopped_when_nobody_waits_any_more(kind: str, alice: Any, agent: Any) -> None:
    began, ended = threading.Event(), threading.Event()

    def patient(turn: Turn) -> str:
        began.set()
        if turn.cancellation.wait(20):
            ended.set()
        return "too late"

    async def patient_async(turn: Turn) -> str:
        began.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            ended.set()
            raise
        return "too late"

    agent("patient", patient if kind == "sync" else patient_async)

    async def give_up() -> None:
        asking = asyncio.create_task(stateless.aask(alice, Message("user", "?"), agent="patient"))
        await asyncio.to_thread(began.wait, 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    async_to_sync(give_up)()
    assert ended.wait(5)


@outside
def test_async_twin_answers_as_well(alice: Any) -> None:
    answered = async_to_sync(stateless.aask)(alice, Message("user", "hello"), agent="pieces_async")
    assert said(answered) == [("user", "hello"), ("assistant", "hello")]
    with pytest.raises(AgentFailed):
        async_to_sync(stateless.aask)(alice, Message("user", "hello"), agent="failing")


@pytest.mark.django_db(transaction=True)
def test_a_process_hears_so_many_agents_at_once_and_no_more(alice: Any, settings: Any) -> None:
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "RUN_CONCURRENCY": 1}
    gate = threading.Event()
    agents.register(Agent("deaf", lambda turn: str(gate.wait(20)), time_limit_seconds=0.2))
    try:
        with pytest.raises(AgentFailed):
            stateless.ask(alice, Message("user", "?"), agent="deaf")
        with pytest.raises(AgentUnavailable):
            stateless.ask(alice, Message("user", "?"), agent="echo")
        gate.set()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            try:
                assert stateless.ask(alice, Message("user", "?"), agent="echo").reply.content == "?"
                break
            except AgentUnavailable:
                time.sleep(0.05)
        else:
            raise AssertionError("the place was not given back")
    finally:
        agents.unregister("deaf")
