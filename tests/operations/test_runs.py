"""Asking an agent: whatever kind of responder it is, and whatever happens meanwhile."""

from __future__ import annotations

import time
from copy import deepcopy
from datetime import UTC, datetime

import pytest

from django_chat_sessions.agents import Message, RequestContext
from django_chat_sessions.exceptions import (
    AgentFailed,
    AgentNotFound,
    AgentUnavailable,
    ExternalIdConflict,
    InvalidRequest,
    MessageLimitReached,
    RunInProgress,
    SequenceConflict,
    SessionNotFound,
)
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import messages, runs, sessions, verification
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, texts, types

QUESTION = Message("user", "q")
ANSWERED = ["session.created", "message", "run.started", "message", "run.succeeded"]


def function(turn):
    return "answer"


def generator(turn):
    yield "ans"
    yield ""
    yield "wer"


async def coroutine(turn):
    return "answer"


async def async_generator(turn):
    yield "ans"
    yield "wer"


def message(turn):
    return Message("assistant", "answer")


def list_(turn):
    return ["ans", "wer"]


async def async_list(turn):
    return ["ans", "wer"]


class Callable:
    async def __call__(self, turn):
        return "answer"


RESPONDERS = [function, generator, coroutine, async_generator, message, list_, async_list, Callable()]


@pytest.fixture
def ask(alice, agent):
    """Return a function that asks a responder in a new session, and returns what came of it with the session."""

    def ask(respond, question=QUESTION, *, state=None, **fields):
        agent("asked", respond, **fields)
        session = make_session(alice, agent="asked", state=state)
        return runs.ask(session, question), session

    return ask


@pytest.mark.parametrize("respond", RESPONDERS)
def test_every_kind_of_responder_is_heard(ask, respond):
    asked, session = ask(respond)
    assert (asked.created, asked.message.sequence, asked.reply.content) == (True, 2, "answer")
    assert texts(session) == ["q", "answer"]
    assert types(session) == ANSWERED
    run = Run.objects.get()
    assert (run.status, run.input_sequence, run.output_sequence, run.error) == ("succeeded", 2, 4, "")
    assert run.started_at <= run.finished_at
    assert asked.run == run
    assert asked.reply == messages.find(session, 4)
    assert asked.reply.run == str(run.uuid)
    assert (session.last_sequence, session.message_count) == (5, 2)


def test_text_in_pieces_is_one_message_and_whole_messages_stand_for_themselves(ask):
    def respond(turn):
        yield "a"
        yield "b"
        yield Message("tool", "result", metadata={"m": 1}, parts=({"type": "x"},), token_count=3)
        yield "c"
        yield "d"

    asked, session = ask(respond)
    assert texts(session) == ["q", "ab", "result", "cd"]
    assert asked.reply.content == "cd"
    tool = messages.find(session, 5)
    assert (tool.role, tool.metadata, tool.parts, tool.token_count) == ("tool", {"m": 1}, ({"type": "x"},), 3)
    assert fresh(session).token_count == 3


@pytest.mark.parametrize("nothing", [None, "", [], (), iter(())])
def test_an_agent_may_say_nothing(ask, nothing):
    asked, session = ask(lambda turn: nothing)
    assert asked.reply is None
    assert (asked.run.status, asked.run.output_sequence) == ("succeeded", None)
    assert texts(session) == ["q"]


def test_what_an_agent_says_has_neither_its_own_name_nor_its_own_instant_or_place(ask):
    forged = Message(
        "assistant", "x", external_id="x", sequence=1, run="other", created_at=datetime(1999, 1, 1, tzinfo=UTC)
    )
    asked, session = ask(lambda turn: [forged, forged])
    for found in (messages.find(session, 4), messages.find(session, 5)):
        assert (found.external_id, found.run) == (None, str(asked.run.uuid))
        assert found.created_at.year > 2000


# -------------------------------------------------------------------------------------------------------------- failing


def raising(turn):
    raise ValueError("the answer to everything")


def raising_midway(turn):
    yield "so far"
    raise ValueError


async def raising_async(turn):
    raise ValueError


def timing_out(turn):
    raise TimeoutError


