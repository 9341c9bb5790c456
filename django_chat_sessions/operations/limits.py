"""How much is too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import conf
from ..agents import Message
from ..exceptions import InvalidRequest, MessageLimitReached, MessageTooLong, MetadataTooLarge
from ..fields import dump


def check_message(message: Message) -> None:
    """Refuse a message that is too long.

    Raises:
        MessageTooLong: its content or its parts.
        MetadataTooLarge: its metadata.
    """
    settings = conf.get()
    if len(message.content) > settings.MAX_MESSAGE_LENGTH:
        raise MessageTooLong(limit=settings.MAX_MESSAGE_LENGTH)
    if message.parts and _size("parts", list(message.parts)) > settings.MAX_PARTS_BYTES:
        raise MessageTooLong(limit=settings.MAX_PARTS_BYTES)
    check_json("metadata", message.metadata)


def check_json(name: str, value: Mapping[str, Any], limit: int | None = None) -> None:
    """Refuse JSON that is too large; the limit is the metadata's unless another is given.

    Raises:
        MetadataTooLarge: with the limit in bytes.
        InvalidRequest: it is no JSON.
    """
    limit = conf.get().MAX_METADATA_BYTES if limit is None else limit
    if value and _size(name, value) > limit:
        raise MetadataTooLarge(f"{name} may have at most {limit} bytes as JSON.", field=name, limit=limit)


def _size(name: str, value: Mapping[str, Any] | Sequence[Any]) -> int:
    try:
        return len(dump(value).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest({name: [f"This is not JSON: {error}"]}) from error


def check_count(count: int, new: int = 1) -> None:
    """Refuse more messages than a session may have.

    Raises:
        MessageLimitReached: with the limit.
    """
    limit = conf.get().MAX_MESSAGES
    if limit is not None and count + new > limit:
        raise MessageLimitReached(limit=limit)
