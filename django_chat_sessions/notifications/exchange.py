"""The threads and the audience of one process."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic
from uuid import UUID, uuid4

from .backends import Backend
from .listener import Listener
from .publisher import Publisher
from .subscriptions import Audience, Subscription


class Exchange:
    """What a process has for its news; a fork gets another one."""

    def __init__(self) -> None:
        #: The process's name in what it publishes, by which it passes over its own.
        self.origin = uuid4().hex
        self.audience = Audience()
        self._lock = Lock()
        self._publishers: dict[Backend, Publisher] = {}
        self._listeners: dict[Backend, Listener] = {}

    def tell(self, backend: Backend, session: UUID) -> None:
        """Wake who waits here, and have it published."""
        self.audience.wake(session)
        if not backend.is_published:
            return
        publisher = self._publishers.get(backend)
        if publisher is None:
            with self._lock:
                publisher = self._publishers.setdefault(backend, Publisher(backend, self.origin))
        publisher.hand(session)

    def join(self, subscription: Subscription) -> None:
        """Let a subscription hear."""
        backend = subscription.backend
        self.audience.add(subscription)
        with self._lock:
            if backend not in self._listeners:
                self._listeners[backend] = Listener(backend, self.audience, self.origin)
            self._listeners[backend].join()

    def leave(self, subscription: Subscription) -> None:
        """Let a subscription go."""
        if not self.audience.remove(subscription):
            return
        with self._lock:
            listener = self._listeners.get(subscription.backend)
        if listener is not None:
            listener.leave()

    def drain(self, seconds: float) -> None:
        """Wait until all is published, for that long at the most."""
        until = monotonic() + seconds
        for publisher in list(self._publishers.values()):
            publisher.drain(max(0.0, until - monotonic()))

    def stop(self) -> None:
        """Stop the threads and forget the audience; it can be used again."""
        with self._lock:
            stops: list[Callable[[], None]] = [one.stop for one in self._publishers.values()]
            stops += [one.stop for one in self._listeners.values()]
            self._publishers, self._listeners = {}, {}
            self.audience.clear()
        for stop in stops:
            stop()
