"""Who waits for news in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from threading import Lock
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

from .backends import Backend


class Office(Protocol):
    """Where subscriptions are kept."""

    def join(self, subscription: Subscription) -> None:
        """Keep it, and see that somebody listens."""

    def leave(self, subscription: Subscription) -> None:
        """Let go of it."""


class Subscription:
    """One wait for a session's news, in an event loop; it holds no thread and no connection.

    Attributes:
        backend: what carries the news.
        session: the public id.
        is_told: whether there is news that ``wait`` has not reported; more of it changes nothing.
    """

    __slots__ = ("__weakref__", "_event", "_loop", "_office", "backend", "is_told", "session")

    def __init__(self, office: Office, backend: Backend, session: UUID) -> None:
        self._office = office
        self.backend = backend
        self.session = session
        self.is_told = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._office.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._office.leave(self)

    async def wait(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - a timeout is an answer here
        """Wait until something may have happened since the last time, or since the subscription was entered.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            Whether something may have happened; False once the time is over.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            if not self._event.is_set():
                return False
        # News that comes from here on, told or not, was written before the caller looks.
        self._event.clear()
        self.is_told = False
        return True

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop in which it waits."""
        return self._loop

    def ring(self) -> None:
        """End the wait; in the loop's thread."""
        self._event.set()


class Audience:
    """All subscriptions of the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sessions: dict[UUID, dict[Subscription, None]] = {}

    def add(self, subscription: Subscription) -> None:
        """Let it hear."""
        with self._lock:
            self._sessions.setdefault(subscription.session, {})[subscription] = None

    def remove(self, subscription: Subscription) -> bool:
        """Let it go, and tell whether it was there."""
        with self._lock:
            group = self._sessions.get(subscription.session, {})
            if subscription not in group:
                return False
            del group[subscription]
            if not group:
                del self._sessions[subscription.session]
            return True

    def clear(self) -> None:
        """Let all go."""
        with self._lock:
            self._sessions = {}

    def watched(self, backend: Backend) -> list[UUID]:
        """Return the sessions that somebody waits for by that backend."""
        with self._lock:
            groups = self._sessions.items()
            return [session for session, group in groups if any(one.backend == backend for one in group)]

    def wake(self, session: UUID) -> None:
        """Wake who waits for a session; as nearly always nobody does, this costs next to nothing."""
        if session not in self._sessions:
            return
        with self._lock:
            found = list(self._sessions.get(session, ()))
        self._ring(found)

    def wake_all(self, backend: Backend | None = None) -> None:
        """Wake who waits by that backend, or whoever waits."""
        with self._lock:
            found = [one for group in self._sessions.values() for one in group if backend in (None, one.backend)]
        self._ring(found)

    def _ring(self, subscriptions: Iterable[Subscription]) -> None:
        """Wake those that are not awake yet, by one call for each loop."""
        loops: dict[asyncio.AbstractEventLoop, list[Subscription]] = {}
        for one in subscriptions:
            if not one.is_told:
                one.is_told = True
                loops.setdefault(one.loop, []).append(one)
        for loop, group in loops.items():
            try:
                loop.call_soon_threadsafe(_ring_each, group)
            except RuntimeError:  # The loop is closed: nobody is left to wait.
                for one in group:
                    self.remove(one)


def _ring_each(subscriptions: Iterable[Subscription]) -> None:
    for one in subscriptions:
        one.ring()
