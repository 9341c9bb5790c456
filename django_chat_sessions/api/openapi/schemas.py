"""What goes in and comes out, as JSON schemas: the components of the API's description."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from drf_spectacular.settings import spectacular_settings

from ... import conf
from ...choices import Delivery, Role, RunStatus, Status, Strategy, TimeoutMode
from ...models import EXTERNAL_ID_LENGTH, NAME_LENGTH, REASON_LENGTH, TITLE_LENGTH
from ..errors import FRAMEWORK, TABLE
from ..serializers import PARTS, TAGS

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


def _timeout() -> Schema:
    minutes = {"type": "integer"}
    return exactly(
        {
            "mode": one_of(TimeoutMode.values),
            "timeout_minutes": minutes,
            "max_duration_minutes": minutes,
            "warning_threshold_minutes": minutes,
            "auto_renew": BOOLEAN,
        },
        description="What is in force: the session's own, else its agent's, else the global settings.",
    )


def _session() -> Schema:
    return exactly(
        {
            "id": ID,
            "external_id": nullable(TEXT),
            "agent": TEXT,
            "application": TEXT,
            "title": TEXT,
            "status": one_of(Status.values),
            "is_near_expiration": BOOLEAN,
            "parent": nullable(ID),
            "root": ID,
            "forked_from": nullable(ref("ChatSource")),
            "strategy": one_of(Strategy.values),
            "client": nullable(TEXT),
            "tags": array(TEXT),
            "metadata": ANY_OBJECT,
            "environment": ANY_OBJECT,
            "timeout": ref("ChatTimeout"),
            "created_at": INSTANT,
            "last_activity_at": INSTANT,
            "expires_at": INSTANT,
            "time_remaining_seconds": SECONDS,
            "ended_at": nullable(INSTANT),
            "end_reason": TEXT,
            "renewal_count": COUNT,
            "message_count": COUNT,
            "token_count": COUNT,
            "last_sequence": SEQUENCE,
        }
    )


def _message() -> Schema:
    return exactly(
        {
            "sequence": SEQUENCE,
            "external_id": nullable(TEXT),
            "role": one_of(Role.values),
            "content": TEXT,
            "parts": array(ANY_OBJECT),
            "metadata": ANY_OBJECT,
            "run": nullable(ID),
            "token_count": nullable(COUNT),
            "created_at": INSTANT,
            "edited_at": nullable(INSTANT),
        }
    )


def _event() -> Schema:
    return exactly({"sequence": SEQUENCE, "type": TEXT, "created_at": INSTANT, "data": ANY_OBJECT})


def _run() -> Schema:
    return exactly(
        {
            "id": ID,
            "status": one_of(RunStatus.values),
            "error": nullable(TEXT),
            "input_sequence": SEQUENCE,
            "output_sequence": nullable(SEQUENCE),
            "created_at": INSTANT,
            "started_at": nullable(INSTANT),
            "first_token_at": nullable(INSTANT),
            "finished_at": nullable(INSTANT),
            "attempt": SEQUENCE,
            "input_tokens": nullable(COUNT),
            "output_tokens": nullable(COUNT),
            "cost": nullable(TEXT),
        }
    )


def _problem() -> Schema:
    codes = {code for _, code in TABLE.values()} | set(FRAMEWORK.values())
    return {
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "properties": {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "code": {"type": "string", "description": f"One of {', '.join(sorted(codes))}; a host may add its own."},
            "errors": {"type": "object", "additionalProperties": array(TEXT)},
            "min_minutes": {"type": "integer"},
            "max_minutes": {"type": "integer"},
            "limit": {"type": "integer"},
            "expires_at": INSTANT,
            "last_sequence": SEQUENCE,
            "max_duration_minutes": {"type": "integer"},
            "message": ref("ChatMessage"),
            "run": {"anyOf": [ID, ref("ChatRun")]},
        },
        "required": ["type", "title", "status", "detail", "code"],
        "example": {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "There is no such session.",
            "code": "session_not_found",
        },
    }


def _page(name: str, items: Schema) -> Schema:
    ends = exactly({"before": nullable(SEQUENCE), "after": nullable(SEQUENCE)})
    return exactly({name: array(items), "has_more": BOOLEAN, "cursors": ends})


def _context() -> Schema:
    return exactly(
        {
            "messages": array(ref("ChatMessage")),
            "summary": nullable(TEXT),
            "state": ANY_OBJECT,
            "truncated": BOOLEAN,
        }
    )


def _summary() -> Schema:
    return exactly(
        {
            "duration_seconds": SECONDS,
            "messages_by_role": COUNTS,
            "events_by_type": COUNTS,
            "message_count": COUNT,
            "token_count": COUNT,
            "renewal_count": COUNT,
            "first_reply_seconds": nullable(SECONDS),
            "runs": COUNTS,
            "sessions": COUNT,
        }
    )


def _metrics() -> Schema:
    return exactly(
        {
            "sessions": COUNTS,
            "live": COUNT,
            "near_deadline_seconds": nullable(SECONDS),
            "due": COUNT,
            "messages": COUNT,
            "tokens": COUNT,
            "runs": COUNTS,
        }
    )


def _export() -> Schema:
    return exactly(
        {
            "format_version": {"type": "integer"},
            "exported_at": INSTANT,
            "session": ref("ChatSession"),
            "messages": array(ref("ChatMessage")),
            "events": array(ref("ChatEvent")),
        }
    )


def _health() -> Schema:
    return exactly({"status": one_of(["healthy"]), "timestamp": INSTANT, "database": one_of(["ok"])})


# -------------------------------------------------------------------------------------------------------- what goes in


def _part() -> Schema:
    known = [("text", "text"), ("file", "url")]
    kinds = [
        {
            "type": "object",
            "properties": {"type": one_of([kind]), needed: TEXT},
            "required": ["type", needed],
            "additionalProperties": True,
        }
        for kind, needed in known
    ]
    other = {**text(least=1), "not": {"enum": [kind for kind, _ in known]}}
    own = {"type": "object", "properties": {"type": other}, "required": ["type"], "additionalProperties": True}
    return {"anyOf": [*kinds, own], "description": "text, a file, or the application's own type."}


def _message_fields() -> Schema:
    return {
        "content": text(conf.get().MAX_MESSAGE_LENGTH),
        "parts": array(ref("ChatPart"), maxItems=PARTS),
        "role": {**one_of(Role.values), "description": "Others than user need a permission."},
        "external_id": nullable(text(EXTERNAL_ID_LENGTH, least=1)),
        "metadata": ANY_OBJECT,
    }


#: A message says something, in one way or the other.
_SAYS: Schema = {"anyOf": [{"required": ["content"]}, {"required": ["parts"]}]}


def _said() -> Schema:
    return exactly(_message_fields(), (), **_SAYS)


def _message_body() -> Schema:
    delivery = {**one_of(Delivery.values), "description": "By default wait where the session's agent can respond."}
    example = {"content": "Create a task: Review Q4 budget", "external_id": "m-1"}
    return exactly({**_message_fields(), "delivery": delivery}, (), example=example, **_SAYS)


def _timeout_body() -> Schema:
    bounds = conf.get().bounds
    idle = {"minimum": bounds.min_timeout_minutes, "maximum": bounds.max_timeout_minutes}
    longest = {"minimum": bounds.min_timeout_minutes, "maximum": bounds.max_duration_minutes}
    warning = {"minimum": 0, "maximum": bounds.max_timeout_minutes - 1}
    return exactly(
        {
            "mode": nullable(one_of(TimeoutMode.values)),
            "timeout_minutes": nullable({"type": "integer", **idle}),
            "max_duration_minutes": nullable({"type": "integer", **longest}),
            "warning_threshold_minutes": nullable({"type": "integer", **warning}),
            "auto_renew": nullable(BOOLEAN),
        },
        (),
        description="null returns a field to the inherited value.",
        example={"timeout_minutes": 60, "auto_renew": False},
    )


def _change_fields() -> Schema:
    return {
        "title": text(TITLE_LENGTH),
        "tags": array(text(NAME_LENGTH, least=1), maxItems=TAGS),
        "metadata": ANY_OBJECT,
    }


def _open_body() -> Schema:
    fields = {
        "agent": text(NAME_LENGTH),
        "application": text(NAME_LENGTH),
        "external_id": nullable(text(EXTERNAL_ID_LENGTH, least=1)),
        **_change_fields(),
        "environment": ANY_OBJECT,
        "state": ANY_OBJECT,
        "parent": nullable(ID),
        "continue_from": nullable(ID),
        "timeout": ref("ChatTimeoutBody"),
        "messages": array(ref("ChatHistoryMessage")),
    }
    return exactly(fields, (), example={"agent": "tasks", "title": "Review Q4 budget"})


#: Every component by its name.
COMPONENTS: dict[str, Callable[[], Schema]] = {
    "ChatSession": _session,
    "ChatSource": lambda: exactly({"id": ID, "sequence": SEQUENCE}),
    "ChatTimeout": _timeout,
    "ChatMessage": _message,
    "ChatEvent": _event,
    "ChatRun": _run,
    "ChatProblem": _problem,
    "ChatSessionPage": lambda: exactly({"results": array(ref("ChatSession")), "next": nullable(TEXT)}),
    "ChatMessagePage": lambda: _page("messages", ref("ChatMessage")),
    "ChatEventPage": lambda: _page("events", ref("ChatEvent")),
    "ChatContext": _context,
    "ChatState": lambda: exactly({"state": ANY_OBJECT, "last_sequence": SEQUENCE}),
    "ChatSummary": _summary,
    "ChatMetrics": _metrics,
    "ChatExport": _export,
    "ChatHealth": _health,
    "ChatResumed": lambda: exactly(
        {"session": ref("ChatSession"), "idle_seconds": SECONDS, "context": ref("ChatContext")}
    ),
    "ChatPosted": lambda: exactly(
        {
            "message": ref("ChatMessage"),
            "reply": nullable(ref("ChatMessage")),
            "run": nullable(ref("ChatRun")),
            "session": ref("ChatSession"),
        },
        ("message", "session"),
    ),
    "ChatPart": _part,
    "ChatHistoryMessage": _said,
    "ChatMessageBody": _message_body,
    "ChatEditBody": lambda: exactly({"content": text(conf.get().MAX_MESSAGE_LENGTH, least=1)}),
    "ChatTimeoutBody": _timeout_body,
    "ChatOpenBody": _open_body,
    "ChatChangeBody": lambda: exactly(_change_fields(), (), example={"title": "Budget", "tags": ["q4"]}),
    "ChatResumeBody": lambda: exactly(
        {
            "max_messages": {"type": "integer", "minimum": 1, "maximum": 1000},
            "max_tokens": {"type": "integer", "minimum": 1, "maximum": 10_000_000},
        },
        (),
    ),
    "ChatEndBody": lambda: exactly({"reason": text(REASON_LENGTH)}, (), example={"reason": "done"}),
    "ChatForkBody": lambda: exactly({"at": nullable(SEQUENCE), "title": text(TITLE_LENGTH)}, ()),
    "ChatEventBody": lambda: exactly(
        {"type": {"type": "string", "pattern": r"^app\.[A-Za-z0-9_.:/-]{1,60}$"}, "data": ANY_OBJECT},
        ("type",),
        example={"type": "app.opened_file", "data": {"name": "budget.xlsx"}},
    ),
    "ChatStatePatch": lambda: {**ANY_OBJECT, "example": {"current_task": 1}},
    "ChatNothing": lambda: exactly({}),
}
