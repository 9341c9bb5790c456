"""Server-Sent Events (WHATWG HTML, section 9.2): what happens in a session, as it happens.

While nothing happens a stream holds no thread and no database connection: it waits in the server's event loop to be
told of news, and a few threads, which all streams of a process share, read for those that were.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic

from asgiref.sync import SyncToAsync
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, connections
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.exceptions import NotAcceptable
from rest_framework.request import Request

from .. import chunks, conf, notifications
from ..choices import LIVE, EventType
from ..chunks import Cursor, Frame
from ..exceptions import InvalidRequest
from ..models import ChatSession, Run
from ..operations.patience import let_connections_go
from ..operations.runner import RUNNER
from .base import ChatViewSet
from .formats import EventStreamRenderer, JSONRenderer, ProblemRenderer, dumps, encode

logger = logging.getLogger("django_chat_sessions")

CONTENT_TYPE = "text/event-stream"

#: Seconds after which a comment tells everybody on the way that the connection is still wanted.
COMMENT_SECONDS = 15.0

#: Milliseconds after which an EventSource comes back.
RETRY = 1000

#: Threads of a process that read for all its streams, and the seconds after which an idle one lets its connection go.
READERS = 4
IDLE_SECONDS = 1.0

#: Bytes that are sent at once, if one frame has no more.
PIECE = 65_536

_ID = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?")
_ENDS = {EventType.SESSION_EXPIRED, EventType.SESSION_ENDED, EventType.SESSION_FAILED, EventType.SESSION_ARCHIVED}
_RUN_ENDS = {EventType.RUN_SUCCEEDED, EventType.RUN_FAILED, EventType.RUN_CANCELLED}


class StreamViewSet(ChatViewSet):
    """What happens in a session, live."""

    renderer_classes = [EventStreamRenderer, JSONRenderer, ProblemRenderer]
    may_lag = False

    def retrieve(self, request: Request, session: str) -> HttpResponseBase:
        """Send what the caller has missed, and then whatever happens."""
        found = self.see(session)
        after = _given(request)
        check_server(request)
        if after is None:
            after = chunks.here(found)
        if found.status not in LIVE and not chunks.frames(found, after, limit=1):
            # To an EventSource this says that there is no use in coming back.
            return HttpResponse(status=204)
        # A HEAD has no body; its connection is free for the next request when there is nothing more to send.
        return stream(found, after, is_once=request.method == "HEAD")


def _given(request: Request) -> Cursor | None:
    """Return how far the caller has come, if they say so."""
    header = request.META.get("HTTP_LAST_EVENT_ID")
    text = header or request.query_params.get("after")
    if text is None:
        return None
    match = _ID.fullmatch(text)
    if match is None:
        name = "Last-Event-ID" if header else "after"
        raise InvalidRequest({name: ["Expected the id of an event or a frame of this stream."]})
    return Cursor(int(match[1]), -1 if match[2] is None else int(match[2]))


def check_server(request: Request) -> None:
    """Refuse to stream where the server would have to keep a thread for it.

    Raises:
        NotAcceptable: this is a WSGI server.
    """
    if not isinstance(request._request, ASGIRequest):
        raise NotAcceptable("Streams need an ASGI server; here, wait for events with GET events?wait=.")


def stream(
    session: ChatSession, after: Cursor, *, until: Run | None = None, is_once: bool = False
) -> StreamingHttpResponse:
    """Return the response that sends what comes after a place in the log.

    Args:
        session: which.
        after: where the reader stands.
        until: a run whose end ends the stream.
        is_once: whether only what is there now is sent.
    """
    let_connections_go()
    response = StreamingHttpResponse(_Feed(session, after, until, is_once).sent(), content_type=CONTENT_TYPE)
    response["Cache-Control"] = "no-store, no-transform"
    # For nginx; and to keep Django's own compression, which would wait for more, away.
    response["X-Accel-Buffering"] = "no"
    response["Content-Encoding"] = "identity"
    return response


@dataclass(slots=True)
class _Feed:
    """One stream.

    Attributes:
        session: which.
        after: what was sent last.
        until: a run whose end ends it.
        is_once: whether it ends with what is there.
    """

    session: ChatSession
    after: Cursor
    until: Run | None
    is_once: bool
    is_over: bool = False
    using: str = field(init=False)

    def __post_init__(self) -> None:
        """Remember the database."""
        self.using = self.session._state.db or "default"

    async def sent(self) -> AsyncIterator[bytes]:
        """Yield frames and comments."""
        await _let_thread_go()
        yield f"retry: {RETRY}\n\n".encode()
        until = monotonic() + conf.get().STREAM_SECONDS
        try:
            async with notifications.subscribe(self.session.uuid, using=self.using) as news:
                while True:
                    frames = await READER.read(self._read)
                    for sent in self._encoded(frames):
                        yield sent
                    if self.is_over or monotonic() > until or RUNNER.is_draining:
                        return
                    if len(frames) < chunks.BATCH and not await news.wait(COMMENT_SECONDS):
                        yield b":\n\n"
        except DatabaseError:
            logger.exception("A stream ends, as the database does not answer")

    def _read(self) -> list[Frame]:
        frames = chunks.frames(self.session, self.after)
        # What was over when the stream began, or is read once, is read to its end.
        is_last = self.is_once or self.session.status not in LIVE
        if not frames:
            rows = ChatSession.objects.using(self.using).filter(pk=self.session.pk, uuid=self.session.uuid)
            # Gone, under another public id, or over; in which case the end may have come since we looked.
            if rows.values_list("status", flat=True).first() not in LIVE:
                frames, is_last = chunks.frames(self.session, self.after), True
        self.is_over = is_last and len(frames) < chunks.BATCH
        return frames

    def _encoded(self, frames: Iterable[Frame]) -> Iterator[bytes]:
        """Yield the frames, small ones together."""
        waiting = b""
        for frame in frames:
            self.after = frame.cursor
            waiting += _encode(frame)
            if len(waiting) > PIECE:
                yield waiting
                waiting = b""
            if self.until is not None and frame.type in _RUN_ENDS and str(self.until.uuid) in frame.json:
                self.is_over = True
                break
            self.is_over = self.is_over or frame.type in _ENDS
        if waiting:
            yield waiting


def _encode(frame: Frame) -> bytes:
    data = frame.json
    if frame.run is not None:
        data = dumps({"run": str(frame.run), "index": frame.cursor.index, "text": frame.json})
    return encode(f"id: {frame.cursor}\nevent: {frame.type}\ndata: {data}\n\n")


async def _let_thread_go() -> None:
    """Give back the thread, and its connections, that Django keeps for a request until its response is sent.

    The view and the middleware are done with them; whatever Django does at the end of the response gets another one.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is not None and (executor := SyncToAsync.context_to_thread_executor.pop(context, None)):
        await asyncio.get_running_loop().run_in_executor(executor, connections.close_all)
        executor.shutdown(wait=False)


