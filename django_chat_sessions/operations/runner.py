"""Giving answers in this process: a thread for each, and one that keeps them all.

The keeper stores what was said and waits, says that this process is still alive, notices what was taken from it
(cancelled, over, taken over by another process), and stops what is out of time.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from django.db import DatabaseError, connections

from .. import agents, conf, dialects
from ..agents import Agent
from ..choices import RunStatus
from ..exceptions import MessageNotFound, SessionNotFound
from ..models import ChatSession, Run
from ..turns import Message, Piece, RequestContext, Turn
from . import context as contexts
from . import compaction, listening, writing
from . import messages as conversation
from .listening import OutOfTime
from .recording import Lost, Recorder, begin

logger = logging.getLogger("django_chat_sessions")

#: Seconds between two looks of the keeper at what waits, and at what was taken from this process.
TICK_SECONDS = 0.05
WATCH_SECONDS = 0.4

#: Seconds after which a synchronous responder that was told to stop and does not is interrupted.
INTERRUPT_SECONDS = 0.5


class Stopped(BaseException):
    """What a synchronous responder that does not stop by itself is interrupted with."""


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


def process_name() -> str:
    """Return the name under which this process gives answers."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True, eq=False)
class Execution:
    """A run that this process is to give, or gives.

    Attributes:
        run: queued, or begun by the caller.
        worker: the name of the process.
        context: who asked; None is read from the run.
        outcome: what comes of it.
    """

    run: Run
    worker: str
    context: RequestContext | None = None
    outcome: Future[Outcome | None] = field(default_factory=Future)
    recorder: Recorder | None = None
    until: float = 0.0
    _stops: list[Callable[[], Any]] = field(default_factory=list)
    _stopped_at: float | None = None
    _thread: int | None = None

    def work(self) -> None:
        """Give the answer, from beginning to end, in this thread."""
        self._thread = threading.get_ident()
        outcome, error = None, None
        try:
            outcome = self._answer()
        except DatabaseError as problem:
            # The run stays as it is, and recovery finds it.
            logger.exception("Run %s cannot be recorded", self.run.uuid)
            error = problem
        finally:
            self._thread = None
            self.resolve(outcome, error)

    def resolve(self, outcome: Outcome | None, error: BaseException | None = None) -> None:
        """Tell who waits."""
        if not self.outcome.done():
            self.outcome.set_exception(error) if error else self.outcome.set_result(outcome)

    def _answer(self) -> Outcome | None:
        session = ChatSession.objects.using(self.run._state.db).filter(pk=self.run.session_id).first()
        if session is None:
            return None
        agent = agents.of(session.agent)
        if self.run.status == RunStatus.QUEUED and not claim(session, self.run, agent, worker=self.worker):
            return None
        self.until = monotonic() + agent.time_limit_seconds
        return perform(session, self.run, agent, self, context=self.context)

    def attach(self, recorder: Recorder) -> None:
        """Have the keeper look after what is recorded."""
        self.recorder = recorder

    def on_stop(self, stop: Callable[[], Any]) -> None:
        """Note what stops the agent's work."""
        self._stops.append(stop)
        if self._stopped_at is not None:
            stop()

    def tick(self) -> None:
        """Store what waits; see to it that what was stopped stops."""
        if self.recorder is not None and not self.recorder.is_over:
            self.recorder.tick()
        if self._stopped_at is not None and monotonic() - self._stopped_at > INTERRUPT_SECONDS and self._thread:
            _interrupt(self._thread)
            self._stopped_at = monotonic()

    @property
    def is_out_of_time(self) -> bool:
        """Whether the agent's time limit has passed."""
        return bool(self.until) and monotonic() > self.until and self._stopped_at is None

    def stop(self, failure: BaseException | None = None) -> None:
        """Stop the agent's work, whose run is over or not this process's any more.

        Who waits is told at once, however long the agent takes to notice.
        """
        if self._stopped_at is not None or self.recorder is None:
            return
        self._stopped_at = monotonic()
        self.recorder.is_over = True
        self.recorder.turn.cancellation.set()
        for stop in self._stops:
            stop()
        session = ChatSession.objects.using(self.run._state.db).filter(pk=self.run.session_id).first()
        run = Run.objects.using(self.run._state.db).filter(pk=self.run.pk).first()
        self.resolve(session and run and _outcome(session, run, self.recorder, failure))


