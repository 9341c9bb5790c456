"""The ASGI server's door: what has to be done when it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]


def with_lifespan(application: Application) -> Application:
    """Return an ASGI application that drains its process when the server is told to stop.

    On SIGTERM or SIGINT no new answer is begun, streams are closed (their clients come back to another process), and
    answers that are being given may finish within ``GRACE_SECONDS``; the rest are handed over. Without this a server
    waits for its open streams, and what it is saying is found by recovery, half a minute later.

    Args:
        application: Django's, from ``get_asgi_application()``.
    """
    lifespan = _Lifespan()

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan.live(receive, send)
        else:
            await application(scope, receive, send)

    return wrapped


class _Lifespan:
    """The ASGI lifespan protocol, version 2.0."""

    def __init__(self) -> None:
        """Nobody has said anything yet."""
        self._draining: threading.Thread | None = None

    async def live(self, receive: Receive, send: Send) -> None:
        """Serve the server's messages until it shuts down."""
        await receive()
        self._listen()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self._drain().join)
        await send({"type": "lifespan.shutdown.complete"})

    def _listen(self) -> None:
        """Hear the signals that the server hears, and hear them first."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, partial(self._told, signal.getsignal(number)))

    def _told(self, previous: Any, number: int, frame: Any) -> None:
        self._drain()
        if callable(previous):
            previous(number, frame)

    def _drain(self) -> threading.Thread:
        if self._draining is None:
            # A signal may come while this very thread holds any of our locks.
            self._draining = threading.Thread(target=_drain, name="chat-drain", daemon=True)
            self._draining.start()
        return self._draining


def _drain() -> None:
    # A project's asgi.py imports this module before Django is set up.
    from .operations import recovery  # noqa: PLC0415

    recovery.drain()
