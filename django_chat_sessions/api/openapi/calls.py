"""The calls: what each takes and how it answers, by view and action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...choices import Status
from ...models import EXTERNAL_ID_LENGTH, NAME_LENGTH
from ..queries import SEARCH_LENGTH
from .schemas import BOOLEAN, INSTANT, TEXT, Schema, one_of, ref, text

JSON = "application/json"
PROBLEM = "application/problem+json"

LARGEST = 2**63 - 1
CURSOR = "What a page gave as next."

#: Whatever is asked: authentication, permissions and negotiation are the host's, and a database may be away.
ALWAYS = (401, 403, 406, 429, 503)
WITH_BODY = (400, 413, 415)
WRITE = (400, 409, 410, 412)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call.

    Attributes:
        id: the operation's id.
        summary: what it does, in a line.
        answers: a status and what it brings; None is nothing.
        query: query parameters by name.
        body: the component that it takes.
        bodies: the media types of the body.
        headers: which of ``HEADERS`` it listens to.
        errors: statuses besides those of every call.
        tagged: whether it answers with an entity tag.
        media: further media types of the answer.
        public: whether it asks for nobody's name.
    """

    id: str
    summary: str
    answers: dict[int, str | None]
    query: dict[str, Schema] | None = None
    body: str | None = None
    bodies: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    tagged: bool = False
    media: tuple[str, ...] = ()
    public: bool = False


HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Chat-Client": ("The name of the calling tab.", text(NAME_LENGTH)),
    "If-Match": ("The entity tag that the session must still have.", {**TEXT, "example": '"3"'}),
    "Idempotency-Key": ("A name for the message, where it has no external_id.", text(EXTERNAL_ID_LENGTH)),
}

PATH: dict[str, tuple[str, Schema]] = {
    "session": ("The session's public id.", {"type": "string", "format": "uuid"}),
    "sequence": ("The message's sequence.", {"type": "integer", "minimum": 1, "maximum": LARGEST}),
}

TAB = ("X-Chat-Client",)
MATCH = (*TAB, "If-Match")


def _integer(least: int, most: int, default: int | None = None) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most} | ({} if default is None else {"default": default})


_PAGE = {"limit": _integer(1, 100, 20), "cursor": {**TEXT, "description": CURSOR}}
_SEQUENCES = {"before": _integer(0, LARGEST), "after": _integer(0, LARGEST), "limit": _integer(1, 100, 50)}
_WINDOW = {"max_messages": _integer(1, 1000), "max_tokens": _integer(1, 10_000_000)}

_LIST = {
    "status": {**one_of(Status.values), "description": "As it reads now, swept or not."},
    "agent": TEXT,
    "application": TEXT,
    "tag": TEXT,
    "parent": {**TEXT, "description": "A public id."},
    "external_id": TEXT,
    "created_after": INSTANT,
    "created_before": INSTANT,
    "search": {**text(SEARCH_LENGTH), "description": "In the title and the conversation, taken literally."},
    "owner": {**TEXT, "description": "all, or a username; for staff with the permission."},
    **_PAGE,
}

_WAIT = {"type": "number", "minimum": 0, "maximum": 30, "default": 0}

S, M, E = "SessionViewSet", "MessageViewSet", "EventViewSet"


def _read(id: str, summary: str, brings: str, **more: Any) -> Call:  # noqa: A002 - the specification's word
    errors = (404, 400)
    return Call(id=id, summary=summary, answers={200: brings}, errors=errors, headers=TAB, **more)


def _write(id: str, summary: str, answers: dict[int, str | None], **more: Any) -> Call:  # noqa: A002
    fields: dict[str, Any] = {"errors": (404, *WRITE, *WITH_BODY), "headers": MATCH, "tagged": True} | more
    return Call(id=id, summary=summary, answers=answers, **fields)


_SESSION: dict[int, str | None] = {200: "ChatSession"}

