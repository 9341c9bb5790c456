"""One answer, from its claim to its end, in a thread of this process."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any
from uuid import uuid4

from django.db import Error as DatabaseError
from django.db import connections

from .. import agents, conf
from ..agents import Agent
from ..choices import RunStatus
from ..exceptions import MessageNotFound, SessionNotFound
from ..models import ChatSession, Run
from ..turns import Message, Piece, RequestContext, Turn
from . import compaction, listening, writing
from . import context as contexts
from . import messages as conversation
from .listening import Lost, OutOfTime, Reach, Stopped
from .patience import hang_up, patiently
from .recording import Recorder, begin

logger = logging.getLogger("django_chat_sessions")

#: Seconds after which a synchronous responder that was told to stop and does not is interrupted; each time that it goes
#: on all the same it is given three times as long.
INTERRUPT_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run in this process.

    Attributes:
        run: as it is now.
        reply: the agent's last message; None where it said nothing.
        error: what the agent raised.
    """

    run: Run
    reply: Message | None
    error: BaseException | None = None


class Interrupted(Exception):
    """Somebody else ended the answer: recovery, or a process that was told to stop."""


#: What no other process of the same name has, one in another container with the same host and number, say. A worker's
#: children have their parent's.
TOKEN = uuid4().hex[:8]


def process_name() -> str:
    """Return the name under which this process gives answers."""
    return f"{socket.gethostname()}:{os.getpid()}:{TOKEN}"


