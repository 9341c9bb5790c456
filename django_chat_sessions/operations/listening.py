"""Hearing an agent out: whatever kind of responder it is, its pieces come one by one in the calling thread."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import os
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connections

from ..agents import Agent
from ..exceptions import AgentNotFound
from ..turns import PIECES, Piece, Turn


class OutOfTime(Exception):
    """The agent's time limit has passed."""


class Stopped(BaseException):
    """What a synchronous responder that does not stop by itself is interrupted with."""


class Lost(Exception):
    """The run is not this process's any more."""


#: Seconds that a responder which is told to stop may take to do so before nobody waits for it any more.
PATIENCE_SECONDS = 2.0


class Loop:
    """The event loop in which this process's asynchronous responders speak, in a thread of its own.

    It stays, so that what a responder keeps between answers, such as a client's connections, stays good.
    """

    def __init__(self) -> None:
        """Have no thread yet."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """Return the loop; the first call starts it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="chat-agents", daemon=True).start()
            return self._loop

    def forget(self) -> None:
        """Have no loop: a forked child has none of its parent's threads."""
        self._lock, self._loop = threading.Lock(), None


LOOP = Loop()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOOP.forget)


class Reach:
    """Where a thread runs an agent's own code, and may be interrupted; nowhere else is that safe."""

    def __init__(self) -> None:
        """Be out of reach."""
        self._lock = threading.Lock()
        self._thread: int | None = None

    def __enter__(self) -> None:
        """Let this thread be interrupted from here on."""
        self._thread = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        """Let it be interrupted no more, and forget an interruption that came too late."""
        while True:
            try:
                with self._lock:
                    self._thread = None
                    _raise_in(threading.get_ident(), None)
            except Stopped:
                continue
            return

    def interrupt(self) -> None:
        """Raise ``Stopped`` in the thread at its next bytecode, if it is within reach."""
        with self._lock:
            if self._thread is not None:
                _raise_in(self._thread, Stopped)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have a thread raise an error, or forget one; the documented use of this function of CPython's."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error and ctypes.py_object(error))


#: Takes what stops the agent's work; a responder that cannot be stopped from outside gives nothing.
OnStop = Callable[[Callable[[], Any]], None]


def pieces(agent: Agent, turn: Turn, on_stop: OnStop, reach: Reach | None = None) -> Iterator[Piece]:
    """Yield what an agent says. A generator that is closed stops the agent's work.

    Args:
        agent: one that can respond.
        turn: what it answers.
        on_stop: is given what stops the work of an asynchronous responder from another thread.
        reach: through which another thread may interrupt a synchronous one.

    Raises:
        AgentNotFound: it is none that responds.
        OutOfTime: an asynchronous responder's time limit has passed.
        Exception: whatever the agent raises.
        TypeError: it answers what no agent may.
    """
    reach = reach or Reach()
    if agent.respond is None:
        raise AgentNotFound
    with reach:
        answer = agent.respond(turn)
    if isinstance(answer, AsyncIterator) or inspect.isawaitable(answer):
        return _bridge(answer, turn, agent.time_limit_seconds, on_stop)
    return _reached(_iterated(answer), reach)


def timely(begin: Callable[[], Iterator[Piece]], seconds: float) -> Generator[Piece]:
    """Have an agent begin, and yield its pieces as long as there is time; it stops when this is closed.

    Raises:
        OutOfTime: a piece came later than that.
    """
    until = monotonic() + seconds
    pieces = begin()
    try:
        for piece in pieces:
            if monotonic() > until:
                raise OutOfTime
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def hear_out(agent: Agent, turn: Turn, hear: Callable[[Piece], None]) -> None:
    """Have all that an agent says heard in this thread, within a transaction of the caller's.

    An asynchronous responder, too, works with the database in this thread, and so sees what the transaction wrote.

    Args:
        agent: one that can respond.
        turn: what it answers.
        hear: takes each piece.

    Raises:
        OutOfTime: its time limit has passed; a synchronous one is asked between its pieces.
        Exception: whatever the agent, or ``hear``, raises.
    """
    if agent.respond is None:
        raise AgentNotFound
    until = monotonic() + agent.time_limit_seconds
    answer = agent.respond(turn)
    if isinstance(answer, AsyncIterator) or inspect.isawaitable(answer):
        turn.arecord = sync_to_async(turn.record)
        async_to_sync(_hear_out)(answer, agent.time_limit_seconds, sync_to_async(hear))
        return
    for piece in _iterated(answer):
        if monotonic() > until:
            raise OutOfTime
        hear(piece)