class _Reader:
    """The threads that read for all streams; they let their connections go when nobody wanted to read for a while."""

    def __init__(self) -> None:
        """Have no thread yet."""
        self.reset()

    def reset(self) -> None:
        """Have no thread: a forked child has none of its parent's."""
        self._lock = Lock()
        self._wanted: SimpleQueue[tuple[Future[list[Frame]], Callable[[], list[Frame]]]] = SimpleQueue()
        self._threads = 0

    async def read(self, act: Callable[[], list[Frame]]) -> list[Frame]:
        """Read something in one of the threads."""
        found: Future[list[Frame]] = Future()
        self._wanted.put((found, act))
        with self._lock:
            if self._threads < READERS:
                self._threads += 1
                Thread(target=self._work, name="chat-streams", daemon=True).start()
        return await asyncio.wrap_future(found)

    def _work(self) -> None:
        while True:
            try:
                found, act = self._wanted.get(timeout=IDLE_SECONDS)
            except Empty:
                connections.close_all()
                found, act = self._wanted.get()
            if found.set_running_or_notify_cancel():
                self._read(found, act)
            # While this thread waits for the next, nothing is kept alive by it.
            del found, act

    @staticmethod
    def _read(found: Future[list[Frame]], act: Callable[[], list[Frame]]) -> None:
        try:
            found.set_result(act())
        except BaseException as error:  # noqa: BLE001 - it is the reader's
            # The next one reads on a connection that is sound.
            connections.close_all()
            found.set_exception(error)


READER = _Reader()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=READER.reset)
