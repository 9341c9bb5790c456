"""Storing a question with the run that answers it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta

from django.db import IntegrityError, connections

from .. import agents, log
from ..agents import Agent, Message, RequestContext
from ..choices import ALIVE, Role, RunStatus
from ..exceptions import AgentUnavailable, InvalidRequest, RunInProgress
from ..models import ChatSession, Run, SessionEvent
from ..rules.concurrency import Client
from . import dispatching, limits, recovery, writing
from . import messages as conversation
from .listening import OutOfTime
from .recording import begin
from .runner import RUNNER, process_name

logger = logging.getLogger("django_chat_sessions")


@dataclass(frozen=True, slots=True)
class Started:
    """A question, and the run that answers it.

    Attributes:
        message: the stored question.
        created: whether this call stored it, or queued the run.
        run: None for a repeat of a question that nobody answered.
        after: the sequence after which all this begins in the log.
    """

    message: Message
    created: bool
    run: Run | None
    after: int


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


def can_answer_now(agent: Agent) -> bool:
    """Ask the agent; one that cannot even say so is not."""
    try:
        return agent.is_available
    except Exception:
        logger.exception("Whether the agent %r is available cannot be found out", agent.name)
        return False


@dataclass(frozen=True, slots=True)
class Asking:
    """One call for an answer.

    Attributes:
        waits: whether the caller waits for it, and so this process gives it.
        begins: whether that is at once; what has to wait for a hand begins when there is one, and its time with it.
    """

    session: ChatSession
    context: RequestContext
    client: Client
    expected_sequence: int | None
    waits: bool
    begins: bool = field(init=False)

    def __post_init__(self) -> None:
        """Find out whether there is a hand free; within a transaction of the caller's it is the caller's own."""
        is_inline = connections[writing.alias(self.session)].in_atomic_block
        object.__setattr__(self, "begins", self.waits and (is_inline or RUNNER.has_room))

    def question(self, message: Message) -> Started:
        """Store a question with its run, unless it is a repeat."""
        limits.check_message(message)
        found = conversation.repeated(self.session, message)
        if found is not None:
            return self._repeat(found)
        try:
            return self._store(message)
        except IntegrityError as error:
            if not log.violated(error, "chat_sessions_event_external_id"):
                raise
            found = conversation.repeated(self.session, message)
            if found is None:
                raise
            return self._repeat(found)

    def _store(self, message: Message) -> Started:
        agent = responding(self.session)
        is_available = can_answer_now(agent)
        with writing.writing(self.session, live=False) as draft:
            # Another call may have asked this very question meanwhile, which is told before anything else.
            found = conversation.repeated(draft.session, message)
            if found is not None:
                return self._repeat(found)
            writing.check(draft.session, draft.now, client=self.client)
            limits.check_count(draft.session.message_count)
            writing.check_sequence(draft.session, self.expected_sequence)
            after = draft.session.last_sequence
            _make_room(draft)
            if not is_available:
                raise AgentUnavailable
            draft.come_back()
            question = replace(message, sequence=draft.next_sequence, created_at=draft.now)
            draft.entries.append(replace(conversation.entry(message), created_at=draft.now))
            run = self._run(draft, agent, question)
        return Started(question, created=True, run=run, after=after)

    def again(self, input_sequence: int | None) -> Started:
        """Queue another run of a question that is there."""
        agent = responding(self.session)
        is_available = can_answer_now(agent)
        # A question that never was is told before a session that is over.
        with writing.writing(self.session, live=False) as draft:
            question = _asked(draft.session, input_sequence)
            writing.check(draft.session, draft.now, client=self.client, expected_sequence=self.expected_sequence)
            after = draft.session.last_sequence
            _make_room(draft)
            if not is_available:
                raise AgentUnavailable
            draft.come_back()
            run = self._run(draft, agent, question, is_repeat=True)
        return Started(question, created=True, run=run, after=after)

    def _run(self, draft: writing.Draft, agent: Agent, question: Message, *, is_repeat: bool = False) -> Run:
        must_finish = draft.now + timedelta(seconds=agent.time_limit_seconds)
        run = Run(
            session=draft.session,
            input_sequence=question.sequence or 0,
            is_repeat=is_repeat,
            context=dict(self.context.metadata),
            heartbeat_at=draft.now,
            created_at=draft.now,
            expires_at=must_finish,
        )
        if self.begins:
            begin(draft, run, agent, worker=process_name())
        else:
            run.save(using=writing.alias(draft.session))
            draft.touch(until=must_finish)
            if not self.waits:
                dispatching.dispatch(run, draft.session)
        return run

    def _repeat(self, message: Message) -> Started:
        """Return what came of a question that was asked before."""
        runs = Run.objects.using(writing.alias(self.session)).filter(session=self.session)
        run = runs.filter(input_sequence=message.sequence or 0, is_repeat=False).first()
        return Started(message, created=False, run=run, after=(message.sequence or 1) - 1)


def _asked(session: ChatSession, sequence: int | None) -> Message:
    """Return the question of that sequence, or the last one.

    Raises:
        InvalidRequest: there is none.
    """
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session, role=Role.USER).current()
    event = events.filter(position=sequence).first() if sequence else events.order_by("-position").first()
    if event is None:
        raise InvalidRequest({"input_sequence": ["There is no question to answer."]})
    return conversation.read(event)


def _make_room(draft: writing.Draft) -> None:
    """Refuse while the agent is to answer; give up on an answer whose time is over, or whose process is lost.

    Raises:
        RunInProgress: with the run.
    """
    alive = Run.objects.using(writing.alias(draft.session)).filter(session=draft.session, status__in=ALIVE).first()
    if alive is None:
        return
    if recovery.is_lost(alive, draft.now):
        recovery.abandon(draft, alive)
    elif alive.status == RunStatus.RUNNING and alive.expires_at <= draft.now:
        recovery.abandon(draft, alive, OutOfTime.__name__)
    else:
        raise RunInProgress(run=str(alive.uuid))