async def _hear_out(answer: Any, seconds: float, hear: Callable[[Piece], Awaitable[None]]) -> None:
    async with _limited(seconds):
        if not isinstance(answer, AsyncIterator):
            for piece in _iterated(await answer):
                await hear(piece)
            return
        async for piece in answer:
            await hear(piece)


@asynccontextmanager
async def _limited(seconds: float) -> AsyncIterator[None]:
    """Let an asynchronous responder work for so long.

    Raises:
        OutOfTime: it takes longer.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise OutOfTime from error


def _iterated(answer: Any) -> Iterator[Piece]:
    if answer is None:
        return iter(())
    if isinstance(answer, PIECES):
        return iter((answer,))
    if isinstance(answer, (Iterator, list, tuple)):
        return iter(answer)
    raise TypeError(f"A responder returns or yields text, messages or the like, not {type(answer).__name__}.")


def _reached(said: Iterator[Piece], reach: Reach) -> Iterator[Piece]:
    """Yield what a synchronous responder says, which is within reach while it works, and only then."""
    try:
        while True:
            with reach:
                piece: Any = next(said, _END)
            if piece is _END:
                return
            yield piece
    finally:
        close = getattr(said, "close", None)
        if close is not None:
            close()


_END = object()


class _Event:
    """An event that an asynchronous responder wants to be recorded, in the thread that hears it out."""

    def __init__(self, type_: str, data: Mapping[str, Any]) -> None:
        self.type, self.data = type_, data
        self.recorded: Future[None] = Future()

    def record(self, turn: Turn) -> None:
        """Record it, and tell who waits for that."""
        try:
            turn.record(self.type, self.data)
        except Exception as error:  # noqa: BLE001 - it is the responder's
            self.recorded.set_exception(error)
        else:
            self.recorded.set_result(None)


def _bridge(answer: Any, turn: Turn, seconds: float, on_stop: OnStop) -> Iterator[Piece]:
    """Yield in this thread what is said in the loop."""
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_left = threading.Event()

    async def arecord(type_: str, data: Mapping[str, Any]) -> None:
        event = _Event(type_, data)
        heard.put(event)
        if is_left.is_set():
            _refuse(heard)
        await asyncio.wrap_future(event.recorded)

    turn.arecord = arecord
    speaking = asyncio.run_coroutine_threadsafe(_speak(answer, seconds, heard.put), LOOP.get())
    on_stop(partial(_cancel, speaking, heard))
    try:
        while (piece := heard.get()) is not _END:
            if isinstance(piece, _Event):
                piece.record(turn)
            else:
                yield piece
        speaking.result(PATIENCE_SECONDS)
    finally:
        speaking.cancel()
        # Nobody hears what it says in its cleanup, and it must not wait for that.
        is_left.set()
        _refuse(heard)


def _refuse(heard: queue.SimpleQueue[Any]) -> None:
    with suppress(queue.Empty):
        while True:
            event = heard.get_nowait()
            if isinstance(event, _Event):
                event.recorded.set_exception(Lost())


def _cancel(speaking: Future[None], heard: queue.SimpleQueue[Any]) -> None:
    """Stop an asynchronous responder, and do not wait for one that does not stop."""
    speaking.cancel()
    leaving = threading.Timer(PATIENCE_SECONDS, heard.put, args=(_END,))
    leaving.daemon = True
    leaving.start()


async def _speak(answer: Any, seconds: float, say: Callable[[Any], None]) -> None:
    try:
        # What it does with the database happens in a thread of its own, and not in one with all others.
        async with ThreadSensitiveContext() as context:
            try:
                async with _limited(seconds):
                    await _say(answer, say)
            finally:
                if context in SyncToAsync.context_to_thread_executor:
                    await asyncio.shield(sync_to_async(connections.close_all)())
    finally:
        say(_END)


async def _say(answer: Any, say: Callable[[Any], None]) -> None:
    if not isinstance(answer, AsyncIterator):
        for piece in _iterated(await answer):
            say(piece)
        return
    try:
        async for piece in answer:
            say(piece)
    finally:
        close = getattr(answer, "aclose", None)
        if close is not None:
            with suppress(RuntimeError):
                await close()
