"""What every view shares: who calls, which session, which tab, and how it answers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rest_framework import permissions, viewsets
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from .. import lookups
from ..agents import RequestContext
from ..exceptions import InvalidRequest
from ..models import NAME_LENGTH, ChatSession
from . import errors
from .formats import JSONParser, JSONRenderer, MergePatchParser, ProblemRenderer, Raw, dumps
from .representation import session_object

CLIENT_HEADER = "X-Chat-Client"

#: No event has this sequence: what an If-Match says that names no strong entity tag of ours.
NO_SEQUENCE = -1


class ChatViewSet(viewsets.ViewSet):
    """Base of the views: owners only, JSON only, errors as problem details."""

    parser_classes = [JSONParser, MergePatchParser]
    renderer_classes: list[type[BaseRenderer]] = [JSONRenderer, ProblemRenderer]
    schema_tags = ("sessions",)

    def get_permissions(self) -> list[Any]:
        """Need somebody, and whatever else the host needs."""
        classes = [permissions.IsAuthenticated, *self.permission_classes]
        return [kind() for kind in dict.fromkeys(classes)]

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error as problem details."""
        if getattr(exc, "status_code", None) == 401:
            exc.auth_header = self.get_authenticate_header(self.request)  # type: ignore[attr-defined]
        response = errors.respond(exc)
        if response is None:
            raise exc
        response.exception = True
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep every answer out of caches: it is one person's, and the clock moves it."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    def see(self, public_id: str) -> ChatSession:
        """Return the caller's session of that public id, and remember the instant by the clock that decides."""
        seen = lookups.session(self.request.user, public_id)
        self.seen_at, self.seen_on = seen.now, time.monotonic()
        return seen.session

    @property
    def now(self) -> datetime:
        """The instant: the one at which the session was read, moved on since."""
        return self.seen_at + timedelta(seconds=time.monotonic() - self.seen_on)

    def body(self, kind: type[Serializer[Any]]) -> dict[str, Any]:
        """Return the validated body; none is an empty object."""
        data = self.request.data
        # An empty body is an empty QueryDict to Django REST framework.
        given = {} if isinstance(data, Mapping) and not data else data
        serializer = kind(data=given)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def query(self, kind: type[Serializer[Any]]) -> dict[str, Any]:
        """Return the validated query string."""
        serializer = kind(data=self.request.query_params.dict())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    @property
    def client(self) -> str | None:
        """The name of the calling tab.

        Raises:
            InvalidRequest: it is too long.
        """
        name = self.request.headers.get(CLIENT_HEADER) or None
        if name is not None and len(name) > NAME_LENGTH:
            raise InvalidRequest({"client": [f"A client's name has at most {NAME_LENGTH} characters."]})
        return name

    def expected(self, session: ChatSession) -> int | None:
        """Return the last sequence that If-Match asks for; None where it asks for none (RFC 9110, section 13.1.1)."""
        header = self.request.headers.get("If-Match")
        if header is None or header.strip() == "*":
            return None
        tags = re.findall(r'(?:^|,)\s*"(\d{1,18})"\s*(?=,|$)', header)
        sequences = [int(tag) for tag in tags]
        return session.last_sequence if session.last_sequence in sequences else next(iter(sequences), NO_SEQUENCE)

    def context(self, session: ChatSession) -> RequestContext:
        """Return who asked, for a responder."""
        given = getattr(self.request._request, "chat_context", None)
        if isinstance(given, RequestContext) and given.session == str(session.uuid):
            return given
        return RequestContext.of(
            self.request._request, user=self.request.user, session=str(session.uuid), instant=self.now
        )

    def answer(self, session: ChatSession, *, status: int = 200, **around: Any) -> Response:
        """Return a session, or a body around it, with its entity tag."""
        made = session_object(session, self.now)
        response = Response({**around, "session": made} if around else made, status=status)
        response["ETag"] = etag(session)
        return response


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