BAD = {
    "a number": lambda turn: 7,
    "bytes": lambda turn: b"x",
    "a dict": lambda turn: {"a": 1},
    "a list of numbers": lambda turn: ["a", 7],
    "too long": lambda turn: "x" * 40_000,
    "no text": lambda turn: Message("assistant", None),
    "an unknown role": lambda turn: Message("wizard", "x"),
    "a role too long": lambda turn: Message("w" * 99, "x"),
    "a bad token count": lambda turn: Message("assistant", "x", token_count="many"),
    "a huge token count": lambda turn: Message("assistant", "x", token_count=2**40),
    "metadata that is no JSON": lambda turn: Message("assistant", "x", metadata={"x": object()}),
    "metadata that is nested too deep": lambda turn: Message("assistant", "x", metadata={"x": nested()}),
    "parts that are no JSON": lambda turn: Message("assistant", "x", parts=({"x": float("nan")},)),
    "parts that are no objects": lambda turn: Message("assistant", "x", parts=("text",)),
    "state that is no JSON": lambda turn: turn.state.update(x=object()),
    "state that is not finite": lambda turn: turn.state.update(x=float("inf")),
    "state that is too large": lambda turn: turn.state.update(x="x" * 300_000),
    "state that is nested too deep": lambda turn: turn.state.update(x=nested()),
    "raising": raising,
    "raising async": raising_async,
    "timing out": timing_out,
}


def nested():
    value: list = []
    for _ in range(700):
        value = [value]
    return value


#: Those that say something first, which is kept and marked.
HALF = {"a list of numbers": "a", "raising midway": "so far"}


@pytest.mark.parametrize("name", HALF)
def test_an_agent_that_fails_midway_leaves_what_it_said_marked_as_cut_short(ask, name):
    with pytest.raises(AgentFailed) as failure:
        ask({**BAD, "raising midway": raising_midway}[name])
    session = ChatSession.objects.get()
    assert texts(session) == ["q", HALF[name]]
    assert types(session) == ["session.created", "message", "run.started", "message", "run.failed"]
    said = messages.find(session, 4)
    assert (said.metadata, said.role, said.run) == ({"cut_short": "failed"}, "assistant", str(failure.value.run.uuid))
    assert failure.value.run.output_sequence == 4
    assert verification.verify(session) == []


@pytest.mark.parametrize("name", [name for name in BAD if name not in HALF])
def test_an_agent_that_fails_leaves_the_question_and_a_failed_run_in_a_live_session(ask, name):
    with pytest.raises(AgentFailed) as failure:
        ask(BAD[name])
    session = ChatSession.objects.get()
    assert texts(session) == ["q"]
    assert types(session) == ["session.created", "message", "run.started", "run.failed"]
    assert (session.status, session.state) == ("active", {})
    run = Run.objects.get()
    assert (run.status, run.output_sequence) == ("failed", None)
    assert run.finished_at is not None
    assert failure.value.run == run
    assert failure.value.message.sequence == 2
    say(session, "life goes on")


def test_what_an_agent_raises_stays_out_of_the_log(ask):
    with pytest.raises(AgentFailed):
        ask(raising)
    assert Run.objects.get().error == "ValueError"
    assert "everything" not in str(list(ChatSession.objects.get().events.values("data")))


def endless(turn):
    while True:
        yield "x"


async def endless_async(turn):
    import asyncio

    await asyncio.sleep(60)


def slow(turn):
    time.sleep(0.06)
    return "late"


@pytest.mark.parametrize("respond", [endless, endless_async, slow])
def test_an_agent_has_only_so_much_time(ask, respond):
    started = time.monotonic()
    with pytest.raises(AgentFailed):
        ask(respond, time_limit_seconds=0.05)
    assert time.monotonic() - started < 5
    assert Run.objects.get().error == "OutOfTime"
    assert set(texts(ChatSession.objects.get())[0]) == {"q"}
    assert set("".join(texts(ChatSession.objects.get())[1:])) <= {"x"}


# ------------------------------------------------------------------------------------------------------------- the turn


def test_a_responder_gets_the_question_the_window_the_state_and_who_asked(alice, agent):
    def look(turn):
        seen.append(turn)
        return "ok"

    seen: list = []
    agent("looking", look, window_messages=2)
    session = make_session(alice, agent="looking", state={"s": 1}, metadata={"m": 1})
    for text in ("one", "two"):
        say(session, text)
    context = RequestContext(user=alice, session=str(session.uuid))
    runs.ask(session, Message("user", "three", external_id="x"), context=context)
    turn = seen[0]
    assert (turn.question.content, turn.question.sequence, turn.question.external_id) == ("three", 4, "x")
    assert [m.content for m in turn.messages] == ["two", "three"]
    assert (turn.state, turn.metadata, turn.context) == ({"s": 1}, {"m": 1}, context)


