"""JSON in and out: strictly what RFC 8259 knows, and any string of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from ..operations import limits

#: How deep a body may be nested: its own object is one level of what a value of it may have.
MAX_DEPTH = limits.MAX_NESTING

TOO_DEEP = f"The JSON is nested deeper than {MAX_DEPTH}."


class Negotiation(DefaultContentNegotiation):
    """Chooses a renderer by ``Accept`` alone: an unknown query parameter ``format`` is ignored like any other."""

    class settings:  # noqa: N801 - the parent's name
        """What the parent reads of Django REST framework's settings."""

        URL_FORMAT_OVERRIDE = None


class Raw:
    """JSON text that a renderer passes through."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        """Take the text."""
        self.text = text


class JSONParser(BaseParser):
    """Reads a JSON body."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the value.

        Raises:
            ParseError: it is no JSON, is nested too deep, or has a number that JSON numbers can't be stored as.
            PayloadTooLarge: it is larger than Django's ``DATA_UPLOAD_MAX_MEMORY_SIZE``.
        """
        try:
            value = json.loads(_text(stream, parser_context or {}), parse_constant=_refuse, parse_float=_finite)
        except RecursionError as error:
            raise ParseError(TOO_DEEP) from error
        except ValueError as error:
            raise ParseError(f"Malformed JSON: {error}") from error
        if limits.is_nested(value, MAX_DEPTH):
            raise ParseError(f"Malformed JSON: {TOO_DEEP}")
        return value


class MergePatchParser(JSONParser):
    """Reads a merge patch under its own media type (RFC 7396, section 4)."""

    media_type = "application/merge-patch+json"


def _text(stream: IO[bytes], context: Mapping[str, Any]) -> str:
    """Return the body's text; an empty one, which only a body in chunks can be here, is an empty object."""
    body = _read(stream)
    if not body and hasattr(getattr(context.get("request"), "_request", None), "environ"):
        raise ParseError("A body needs a Content-Length here.")
    return body.decode("utf-8") if body else "{}"


def _read(stream: IO[bytes]) -> bytes:
    limit: int | None = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body = stream.read() if limit is None else stream.read(limit + 1)
    if limit is not None and len(body) > limit:
        raise PayloadTooLarge(f"The body has more than {limit} bytes.")
    return body


class PayloadTooLarge(APIException):
    """The body is too large (RFC 9110, section 15.5.14)."""

    status_code = 413


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


class JSONRenderer(BaseRenderer):
    """Writes JSON as UTF-8; a lone surrogate, which UTF-8 can't say, is escaped."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """Return the body."""
        if data is None:
            return b""
        if isinstance(data, Raw):
            return encode(data.text)
        return encode(dumps(data))


def dumps(value: Any) -> str:
    """Return JSON text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_passed)


def _passed(value: Any) -> str:
    return str(value)


def encode(text: str) -> bytes:
    """Return JSON text as UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in text).encode()


class ProblemRenderer(JSONRenderer):
    """Lets a client ask for problem details by their own type."""

    media_type = "application/problem+json"
    format = "problem"


class AnyRenderer(BaseRenderer):
    """Stands for the other formats of an export, so that asking for them by ``Accept`` is no 406."""

    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the body: text as it is, anything else as JSON."""
        return JSONRenderer().render(data) if not isinstance(data, str | bytes) else data


class LinesRenderer(AnyRenderer):
    """JSON, one event a line."""

    media_type = "application/x-ndjson"
    format = "jsonl"


class MarkdownRenderer(AnyRenderer):
    """A conversation as text."""

    media_type = "text/markdown"
    format = "markdown"


class EventStreamRenderer(AnyRenderer):
    """Server-Sent Events, which are no document that is rendered at once."""

    media_type = "text/event-stream"
    format = "sse"
