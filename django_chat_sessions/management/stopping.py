"""How a command that works for long is told to stop."""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Hears SIGINT and SIGTERM: the first one ends the work after its batch, the next one at once."""

    def __init__(self) -> None:
        """Hear nothing yet."""
        self.is_asked = False
        # The handler runs in the middle of anything, also of what it does itself: no lock of threading stands that, and
        # no queue: SimpleQueue.get waits for ever where a signal's handler takes longer than there is left to wait.
        self._ear, self._mouth = socket.socketpair()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        """Begin to hear, in the main thread; in another one nothing can be heard."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let who heard before hear again."""
        self._give_back()
        self._ear.close()
        self._mouth.close()

    def wait(self, seconds: float) -> None:
        """Wait, but for no longer than until somebody asks."""
        self._ear.settimeout(max(0.001, seconds))
        with suppress(TimeoutError):
            self._ear.recv(1)

    def _hear(self, *_: Any) -> None:
        self.is_asked = True
        self._mouth.send(b".")
        self._give_back()

    def _give_back(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler or signal.SIG_DFL)
