"""A real HTTP server that speaks OpenAI's chat completions, and misbehaves as it is told to.

It says what it is told to with ``server.will(...)``, one reply a request, and echoes where it is told nothing.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

#: How often a server that waits looks whether its client is still there.
LOOK_SECONDS = 0.01


class Ending(Enum):
    """What comes after the last piece."""

    DONE = "[DONE], as it should be"
    CUT = "the connection is cut before the response begins"
    DROP = "the connection is cut, in the middle of the response"
    CLOSE = "the response ends, properly, without a word about the end of the answer"
    SILENCE = "nothing, until the client goes"


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request gets.

    Attributes:
        pieces: the chunks; a dict is one, a string is sent as it is.
        ending: what comes after them.
        status, headers, body: of an answer that is no stream.
        seconds_before: how long the response's head takes.
        seconds_between: how long each piece takes.
    """

    pieces: Sequence[Mapping[str, Any] | str] = ()
    ending: Ending = Ending.DONE
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    seconds_before: float = 0
    seconds_between: float = 0


@dataclass(slots=True)
class Request:
    """What was asked, and when its client went, if that was before the end."""

    connection: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    began_at: float = field(default_factory=time.monotonic)
    left_at: float | None = None


def chunk(delta: Mapping[str, Any] | None = None, *, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a piece of an answer."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "local"}
    return {**head, "choices": [choice], **more}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """Return the last chunk, which counts."""
    count = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**chunk(), "choices": [], "usage": count}


def said(*texts: str, count: tuple[int, int] = (10, 5), finish_reason: str = "stop") -> list[dict[str, Any]]:
    """Return the chunks of an answer that is text."""
    head = chunk({"role": "assistant", "content": ""})
    return [head, *(chunk({"content": text}) for text in texts), chunk(finish_reason=finish_reason), usage(*count)]


def calls(*asked: tuple[str, str, str], text: str = "", count: tuple[int, int] = (20, 7)) -> list[dict[str, Any]]:
    """Return the chunks of an answer that calls tools: (id, name, arguments), the arguments in pieces of 3."""
    chunks = [chunk({"role": "assistant", "content": text or None})]
    for index, (id_, name, arguments) in enumerate(asked):
        function = {"name": name, "arguments": ""}
        head = {"index": index, "id": id_, "type": "function", "function": function}
        chunks.append(chunk({"tool_calls": [head]}))
        for start in range(0, len(arguments), 3):
            piece = {"index": index, "function": {"arguments": arguments[start : start + 3]}}
            chunks.append(chunk({"tool_calls": [piece]}))
    return [*chunks, chunk(finish_reason="tool_calls"), usage(*count)]


def error(status: int, message: str, **headers: str) -> Reply:
    """Return a refusal as OpenAI words it."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": None}}
    return Reply(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


class ModelServer:
    """The server, in a thread of its own, at ``url``; a context manager."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._replies: list[Reply] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(5)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def will(self, *replies: Reply | Sequence[Mapping[str, Any] | str]) -> None:
        """Say what the next requests get; chunks alone are an answer that goes well."""
        self._replies += [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]

    def wait_for_leave(self, request: Request, seconds: float = 5) -> float:
        """Return when the request's client went."""
        until = time.monotonic() + seconds
        while request.left_at is None:
            assert time.monotonic() < until, "The client is still there."
            time.sleep(LOOK_SECONDS)
        return request.left_at

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        with closing(writer), suppress(ConnectionError, _Left, asyncio.CancelledError):
            while request := await _read(reader, number):
                self.requests.append(request)
                if not await self._answer(request, _Wire(reader, writer, request)):
                    return

    async def _answer(self, request: Request, wire: _Wire) -> bool:
        """Answer; return whether the connection stays."""
        reply = self._replies.pop(0) if self._replies else Reply(said(*_echo(request.body)))
        await wire.wait(reply.seconds_before)
        if reply.ending is Ending.CUT:
            return False
        if reply.body is not None or reply.status != 200:
            await wire.whole(reply)
            return True
        await wire.head()
        for piece in reply.pieces:
            await wire.wait(reply.seconds_between)
            if isinstance(piece, str) or piece["choices"] or _wants_usage(request.body):
                await wire.event(piece)
        return await wire.end(reply.ending)


class _Left(Exception):
    """The client went."""


def _wants_usage(body: Mapping[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _echo(body: Mapping[str, Any]) -> Iterator[str]:
    content = body["messages"][-1]["content"]
    for word in str(content).split():
        yield word + " "


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(connection, first.split()[1], headers, json.loads(body))


@dataclass(slots=True)
class _Wire:
    """One response as it is written."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: Request

    async def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.reader.at_eof():
                self.request.left_at = time.monotonic()
                raise _Left
            await asyncio.sleep(min(left, LOOK_SECONDS))

    async def _write(self, text: str) -> None:
        self.writer.write(text.encode())
        await self.writer.drain()

    async def whole(self, reply: Reply) -> None:
        body = json.dumps(reply.body or {})
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self._write(f"HTTP/1.1 {reply.status} Said\r\n{lines}\r\n{body}")

    async def head(self) -> None:
        await self._write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def event(self, piece: Mapping[str, Any] | str) -> None:
        text = f"data: {piece if isinstance(piece, str) else json.dumps(piece)}\n\n"
        await self._write(f"{len(text.encode()):x}\r\n{text}\r\n")

    async def end(self, ending: Ending) -> bool:
        if ending is Ending.DROP:
            return False
        if ending is Ending.SILENCE:
            await self.wait(3600)
        if ending is Ending.DONE:
            await self.event("[DONE]")
        await self._write("0\r\n\r\n")
        return True
