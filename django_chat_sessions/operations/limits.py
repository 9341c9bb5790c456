"""How much is too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import conf
from ..agents import Message
from ..choices import Role
from ..exceptions import InvalidRequest, MessageLimitReached, MessageTooLong, MetadataTooLarge
from ..fields import dump

#: How deep JSON may be nested; Python and the databases have limits of their own, which nobody should meet.
MAX_NESTING = 100

#: What a column of tokens holds.
MAX_TOKENS = 2**31 - 1

_ROLES = frozenset(Role.values)


def check_message(message: Message) -> None:
    """Refuse a message that is too long, or none.

    Raises:
        InvalidRequest: nobody knows its role, a part is no object, or its token count no count.
        MessageTooLong: its content or its parts.
        MetadataTooLarge: its metadata.
    """
    settings = conf.get()
    if message.role not in _ROLES:
        raise InvalidRequest({"role": [f"A message is of one of the roles {', '.join(Role.values)}."]})
    if not all(isinstance(part, Mapping) for part in message.parts):
        raise InvalidRequest({"parts": ["Each part is a JSON object."]})
    if not _is_count(message.token_count):
        raise InvalidRequest({"token_count": [f"Tokens are counted from 0 to {MAX_TOKENS}."]})
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


def check_nesting(name: str, value: object) -> None:
    """Refuse JSON that is nested too deep.

    Raises:
        InvalidRequest: with the limit.
    """
    if is_nested(value, MAX_NESTING + 1):
        raise InvalidRequest({name: [f"This is nested deeper than {MAX_NESTING}."]})


def is_nested(value: object, levels: int) -> bool:
    """Tell whether JSON has values below that many levels, without a recursion of its own."""
    level = [value]
    for _ in range(levels):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


def _is_count(tokens: object) -> bool:
    return tokens is None or (type(tokens) is int and 0 <= tokens <= MAX_TOKENS)


def _size(name: str, value: Mapping[str, Any] | Sequence[Any]) -> int:
    check_nesting(name, value)
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
