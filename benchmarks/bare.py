"""The floor of the streams: a bare ASGI view that sends from memory the bytes that it was told to remember.

It knows no authentication, no sessions and no database. What it plays is a list of pauses in seconds and of bytes to
send after them; a pause of None waits until all streams that play the same are told to go on.

- ``PUT /memory/{name}`` remembers a list of pauses and texts, and whether the stream stays open afterwards.
- ``GET`` and ``POST /play/{name}`` play it.
- ``POST /go/{name}`` tells them to go on.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

#: As the library does.
COMMENT_SECONDS = 15.0

_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store, no-transform")]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Memory:
    """What is played, and who waits to go on."""

    def __init__(self) -> None:
        self.scripts: dict[str, tuple[list[tuple[float | None, bytes]], bool]] = {}
        self.going: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def remember(self, name: str, told: dict[str, Any]) -> None:
        """Remember something to play."""
        self.scripts[name] = [(pause, text.encode()) for pause, text in told["pieces"]], told["stays_open"]

    def go(self, name: str) -> None:
        """Let those go on who play something."""
        self.going.pop(name, asyncio.Event()).set()


MEMORY = Memory()


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer."""
    _, verb, name, *_ = [*scope["path"].split("/"), ""]
    body = await _read(receive)
    if verb == "play":
        await _play(name, receive, send)
        return
    if verb == "memory":
        MEMORY.remember(name, json.loads(body))
    elif verb == "go":
        MEMORY.go(name)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _play(name: str, receive: Receive, send: Send) -> None:
    pieces, stays_open = MEMORY.scripts[name]
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    for pause, content in pieces:
        if pause is None:
            await MEMORY.going[name].wait()
        elif pause:
            await asyncio.sleep(pause)
        await send({"type": "http.response.body", "body": content, "more_body": True})
    while stays_open:
        try:
            async with asyncio.timeout(COMMENT_SECONDS):
                stays_open = (await receive())["type"] != "http.disconnect"
        except TimeoutError:
            await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})
