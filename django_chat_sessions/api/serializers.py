"""What bodies may say. Unknown fields are refused, types are strict, and strings stay as sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from ..agents import Message
from ..choices import Delivery, Role, TimeoutMode
from ..exceptions import InvalidRequest
from ..models import EXTERNAL_ID_LENGTH, NAME_LENGTH, REASON_LENGTH, TITLE_LENGTH
from ..operations import limits, sealing
from ..rules.timeouts import TimeoutOverrides

#: Tags of a session, and parts of a message.
TAGS = 50
PARTS = 256


class Text(serializers.Field):  # type: ignore[type-arg]
    """Any JSON string, as sent: nothing is trimmed, no character is refused."""

    default_error_messages = {
        "invalid": _("Not a valid string."),
        "blank": _("This field may not be empty."),
        "max_length": _("Ensure this field has no more than {max_length} characters."),
    }

    def __init__(self, *, max_length: int | None = None, allow_blank: bool = True, **options: Any) -> None:
        """Take the limits."""
        self.max_length = max_length
        self.allow_blank = allow_blank
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        """Check a value."""
        if not isinstance(data, str):
            self.fail("invalid")
        if not data and not self.allow_blank:
            self.fail("blank")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return str(data)

    def to_representation(self, value: Any) -> Any:
        """Return it as it is."""
        return value


class Integer(serializers.IntegerField):
    """A JSON integer; not a string, not a boolean."""

    def to_internal_value(self, data: Any) -> int:
        """Check a value."""
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return int(data)


class Boolean(serializers.BooleanField):
    """JSON's true or false."""

    def to_internal_value(self, data: Any) -> bool:
        """Check a value."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return bool(data)


class Choice(serializers.ChoiceField):
    """One of some strings."""

    def to_internal_value(self, data: Any) -> str:
        """Check a value."""
        if not isinstance(data, str) or not data:
            self.fail("invalid_choice", input=data)
        return str(super().to_internal_value(data))


class Object(serializers.Field):  # type: ignore[type-arg]
    """A JSON object."""

    default_error_messages = {"invalid": _("Not a JSON object.")}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check a value."""
        if not isinstance(data, dict):
            self.fail("invalid")
        return dict(data)

    def to_representation(self, value: Any) -> Any:
        """Return it as it is."""
        return value


class Few(serializers.ListField):
    """A list whose length is looked at before its items, of which a body has room for a million."""

    def to_internal_value(self, data: Any) -> list[Any]:
        """Check a value."""
        if isinstance(data, list) and self.max_length is not None and len(data) > self.max_length:
            raise ValidationError([_("Ensure this field has no more than {most} items.").format(most=self.max_length)])
        return list(super().to_internal_value(data))


class PublicId(Text):
    """The public id of a session; whether it is one, the look-up finds out."""


class SealedTranscript(serializers.Field):  # type: ignore[type-arg]
    """A transcript that was sealed for the caller; the context names the ``owner`` and, perhaps, the ``agent``."""

    def to_internal_value(self, data: Any) -> sealing.Transcript:
        """Open it."""
        if not isinstance(data, str):
            raise ValidationError([_("Not a valid string.")])
        try:
            return sealing.unseal(data, self.context["owner"], agent=self.context.get("agent"))
        except InvalidRequest as error:
            raise ValidationError(error.errors["transcript"]) from error

    def to_representation(self, value: Any) -> Any:
        """Return it as it is."""
        return value


