r"""Text and JSON that hold any JSON string.

PostgreSQL stores neither U+0000 nor a lone surrogate, and SQLite no lone surrogate. Each such character, and the
marker itself, is written as the marker and its four hexadecimal digits. The marker is the noncharacter U+FDD0, which
Unicode reserves for a process's internal use (Unicode 15, section 23.7) and which databases leave unescaped in JSON.
So text that the database aggregates as JSON turns into the right JSON by one substitution: the marker becomes
``\u`` (``reveal``), and a JSON parser does the rest.
"""

from __future__ import annotations

import json
import re
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

MARKER = "\ufdd0"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff\ufdd0]")
_HIDDEN = re.compile(MARKER + "([0-9a-f]{4})")


def hide(text: str) -> str:
    """Return the text as any database can store it."""
    return _UNSTORABLE.sub(lambda match: f"{MARKER}{ord(match[0]):04x}", text)


def unhide(text: str) -> str:
    """Return the text as it was before ``hide``."""
    return _HIDDEN.sub(lambda match: chr(int(match[1], 16)), text) if MARKER in text else text


def reveal(text: str) -> str:
    """Turn JSON text that a database made of stored values into the JSON text of the values that were given."""
    return text.replace(MARKER, "\\u") if MARKER in text else text


def _walk(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _walk(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item, change) for item in value]
    return value


def dump(value: Any, encoder: type[json.JSONEncoder] | None = None) -> str:
    """Return JSON text that any database can store.

    Raises:
        ValueError: a number that is not finite (RFC 8259, section 6), or nesting too deep.
        TypeError: something that is no JSON.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, cls=encoder)
    if "\\u0000" in text or _UNSTORABLE.search(text):
        text = json.dumps(_walk(value, hide), ensure_ascii=False, allow_nan=False, cls=encoder)
    return text


def load(text: str | bytes) -> Any:
    """Return the value that ``dump`` was given."""
    value = json.loads(text)
    raw = text.decode() if isinstance(text, bytes) else text
    return _walk(value, unhide) if MARKER in raw or "\\ufdd0" in raw else value


class AnyTextField(models.TextField):  # type: ignore[type-arg]
    """Text of any characters."""

    def get_prep_value(self, value: Any) -> Any:
        """Hide what a database can't store."""
        value = super().get_prep_value(value)
        return hide(value) if isinstance(value, str) else value

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        """Show it again."""
        return value if value is None else unhide(value)


class AnyJSONField(models.JSONField):
    """JSON whose strings and keys have any characters."""

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Hide what a database can't store."""
        if hasattr(value, "as_sql"):
            return value
        if not prepared:
            value = self.get_prep_value(value)
        if isinstance(value, (dict, list, tuple, str)):
            value = _walk(value, hide)
        return connection.ops.adapt_json_value(value, _Raw)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Hide what a database can't store; None is SQL's NULL."""
        return value if value is None else self.get_db_prep_value(value, connection)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Show it again."""
        value = super().from_db_value(value, expression, connection)
        return _walk(value, unhide)

    def validate(self, value: Any, model_instance: Any) -> None:
        """Refuse what is no JSON."""
        super().validate(value, model_instance)
        try:
            dump(value)
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error)) from error


class _Raw(json.JSONEncoder):
    """JSON text in which non-ASCII characters stand as themselves, so that ``reveal`` finds the marker."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False, "allow_nan": False})