def test_a_child_is_asked_with_its_parents_state_and_keeps_only_what_it_changes(alice, agent):
    def respond(turn):
        turn.state["seen"] = deepcopy(turn.state)
        turn.state["deep"]["b"] = 2
        return "ok"

    agent("asked", respond)
    top = make_session(alice, agent="asked", state={"city": "Bonn", "deep": {"a": 1}})
    child = make_session(alice, agent="asked", parent=top, state={"own": 1})
    runs.ask(child, QUESTION)
    assert fresh(child).state == {
        "own": 1, "deep": {"b": 2}, "seen": {"city": "Bonn", "deep": {"a": 1}, "own": 1},
    }  # fmt: skip
    assert fresh(top).state == {"city": "Bonn", "deep": {"a": 1}}


def test_a_change_of_state_is_one_event_with_the_answer(ask):
    def respond(turn):
        turn.state["n"] += 1
        del turn.state["gone"]
        turn.state["list"].append(2)
        return "ok"

    _, session = ask(respond, state={"n": 1, "gone": 1, "list": [1], "same": {"x": None}})
    assert fresh(session).state == session.state == {"n": 2, "list": [1, 2], "same": {"x": None}}
    assert types(session) == [*ANSWERED[:4], "state.changed", "run.succeeded"]


def test_state_that_was_left_alone_is_no_event_even_where_it_holds_null(ask):
    _, session = ask(function, state={"x": None, "y": {"z": None}})
    assert types(session) == ANSWERED
    assert fresh(session).state == {"x": None, "y": {"z": None}}


def test_what_changed_in_the_state_meanwhile_is_overwritten_by_nobody(alice, agent):
    def respond(turn):
        sessions.change_state(fresh(session), {"theirs": 2, "both": {"b": 2}})
        turn.state["mine"] = 1
        turn.state["both"]["a"] = 1
        return "ok"

    agent("asked", respond)
    session = make_session(alice, agent="asked", state={"both": {}})
    runs.ask(session, QUESTION)
    assert fresh(session).state == {"theirs": 2, "mine": 1, "both": {"a": 1, "b": 2}}


def test_whoever_writes_meanwhile_loses_nothing(alice, agent):
    def respond(turn):
        say(fresh(session), "meanwhile")
        return "answer"

    agent("asked", respond)
    session = make_session(alice, agent="asked")
    asked = runs.ask(session, QUESTION)
    assert texts(session) == ["q", "meanwhile", "answer"]
    assert asked.reply.sequence == 5


# ------------------------------------------------------------------------------------------------ what comes in between


@pytest.mark.parametrize("respond", [function, raising])
def test_a_session_that_ended_meanwhile_takes_no_answer(alice, agent, respond):
    def end(turn):
        sessions.end(fresh(session))
        return respond(turn)

    agent("asked", end)
    session = make_session(alice, agent="asked")
    asked = runs.ask(session, QUESTION)
    assert (asked.reply, asked.run.status) == (None, "cancelled")
    assert texts(session) == ["q"]
    assert types(session)[-1] == "session.ended"
    assert Run.objects.get().status == "cancelled"


def test_a_session_that_was_deleted_meanwhile_is_not_found(alice, agent):
    def delete(turn):
        sessions.delete(fresh(session))
        return "x"

    agent("asked", delete)
    session = make_session(alice, agent="asked")
    with pytest.raises(SessionNotFound):
        runs.ask(session, QUESTION)


