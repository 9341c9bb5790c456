"""What could leave an answer that nobody writes, and a session that nobody can use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent, Message, Turn
from django_chat_sessions.exceptions import AgentFailed, AgentUnavailable
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import opening, runs, sessions, verification

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent() -> Any:
    names: list[str] = []

    def agent(respond: Any, **options: Any) -> str:
        name = f"at-risk-{len(names)}"
        agents.register(Agent(name, respond, **options))
        names.append(name)
        return name

    yield agent
    for name in names:
        agents.unregister(name)


def test_an_answer_that_cannot_be_stored_is_a_failed_one(alice: Any, agent: Any) -> None:
    def growing(turn: Turn) -> str:
        other = ChatSession.objects.get(uuid=turn.context.session or session.uuid)
        sessions.change_state(other, {"theirs": "x" * 200_000})
        turn.state["mine"] = "x" * 100_000
        return "done"

    session = opening.open(alice, agent=agent(growing)).session
    with pytest.raises(AgentFailed) as failed:
        runs.ask(session, Message("user", "?"))
    assert failed.value.run.status == "failed"
    assert not Run.objects.filter(session=session, status="running").exists()
    assert verification.verify(session) == []


def test_a_child_answers_whatever_its_parent_remembers(alice: Any, agent: Any) -> None:
    name = agent(lambda turn: "ok")
    parent = opening.open(alice, state={"p": "x" * 200_000}).session
    child = opening.open(alice, agent=name, parent=parent, state={"c": "x" * 100_000}).session
    assert runs.ask(child, Message("user", "?")).reply.content == "ok"


def test_an_agent_that_cannot_say_whether_it_is_available_is_not(alice: Any, agent: Any) -> None:
    session = opening.open(alice, agent=agent(lambda turn: "ok", available=lambda: 1 / 0)).session
    with pytest.raises(AgentUnavailable):
        runs.ask(session, Message("user", "?"))
    assert session.events.count() == 1


def test_a_process_that_is_told_to_go_leaves_no_running_answer(alice: Any, agent: Any) -> None:
    def leaving(turn: Turn) -> str:
        raise SystemExit

    session = opening.open(alice, agent=agent(leaving)).session
    with pytest.raises(SystemExit):
        runs.ask(session, Message("user", "?"))
    assert Run.objects.get(session=session).status == "failed"


def test_a_continuation_keeps_the_timeouts_of_its_source_unless_it_brings_its_own(alice: Any) -> None:
    source = opening.open(alice, timeout=agents.TimeoutOverrides(timeout_minutes=77)).session
    assert opening.open(alice, continue_from=source).session.timeout_minutes == 77
    own = agents.TimeoutOverrides(mode="lenient")
    continued = opening.open(alice, continue_from=source, timeout=own).session
    assert (continued.timeout_minutes, continued.timeout_mode) == (None, "lenient")


def test_an_external_id_never_gives_another_session_for_a_new_one(alice: Any) -> None:
    from django_chat_sessions.exceptions import InvalidRequest

    parent = opening.open(alice).session
    taken = opening.open(alice, external_id="taken").session
    for wanted in ({"parent": parent}, {"continue_from": parent}):
        with pytest.raises(InvalidRequest) as refused:
            opening.open(alice, external_id="taken", **wanted)
        assert list(refused.value.errors) == ["external_id"]
    child = opening.open(alice, external_id="child", parent=parent)
    again = opening.open(alice, external_id="child", parent=parent)
    assert (child.created, again.created) == (True, False)
    assert child.session.pk == again.session.pk != taken.pk


def test_nulls_for_what_is_not_there_do_not_fill_the_log(alice: Any) -> None:
    from django_chat_sessions.exceptions import MetadataTooLarge

    session = opening.open(alice).session
    with pytest.raises(MetadataTooLarge):
        sessions.change_state(session, {"v": 1, **{f"k{number}": None for number in range(30_000)}})
    assert session.events.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_client_that_goes_away_does_not_stop_an_async_agent(agent: Any, django_user_model: Any) -> None:
    alice = django_user_model.objects.create_user("alice")

    async def slow(turn: Turn) -> str:
        await asyncio.sleep(0.6)
        return "said all the same"

    session = opening.open(alice, agent=agent(slow)).session

    async def disconnect() -> None:
        asking = asyncio.ensure_future(runs.aask(session, Message("user", "?")))
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.wait([asking], timeout=5)
        for _ in range(50):
            if await Run.objects.filter(session=session, status="succeeded").aexists():
                break
            await asyncio.sleep(0.1)
        await sync_to_async(connections.close_all)()

    asyncio.run(disconnect())
    run = Run.objects.get(session=session)
    assert run.status == "succeeded"
    assert session.events.filter(content="said all the same").exists()


def test_a_proxy_of_the_user_model_does_not_make_the_log_forget(alice: Any) -> None:
    from django.contrib.auth import get_user_model

    from django_chat_sessions.operations import privacy
    from django_chat_sessions.receivers import keep_held

    session = privacy.hold(opening.open(alice).session)
    keep_held(get_user_model(), alice, "default")
    session.refresh_from_db()
    assert session.owner is None
    assert verification.verify(session) == []
