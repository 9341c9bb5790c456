"""Questions that are answered without a session: the agent is heard, nothing is stored, the client keeps it all."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, router
from django.utils import timezone

from .. import agents, conf
from ..agents import Agent, Message, RequestContext, Turn
from ..choices import Role
from ..exceptions import AgentFailed, AgentUnavailable, InvalidRequest
from ..models import ChatSession
from ..rules import merge as patches
from ..rules import window as windows
from . import asking, limits, listening, sealing
from . import context as contexts
from .listening import OutOfTime, Reach
from .patience import let_connections_go
from .performing import INTERRUPT_SECONDS
from .runs import MOMENT_SECONDS
from .sealing import Transcript
from .speaking import Speech, Whole

logger = logging.getLogger("django_chat_sessions")


@dataclass(frozen=True, slots=True)
class Answered:
    """A question that was answered.

    Attributes:
        reply: the agent's last message; None where it said nothing.
        messages: what is new: the question, and all that was said to it.
        input_tokens, output_tokens, cost: what it took; None where nobody counted.
        transcript: the conversation so far, sealed; None where it has grown too large to be.
    """

    reply: Message | None
    messages: tuple[Message, ...]
    input_tokens: int | None
    output_tokens: int | None
    cost: Decimal | None
    transcript: str | None


def ask(
    owner: Any,
    message: Message,
    *,
    agent: str,
    transcript: Transcript | None = None,
    context: RequestContext | None = None,
) -> Answered:
    """Ask an agent something outside of any session, and wait for the answer.

    The agent works in a thread of its own; within a transaction of the caller's in the calling thread, so that it sees
    what the caller has written.

    Args:
        owner: the user who asks, and who alone can bring the transcript back.
        message: the question.
        agent: the name of who answers.
        transcript: what was said before, with the same agent.
        context: who asked, for the responder.

    Raises:
        AgentNotFound: no such agent.
        InvalidRequest: the agent does not answer, the message is no user's, or the transcript is of another agent.
        MessageTooLong, MetadataTooLarge, MessageLimitReached: too much of something.
        AgentUnavailable: it cannot answer now, or this process hears as many as ``RUN_CONCURRENCY`` already.
        AgentFailed: it raised, or its time is over.
    """
    hearing = _hearing(message, agent=agent, transcript=transcript, context=context)
    if connections[router.db_for_write(ChatSession)].in_atomic_block:
        hearing.work(is_inline=True)
    else:
        hearing.start()
    return _answered(owner, hearing, hearing.wait(), transcript)


async def aask(
    owner: Any,
    message: Message,
    *,
    agent: str,
    transcript: Transcript | None = None,
    context: RequestContext | None = None,
) -> Answered:
    """Ask as ``ask`` does, without a thread that waits. Where the caller is cancelled, the agent's work is stopped."""
    hearing = await sync_to_async(_hearing)(message, agent=agent, transcript=transcript, context=context)
    hearing.start()
    error = await hearing.await_()
    return await sync_to_async(_answered)(owner, hearing, error, transcript)


def _hearing(
    message: Message, *, agent: str, transcript: Transcript | None, context: RequestContext | None
) -> _Hearing:
    """Check what is asked, and put together what the agent needs."""
    known = agents.find(agent)
    _check(message, known, transcript)
    before = () if transcript is None else transcript.messages
    question = replace(message, created_at=timezone.now())
    if not asking.can_answer_now(known):
        raise AgentUnavailable
    turn = Turn(
        context=context or RequestContext(),
        question=question,
        messages=_window(known, (*before, question)),
        state={} if transcript is None else deepcopy(transcript.state),
    )
    return _Hearing(known, turn)


def _check(message: Message, agent: Agent, transcript: Transcript | None) -> None:
    limits.check_message(message)
    if message.role != Role.USER:
        raise InvalidRequest({"role": ["A question is the user's."]})
    if not agent.can_respond:
        raise InvalidRequest({"agent": ["This agent does not answer."]})
    if transcript is None:
        return
    if transcript.agent != agent.name:
        raise InvalidRequest({"transcript": ["This transcript is of another agent."]})
    limits.check_count(len(transcript.messages))


