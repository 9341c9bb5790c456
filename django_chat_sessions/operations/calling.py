"""Calling what may never return: in a thread, which is left behind when its time is over.

Nothing can end a thread. What stays behind is bounded, per name and process; it lets its connections go when it ends.
"""

from __future__ import annotations

import contextvars
import logging
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

from django.db import close_old_connections, connections

logger = logging.getLogger("django_chat_sessions")

#: Calls of one name that may be left behind in a process; more of them are not begun.
LEFT_BEHIND = 4


class TimedOut(Exception):
    """A call did not return in its time; it goes on, and nobody waits for it."""


class Left:
    """How many calls of each name were left behind in this process, and have not returned yet."""

    def __init__(self) -> None:
        """Know of none."""
        self.reset()

    def reset(self) -> None:
        """Know of none: a forked child has none of its parent's threads."""
        self.lock = threading.Lock()
        self.calls: Counter[str] = Counter()


LEFT = Left()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LEFT.reset)


def is_stuck(name: str) -> bool:
    """Tell whether so many calls of a name were left behind here that no more of them are begun."""
    return LEFT.calls[name] >= LEFT_BEHIND


class Caller:
    """Calls in one thread, that of its first call; the connections that are opened there are closed with it.

    In a transaction of the caller's, such as a test's, it calls in the caller's own thread, without any limit: another
    one would not see what was written there. So it does with a database in memory, which is one connection's.
    """

    def __init__(self, name: str) -> None:
        """Have no thread yet.

        Args:
            name: whose calls they are.
        """
        self._name = name
        self._thread: _Thread | None = None

    def call(self, work: Callable[[], Any], seconds: float) -> None:
        """Call, and wait for it, but no longer than so.

        Raises:
            TimedOut: it did not return.
            BaseException: what was raised.
        """
        if _is_bound_to_its_thread():
            work()
            return
        if self._thread is None:
            self._thread = _Thread(self._name)
            self._thread.start()
        try:
            self._thread.call(work, seconds)
        finally:
            if self._thread.is_left:
                self._thread = None

    def close(self) -> None:
        """Let the thread end, and its connections go."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.finish()


class _Thread(threading.Thread):
    """Makes one call after the other, until there are no more, or one has taken too long."""

    def __init__(self, name: str) -> None:
        super().__init__(name="chat-caller", daemon=True)
        self._whose = name
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[None]] | None] = queue.SimpleQueue()
        self._is_over = False
        self.is_left = False

    def call(self, work: Callable[[], Any], seconds: float) -> None:
        answer: Future[None] = Future()
        context = contextvars.copy_context()
        self._calls.put((partial(context.run, work), answer))
        try:
            is_done = bool(wait([answer], seconds).done)
        except BaseException:
            # Whoever waits is interrupted.
            self._leave()
            raise
        if not is_done:
            self._leave()
            raise TimedOut
        answer.result()

    def finish(self) -> None:
        self._calls.put(None)
        self.join()

    def _leave(self) -> None:
        """Wait for it no more; when it is done with its call, it ends."""
        with LEFT.lock:
            self.is_left = True
            LEFT.calls[self._whose] += not self._is_over
            is_full = LEFT.calls[self._whose] == LEFT_BEHIND
        self._calls.put(None)
        if is_full:
            text = "%d calls of %s have not returned; this process calls it no more until one of them has"
            logger.error(text, LEFT_BEHIND, self._whose)

    def run(self) -> None:
        try:
            while (given := self._calls.get()) is not None:
                _make(*given)
                del given
            connections.close_all()
        finally:
            with LEFT.lock:
                self._is_over = True
                LEFT.calls[self._whose] -= self.is_left


def _make(work: Callable[[], Any], answer: Future[None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - it is told to who waits
        close_old_connections()
        answer.set_exception(error)
    else:
        answer.set_result(None)


def _is_bound_to_its_thread() -> bool:
    opened = connections.all(initialized_only=True)
    return any(one.in_atomic_block or getattr(one, "is_in_memory_db", bool)() for one in opened)
