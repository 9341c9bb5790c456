"""One thread that publishes news for a whole process, on a connection of its own.

Not in the transaction that writes: PostgreSQL commits those that notify one after another, all over the server.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Condition, Event, Thread, current_thread
from uuid import UUID

from . import payloads
from .backends import Backend, Sender
from .patience import Patience

#: Seconds without news until the connection is let go, and the thread ends.
IDLE = 10.0
#: Seconds between two publications; what is told meanwhile goes together. The first after a pause waits for nothing.
PAUSE = 0.03
#: Sessions that wait to be published while the other side is away; streams look by themselves in time.
LIMIT = 50_000
#: Seconds that a thread is given to end.
PATIENCE = 5.0


class Publisher:
    """The thread, which begins with the first news and ends when there is none, and what it has yet to publish."""

    def __init__(self, backend: Backend, origin: str) -> None:
        self._backend = backend
        self._origin = origin
        self._changed = Condition()
        self._pending: dict[UUID, None] = {}
        self._thread: Thread | None = None
        self._is_running = False
        self._is_sending = False
        self._stopped = Event()
        self._patience = Patience(f"publishing news by {backend.name}")

    def hand(self, session: UUID) -> None:
        """Have a session's news published."""
        with self._changed:
            if session in self._pending:
                # Not yet taken: it goes out later than now, which is what matters.
                if self._is_running:
                    return
            elif len(self._pending) < LIMIT:
                self._pending[session] = None
            if self._is_running:
                self._changed.notify_all()
            elif not self._stopped.is_set():
                self._thread = Thread(target=self._run, name="chat-sessions-publisher", daemon=True)
                self._thread.start()
                self._is_running = True

    def drain(self, seconds: float) -> None:
        """Wait until all is published, for that long at the most, or until that has failed."""

        def is_done() -> bool:
            return self._patience.is_tried or not (self._pending or self._is_sending)

        with self._changed:
            self._changed.wait_for(is_done, seconds)

    def stop(self) -> None:
        """End the thread and its connection; what is not published is dropped."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join(PATIENCE)

    def _run(self) -> None:
        sender: Sender | None = None
        try:
            while batch := self._next():
                try:
                    sender = sender or self._backend.sender()
                    sender.send(payloads.pack(self._origin, batch))
                    self._patience.renew()
                    pause = PAUSE
                except Exception as error:  # noqa: BLE001 - the thread has to go on
                    self._patience.complain(error)
                    pause = self._patience.delay()
                    self._put_back(batch)
                    _close(sender)
                    sender = None
                self._stopped.wait(pause)
        finally:
            _close(sender)

    def _next(self) -> list[UUID]:
        """Return what is to be published, as soon as there is something; nothing ends the thread."""
        with self._changed:
            self._is_sending = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._pending or self._stopped.is_set(), IDLE)
            batch = [] if self._stopped.is_set() else list(self._pending)
            self._pending = {}
            self._is_running = self._is_sending = bool(batch)
            return batch

    def _put_back(self, batch: list[UUID]) -> None:
        with self._changed:
            self._pending = dict.fromkeys(batch) | self._pending
            self._changed.notify_all()


def _close(sender: Sender | None) -> None:
    if sender is not None:
        with suppress(Exception):
            sender.close()
