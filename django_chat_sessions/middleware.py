"""The chat session of a page: named by header or cookie, opened on demand, kept alive by page views.

The middleware costs nothing where a page names no session, and no write where it was touched lately.
It never fails a page because of its chat session: what goes wrong is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from threading import Lock
from typing import Any, cast
from uuid import UUID

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connections, router
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.cache import patch_vary_headers

from . import conf, dialects
from .agents import RequestContext
from .exceptions import ChatSessionError, SessionNotFound
from .models import NAME_LENGTH, ChatSession
from .operations import cleaning, opening, sessions
from .querysets import ChatSessionQuerySet

logger = logging.getLogger(__name__)

SESSION_HEADER = "X-Chat-Session"
CLIENT_HEADER = "X-Chat-Client"
#: The URL namespace of the API, under which reading is not activity.
NAMESPACE = "chat_sessions"


class Recent:
    """What this process did lately, by key: bounded, forgets the oldest first, safe in threads."""

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._instants: dict[Hashable, float] = {}
        self._lock = Lock()

    def has(self, key: Hashable, *, within: timedelta) -> bool:
        """Tell whether ``key`` was noted less than ``within`` ago."""
        instant = self._instants.get(key)
        return instant is not None and time.monotonic() - instant < within.total_seconds()

    def note(self, key: Hashable) -> None:
        """Note that it happened now."""
        with self._lock:
            self._instants.pop(key, None)
            self._instants[key] = time.monotonic()
            if len(self._instants) > self._size:
                del self._instants[next(iter(self._instants))]

    def forget(self, key: Hashable) -> None:
        """Make as if it had not happened."""
        with self._lock:
            self._instants.pop(key, None)


#: Sessions that page views touched, by public id; and names that meant nothing, by user and public id.
#: It spares queries; that other processes wrote lately, the UPDATE itself sees.
touched = Recent()


@dataclass(slots=True)
class ChatState:
    """What one request knows of its chat session.

    Attributes:
        instant: when the request came in.
        is_accessed: whether the answer may depend on the session.
        found: for which user it was looked up, and what was found.
        opened: the session that this request opened or joined, to be named in the cookie.
    """

    instant: datetime
    is_accessed: bool = False
    found: tuple[Any, ChatSession | None] | None = None
    opened: ChatSession | None = None


class ChatRequest(HttpRequest):
    """A request that went through the middleware; for annotating a view's argument."""

    chat_state: ChatState

    @property
    def chat_session(self) -> ChatSession | None:
        """The user's session that the page names, or None; one that is over is given too.

        With the setting ``CREATE_SESSIONS`` a new one is opened where there is none live. In async code
        use ``achat_session``.
        """
        return _session(self)

    async def achat_session(self) -> ChatSession | None:
        """Return what ``chat_session`` gives, in async code."""
        if _is_nameless(self):
            return _session(self)
        return await sync_to_async(_session)(self)

    @property
    def chat_context(self) -> RequestContext:
        """What a responder learns of the request: user, session, metadata, instant."""
        return _context(self)

    async def achat_context(self) -> RequestContext:
        """Return what ``chat_context`` gives, in async code."""
        if _is_nameless(self):
            return _context(self)
        return await sync_to_async(_context)(self)