CALLS: dict[tuple[str, str], Call] = {
    (S, "list"): Call(
        id="listSessions", summary="List sessions", answers={200: "ChatSessionPage"}, query=_LIST, errors=(400,)
    ),
    (S, "create"): Call(
        id="openSession",
        summary="Open a session, or find the live one",
        answers={201: "ChatSession", 200: "ChatSession"},
        body="ChatOpenBody",
        headers=TAB,
        errors=(404, 409, 410, *WITH_BODY),
        tagged=True,
    ),
    (S, "retrieve"): _read("getSession", "Read a session", "ChatSession", tagged=True),
    (S, "partial_update"): _write("changeSession", "Rename, tag or describe", _SESSION, body="ChatChangeBody"),
    (S, "destroy"): _write(
        "deleteSession", "Delete with all descendants", {204: None}, errors=(404, 400, 409, 412), tagged=False
    ),
    (S, "resume"): _write("resumeSession", "Come back", {200: "ChatResumed"}, body="ChatResumeBody"),
    (S, "heartbeat"): _write("keepSessionAlive", "Keep alive", _SESSION, body="ChatNothing"),
    (S, "renew"): _write(
        "renewSession", "Move the deadline", _SESSION, body="ChatNothing", errors=(404, *WRITE, *WITH_BODY, 422)
    ),
    (S, "timeout"): _write("changeTimeout", "Change the session's timeouts", _SESSION, body="ChatTimeoutBody"),
    (S, "end"): _write("endSession", "End", _SESSION, body="ChatEndBody"),
    (S, "fork"): _write(
        "forkSession",
        "Fork at a sequence",
        {201: "ChatSession"},
        body="ChatForkBody",
        errors=(404, 412, *WITH_BODY),
    ),
    (S, "children"): _read("listChildren", "List the sessions right below", "ChatSessionPage", query=_PAGE),
    (S, "summary"): _read("summarizeSession", "Figures", "ChatSummary", query={"tree": BOOLEAN}),
    (S, "state"): _read("getState", "Read the state", "ChatState", tagged=True),
    (S, "change_state"): _write(
        "changeState",
        "Change the state by a merge patch",
        {200: "ChatState"},
        body="ChatStatePatch",
        bodies=(JSON, "application/merge-patch+json"),
    ),
    (S, "window"): _read("getContext", "What a model would see", "ChatContext", query=_WINDOW),
    ("ExportViewSet", "retrieve"): _read(
        "exportSession",
        "Export",
        "ChatExport",
        query={"as": {**one_of(["json", "jsonl", "markdown"]), "default": "json"}},
        media=("application/x-ndjson", "text/markdown"),
        tagged=True,
    ),
    (M, "list"): _read("listMessages", "Read a page of messages", "ChatMessagePage", query=_SEQUENCES, tagged=True),
    (M, "create"): _write(
        "postMessage",
        "Post a message",
        {201: "ChatPosted", 200: "ChatPosted"},
        body="ChatMessageBody",
        headers=(*MATCH, "Idempotency-Key"),
        errors=(404, *WRITE, *WITH_BODY, 502),
    ),
    (M, "retrieve"): _read("getMessage", "Read a message", "ChatMessage"),
    (M, "partial_update"): _write("editMessage", "Edit", {200: "ChatMessage"}, body="ChatEditBody", tagged=False),
    (M, "destroy"): _write("withdrawMessage", "Take back", {204: None}, errors=(404, *WRITE), tagged=False),
    (E, "list"): _read(
        "listEvents",
        "Read a page of the log, or wait for it",
        "ChatEventPage",
        query={**_SEQUENCES, "type": TEXT, "wait": _WAIT},
        tagged=True,
    ),
    (E, "create"): _write("recordEvent", "Record an application's event", {201: "ChatEvent"}, body="ChatEventBody"),
    ("HealthViewSet", "retrieve"): Call(
        id="getHealth", summary="Whether it works", answers={200: "ChatHealth"}, public=True
    ),
    ("MetricsViewSet", "retrieve"): Call(id="getMetrics", summary="Figures", answers={200: "ChatMetrics"}),
}


def operation(call: Call, path_parameters: list[str]) -> Schema:
    """Return a call as OpenAPI says it."""
    parameters = [
        *(_parameter("path", name, *PATH[name], required=True) for name in path_parameters),
        *(_parameter("query", name, "", schema) for name, schema in (call.query or {}).items()),
        *(_parameter("header", name, *HEADERS[name]) for name in call.headers),
    ]
    said: Schema = {"operationId": call.id, "summary": call.summary, "tags": ["chat sessions"]}
    if parameters:
        said["parameters"] = parameters
    if call.body is not None:
        said["requestBody"] = {"content": {media: {"schema": ref(call.body)} for media in call.bodies}}
    said["responses"] = {str(status): _answer(call, status, name) for status, name in call.answers.items()}
    always = (406, 503) if call.public else ALWAYS
    said["responses"] |= {str(status): _refusal(status) for status in sorted({*always, *call.errors})}
    return said


def _parameter(place: str, name: str, description: str, schema: Schema, *, required: bool = False) -> Schema:
    schema = dict(schema)
    description = schema.pop("description", description)
    said = {"in": place, "name": name, "schema": schema}
    return said | ({"description": description} if description else {}) | ({"required": True} if required else {})


def _answer(call: Call, status: int, name: str | None) -> Schema:
    if name is None:
        return {"description": "Done."}
    said: Schema = {"description": call.summary, "content": {JSON: {"schema": ref(name)}}}
    said["content"] |= {media: {"schema": TEXT} for media in call.media}
    if call.tagged:
        said["headers"] = {"ETag": {"schema": TEXT, "description": "The last sequence, quoted."}}
    return said


def _refusal(status: int) -> Schema:
    said: Schema = {"description": "A problem.", "content": {PROBLEM: {"schema": ref("ChatProblem")}}}
    if status in {429, 503}:
        said["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds, where time helps."}}
    return said