@dataclass(slots=True, eq=False)
class Execution:
    """A run that this process is to give, or gives.

    Attributes:
        run: queued, or begun by the caller.
        worker: the name of the process.
        context: who asked; None is read from the run.
        outcome: what comes of it.
        has_begun: whether the caller has begun it; whoever has not may only claim it while it is queued.
        recorder: what writes it, once there is something to write.
        until: when the agent's time is over, by this process's clock; 0 is not yet known.
        failure: why this process gave it up, if it did.
        on_stopped: is called when the agent's work was stopped, however long it takes to notice.
        on_due: is called when something that was said is to be stored.
        key: database, run and attempt: what no process does twice at a time.
    """

    run: Run
    worker: str
    context: RequestContext | None = None
    outcome: Future[Outcome | None] = field(default_factory=Future)
    recorder: Recorder | None = None
    until: float = 0.0
    failure: BaseException | None = None
    has_begun: bool = False
    on_stopped: Callable[[Execution], None] | None = None
    on_due: Callable[[], None] | None = None
    key: tuple[str, int, int] = field(init=False)
    _agent: Agent | None = None
    _stops: list[Callable[[], Any]] = field(default_factory=list)
    _is_stopped: threading.Event = field(default_factory=threading.Event)
    _is_given_up: bool = False
    _patience: float = INTERRUPT_SECONDS
    _interrupt_at: float = 0.0
    _reach: Reach = field(default_factory=Reach)

    def __post_init__(self) -> None:
        """Note which attempt it is."""
        self.key = (self.using, self.run.pk, self.run.attempt)

    @property
    def using(self) -> str:
        """The database."""
        return self.run._state.db or "default"

    @property
    def is_begun(self) -> bool:
        """Whether this process says of the run that it is alive."""
        is_over = self.recorder is not None and self.recorder.is_over
        return self.has_begun and not is_over and not self._is_stopped.is_set()

    @property
    def is_ending(self) -> bool:
        """Whether its end is being written at this moment."""
        return self.recorder is not None and self.recorder.is_ending

    def work(self) -> None:
        """Give the answer, from beginning to end, in this thread."""
        outcome: Outcome | None = None
        error: BaseException | None = None
        try:
            outcome = self._answer()
        except BaseException as problem:
            # The run stays as it is, and recovery finds it.
            logger.exception("Run %s cannot be recorded", self.run.uuid)
            error = problem
        if not self._is_given_up:
            self.resolve(outcome, error)

    def resolve(self, outcome: Outcome | None = None, error: BaseException | None = None) -> None:
        """Tell who waits."""
        with suppress(Exception):  # somebody was quicker
            self.outcome.set_exception(error) if error else self.outcome.set_result(outcome)

    def _answer(self) -> Outcome | None:
        sessions = ChatSession.objects.using(self.using).filter(pk=self.run.session_id)
        session = patiently(self.using, sessions.first)
        if session is None or self._is_stopped.is_set():
            return None
        agent = self._agent = agents.of(session.agent)
        if not self.has_begun and not self._claim(session, agent):
            return None
        self.has_begun = True
        self.until = monotonic() + agent.time_limit_seconds
        return perform(session, self.run, agent, self, context=self.context)

    def _claim(self, session: ChatSession, agent: Agent) -> bool:
        """Begin the run, and where the database goes away meanwhile, find out whether that came through."""
        tries: list[int] = []

        def try_() -> bool:
            tries.append(1)
            if claim(session, self.run, agent, worker=self.worker):
                return True
            mine = (RunStatus.RUNNING, self.key[2], self.worker)
            return len(tries) > 1 and (self.run.status, self.run.attempt, self.run.worker) == mine

        return patiently(self.using, try_)

    def tidy(self) -> None:
        """Have what no longer fits the window summarized, now that nobody waits."""
        if self._agent is None or not (self._agent.summarize or conf.get().summarize):
            return
        session = ChatSession.objects.using(self.using).filter(pk=self.run.session_id).first()
        if session is not None and self.run.status == RunStatus.SUCCEEDED:
            compaction.compact(session)

    def attach(self, recorder: Recorder) -> None:
        """Have the keeper look after what is recorded.

        Raises:
            Lost: the run was taken from this process before it said a word.
        """
        self.recorder = recorder
        recorder.on_due = self.on_due
        if self._is_stopped.is_set():
            recorder.is_over = True
            raise Lost

    def heard(self, agent: Agent, turn: Turn) -> Iterator[Piece]:
        """Yield what the agent says, so that it can be stopped."""
        return listening.pieces(agent, turn, self._on_stop, self._reach)

    def _on_stop(self, stop: Callable[[], Any]) -> None:
        """Note what stops the agent's work."""
        self._stops.append(stop)
        if self._is_stopped.is_set():
            stop()

    def tick(self) -> None:
        """Store what waits, end what is out of time, and see to it that what was stopped stops."""
        if self._is_stopped.is_set():
            self._insist()
        elif self.recorder is not None and not self._is_given_up:
            if self.until and monotonic() > self.until:
                self.give_up(OutOfTime())
            else:
                self.recorder.tick()

    def _insist(self) -> None:
        if monotonic() > self._interrupt_at:
            self._patience *= 3
            self._interrupt_at = monotonic() + self._patience
            self._reach.interrupt()

    def give_up(self, error: Exception) -> None:
        """Mark the run as failed and stop the agent, in a thread that may wait for a lock."""
        if not self._is_given_up:
            self._is_given_up, self.failure = True, error
            threading.Thread(target=self._fail, args=(error,), name="chat-fail", daemon=True).start()

    def _fail(self, error: Exception) -> None:
        try:
            if self.recorder is not None:
                with suppress(Lost, SessionNotFound):
                    self.recorder.fail(type(error).__name__)
            self.stop()
        except DatabaseError as problem:
            logger.exception("Run %s cannot be marked as failed", self.run.uuid)
            self.resolve(error=problem)
        finally:
            connections.close_all()

    def stop(self) -> None:
        """Stop the agent's work, whose run is over or not this process's any more.

        Who waits is told at once, however long the agent takes to notice.
        """
        if self._is_stopped.is_set():
            return
        self._interrupt_at = monotonic() + self._patience
        self._is_stopped.set()
        if self.recorder is not None:
            self.recorder.is_over = True
            self.recorder.turn.cancellation.set()
        for stop in list(self._stops):
            stop()
        try:
            session = ChatSession.objects.using(self.using).filter(pk=self.run.session_id).first()
            run = Run.objects.using(self.using).filter(pk=self.run.pk).first()
            if session is None or run is None:
                self.resolve()
            else:
                self.resolve(_outcome(session, run, self.recorder, self.failure))
        except DatabaseError as problem:
            self.resolve(error=problem)
        finally:
            if self.on_stopped is not None:
                self.on_stopped(self)


