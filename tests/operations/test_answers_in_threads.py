"""Answers that are given in threads of this process, as outside of any transaction they all are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent, Message, Turn, Usage
from django_chat_sessions.exceptions import AgentFailed, RunInProgress
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import dispatching, messages, runs, sessions, verification
from django_chat_sessions.operations.runner import RUNNER
from django_chat_sessions.testing import make_session, say
from tests.operations.reading import fresh, texts, types

pytestmark = pytest.mark.django_db(transaction=True)

QUESTION = Message("user", "q")


@pytest.fixture
def agent() -> Iterator[Any]:
    names: list[str] = []

    def agent(respond: Any, **options: Any) -> str:
        name = f"threaded-{len(names)}"
        agents.register(Agent(name, respond, **options))
        names.append(name)
        return name

    yield agent
    RUNNER.wait(10)
    for name in names:
        agents.unregister(name)


def until(is_so: Any, seconds: float = 10) -> Any:
    end = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def is_sound(session: ChatSession) -> bool:
    return verification.verify(session) == []


def test_an_answer_that_is_out_of_time_is_a_failed_one_for_who_waits(alice: Any, agent: Any) -> None:
    def endless(turn: Turn) -> Iterator[str]:
        while True:
            yield "x"
            time.sleep(0.005)

    name = agent(endless, time_limit_seconds=0.4)
    for _ in range(4):
        with pytest.raises(AgentFailed) as failure:
            runs.ask(make_session(alice, agent=name), QUESTION)
        assert (failure.value.run.status, failure.value.run.error) == ("failed", "OutOfTime")


def test_an_agent_that_does_not_stop_gives_its_place_back(alice: Any, agent: Any, settings: Any) -> None:
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "RUN_CONCURRENCY": 1}
    gate = threading.Event()
    deaf = agent(lambda turn: gate.wait(20) and "late", time_limit_seconds=0.3)
    quick = agent(lambda turn: "at once")
    session = make_session(alice, agent=deaf)
    with pytest.raises(AgentFailed):
        runs.ask(session, QUESTION)
    assert runs.ask(make_session(alice, agent=quick), QUESTION).reply.content == "at once"
    gate.set()
    RUNNER.wait(5)
    assert texts(session) == ["q"]


def test_an_agent_may_ask_another_though_all_places_are_taken(alice: Any, agent: Any, settings: Any) -> None:
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "RUN_CONCURRENCY": 1}
    inner = agent(lambda turn: f"inner {turn.question.content}")

    def asking(turn: Turn) -> str:
        child = make_session(alice, agent=inner)
        return str(runs.ask(child, Message("user", "asked")).reply.content)

    async def asking_async(turn: Turn) -> str:
        from asgiref.sync import sync_to_async

        child = await sync_to_async(make_session)(alice, agent=inner)
        return str((await runs.aask(child, Message("user", "asked"))).reply.content)

    for respond in (asking, asking_async):
        session = make_session(alice, agent=agent(respond, time_limit_seconds=10))
        assert runs.ask(session, QUESTION).reply.content == "inner asked"


def test_a_question_that_waits_for_a_place_has_not_begun(alice: Any, agent: Any, settings: Any) -> None:
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "RUN_CONCURRENCY": 1}
    gate = threading.Event()
    slow = agent(lambda turn: gate.wait(10) and "done", time_limit_seconds=20)
    first, second = make_session(alice, agent=slow), make_session(alice, agent=slow)
    runs.start(first, QUESTION)
    assert until(lambda: Run.objects.filter(session=first, status="running").exists())
    waiting = threading.Thread(target=lambda: (runs.ask(second, QUESTION), connection.close()))
    waiting.start()
    assert until(lambda: Run.objects.filter(session=second).exists())
    assert Run.objects.get(session=second).status == "queued"
    with pytest.raises(RunInProgress):
        runs.ask(fresh(second), Message("user", "again"))
    gate.set()
    waiting.join(10)
    assert texts(second) == ["q", "done"]


def test_a_message_that_a_broker_brings_twice_asks_the_agent_once(alice: Any, agent: Any) -> None:
    asked: list[int] = []
    gate = threading.Event()

    def respond(turn: Turn) -> str:
        asked.append(1)
        gate.wait(10)
        return "once"

    session = make_session(alice, agent=agent(respond))
    run = runs.start(session, QUESTION).run
    assert until(lambda: asked)
    again = threading.Thread(target=lambda: _execute(run))
    again.start()
    again.join(5)
    assert not again.is_alive()
    gate.set()
    RUNNER.wait(10)
    assert (texts(session), len(asked)) == (["q", "once"], 1)


def _execute(run: Any) -> None:
    dispatching.execute(str(run.uuid), using="default", worker="another:1")
    connection.close()


def test_an_answer_keeps_no_connection_while_its_agent_thinks(alice: Any, agent: Any) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL tells who is connected")
    gate = threading.Event()

    def thinking(turn: Turn) -> Iterator[str]:
        yield "hm"
        gate.wait(20)
        yield "m"

    name = agent(thinking, time_limit_seconds=30)
    asked = [make_session(alice, agent=name) for _ in range(8)]
    for session in asked:
        runs.start(session, QUESTION)
    assert until(
        lambda: all(Run.objects.filter(session__in=asked, first_token_at__isnull=False).count() == 8 for _ in "x")
    )
    # This one, the keeper's, and the one that publishes news.
    assert until(lambda: _connections() <= 4), _connections()
    gate.set()
    assert RUNNER.wait(10)
    assert {tuple(texts(session)) for session in asked} == {("q", "hmm")}


def _connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = %s",
                       ["client backend"])  # fmt: skip
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("delivery", ["ask", "start"])
def test_the_same_question_at_once_is_one_question(alice: Any, agent: Any, delivery: str) -> None:
    name = agent(lambda turn: time.sleep(0.1) or "answer")
    for number in range(4):
        session = make_session(alice, agent=name)
        question = Message("user", "q", external_id=f"x{number}")
        found: list[Any] = []

        def ask(session: Any = session, question: Any = question, found: Any = found) -> None:
            try:
                found.append(getattr(runs, delivery)(fresh(session), question))
            except Exception as error:  # noqa: BLE001 - asserted on
                found.append(error)
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert [type(one).__name__ for one in found].count("Asked" if delivery == "ask" else "Started") == 4, found
        assert sum(one.created for one in found) == 1
        RUNNER.wait(10)
        assert texts(session) == ["q", "answer"]


@pytest.mark.parametrize(
    "usage",
    [
        Usage(1, 1, Decimal("NaN")), Usage(1, 1, Decimal("1e20")), Usage(2**31, 1), Usage(-1, 1),
        Usage(1.5, 1),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_usage_that_cannot_be_fails_the_answer_and_not_the_session(alice: Any, agent: Any, usage: Usage) -> None:
    session = make_session(alice, agent=agent(lambda turn: ["said", usage]))
    with pytest.raises(AgentFailed):
        runs.ask(session, QUESTION)
    assert Run.objects.get(session=session).status == "failed"
    assert texts(session) == ["q", "said"]
    assert is_sound(session)


def test_what_a_lost_attempt_said_goes_though_a_message_came_between(alice: Any, agent: Any, settings: Any) -> None:
    # So that this process does not say that it is alive between being aged and being found.
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "HEARTBEAT_SECONDS": 60}
    from django_chat_sessions.operations import recovery
    from django_chat_sessions.testing import age

    def respond(turn: Turn) -> Iterator[Any]:
        if turn.attempt == 1:
            yield "half"
            say(fresh(session), "meanwhile")
            age(session, minutes=10)
            recovery.recover()
            yield " and never"
        else:
            yield "whole"

    session = make_session(alice, agent=agent(respond, max_attempts=2))
    runs.start(session, QUESTION)
    assert until(lambda: Run.objects.filter(session=session, status="succeeded").exists())
    RUNNER.wait(10)
    assert sorted(texts(session)) == sorted(["q", "meanwhile", "whole"])
    assert is_sound(session)


def test_an_earlier_question_whose_new_answer_is_cut_short_keeps_it_in_its_place(alice: Any, agent: Any) -> None:
    def respond(turn: Turn) -> Iterator[str]:
        yield f"to {turn.question.content}"
        if breaks:
            raise ValueError

    breaks: list[int] = []
    session = make_session(alice, agent=agent(respond))
    runs.ask(session, Message("user", "one"))
    runs.ask(session, Message("user", "two"))
    breaks.append(1)
    with pytest.raises(AgentFailed):
        runs.ask_again(session, input_sequence=2)
    assert texts(session) == ["one", "to one", "two", "to two"]
    breaks.clear()
    runs.ask_again(session, input_sequence=2)
    assert texts(session) == ["one", "to one", "two", "to two"]
    assert is_sound(session)


def test_an_asynchronous_agent_sees_what_the_callers_transaction_wrote(alice: Any, agent: Any) -> None:
    async def respond(turn: Turn) -> str:
        found = await ChatSession.objects.aget(uuid=turn.context.session)
        return f"sees {found.title}"

    name = agent(respond)
    with transaction.atomic():
        session = make_session(alice, agent=name, title="it")
        asked = runs.ask(session, QUESTION, context=agents.RequestContext(session=str(session.uuid)))
    assert asked.reply.content == "sees it"


def test_an_event_that_an_agent_records_in_its_cleanup_holds_nothing_up(alice: Any, agent: Any) -> None:
    import asyncio

    left: list[str] = []

    async def respond(turn: Turn) -> Any:
        try:
            yield "so far"
            await asyncio.sleep(30)
        finally:
            try:
                await turn.arecord("app.cleanup", {})
            except Exception as error:  # noqa: BLE001 - asserted on
                left.append(type(error).__name__)

    session = make_session(alice, agent=agent(respond))
    run = runs.start(session, QUESTION).run
    assert until(lambda: Run.objects.filter(pk=run.pk, first_token_at__isnull=False).exists())
    runs.cancel(session, run)
    assert RUNNER.wait(10)
    assert until(lambda: left) == ["Lost"]
    assert types(session)[-1] == "run.cancelled"
    assert texts(session) == ["q", "so far"]


def test_text_stands_before_the_event_that_follows_it(alice: Any, agent: Any) -> None:
    from django_chat_sessions import chunks

    def respond(turn: Turn) -> Iterator[str]:
        yield "before "
        yield "it "
        turn.record("app.done", {})
        yield "after"

    session = make_session(alice, agent=agent(respond))
    runs.ask(session, QUESTION)
    frames = chunks.frames(fresh(session), chunks.Cursor(0))
    kinds = [frame.json if frame.type == chunks.DELTA else frame.type for frame in frames]
    place = kinds.index("app.done")
    assert "".join(kind for kind in kinds[:place] if kind in {"before ", "it ", "before it "}) == "before it "
    assert kinds[place + 1] == "after"


def test_who_has_an_id_that_was_taken_away_reads_nothing_by_it(alice: Any) -> None:
    from django_chat_sessions import chunks

    session = make_session(alice)
    old = fresh(session)
    sessions.rotate(session)
    say(session, "secret")
    assert chunks.frames(old, chunks.Cursor(0)) == []
    assert chunks.frames(fresh(session), chunks.Cursor(0))[-1].type == "message"
    assert messages.find(session, fresh(session).last_sequence).content == "secret"


@pytest.mark.parametrize("is_atomic", [False, True])
def test_a_user_is_deleted_while_their_agent_speaks(agent: Any, django_user_model: Any, is_atomic: bool) -> None:
    def endless(turn: Turn) -> Iterator[str]:
        while not turn.is_cancelled:
            yield "word "
            time.sleep(0.01)

    name = agent(endless, time_limit_seconds=30)
    for number in range(6):
        user = django_user_model.objects.create_user(f"leaving-{number}")
        for _ in range(2):
            runs.start(make_session(user, agent=name), QUESTION)
        assert until(lambda: Run.objects.filter(first_token_at__isnull=False).count() == 2)
        if is_atomic:
            with transaction.atomic():
                user.delete()
        else:
            user.delete()
        assert not ChatSession.objects.exists()
        assert RUNNER.wait(10)
