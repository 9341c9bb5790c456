"""Answers of agents: asking a question, and storing what the agent said to it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError

from .. import agents, log
from ..agents import Agent, Message, RequestContext, Saying, Turn
from ..choices import ALIVE, EventType, Role, RunStatus
from ..exceptions import (
    AgentFailed,
    AgentUnavailable,
    InvalidRequest,
    MessageNotFound,
    RunInProgress,
    SessionNotLive,
)
from ..models import ChatSession, Run
from ..rules import lifecycle
from ..rules import merge as patches
from ..rules.concurrency import ANY, Client
from . import limits, writing
from . import messages as conversation
from .expiry import abandon
from .sessions import record_state

logger = logging.getLogger("django_chat_sessions")


class OutOfTime(Exception):
    """The agent's time limit has passed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its run, and the answer.

    Attributes:
        message: the stored question.
        created: whether this call stored it.
        run: the agent's run; None for a repeat of a question that nobody answered.
        reply: the agent's last message; None where it said nothing.
    """

    message: Message
    created: bool
    run: Run | None
    reply: Message | None


def ask(
    session: ChatSession,
    message: Message,
    *,
    context: RequestContext | None = None,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> Asked:
    """Store a question and wait for the agent's answer.

    The question and the run are stored first, in one transaction; the agent works outside of any; then its messages,
    the change of state that it made and the run's end are stored in another.

    Args:
        session: refreshed in place.
        message: the question.
        context: who asked, for the responder.
        client, expected_sequence: as for every write.

    Raises:
        AgentNotFound: the session's agent is no longer registered.
        InvalidRequest: the session's agent does not answer.
        AgentUnavailable: it cannot now; nothing is stored.
        RunInProgress: it is still answering another question; nothing is stored.
        AgentFailed: it raised, with the stored ``message`` and the ``run``.
        ChatSessionError: as ``messages.append`` says.
    """
    limits.check_message(message)
    found = conversation.repeated(session, message)
    if found is not None:
        return _answered(session, found)
    agent = responding(session)
    is_available = _is_available(agent)
    try:
        with writing.writing(session, client=client) as draft:
            limits.check_count(draft.session.message_count)
            writing.check_sequence(draft.session, expected_sequence)
            question, run = _start(draft, agent, message, is_available=is_available)
    except IntegrityError as error:
        if not log.violated(error, "chat_sessions_event_external_id"):
            raise
        repeat = conversation.repeated(session, message)
        if repeat is None:
            raise
        return _answered(session, repeat)
    return _answer(session, agent, question, run, context or RequestContext())


def responding(session: ChatSession) -> Agent:
    """Return the session's agent, if it answers at all.

    Raises:
        AgentNotFound: it is no longer registered.
        InvalidRequest: it does not answer.
    """
    agent = agents.find(session.agent)
    if not agent.can_respond:
        raise InvalidRequest({"delivery": ["This session's agent does not answer; only store is possible."]})
    return agent


def _is_available(agent: Agent) -> bool:
    """Ask the agent; one that cannot even say so is not."""
    try:
        return agent.is_available
    except Exception:
        logger.exception("Whether the agent %r is available cannot be found out", agent.name)
        return False


def _answered(session: ChatSession, message: Message) -> Asked:
    """Return what came of a question that was asked before."""
    runs = Run.objects.using(writing.alias(session)).filter(session=session)
    run = runs.filter(input_sequence=message.sequence or 0).first()
    return Asked(message, created=False, run=run, reply=reply_of(session, run))


def reply_of(session: ChatSession, run: Run | None) -> Message | None:
    """Return what a run said last, as it reads now."""
    if run is None or run.output_sequence is None:
        return None
    try:
        return conversation.find(session, run.output_sequence)
    except MessageNotFound:
        return None


def _start(draft: writing.Draft, agent: Agent, message: Message, *, is_available: bool) -> tuple[Message, Run]:
    runs = Run.objects.using(writing.alias(draft.session))
    _make_room(draft)
    if not is_available:
        raise AgentUnavailable
    must_finish = draft.now + timedelta(seconds=agent.time_limit_seconds)
    draft.come_back()
    sequence = draft.next_sequence
    question = replace(message, sequence=sequence, created_at=draft.now)
    draft.entries.append(replace(conversation.entry(message), created_at=draft.now))
    run = runs.create(
        session=draft.session,
        status=RunStatus.RUNNING,
        input_sequence=sequence,
        created_at=draft.now,
        started_at=draft.now,
        expires_at=must_finish,
    )
    draft.record(EventType.RUN_STARTED, {"run": str(run.uuid), "input_sequence": question.sequence})
    draft.touch(until=must_finish)
    return question, run


def _make_room(draft: writing.Draft) -> None:
    """Refuse while the agent is answering; give up on an answer whose time is over.

    Raises:
        RunInProgress: with the run.
    """
    alive = Run.objects.using(writing.alias(draft.session)).filter(session=draft.session, status__in=ALIVE).first()
    if alive is None:
        return
    if alive.expires_at > draft.now:
        raise RunInProgress(run=str(alive.uuid))
    abandon(draft, alive)


def _answer(session: ChatSession, agent: Agent, question: Message, run: Run, context: RequestContext) -> Asked:
    window = conversation.window(session, max_messages=agent.window_messages)
    state = dict(session.state) if session.parent_id is None else window.state
    turn = Turn(context, question, window.messages, deepcopy(state), dict(session.metadata))
    try:
        said = respond(agent, turn)
        for message in said:
            limits.check_message(message)
        reply = _finish(session, run, said, patches.difference(state, turn.state))
    except BaseException as error:
        # Also a process that is told to go leaves no answer behind that nobody writes.
        _fail(session, run, type(error).__name__)
        if not isinstance(error, Exception):
            raise
        logger.exception("The agent %r failed to answer in session %s", agent.name, session.uuid)
        raise AgentFailed(message=question, run=run) from error
    return Asked(question, created=True, run=run, reply=reply)


def respond(agent: Agent, turn: Turn) -> list[Message]:
    """Let an agent speak and collect what it says; text that comes in pieces is one message.

    Raises:
        OutOfTime: the agent's time limit passed; a synchronous one is asked between its pieces.
        Exception: whatever the agent raises.
    """
    until = time.monotonic() + agent.time_limit_seconds
    answer = None if agent.respond is None else agent.respond(turn)
    if inspect.isawaitable(answer) or isinstance(answer, AsyncIterator):
        # In a loop of its own: a client that goes away has the request's loop cancelled, and what is awaited in it.
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(asyncio.run, _collect(answer, agent.time_limit_seconds)).result()
    said: list[Message] = []
    for piece in _pieces(answer):
        _hear(said, piece)
        if time.monotonic() > until:
            raise OutOfTime
    return [replace(message, sequence=None) for message in said]


async def _collect(answer: Any, seconds: float) -> list[Message]:
    said: list[Message] = []
    try:
        async with asyncio.timeout(seconds):
            if isinstance(answer, AsyncIterator):
                async for piece in answer:
                    _hear(said, piece)
            else:
                for piece in _pieces(await answer):
                    _hear(said, piece)
    except TimeoutError as error:
        raise OutOfTime from error
    return [replace(message, sequence=None) for message in said]


def _pieces(answer: Any) -> Iterator[Saying] | Sequence[Saying]:
    if answer is None:
        return ()
    if isinstance(answer, (str, Message)):
        return (answer,)
    if isinstance(answer, (Iterator, list, tuple)):
        return answer
    raise TypeError(f"A responder returns or yields text or messages, not {type(answer).__name__}.")


#: Marks, while an answer is collected, a message that more text may be added to.
_OPEN = -1


def _hear(said: list[Message], piece: object) -> None:
    if isinstance(piece, Message):
        said.append(replace(piece, sequence=None))
    elif not isinstance(piece, str):
        raise TypeError(f"A responder returns or yields text or messages, not {type(piece).__name__}.")
    elif said and said[-1].sequence == _OPEN:
        said[-1] = replace(said[-1], content=said[-1].content + piece)
    elif piece:
        said.append(Message(Role.ASSISTANT, piece, sequence=_OPEN))


def _finish(session: ChatSession, run: Run, said: Sequence[Message], patch: Mapping[str, Any]) -> Message | None:
    """Store an answer, unless the run was taken from the agent meanwhile: the session ended, or time ran out."""
    reply = None
    with writing.writing(session, live=False) as draft:
        current = Run.objects.using(writing.alias(session)).get(pk=run.pk)
        if current.status == RunStatus.RUNNING and _takes_answers(draft):
            for message in said:
                stored = replace(conversation.entry(message), external_id=None, created_at=draft.now)
                stored = replace(stored, data={**stored.data, "run": str(run.uuid)})
                reply = replace(
                    message, sequence=draft.next_sequence, run=str(run.uuid), created_at=draft.now, external_id=None
                )
                draft.entries.append(stored)
            if patch:
                record_state(draft, patch)
            current.status, current.finished_at = RunStatus.SUCCEEDED, draft.now
            current.output_sequence = None if reply is None else reply.sequence
            data = {"run": str(run.uuid), "output_sequence": current.output_sequence}
            draft.record(EventType.RUN_SUCCEEDED, data)
            draft.touch()
            current.save(using=writing.alias(session))
    for field in Run._meta.concrete_fields:
        setattr(run, field.attname, getattr(current, field.attname))
    return reply


def _takes_answers(draft: writing.Draft) -> bool:
    try:
        lifecycle.check_live(draft.session.status, draft.session.expires_at, draft.now)
    except SessionNotLive:
        return False
    return True


def _fail(session: ChatSession, run: Run, error: str) -> None:
    """Record that an answer failed, where the run is still the agent's."""
    with writing.writing(session, live=False) as draft:
        runs = Run.objects.using(writing.alias(session)).filter(pk=run.pk)
        run.status, run.error, run.finished_at = RunStatus.FAILED, error, draft.now
        if runs.filter(status__in=ALIVE).update(status=run.status, error=error, finished_at=draft.now):
            draft.record(EventType.RUN_FAILED, {"run": str(run.uuid), "error": error})
    run.refresh_from_db(using=writing.alias(session))


# Thin twins for async code; the synchronous functions are the truth.
aask = sync_to_async(ask)