def claim(session: ChatSession, run: Run, agent: Agent, *, worker: str) -> bool:
    """Begin a queued run; tell whether it was this process that did."""
    attempt = run.attempt
    with suppress(SessionNotFound, Run.DoesNotExist), writing.writing(session, live=False) as draft:
        run.refresh_from_db(using=writing.alias(session))
        if (run.status, run.attempt) != (RunStatus.QUEUED, attempt) or not draft.session.is_live_at(draft.now):
            return False
        begin(draft, run, agent, worker=worker)
        return True
    return False


def perform(
    session: ChatSession,
    run: Run,
    agent: Agent,
    execution: Execution | None = None,
    *,
    context: RequestContext | None = None,
) -> Outcome | None:
    """Let the agent answer a run that has begun, and record what it says.

    Args:
        session: of this thread alone.
        run: running.
        agent: who answers.
        execution: where the keeper looks after it; None within a transaction of the caller's.
        context: who asked; None is read from the run.
    """
    recorder: Recorder | None = None
    failure: BaseException | None = None
    try:
        turn = patiently(writing.alias(session), lambda: _turn(session, run, agent, context))
        recorder = patiently(
            writing.alias(session),
            lambda: Recorder(session, run, agent, turn, deepcopy(turn.state), is_inline=execution is None),
        )
        turn.record = recorder.record
        if execution is None:
            listening.hear_out(agent, turn, recorder.hear)
        else:
            execution.attach(recorder)
            hang_up(writing.alias(session))
            with closing(listening.timely(partial(execution.heard, agent, turn), agent.time_limit_seconds)) as said:
                for piece in said:
                    recorder.hear(piece)
        recorder.finish()
    except Lost:
        failure = None if execution is None else execution.failure
    except BaseException as error:
        if recorder is not None and recorder.is_over:
            # It was stopped, and why is said elsewhere; this is only how it took it.
            failure = None if execution is None else execution.failure
        else:
            failure = error
            _fail(session, run, recorder, error)
        if execution is None and not isinstance(error, Exception):
            raise
    return patiently(writing.alias(session), lambda: _outcome(session, run, recorder, failure))


def _turn(session: ChatSession, run: Run, agent: Agent, context: RequestContext | None) -> Turn:
    question = conversation.find(session, run.input_sequence)
    window = contexts.window(session, question=run.input_sequence, up_to=run.input_sequence if run.is_repeat else None)
    state = dict(session.state) if session.parent_id is None else window.state
    return Turn(
        context=context or _context(session, run),
        question=question,
        messages=window.messages,
        state=deepcopy(state),
        metadata=dict(session.metadata),
        run=str(run.uuid),
        attempt=run.attempt,
        summary=window.summary,
    )


def _context(session: ChatSession, run: Run) -> RequestContext:
    """Return who asked, where another process took the question."""
    return RequestContext(
        user=session.owner, session=str(session.uuid), metadata=dict(run.context), instant=run.created_at
    )


def _fail(session: ChatSession, run: Run, recorder: Recorder | None, error: BaseException) -> None:
    if isinstance(error, Stopped):
        return
    logger.error("The agent %r failed to answer in session %s", session.agent, session.uuid, exc_info=error)
    if recorder is None:
        # What the agent was to be asked could not be put together.
        recorder = Recorder(session, run, agents.of(session.agent), Turn(RequestContext(), Message("user"), (), {}), {})
    with suppress(Lost, SessionNotFound):
        recorder.fail(type(error).__name__)


def _outcome(
    session: ChatSession, run: Run, recorder: Recorder | None, failure: BaseException | None
) -> Outcome | None:
    """Return what came of it, as it is now: somebody else may have ended it, or deleted the session."""
    try:
        run.refresh_from_db(using=writing.alias(session))
        session.refresh_from_db(using=writing.alias(session))
    except (Run.DoesNotExist, ChatSession.DoesNotExist):
        return None
    failed = (failure or Interrupted(run.error)) if run.status == RunStatus.FAILED else None
    reply = recorder.reply if recorder is not None else None
    if run.output_sequence is None or (reply is not None and reply.sequence == run.output_sequence):
        return Outcome(run, reply if run.output_sequence is not None else None, failed)
    with suppress(MessageNotFound):
        return Outcome(run, conversation.find(session, run.output_sequence), failed)
    return Outcome(run, None, failed)