class ChatSessionMiddleware:
    """Gives a request its chat session, and lets a page view count as activity.

    It belongs after ``AuthenticationMiddleware``. A page names a session in the header ``X-Chat-Session``
    or, without it, in the cookie; the session is there only if it is visible to ``request.user``.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Work in the mode of what is below; only one way through, so that neither mode hops threads."""
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        self.process_view = self._aprocess_view if self.is_async else self._process_view
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Attach the session before the view, name it in the response after."""
        if self.is_async:
            return self._acall(request)
        extended = _extend(request)
        return _finish(extended, self.get_response(extended))

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        extended = _extend(request)
        return _finish(extended, await self.get_response(extended))

    def _process_view(self, request: HttpRequest, *view: Any) -> None:
        public_id = _to_touch(request)
        if public_id is not None:
            _touch(request, public_id)

    async def _aprocess_view(self, request: HttpRequest, *view: Any) -> None:
        public_id = _to_touch(request)
        if public_id is not None:
            await sync_to_async(_touch)(request, public_id)


@cache
def _extended(kind: Hashable) -> type[ChatRequest]:
    base = cast("type[HttpRequest]", kind)
    return cast("type[ChatRequest]", type(base.__name__, (ChatRequest, base), {}))


def _extend(request: HttpRequest) -> ChatRequest:
    # An attribute could not be lazy and still be None: SimpleLazyObject is never None itself.
    if not isinstance(request, ChatRequest):
        request.__class__ = _extended(cast("Hashable", type(request)))
    extended = cast("ChatRequest", request)
    extended.chat_state = ChatState(timezone.now())
    return extended


def _finish(request: ChatRequest, response: HttpResponseBase) -> HttpResponseBase:
    state = request.chat_state
    if state.is_accessed:
        patch_vary_headers(response, ("Cookie", SESSION_HEADER))
    if state.opened is not None:
        response.set_cookie(
            conf.get().COOKIE_NAME,
            str(state.opened.uuid),
            max_age=timedelta(minutes=state.opened.policy.max_duration_minutes),
            secure=request.is_secure(),
            httponly=True,
            samesite="Lax",
        )
    return response


def _named(request: HttpRequest) -> UUID | None:
    """Return the public id that the page names; malformed ones were never given out."""
    text = request.headers.get(SESSION_HEADER) or request.COOKIES.get(conf.get().COOKIE_NAME)
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _is_nameless(request: HttpRequest) -> bool:
    return not conf.get().CREATE_SESSIONS and _named(request) is None


def _client(request: HttpRequest) -> str | None:
    name = request.headers.get(CLIENT_HEADER)
    return name if name and len(name) <= NAME_LENGTH else None


def _visible_to(user: Any) -> ChatSessionQuerySet:
    # Not from a replica: operations write where the session came from.
    return ChatSession.objects.using(router.db_for_write(ChatSession)).visible_to(user)


def _session(request: ChatRequest) -> ChatSession | None:
    state = request.chat_state
    state.is_accessed = True
    if _is_nameless(request):
        return None
    user = getattr(request, "user", None)
    # A view may log somebody else in, or an API authenticate by token, after the first look.
    if state.found is None or state.found[0] != getattr(user, "pk", None):
        session = _find(user, _named(request))
        if conf.get().CREATE_SESSIONS and not _is_live(session):
            session = state.opened = _open(request, user) or session
        state.found = getattr(user, "pk", None), session
    return state.found[1]


def _context(request: ChatRequest) -> RequestContext:
    session = _session(request)
    return RequestContext.of(
        request,
        user=getattr(request, "user", None),
        session=None if session is None else str(session.uuid),
        instant=request.chat_state.instant,
    )


def _find(user: Any, public_id: UUID | None) -> ChatSession | None:
    if public_id is None:
        return None
    visible = _visible_to(user)
    try:
        return cleaning.on_access(visible.named(public_id))
    except SessionNotFound:
        return None
    except DatabaseError:
        # Within the view's own transaction the error has spoilt that, and hiding it would hide why.
        if connections[visible.db].in_atomic_block:
            raise
        logger.exception("The chat session of a page could not be read.")
        return None


def _is_live(session: ChatSession | None) -> bool:
    if session is None:
        return False
    return session.is_live_at(dialects.now(router.db_for_write(ChatSession)))


def _open(request: HttpRequest, user: Any) -> ChatSession | None:
    if not getattr(user, "is_authenticated", False):
        return None
    try:
        environment = conf.get().capture(request)
        return opening.open(user, environment=environment, client=_client(request)).session
    except ChatSessionError as error:
        logger.warning("No chat session could be opened for a page: %s", error)
    except SynchronousOnlyOperation:
        raise
    except Exception:
        # Also the host's CAPTURE may raise anything; a page is more than its chat.
        logger.exception("No chat session could be opened for a page.")
    return None


def _to_touch(request: HttpRequest) -> UUID | None:
    """Return the session that a page view names, unless there is nothing to be done for it."""
    # A middleware below may have put a request of its own in the place of ours.
    public_id = _named(request) if isinstance(request, ChatRequest) else None
    if public_id is None or touched.has(public_id, within=conf.get().touch_interval):
        return None
    match = request.resolver_match
    if match is not None and (NAMESPACE in match.namespaces or NAMESPACE in match.app_names):
        return None
    return public_id


def _touch(request: HttpRequest, public_id: UUID) -> None:
    user: Any = getattr(request, "user", None)
    if not getattr(user, "is_authenticated", False):
        return
    nothing = (user.pk, public_id)
    if touched.has(nothing, within=conf.get().touch_interval):
        return
    visible = _visible_to(user)
    try:
        row = visible.filter(uuid=public_id).order_by().values_list("pk", "agent").first()
        if row is not None and sessions.touch(*row, using=visible.db):
            cast("ChatRequest", request).chat_state.found = None  # its deadline is not what it was
    except DatabaseError:
        logger.exception("A page view could not be noted.")
        return
    touched.note(nothing if row is None else public_id)
