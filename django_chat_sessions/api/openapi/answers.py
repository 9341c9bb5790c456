"""What comes out: the components of the API's description that are answers."""

from __future__ import annotations

from collections.abc import Callable

from ...choices import Role, RunStatus, Status, Strategy, TimeoutMode
from ..errors import FRAMEWORK, TABLE
from .schemas import (
    ANY_OBJECT,
    BOOLEAN,
    COUNT,
    COUNTS,
    ID,
    INSTANT,
    SECONDS,
    SEQUENCE,
    TEXT,
    Schema,
    array,
    exactly,
    nullable,
    one_of,
    ref,
)


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
            "cost": nullable({"type": "string"}),
        }
    )


def _answered() -> Schema:
    usage = {"input_tokens": nullable(COUNT), "output_tokens": nullable(COUNT), "cost": nullable({"type": "string"})}
    transcript = "Signed, for its owner alone; null where it outgrew a request or a session."
    return exactly(
        {
            "reply": nullable(ref("ChatUnstoredMessage")),
            "messages": array(ref("ChatUnstoredMessage")),
            "usage": exactly(usage),
            "transcript": nullable({**TEXT, "description": transcript}),
        }
    )


def _unstored() -> Schema:
    fields = {**_message()["properties"], "sequence": nullable(SEQUENCE)}
    return exactly(fields, description="A message that nobody stored: without a sequence, a name or a run.")


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
            "usage": exactly({"input_tokens": COUNT, "output_tokens": COUNT, "cost": nullable({"type": "string"})}),
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
            "archivable": COUNT,
            "purgeable": COUNT,
            "undelivered": exactly({"pending": COUNT, "set_aside": COUNT}),
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


#: Every answer by its name.
ANSWERS: dict[str, Callable[[], Schema]] = {
    "ChatSession": _session,
    "ChatSource": lambda: exactly({"id": ID, "sequence": SEQUENCE}),
    "ChatTimeout": _timeout,
    "ChatMessage": _message,
    "ChatEvent": _event,
    "ChatRun": _run,
    "ChatAnswered": _answered,
    "ChatUnstoredMessage": _unstored,
    "ChatProblem": _problem,
    "ChatSessionPage": lambda: exactly({"results": array(ref("ChatSession")), "next": nullable(TEXT)}),
    "ChatRunPage": lambda: exactly({"results": array(ref("ChatRun")), "next": nullable(TEXT)}),
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
    "ChatQueued": lambda: exactly(
        {"message": ref("ChatMessage"), "run": ref("ChatRun"), "session": ref("ChatSession")}
    ),
}