class Strict(serializers.Serializer):  # type: ignore[type-arg]
    """A body that may say what it may say, and nothing else; all that is wrong is told at once."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check a body."""
        if not isinstance(data, Mapping):
            raise ValidationError({"body": [_("Expected a JSON object.")]})
        errors: dict[str, Any] = {name: [_("Unknown field.")] for name in data if name not in self.fields}
        value: Any = {}
        try:
            value = super().to_internal_value(data)
        except ValidationError as error:
            errors = {**(error.detail if isinstance(error.detail, dict) else {}), **errors}
        errors = {**self.missing(data), **errors}
        if errors:
            raise ValidationError(errors)
        return dict(value)

    def missing(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a body lacks, besides single fields."""
        return {}


class TimeoutBody(Strict):
    """A session's own timeouts; null is inherited."""

    mode = Choice(choices=TimeoutMode.choices, required=False, allow_null=True)
    timeout_minutes = Integer(required=False, allow_null=True)
    max_duration_minutes = Integer(required=False, allow_null=True)
    warning_threshold_minutes = Integer(required=False, allow_null=True)
    auto_renew = Boolean(required=False, allow_null=True)


class MessageFields(Strict):
    """What a message says."""

    content = Text(required=False)
    parts = Few(child=Object(), required=False, max_length=PARTS)
    role = Choice(choices=Role.choices, required=False)
    external_id = Text(required=False, allow_null=True, allow_blank=False, max_length=EXTERNAL_ID_LENGTH)
    metadata = Object(required=False)

    def validate_parts(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Check the parts that the contract knows; the application's own types are its own."""
        errors: dict[str, Any] = {}
        for number, part in enumerate(parts):
            kind = part.get("type")
            if not isinstance(kind, str) or not kind:
                errors[str(number)] = {"type": [_("A part needs a type.")]}
            elif kind == "text" and not isinstance(part.get("text"), str):
                errors[str(number)] = {"text": [_("A text part needs its text.")]}
            elif kind == "file" and not isinstance(part.get("url"), str):
                errors[str(number)] = {"url": [_("A file part needs its url.")]}
        if errors:
            raise ValidationError(errors)
        return parts

    def missing(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Need something to say."""
        return {} if data.get("content") or data.get("parts") else {"content": [_("A message needs content or parts.")]}


def message(data: Mapping[str, Any], *, external_id: str | None = None) -> Message:
    """Return the message that validated fields say; text alone in parts is joined."""
    parts = data.get("parts", [])
    joined = "".join(part["text"] for part in parts if part["type"] == "text")
    return Message(
        role=data.get("role", Role.USER),
        content=data.get("content", joined),
        parts=parts,
        metadata=data.get("metadata", {}),
        external_id=data.get("external_id") or external_id,
    )


class MessageBody(MessageFields):
    """A message to post."""

    delivery = Choice(choices=Delivery.choices, required=False)


class QueryBody(MessageFields):
    """A question that nobody stores: the user's, without a name."""

    role = None  # type: ignore[assignment]
    external_id = None  # type: ignore[assignment]
    transcript = SealedTranscript(required=False, allow_null=True)


class RunBody(Strict):
    """A question to be answered again."""

    delivery = Choice(
        choices=[(value, label) for value, label in Delivery.choices if value != Delivery.STORE], required=False
    )
    input_sequence = Integer(required=False, allow_null=True, min_value=1, max_value=2**63 - 1)


_PLAIN = frozenset({"content", "delivery"})


def plain(data: Any) -> dict[str, Any] | None:
    """Return what ``MessageBody`` makes of a message of text alone; None leaves any other, and all errors, to it.

    Nearly all messages are such, and a serializer copies its fields for each, which costs more than storing one.
    """
    if not isinstance(data, dict) or not _PLAIN.issuperset(data):
        return None
    content, delivery = data.get("content"), data.get("delivery", Delivery.STORE)
    if not isinstance(content, str) or not content or delivery not in tuple(Delivery):
        return None
    return dict(data)


class EditBody(Strict):
    """The new text of a message."""

    content = Text(allow_blank=False)


class ChangeBody(Strict):
    """What an owner may always change."""

    title = Text(required=False, max_length=TITLE_LENGTH)
    tags = Few(child=Text(max_length=NAME_LENGTH, allow_blank=False), required=False, max_length=TAGS)
    metadata = Object(required=False)


class OpenBody(ChangeBody):
    """A session to open."""

    agent = Text(required=False, max_length=NAME_LENGTH)
    application = Text(required=False, max_length=NAME_LENGTH)
    external_id = Text(required=False, allow_null=True, allow_blank=False, max_length=EXTERNAL_ID_LENGTH)
    environment = Object(required=False)
    state = Object(required=False)
    parent = PublicId(required=False, allow_null=True)  # type: ignore[assignment]
    continue_from = PublicId(required=False, allow_null=True)
    timeout = TimeoutBody(required=False)
    messages = MessageFields(required=False, many=True)
    transcript = SealedTranscript(required=False, allow_null=True)

    def missing(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Begin with one history alone."""
        if data.get("transcript") is None or "messages" not in data:
            return {}
        return {"messages": [_("A session begins with messages or with a transcript, not with both.")]}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check a body, but not each message of more than a session may have."""
        history = data.get("messages") if isinstance(data, Mapping) else None
        if isinstance(history, list):
            limits.check_count(0, len(history))
        return super().to_internal_value(data)

    def validate_messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Check that no two have the same name."""
        names: set[str] = set()
        wrong = []
        for name in (item.get("external_id") for item in messages):
            wrong.append(name is not None and name in names)
            names |= {name} if name is not None else set()
        if any(wrong):
            text = _("Another message has the same external_id.")
            raise ValidationError([{"external_id": [text]} if is_wrong else {} for is_wrong in wrong])
        return messages


def overrides(data: Mapping[str, Any]) -> TimeoutOverrides:
    """Return the timeouts that validated fields say."""
    return TimeoutOverrides(**data)


class ResumeBody(Strict):
    """How large a window to come back with."""

    max_messages = Integer(required=False, min_value=1, max_value=1000)
    max_tokens = Integer(required=False, min_value=1, max_value=10_000_000)


class EndBody(Strict):
    """Why a session ends."""

    reason = Text(required=False, max_length=REASON_LENGTH)


class ForkBody(Strict):
    """Where to fork."""

    at = Integer(required=False, allow_null=True)
    title = Text(required=False, max_length=TITLE_LENGTH)


class EventBody(Strict):
    """An application's own event."""

    type = Text(max_length=NAME_LENGTH)
    data = Object(required=False)  # type: ignore[assignment]


class NoBody(Strict):
    """Nothing."""
