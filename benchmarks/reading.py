"""Clients of streams: as many as one likes in one process, which spend next to nothing on each frame."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

#: Seconds after which a client has waited long enough for anything.
PATIENCE = 60.0

#: Is given what came, whole chunks of HTTP, and the instant.
Heard = Callable[[bytes, float], None]


class Failed(Exception):
    """The server did not answer as it has to, or hung up."""


class Connection(asyncio.Protocol):
    """One persistent connection; answers are either chunked, or have a length and no body."""

    def __init__(self) -> None:
        self._buffer = b""
        self._in_body = False
        self._heard: Heard | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect."""
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return made

    def connection_made(self, transport: Any) -> None:
        """Be there."""
        self._transport = transport

    def ask(self, request: bytes, heard: Heard | None = None) -> None:
        """Send a request. ``opened`` is done with the head of the answer, ``over`` with its end."""
        loop = asyncio.get_running_loop()
        self.opened, self.over, self._heard = loop.create_future(), loop.create_future(), heard
        self._transport.write(request)

    def cut(self) -> None:
        """Hang up."""
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who waits."""
        self._fail(str(error or "The server hung up."))

    def data_received(self, data: bytes) -> None:
        """Take what came, as far as it is whole."""
        now = time.perf_counter()
        self._buffer += data
        if not self._in_body and not self._take_head():
            return
        while self._in_body:
            size, found, rest = self._buffer.partition(b"\r\n")
            length = int(size, 16) if found else 0
            if not found or len(rest) < length + 2:
                return
            self._buffer = rest[length + 2 :]
            if length == 0:
                self._end()
            elif self._heard is not None:
                self._heard(rest[:length], now)

    def _take_head(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        told = head.lower()
        if not told.startswith((b"http/1.1 2", b"http/1.1 101")):
            self._fail(self._buffer.decode())
            return False
        self._buffer, self._in_body = rest, b"transfer-encoding: chunked" in told
        self.opened.set_result(None)
        if not self._in_body:
            self._end()
        return True

    def _end(self) -> None:
        self._in_body = False
        if not self.over.done():
            self.over.set_result(None)

    def _fail(self, why: str) -> None:
        for future in (self.opened, self.over):
            if not future.done():
                future.set_exception(Failed(why))
                future.exception()  # seen, whether somebody waits for it or not


class Counter:
    """Counts frames, and knows when so many have come."""

    def __init__(self) -> None:
        self.count = 0
        self.expect(1)

    def expect(self, frames: int, *, of: bytes = b"") -> None:
        """Begin anew, and wait for so many frames, of that type only."""
        self.count, self.expected, self.at = 0, frames, 0.0
        self._mark = b"\nevent: " + of
        self.reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, content: bytes, now: float) -> None:
        """Count what came."""
        self.count += content.count(self._mark)
        if self.count >= self.expected and not self.reached.done():
            self.at = now
            self.reached.set_result(None)


async def all_of(futures: Sequence[asyncio.Future[Any]], what: str) -> None:
    """Wait for all.

    Raises:
        SystemExit: some failed, or took too long.
    """
    done, pending = await asyncio.wait(futures, timeout=PATIENCE)
    errors = [error for future in done if (error := future.exception()) is not None]
    if errors or pending:
        told = f": {errors[0]}" if errors else ""
        raise SystemExit(f"{what}: of {len(futures)}, {len(errors)} failed and {len(pending)} did not end{told}")


async def open_streams(port: int, requests: Sequence[bytes], heard: Sequence[Heard | None]) -> list[Connection]:
    """Open a stream for each request, and wait until all are open."""
    connections = list(await asyncio.gather(*(Connection.open(port) for _ in requests)))
    for connection, request, one in zip(connections, requests, heard, strict=True):
        connection.ask(request, one)
    await all_of([connection.opened for connection in connections], "Streams")
    return connections