def test_one_answer_at_a_time_and_a_second_question_is_not_stored(alice, agent):
    def respond(turn):
        with pytest.raises(RunInProgress) as refusal:
            runs.ask(fresh(session), Message("user", "second"))
        found.append(refusal.value.run)
        return "answer"

    found: list[str] = []
    agent("asked", respond)
    session = make_session(alice, agent="asked")
    asked = runs.ask(session, QUESTION)
    assert found == [str(asked.run.uuid)]
    assert texts(session) == ["q", "answer"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_process_that_is_told_to_go_leaves_no_answer_that_nobody_writes(alice, agent, stop):
    def respond(turn):
        raise stop

    agent("asked", respond)
    session = make_session(alice, agent="asked")
    with pytest.raises(stop):
        runs.ask(session, QUESTION)
    assert Run.objects.get().status == "failed"
    assert types(session)[-1] == "run.failed"


def test_an_answer_whose_time_is_over_makes_room_for_the_next(alice, agent, die):
    agent("asked", function)
    session = make_session(alice, agent="asked")
    die(session)
    with pytest.raises(RunInProgress):
        runs.ask(session, Message("user", "again"))
    Run.objects.update(expires_at=session.created_at)
    asked = runs.ask(session, Message("user", "again"))
    assert asked.reply.content == "answer"
    assert list(Run.objects.order_by("pk").values_list("status", flat=True)) == ["failed", "succeeded"]
    assert types(session)[3:] == ["run.failed", "message", "run.started", "message", "run.succeeded"]


def test_an_answer_that_comes_after_it_was_given_up_is_not_taken(alice, agent):
    def respond(turn):
        if turn.question.content == "q":
            Run.objects.update(expires_at=session.created_at)
            runs.ask(fresh(session), Message("user", "second"))
            turn.state["late"] = True
        return f"to {turn.question.content}"

    agent("asked", respond)
    session = make_session(alice, agent="asked")
    with pytest.raises(AgentFailed) as failure:
        runs.ask(session, QUESTION)
    assert (failure.value.run.status, failure.value.run.error) == ("failed", "OutOfTime")
    assert texts(session) == ["q", "second", "to second"]
    assert fresh(session).state == {}


def test_an_agent_that_is_unavailable_stores_nothing(alice):
    session = make_session(alice, agent="unavailable")
    with pytest.raises(AgentUnavailable):
        runs.ask(session, QUESTION)
    assert types(session) == ["session.created"]
    assert not Run.objects.exists()


def test_an_agent_that_does_not_answer_or_is_not_known_any_more_is_not_asked(alice, agent):
    with pytest.raises(InvalidRequest) as refusal:
        runs.ask(make_session(alice, agent="silent"), QUESTION)
    assert list(refusal.value.errors) == ["delivery"]
    from django_chat_sessions import agents

    agent("gone", function)
    session = make_session(alice, agent="gone")
    agents.unregister("gone")
    with pytest.raises(AgentNotFound):
        runs.ask(session, QUESTION)
    say(session, "but it can be written to")


def test_a_question_is_held_to_the_limits(alice, configured):
    session = make_session(alice, agent="echo")
    with pytest.raises(SequenceConflict):
        runs.ask(session, QUESTION, expected_sequence=7)
    configured(MAX_MESSAGES=0)
    with pytest.raises(MessageLimitReached):
        runs.ask(session, QUESTION)
    assert not Run.objects.exists()


# -------------------------------------------------------------------------------------------------------------- repeats


def test_a_repeated_question_finds_its_answer_and_asks_nobody(alice):
    session = make_session(alice, agent="count")
    question = Message("user", "q", external_id="x")
    first = runs.ask(session, question)
    again = runs.ask(session, question)
    assert (again.created, again.message, again.reply, again.run) == (False, first.message, first.reply, first.run)
    assert fresh(session).state == {"asked": 1}
    sessions.end(session)
    assert runs.ask(session, question).reply == first.reply
    with pytest.raises(ExternalIdConflict):
        runs.ask(session, Message("user", "other", external_id="x"))


def test_a_repeat_whose_answer_was_edited_or_withdrawn_says_what_there_is(alice):
    session = make_session(alice, agent="echo")
    question = Message("user", "q", external_id="x")
    runs.ask(session, question)
    messages.edit(session, 4, "corrected")
    assert runs.ask(session, question).reply.content == "corrected"
    messages.withdraw(session, 4)
    assert runs.ask(session, question).reply is None


def test_a_repeat_of_a_question_that_was_only_stored_asks_nobody(alice):
    session = make_session(alice, agent="echo")
    say(session, "q", external_id="x")
    asked = runs.ask(session, Message("user", "q", external_id="x"))
    assert (asked.created, asked.run, asked.reply) == (False, None, None)


def test_asking_after_idleness_is_coming_back(alice):
    session = age(make_session(alice, agent="echo"), minutes=6)
    runs.ask(session, QUESTION)
    assert types(session) == ["session.created", "session.resumed", *ANSWERED[1:]]
    assert fresh(session).status == "active"


@pytest.mark.parametrize("respond", [function, coroutine, async_generator])
def test_asynchronous_code_asks_too(ask, respond, alice, agent):
    from asgiref.sync import async_to_sync

    agent("asked", respond)
    session = make_session(alice, agent="asked")
    assert async_to_sync(runs.aask)(session, QUESTION).reply.content == "answer"
