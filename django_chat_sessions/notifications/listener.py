"""One thread that listens for a whole process, on one connection, however many streams wait."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from threading import Event, Lock, Thread, current_thread
from time import monotonic
from uuid import UUID

from . import payloads
from .backends import Backend, Receiver
from .patience import Patience
from .subscriptions import Audience

#: Seconds that it goes on after the last subscription has left.
LINGER = 5.0
#: Seconds after which it looks whether it is still wanted.
LOOK = 1.0
#: Seconds that a thread is given to end.
PATIENCE = 5.0


class Listener:
    """The thread, which begins with the first subscription, and the mailbox of what it hears."""

    def __init__(self, backend: Backend, audience: Audience, origin: str) -> None:
        self._backend = backend
        self._audience = audience
        self._origin = origin
        self._lock = Lock()
        self._joined = 0
        self._left_at = 0.0
        self._thread: Thread | None = None
        self._is_running = False
        self._receiver: Receiver | None = None
        self._stopped = Event()
        self._patience = Patience(f"listening for news by {backend.name}")

    def join(self) -> None:
        """Count a subscription, which the audience already has."""
        with self._lock:
            self._joined += 1
            if not self._is_running and not self._stopped.is_set():
                self._thread = Thread(target=self._run, name="chat-sessions-listener", daemon=True)
                self._thread.start()
                self._is_running = True

    def leave(self) -> None:
        """Count a subscription no longer."""
        with self._lock:
            self._joined -= 1
            self._left_at = monotonic()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopped.set()
        with self._lock:
            thread, receiver = self._thread, self._receiver
        if receiver is not None:
            with suppress(Exception):
                receiver.interrupt()
        if thread is not None and thread is not current_thread():
            thread.join(PATIENCE)

    # The mailbox.

    def watched(self) -> list[UUID]:
        """Return the sessions that somebody here waits for."""
        return self._audience.watched(self._backend)

    def news(self, sessions: Iterable[UUID]) -> None:
        """Wake who waits for these."""
        for session in sessions:
            self._audience.wake(session)

    def payload(self, text: str) -> None:
        """Wake who waits for the sessions in a payload, unless it is of this process."""
        self.news(payloads.unpack(self._origin, text))

    def everything(self) -> None:
        """Wake everybody, as something may have been missed."""
        self._audience.wake_all(self._backend)

    # The thread.

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - the thread has to go on
                if not self._stopped.is_set():
                    self._patience.complain(error)
                    self._stopped.wait(self._patience.delay())

    def _listen(self) -> None:
        receiver = self._backend.receiver(self)
        with self._lock:
            self._receiver = receiver
        try:
            while self._is_wanted():
                receiver.receive(LOOK)
                self._patience.renew()
        finally:
            with self._lock:
                self._receiver = None if self._receiver is receiver else self._receiver
            with suppress(Exception):
                receiver.close()

    def _is_wanted(self) -> bool:
        """Tell whether to go on; once told not to, the next subscription begins another thread."""
        with self._lock:
            if self._thread is not current_thread() or self._stopped.is_set():
                return False
            if self._joined <= 0 and monotonic() - self._left_at > LINGER:
                self._is_running = False
            return self._is_running
