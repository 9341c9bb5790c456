"""Answers of agents: asking a question, waiting for what the agent says to it, and stopping it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections

from .. import agents, lookups
from ..agents import Message, RequestContext
from ..choices import ALIVE, RunStatus
from ..exceptions import (
    AgentFailed,
    InvalidRequest,
    MessageNotFound,
    RunNotFound,
    SessionNotFound,
)
from ..models import ChatSession, Run
from ..rules.concurrency import ANY, Client
from . import messages as conversation
from . import writing
from .asking import Asking, Started
from .runner import RUNNER, Execution, Outcome, perform, process_name
from .settling import settle

logger = logging.getLogger("django_chat_sessions")

#: Seconds that a wait takes nothing from: opening another connection costs more than an answer that is quick.
MOMENT_SECONDS = 0.5


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
    on_wait: Callable[[], Any] | None = None,
) -> Asked:
    """Store a question and wait for the agent's answer.

    The question is stored and the run begun in one transaction; the agent works outside of any, in a thread of this
    process; what it says is stored as it says it. Within a transaction of the caller's all of it is part of that, and
    the agent works in the calling thread.

    Args:
        session: refreshed in place.
        message: the question.
        context: who asked, for the responder.
        client, expected_sequence: as for every write.
        on_wait: called once the answer takes longer than a moment, to let a database connection go, say.

    Raises:
        AgentNotFound: the session's agent is no longer registered.
        InvalidRequest: the session's agent does not answer.
        AgentUnavailable: it cannot now; nothing is stored.
        RunInProgress: it is still answering another question; nothing is stored.
        AgentFailed: it raised, with the stored ``message`` and the ``run``.
        ChatSessionError: as ``messages.append`` says.
    """
    context = context or RequestContext()
    asking = Asking(session, context, client, expected_sequence, waits=True)
    started = asking.question(message)
    if not started.created or started.run is None:
        return Asked(started.message, created=False, run=started.run, reply=reply_of(session, started.run))
    return _answer(session, started, context, on_wait)


def start(
    session: ChatSession,
    message: Message,
    *,
    context: RequestContext | None = None,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> Started:
    """Store a question and queue the run that answers it, in one transaction; nobody waits.

    Arguments and errors are those of ``ask``, but for ``AgentFailed``. The run is handed to a worker, or to this
    process, by the setting ``RUNNER``, when the transaction has committed.
    """
    return Asking(session, context or RequestContext(), client, expected_sequence, waits=False).question(message)


def ask_again(
    session: ChatSession,
    *,
    input_sequence: int | None = None,
    context: RequestContext | None = None,
    client: Client = ANY,
    expected_sequence: int | None = None,
    on_wait: Callable[[], Any] | None = None,
) -> Asked:
    """Have the last question, or an earlier one, answered again, and wait; the old answer leaves the conversation.

    Args:
        session: refreshed in place.
        input_sequence: the question; None is the last.
        context: who asked, for the responder.
        client, expected_sequence, on_wait: as for ``ask``.

    Raises:
        InvalidRequest: there is no such question.
        ChatSessionError: as ``ask`` says.
    """
    context = context or RequestContext()
    started = Asking(session, context, client, expected_sequence, waits=True).again(input_sequence)
    return _answer(session, started, context, on_wait)


def start_again(
    session: ChatSession,
    *,
    input_sequence: int | None = None,
    context: RequestContext | None = None,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> Started:
    """Have a question answered again, as ``ask_again`` does; nobody waits."""
    asking = Asking(session, context or RequestContext(), client, expected_sequence, waits=False)
    return asking.again(input_sequence)


def reply_of(session: ChatSession, run: Run | None) -> Message | None:
    """Return what a run said last, as it reads now."""
    if run is None or run.output_sequence is None:
        return None
    try:
        return conversation.find(session, run.output_sequence)
    except MessageNotFound:
        return None


def _answer(
    session: ChatSession, started: Started, context: RequestContext, on_wait: Callable[[], Any] | None
) -> Asked:
    """Wait for the answer of a run that has begun."""
    run = started.run
    if run is None:
        raise TypeError("A run that has begun is there.")
    if connections[writing.alias(session)].in_atomic_block:
        outcome = perform(session, run, agents.of(session.agent), context=context)
    else:
        execution = Execution(run, process_name(), context, has_begun=run.status == RunStatus.RUNNING)
        RUNNER.submit(execution)
        outcome = _awaited(execution, on_wait)
        with suppress(ChatSession.DoesNotExist):
            session.refresh_from_db()
    if outcome is None:
        raise SessionNotFound
    if outcome.error is not None:
        raise AgentFailed(message=started.message, run=outcome.run) from outcome.error
    return Asked(started.message, created=True, run=outcome.run, reply=outcome.reply)


def _awaited(execution: Execution, on_wait: Callable[[], Any] | None) -> Outcome | None:
    """Wait for what comes of it."""
    try:
        return execution.outcome.result(None if on_wait is None else MOMENT_SECONDS)
    except FutureTimeout:
        if on_wait is not None:
            on_wait()
    return execution.outcome.result()


def find(session: ChatSession, public_id: str) -> Run:
    """Return one run of a session.

    Raises:
        RunNotFound: it has none of that public id.
    """
    run = None
    with suppress(SessionNotFound):
        runs = Run.objects.using(writing.alias(session)).filter(session=session)
        run = runs.filter(uuid=lookups.parsed(public_id)).first()
    if run is None:
        raise RunNotFound
    return run


def latest(session: ChatSession, *, limit: int = 20, before: UUID | None = None) -> tuple[list[Run], UUID | None]:
    """Return a page of a session's runs, latest first, and after which run the next page begins, if there is one.

    Raises:
        InvalidRequest: the session has no such run to begin after.
    """
    every = Run.objects.using(writing.alias(session)).filter(session=session)
    runs = every.order_by("-pk")
    if before is not None:
        start = every.filter(uuid=before).values_list("pk", flat=True).first()
        if start is None:
            raise InvalidRequest({"cursor": ["Not a cursor that a page of this list gave."]})
        runs = runs.filter(pk__lt=start)
    page = list(runs[: limit + 1])
    return page[:limit], page[limit - 1].uuid if len(page) > limit else None


def cancel(session: ChatSession, run: Run, *, client: Client = ANY, expected_sequence: int | None = None) -> Run:
    """End an answer that is not finished, and keep what was said, marked as cut short; one that is over stays as it is.

    It is over when this returns. The process that gives it notices within half a second and stops the agent's work.

    Args:
        session: refreshed in place.
        run: one of its runs, refreshed in place.
        client, expected_sequence: as for every write.

    Raises:
        RunNotFound: it is gone.
        ClientConflict: another client holds the session.
        SequenceConflict: it has moved on.
    """
    with writing.writing(session, live=False) as draft:
        try:
            run.refresh_from_db(using=writing.alias(session))
        except Run.DoesNotExist as error:
            raise RunNotFound from error
        if run.status in ALIVE:
            writing.check(draft.session, draft.now, client=client, expected_sequence=expected_sequence, live=True)
            draft.entries += settle(run, RunStatus.CANCELLED, now=draft.now, next_sequence=draft.next_sequence)
            draft.touch()
    return run


# Thin twins for async code; the synchronous functions are the truth.
aask = sync_to_async(ask)
astart = sync_to_async(start)
aask_again = sync_to_async(ask_again)
astart_again = sync_to_async(start_again)
acancel = sync_to_async(cancel)
