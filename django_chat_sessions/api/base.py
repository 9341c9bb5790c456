"""What every view shares: who calls, which session, which tab, and how it answers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NoReturn

from django.db import Error, router
from rest_framework import permissions, viewsets
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from .. import lookups
from ..agents import RequestContext
from ..exceptions import InvalidRequest, SessionNotFound
from ..models import NAME_LENGTH, ChatSession
from ..operations import cleaning
from . import errors
from .formats import JSONParser, JSONRenderer, MergePatchParser, Negotiation, ProblemRenderer, Raw, dumps
from .representation import session_object

CLIENT_HEADER = "HTTP_X_CHAT_CLIENT"

#: No event has this sequence: what an If-Match says that names no strong entity tag of ours.
NO_SEQUENCE = -1


class ChatViewSet(viewsets.ViewSet):
    """Base of the views: owners only, JSON only, errors as problem details."""

    parser_classes = [JSONParser, MergePatchParser]
    renderer_classes: list[type[BaseRenderer]] = [JSONRenderer, ProblemRenderer]
    content_negotiation_class = Negotiation

    #: Whether a GET may be answered by a replica that has everything that its caller wrote.
    may_lag = True
    #: The database that the call works with, once it is chosen.
    source: str | None = None

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Take the request; a body that is sent in chunks is one, though nobody knows its length yet."""
        if "CONTENT_LENGTH" not in request.META and "HTTP_TRANSFER_ENCODING" in request.META:
            request.META["CONTENT_LENGTH"] = "-1"
        return super().initialize_request(request, *args, **kwargs)

    def get_authenticate_header(self, request: Any) -> Any:
        """Return the challenge of the first authentication that has one, be it the host's second."""
        headers = (authenticator.authenticate_header(request) for authenticator in self.get_authenticators())
        return next(filter(None, headers), None)

    def get_permissions(self) -> list[Any]:
        """Need somebody, and whatever else the host needs."""
        classes = [permissions.IsAuthenticated, *self.permission_classes]
        return [kind() for kind in dict.fromkeys(classes)]

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error as problem details. What a replica failed to answer, the primary is asked."""
        if isinstance(exc, Error) and self.source not in {None, router.db_for_write(ChatSession)}:
            self.source = router.db_for_write(ChatSession)
            try:
                answered: Response = getattr(self, str(self.action))(self.request, *self.args, **self.kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is answered below
                exc = error
            else:
                return answered
        response = errors.respond(exc)
        if response is None:
            raise exc
        response.exception = True
        challenge = self.get_authenticate_header(self.request) if response.status_code == 401 else None
        if challenge:
            response["WWW-Authenticate"] = challenge
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep every answer out of caches: it is one person's, and the clock moves it."""
        if isinstance(response, Response) and response.content_type is None and response.data is not None:
            # A client that accepts nothing but problem details gets what is none as what it is.
            response.content_type = JSONRenderer.media_type
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    @property
    def using(self) -> str:
        """The database that the call works with: for what only reads, the router may name a replica."""
        if self.source is None:
            if self.may_lag and self.request.method in permissions.SAFE_METHODS:
                self.source = router.db_for_read(ChatSession, reader=self.request.user)
            else:
                self.source = router.db_for_write(ChatSession)
        return self.source

    def see(self, public_id: str) -> ChatSession:
        """Return the caller's session of that public id, and remember the instant by the clock that decides."""
        seen = lookups.session(self.request.user, public_id, using=self.using)
        self.seen_at, self.seen_on = seen.now, time.monotonic()
        self.client  # noqa: B018 - a wrong name is refused on every call
        session = cleaning.on_access(seen.session, now=seen.now)
        self.source = session._state.db  # not the replica, where it was cleaned up
        return session

    @property
    def now(self) -> datetime:
        """The instant: the one at which the session was read, moved on since."""
        return self.seen_at + timedelta(seconds=time.monotonic() - self.seen_on)

    def body(self, kind: type[Serializer[Any]]) -> dict[str, Any]:
        """Return the validated body; none is an empty object."""
        data = self.request.data
        # An empty body is an empty QueryDict to Django REST framework.
        given: Any = {} if isinstance(data, Mapping) and not data else data
        if given is None:
            raise InvalidRequest({"body": ["Expected a JSON object."]})
        serializer = kind(data=given)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def query(self, kind: type[Serializer[Any]]) -> dict[str, Any]:
        """Return the validated query string."""
        given = self.request.query_params
        if not given:
            return dict(_defaults(kind))
        serializer = kind(data=given.dict())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    @property
    def client(self) -> str | None:
        """The name of the calling tab.

        Raises:
            InvalidRequest: it is too long.
        """
        name = self.request.META.get(CLIENT_HEADER) or None
        if name is not None and len(name) > NAME_LENGTH:
            raise InvalidRequest({"client": [f"A client's name has at most {NAME_LENGTH} characters."]})
        return name

    def expected(self, session: ChatSession) -> int | None:
        """Return the last sequence that If-Match asks for; None where it asks for none (RFC 9110, section 13.1.1)."""
        header = self.request.META.get("HTTP_IF_MATCH")
        if header is None or header.strip() == "*":
            return None
        tags = re.findall(r'(?:^|,)\s*"(0|[1-9][0-9]{0,17})"\s*(?=,|$)', header)
        sequences = [int(tag) for tag in tags]
        return session.last_sequence if session.last_sequence in sequences else next(iter(sequences), NO_SEQUENCE)

    def context(self, session: ChatSession) -> RequestContext:
        """Return who asked, for a responder; the route names the session, whatever the page's header or cookie does."""
        return RequestContext.of(
            self.request._request, user=self.request.user, session=str(session.uuid), instant=self.now
        )

    def answer(self, session: ChatSession, *, status: int = 200, **around: Any) -> Response:
        """Return a session, or a body around it, with its entity tag."""
        made = session_object(session, self.now)
        response = Response({**around, "session": made} if around else made, status=status)
        response["ETag"] = etag(session)
        return response


class NowhereViewSet(ChatViewSet):
    """Paths below sessions that are no route."""

    def refuse(self, request: Request, **_: Any) -> NoReturn:
        """Answer what an id that was never given out is answered."""
        raise SessionNotFound


@lru_cache
def _defaults(kind: type[Serializer[Any]]) -> dict[str, Any]:
    """Return what an empty query string says; none needs one, and a serializer is dear."""
    serializer = kind(data={})
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def etag(session: ChatSession) -> str:
    """Return a session's entity tag."""
    return f'"{session.last_sequence}"'


def passed(text: str, session: ChatSession | None = None) -> Response:
    """Return JSON text as it is."""
    response = Response(Raw(text))
    if session is not None:
        response["ETag"] = etag(session)
    return response


def listed(results: list[dict[str, Any]], following: str | None) -> Response:
    """Return a page of a list."""
    return Response(Raw(dumps({"results": results, "next": following})))
