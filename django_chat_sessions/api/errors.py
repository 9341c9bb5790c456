"""Errors as problem details (RFC 9457): one table from exception to status and code."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions as drf
from rest_framework.response import Response

from .. import exceptions as ours
from ..log import iso
from ..models import Run
from .representation import message_object, run_object

logger = logging.getLogger("django_chat_sessions")

CONTENT_TYPE = "application/problem+json"

#: Status and code of each of our errors; a subclass without an entry has its parent's.
TABLE: Mapping[type[ours.ChatSessionError], tuple[int, str]] = {
    ours.ChatSessionError: (400, "invalid_request"),
    ours.InvalidRequest: (400, "invalid_request"),
    ours.InvalidTimeout: (400, "invalid_timeout"),
    ours.MessageTooLong: (400, "message_too_long"),
    ours.MetadataTooLarge: (400, "metadata_too_large"),
    ours.PermissionRefused: (403, "permission_denied"),
    ours.NotFound: (404, "session_not_found"),
    ours.SessionNotFound: (404, "session_not_found"),
    ours.MessageNotFound: (404, "message_not_found"),
    ours.RunNotFound: (404, "run_not_found"),
    ours.AgentNotFound: (404, "agent_not_found"),
    ours.ArchiveNotFound: (404, "session_not_found"),
    ours.IllegalTransition: (409, "session_ended"),
    ours.SessionNotLive: (409, "session_ended"),
    ours.SessionEnded: (409, "session_ended"),
    ours.SessionExpired: (410, "session_expired"),
    ours.ClientConflict: (409, "client_conflict"),
    ours.MessageLimitReached: (409, "message_limit_reached"),
    ours.ExternalIdConflict: (409, "external_id_conflict"),
    ours.RunInProgress: (409, "run_in_progress"),
    ours.LegalHold: (409, "legal_hold"),
    ours.LogIsAppendOnly: (409, "legal_hold"),
    ours.SequenceConflict: (412, "sequence_conflict"),
    ours.RenewalLimitReached: (422, "renewal_limit_reached"),
    ours.SessionLimitReached: (429, "session_limit_reached"),
    ours.AgentFailed: (502, "agent_failed"),
    ours.AgentUnavailable: (503, "agent_unavailable"),
    # No request asks for an archive.
    ours.ArchiveDamaged: (503, "database_unavailable"),
    ours.ArchiveUnavailable: (503, "database_unavailable"),
}

#: What of an error's data a body tells.
TOLD = (
    "errors", "min_minutes", "max_minutes", "limit", "run", "expires_at", "last_sequence", "max_duration_minutes",
    "message",
)  # fmt: skip

#: Codes of what Django REST framework refuses before an operation is asked.
FRAMEWORK: Mapping[int, str] = {
    400: "invalid_request",
    401: "not_authenticated",
    403: "permission_denied",
    404: "session_not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "throttled",
    503: "database_unavailable",
}

TITLES: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    410: "Gone",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    502: "Bad Gateway",
    503: "Service Unavailable",
}

#: Seconds after which a database that did not answer is worth another try.
RETRY_AFTER = 2


def problem(status: int, code: str, detail: str, extra: Mapping[str, Any] | None = None) -> Response:
    """Return a problem details response."""
    title = TITLES.get(status) or HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    return Response({**body, **(extra or {})}, status=status, content_type=CONTENT_TYPE)


def respond(error: Exception) -> Response | None:
    """Return the response to an error; None where it is nobody's but the server's."""
    if isinstance(error, ours.ChatSessionError):
        return _ours(error)
    if isinstance(error, OperationalError | InterfaceError):
        logger.error("The database did not answer a request", exc_info=error)
        response = problem(503, FRAMEWORK[503], "The database does not answer.")
        response["Retry-After"] = str(RETRY_AFTER)
        return response
    if isinstance(error, DataError):
        logger.error("The database refused a value that was found valid", exc_info=error)
        return problem(400, FRAMEWORK[400], "A value cannot be stored.", {"errors": {}})
    if isinstance(error, RequestDataTooBig):
        return problem(413, FRAMEWORK[413], "The body is too large.")
    if isinstance(error, SuspiciousOperation | BadRequest | MultiPartParserError):
        return problem(400, FRAMEWORK[400], str(error) or "The request is not valid.", {"errors": {}})
    if isinstance(error, Http404):
        error = drf.NotFound()
    if isinstance(error, PermissionDenied):
        error = drf.PermissionDenied()
    return _framework(error) if isinstance(error, drf.APIException) else None


def _ours(error: ours.ChatSessionError) -> Response:
    kind = next(kind for kind in type(error).__mro__ if kind in TABLE)
    status, code = TABLE[kind]
    told = {name: _plain(error.data[name]) for name in TOLD if name in error.data}
    return problem(status, code, str(error), told)


def _plain(value: Any) -> Any:
    if isinstance(value, Run):
        return run_object(value)
    if hasattr(value, "role"):
        return message_object(value)
    return iso(value) if hasattr(value, "isoformat") else value


def _framework(error: drf.APIException) -> Response:
    status = 401 if isinstance(error, drf.NotAuthenticated | drf.AuthenticationFailed) else error.status_code
    extra: dict[str, Any] = {}
    detail = str(error.detail)
    if status == 400:
        extra["errors"] = listed(error.detail) if isinstance(error.detail, dict | list) else {}
        detail = "The request is not valid." if extra["errors"] else detail
    # A host's own refusal keeps its status and its code.
    response = problem(status, FRAMEWORK.get(status, error.default_code), detail, extra)
    wait = getattr(error, "wait", None)
    if wait:
        response["Retry-After"] = str(int(wait) + 1)
    return response


def listed(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """Flatten a serializer's errors to field → messages; what is nested is named with dots."""
    if isinstance(detail, Mapping):
        found: dict[str, list[str]] = {}
        for name, inner in detail.items():
            found |= listed(inner, f"{prefix}.{name}" if prefix else str(name))
        return found
    if isinstance(detail, list) and any(isinstance(item, Mapping) for item in detail):
        found = {}
        for number, inner in enumerate(detail):
            found |= listed(inner, f"{prefix}.{number}" if prefix else str(number)) if inner else {}
        return found
    texts = [str(text) for text in detail] if isinstance(detail, list) else [str(detail)]
    return {prefix or "body": texts}
