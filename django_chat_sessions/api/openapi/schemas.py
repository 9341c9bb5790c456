"""JSON schemas: the words in which what goes in and what comes out is described."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drf_spectacular.settings import spectacular_settings

Schema = dict[str, Any]

ANY_OBJECT: Schema = {"type": "object", "additionalProperties": True}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
COUNTS: Schema = {"type": "object", "additionalProperties": COUNT}
ID: Schema = {"type": "string", "format": "uuid"}
INSTANT: Schema = {"type": "string", "format": "date-time", "description": "ISO 8601 in UTC, ending in Z."}
SECONDS: Schema = {"type": "number", "minimum": 0}
SEQUENCE: Schema = {"type": "integer", "minimum": 1}
TEXT: Schema = {"type": "string"}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(most: int | None = None, least: int = 0) -> Schema:
    """Return a string's schema."""
    return TEXT | ({"maxLength": most} if most else {}) | ({"minLength": least} if least else {})


def one_of(words: Iterable[Any]) -> Schema:
    """Return the schema of a closed list of words."""
    return {"type": "string", "enum": [str(word) for word in words]}


def array(items: Schema, **limits: int) -> Schema:
    """Return a list's schema."""
    return {"type": "array", "items": items, **limits}


def nullable(schema: Schema) -> Schema:
    """Return a schema that takes null as well, in the words of the OpenAPI version that the host describes in."""
    if "$ref" in schema:
        alone = {"type": "null"} if _is_3_1() else {"enum": [None], "nullable": True}
        return {"anyOf": [schema, alone]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | enum | ({"type": [schema["type"], "null"]} if _is_3_1() else {"nullable": True})


def _is_3_1() -> bool:
    return str(spectacular_settings.OAS_VERSION).startswith("3.1")


def exactly(properties: Schema, required: Iterable[str] | None = None, **more: Any) -> Schema:
    """Return the schema of an object that has these members and no other, by default all of them."""
    needed = list(properties if required is None else required)
    return {
        "type": "object",
        "properties": properties,
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
        **more,
    }