def _window(agent: Agent, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return what the agent gets to see: the question, and what fits beside it."""
    budget = contexts.Budget.of(ChatSession(agent=agent.name))
    seen = windows.fit(
        messages,
        max_messages=budget.messages,
        max_tokens=budget.tokens,
        count=budget.count,
        keep=lambda message: message is messages[-1],
    )
    return tuple(seen)


def _answered(owner: Any, hearing: _Hearing, error: BaseException | None, transcript: Transcript | None) -> Answered:
    if error is not None:
        logger.error("The agent %r failed to answer a query", hearing.agent.name, exc_info=error)
        raise AgentFailed("The agent failed to answer; nothing is stored.") from error
    new = (hearing.turn.question, *hearing.said)
    before = () if transcript is None else transcript.messages
    replies = [message for message in hearing.said if message.role == Role.ASSISTANT]
    usage, counted = hearing.speech.usage, hearing.speech.counted
    cost = usage.cost if usage else None
    if usage is not None and cost is None and hearing.agent.price is not None:
        cost = hearing.agent.price.of(usage)
    return Answered(
        reply=replies[-1] if replies else None,
        messages=new,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else counted or None,
        cost=cost,
        transcript=sealing.seal(Transcript(hearing.agent.name, (*before, *new), hearing.state), owner),
    )


def _begun() -> Future[BaseException | None]:
    """Return a future that nobody who waits for it can cancel."""
    future: Future[BaseException | None] = Future()
    future.set_running_or_notify_cancel()
    return future


#: The agents that this process hears in threads of their own.
_HEARD: set[_Hearing] = set()
_LOCK = threading.Lock()


@dataclass(slots=True, eq=False)
class _Hearing:
    """An agent that is heard.

    Attributes:
        agent: who answers.
        turn: the question.
        speech: what is said, as it is put together.
        said: what is whole of it.
        state: the agent's, afterwards.
    """

    agent: Agent
    turn: Turn
    speech: Speech = field(default_factory=Speech)
    said: list[Message] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    _error: Future[BaseException | None] = field(default_factory=_begun)
    _stops: list[Callable[[], Any]] = field(default_factory=list)
    _reach: Reach = field(default_factory=Reach)

    def start(self) -> None:
        """Begin, in a thread of its own, whose database connections end with it.

        Raises:
            AgentUnavailable: there are too many already, perhaps of agents that do not stop.
        """
        with _LOCK:
            if len(_HEARD) >= conf.get().RUN_CONCURRENCY:
                raise AgentUnavailable
            _HEARD.add(self)
        threading.Thread(target=self._work_alone, name="chat-query", daemon=True).start()

    def _work_alone(self) -> None:
        try:
            with suppress(BaseException):
                self.work()
        finally:
            with _LOCK:
                _HEARD.discard(self)
            connections.close_all()

    def work(self, *, is_inline: bool = False) -> None:
        """Hear the agent out, in this thread; within a transaction of the caller's, all of it."""
        error: BaseException | None = None
        try:
            self._hear(is_inline=is_inline)
        except Exception as raised:  # noqa: BLE001 - whatever an agent raises ends its answer
            error = raised
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._error.set_result(error)

    def _hear(self, *, is_inline: bool) -> None:
        before = deepcopy(self.turn.state)
        if is_inline:
            listening.hear_out(self.agent, self.turn, lambda piece: self._take(self.speech.hear(piece)))
        else:
            self._hear_pieces()
        self._take(self.speech.close())
        self.state = patches.merge(before, patches.difference(before, self.turn.state))
        limits.check_json("state", self.state, conf.get().MAX_STATE_BYTES)

    def _hear_pieces(self) -> None:
        begin = partial(listening.pieces, self.agent, self.turn, self._on_stop, self._reach)
        with closing(listening.timely(begin, self.agent.time_limit_seconds)) as said:
            for piece in said:
                if self.turn.is_cancelled:
                    raise OutOfTime
                self._take(self.speech.hear(piece))

    def _take(self, wholes: Iterator[Whole] | Iterator[Message]) -> None:
        for whole in wholes:
            if isinstance(whole, Message):
                self.said.append(replace(whole, created_at=timezone.now()))
            else:
                merged = patches.merge(self.turn.state, dict(whole.patch))
                self.turn.state.clear()
                self.turn.state.update(merged)

    def wait(self) -> BaseException | None:
        """Wait for the end, and return what went wrong; the agent's time is over when its limit has passed.

        Who waits for more than a moment does so without a database connection.
        """
        moment = min(MOMENT_SECONDS, self.agent.time_limit_seconds)
        try:
            if not wait_for([self._error], moment).done:
                let_connections_go()
            return self._error.result(self.agent.time_limit_seconds - moment)
        except TimeoutError:
            return OutOfTime()
        finally:
            self._stop()

    async def await_(self) -> BaseException | None:
        """Wait as ``wait`` does, in an event loop."""
        error = asyncio.wrap_future(self._error)
        try:
            async with asyncio.timeout(self.agent.time_limit_seconds):
                done, _ = await asyncio.wait([error], timeout=MOMENT_SECONDS)
                if not done:
                    await sync_to_async(let_connections_go)()
                return await error
        except TimeoutError:
            return OutOfTime()
        finally:
            self._stop()

    def _on_stop(self, stop: Callable[[], Any]) -> None:
        self._stops.append(stop)
        if self.turn.is_cancelled:
            stop()

    def _stop(self) -> None:
        """Stop the agent's work, if it still does any; one that does not stop by itself is interrupted."""
        if self._error.done():
            return
        self.turn.cancellation.set()
        for stop in self._stops:
            stop()
        threading.Thread(target=self._insist, name="chat-query-stop", daemon=True).start()

    def _insist(self) -> None:
        patience = INTERRUPT_SECONDS
        while wait_for([self._error], patience).not_done:
            self._reach.interrupt()
            patience *= 3
