"""What goes in: the components of the API's description that are bodies."""

from __future__ import annotations

from collections.abc import Callable

from ... import conf
from ...choices import Delivery, Role, TimeoutMode
from ...models import EXTERNAL_ID_LENGTH, NAME_LENGTH, REASON_LENGTH, TITLE_LENGTH
from ..serializers import PARTS, TAGS
from .schemas import (
    ANY_OBJECT,
    BOOLEAN,
    ID,
    SEQUENCE,
    TEXT,
    Schema,
    array,
    exactly,
    nullable,
    one_of,
    ref,
    text,
)


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


def _transcript() -> Schema:
    return nullable({**TEXT, "description": "What a question outside of any session was answered with."})


def _query_body() -> Schema:
    said = _message_fields()
    fields = {name: said[name] for name in ("content", "parts", "metadata")}
    return exactly({**fields, "transcript": _transcript()}, (), example={"content": "Good morning"}, **_SAYS)


def _run_body() -> Schema:
    deliveries = [delivery for delivery in Delivery.values if delivery != Delivery.STORE]
    question = {**SEQUENCE, "description": "Of the question that is answered again; by default the last one."}
    fields = {"delivery": {**one_of(deliveries), "default": str(Delivery.WAIT)}, "input_sequence": nullable(question)}
    return exactly(fields, (), example={"delivery": "background"})


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
        "transcript": _transcript(),
    }
    return exactly(fields, (), example={"agent": "tasks", "title": "Review Q4 budget"})


#: Every body by its name.
BODIES: dict[str, Callable[[], Schema]] = {
    "ChatPart": _part,
    "ChatHistoryMessage": _said,
    "ChatMessageBody": _message_body,
    "ChatRunBody": _run_body,
    "ChatQueryBody": _query_body,
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
