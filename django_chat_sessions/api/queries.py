"""What query strings may say; what they do not know is ignored."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from .. import lookups
from ..choices import Status
from ..exceptions import SessionNotFound
from ..lookups import Filters, Position
from .serializers import Text

#: Longer patterns are too complex for SQLite's LIKE, however they are hidden.
SEARCH_LENGTH = 1000


class Number(serializers.IntegerField):
    """An integer of a query string, in plain digits."""

    def to_internal_value(self, data: Any) -> int:
        """Check a value."""
        if not re.fullmatch("-?[0-9]{1,40}", str(data)):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class Seconds(serializers.FloatField):
    """A duration of a query string, in plain digits."""

    def to_internal_value(self, data: Any) -> float:
        """Check a value."""
        if not re.fullmatch(r"-?[0-9]{1,40}(\.[0-9]{0,40})?", str(data)):
            self.fail("invalid")
        return float(super().to_internal_value(data))


class Query(serializers.Serializer):  # type: ignore[type-arg]
    """A query string; what it does not know is ignored."""


class PageQuery(Query):
    """A page by sequences."""

    before = Number(required=False, min_value=0, max_value=2**63 - 1)
    after = Number(required=False, min_value=0, max_value=2**63 - 1)
    limit = Number(required=False, min_value=1, max_value=100, default=50)


class EventsQuery(PageQuery):
    """A page of events, perhaps waited for."""

    type = Text(required=False)
    wait = Seconds(required=False, min_value=0, max_value=30, default=0)


class ListQuery(Query):
    """A page of sessions."""

    status = serializers.ChoiceField(choices=Status.choices, required=False)
    agent = Text(required=False)
    application = Text(required=False)
    tag = Text(required=False)
    parent = Text(required=False)  # type: ignore[assignment]
    external_id = Text(required=False)
    created_after = serializers.DateTimeField(required=False, default_timezone=UTC)
    created_before = serializers.DateTimeField(required=False, default_timezone=UTC)
    search = Text(required=False, max_length=SEARCH_LENGTH)
    limit = Number(required=False, min_value=1, max_value=100, default=20)
    cursor = Text(required=False)
    owner = Text(required=False)

    def validate_cursor(self, text: str) -> Position:
        """Read a cursor that a page gave."""
        try:
            instant, uuid = base64.urlsafe_b64decode(text.encode("ascii")).decode("ascii").split("|")
            return Position(datetime.fromisoformat(instant).astimezone(UTC), UUID(uuid))
        except (ValueError, binascii.Error, OverflowError) as error:
            raise ValidationError([_("Not a cursor that a page gave.")]) from error


class ChildrenQuery(Query):
    """A page of children."""

    limit = Number(required=False, min_value=1, max_value=100, default=20)
    cursor = Text(required=False)

    validate_cursor = ListQuery.validate_cursor


class RunsQuery(Query):
    """A page of runs."""

    limit = Number(required=False, min_value=1, max_value=100, default=20)
    cursor = Text(required=False)

    def validate_cursor(self, text: str) -> UUID:
        """Read a cursor that a page gave."""
        try:
            return UUID(bytes=base64.urlsafe_b64decode(text.encode("ascii")))
        except (ValueError, binascii.Error) as error:
            raise ValidationError([_("Not a cursor that a page gave.")]) from error


def run_cursor(public_id: UUID) -> str:
    """Return the opaque cursor of a run in its list."""
    return base64.urlsafe_b64encode(public_id.bytes).decode()


def cursor(position: Position) -> str:
    """Return the opaque cursor of a place in a list."""
    text = f"{position.last_activity_at.isoformat()}|{position.uuid}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def filters(data: Mapping[str, Any]) -> Filters | None:
    """Return what a list is narrowed to; None where nothing can match."""
    names = ("status", "agent", "application", "tag", "external_id", "created_after", "created_before", "search")
    given = {name: data[name] for name in names if name in data}
    if "search" in given and not given["search"]:
        del given["search"]
    if "parent" in data:
        try:
            given["parent"] = lookups.parsed(data["parent"])
        except SessionNotFound:
            return None
    return Filters(**given)


class WindowQuery(Query):
    """How large a window."""

    max_messages = Number(required=False, min_value=1, max_value=1000)
    max_tokens = Number(required=False, min_value=1, max_value=10_000_000)


class SummaryQuery(Query):
    """Whether to count the whole tree."""

    tree = serializers.BooleanField(required=False, default=False)


class ExportQuery(Query):
    """In which format. The name is the contract's: ``as``."""

    def get_fields(self) -> dict[str, Any]:
        """Name a field with a reserved word."""
        return {"as": serializers.ChoiceField(choices=["json", "jsonl", "markdown"], required=False, default="json")}