def _interrupt(thread: int) -> None:
    """Raise ``Stopped`` in a thread at its next bytecode; the documented use of this function of CPython's."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Stopped))


def claim(session: ChatSession, run: Run, agent: Agent, *, worker: str) -> bool:
    """Begin a queued run; tell whether it was this process that did."""
    with suppress(SessionNotFound), writing.writing(session, live=False) as draft:
        run.refresh_from_db(using=writing.alias(session))
        if run.status != RunStatus.QUEUED or not draft.session.is_live_at(draft.now):
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
        turn = _turn(session, run, agent, context)
        recorder = Recorder(session, run, agent, turn, deepcopy(turn.state), is_inline=execution is None)
        turn.record = recorder.record
        if execution is not None:
            execution.attach(recorder)
        for piece in _heard(agent, turn, execution):
            recorder.hear(piece)
        recorder.finish()
    except Lost:
        pass
    except BaseException as error:  # noqa: BLE001 - whatever an agent raises ends its answer, not this process
        failure = error
        _fail(session, run, recorder, error)
        if execution is None and not isinstance(error, Exception):
            raise
    return _outcome(session, run, recorder, failure)


def _heard(agent: Agent, turn: Turn, execution: Execution | None) -> Iterator[Piece]:
    until = monotonic() + agent.time_limit_seconds
    said = listening.pieces(agent, turn, (lambda stop: None) if execution is None else execution.on_stop)
    try:
        for piece in said:
            if monotonic() > until:
                raise OutOfTime
            yield piece
    finally:
        close = getattr(said, "close", None)
        if close is not None:
            close()


def _turn(session: ChatSession, run: Run, agent: Agent, context: RequestContext | None) -> Turn:
    question = conversation.find(session, run.input_sequence)
    window = contexts.window(
        session, question=run.input_sequence, up_to=run.input_sequence if run.is_repeat else None
    )
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


def _outcome(session: ChatSession, run: Run, recorder: Recorder | None, failure: BaseException | None) -> Outcome | None:
    """Return what came of it, as it is now: somebody else may have ended it, or deleted the session."""
    try:
        run.refresh_from_db(using=writing.alias(session))
        session.refresh_from_db(using=writing.alias(session))
    except (Run.DoesNotExist, ChatSession.DoesNotExist):
        return None
    failed = failure if run.status == RunStatus.FAILED else None
    reply = recorder.reply if recorder is not None else None
    if run.output_sequence is None or (reply is not None and reply.sequence == run.output_sequence):
        return Outcome(run, reply if run.output_sequence is not None else None, failed)
    with suppress(MessageNotFound):
        return Outcome(run, conversation.find(session, run.output_sequence), failed)
    return Outcome(run, None, failed)


class Runner:
    """All the answers that this process gives."""

    def __init__(self) -> None:
        """Give none yet."""
        self.reset()

    def reset(self) -> None:
        """Know of none: a forked child has none of its parent's threads."""
        self._news = threading.Condition()
        self._waiting: deque[Execution] = deque()
        self._active: set[Execution] = set()
        self._keeper: threading.Thread | None = None
        self.is_draining = False

    def submit(self, execution: Execution) -> None:
        """Give an answer as soon as this process has a hand free."""
        with self._news:
            if len(self._active) >= conf.get().RUN_CONCURRENCY:
                self._waiting.append(execution)
            else:
                self._start(execution)

    def _start(self, execution: Execution) -> None:
        self._active.add(execution)
        threading.Thread(target=self._work, args=(execution,), name="chat-run", daemon=True).start()
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="chat-keeper", daemon=True)
            self._keeper.start()
        self._news.notify_all()

    def _work(self, execution: Execution) -> None:
        try:
            execution.work()
            _compact(execution.run)
        except BaseException:
            logger.exception("Run %s was left", execution.run.uuid)
        finally:
            connections.close_all()
            with self._news:
                self._active.discard(execution)
                if self._waiting and not self.is_draining:
                    self._start(self._waiting.popleft())
                self._news.notify_all()

    def _keep(self) -> None:
        """Look after the answers that are given, for as long as there are any."""
        watched_at = beaten_at = monotonic()
        while self._goes_on():
            with self._news:
                executions = list(self._active)
            try:
                self._look_after(executions)
                if monotonic() - watched_at > WATCH_SECONDS:
                    watched_at = monotonic()
                    _each_database(executions, _watch)
                if monotonic() - beaten_at > conf.get().HEARTBEAT_SECONDS:
                    beaten_at = monotonic()
                    _each_database(executions, _beat)
            except DatabaseError:
                logger.exception("Answers that are being given cannot be recorded")
                connections.close_all()

    def _goes_on(self) -> bool:
        """Wait for a tick; tell whether there is anything to look after, and let the keeper go where there is not."""
        with self._news:
            if not self._active:
                connections.close_all()
                self._news.wait(1)
            if not self._active:
                self._keeper = None
                return False
            self._news.wait(TICK_SECONDS)
            return True

    def _look_after(self, executions: list[Execution]) -> None:
        for execution in executions:
            try:
                if execution.is_out_of_time and execution.recorder is not None:
                    execution.recorder.fail(OutOfTime.__name__)
                    execution.stop(OutOfTime())
                execution.tick()
            except Lost:
                execution.stop()

    def drain(self, seconds: float) -> int:
        """Take no new answer, let those that are given be finished, and return how many were not in time."""
        with self._news:
            self.is_draining = True
            # They are still queued, for another process to take.
            self._waiting.clear()
            self._news.wait_for(lambda: not self._active, timeout=seconds)
            return len(self._active)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is given any more; tell whether that is so."""
        with self._news:
            return self._news.wait_for(lambda: not self._active and not self._waiting, timeout=seconds)


def _compact(run: Run) -> None:
    """Have what no longer fits the window summarized, now that nobody waits."""
    session = ChatSession.objects.using(run._state.db).filter(pk=run.session_id).first()
    if session is not None and run.status == RunStatus.SUCCEEDED:
        compaction.compact(session)


def _each_database(executions: list[Execution], act: Callable[[str, list[Execution]], None]) -> None:
    """Do something about those answers that are being recorded, a database at a time."""
    by_alias: dict[str, list[Execution]] = {}
    for execution in executions:
        if execution.recorder is not None and not execution.recorder.is_over:
            by_alias.setdefault(execution.run._state.db or "default", []).append(execution)
    for using, mine in by_alias.items():
        act(using, mine)


def _running(using: str, executions: list[Execution]) -> Any:
    keys = [execution.run.pk for execution in executions]
    return Run.objects.using(using).filter(pk__in=keys, status=RunStatus.RUNNING)


def _watch(using: str, executions: list[Execution]) -> None:
    """Stop the work on what was taken from this process."""
    attempts = dict(_running(using, executions).values_list("pk", "attempt"))
    for execution in executions:
        if attempts.get(execution.run.pk) != execution.run.attempt:
            execution.stop()


def _beat(using: str, executions: list[Execution]) -> None:
    """Say that this process is still alive."""
    mine = _running(using, executions).filter(worker__in={execution.worker for execution in executions})
    mine.update(heartbeat_at=dialects.now(using))


RUNNER = Runner()
os.register_at_fork(after_in_child=RUNNER.reset)
