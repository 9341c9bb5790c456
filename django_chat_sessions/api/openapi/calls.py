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
EVENTS = "text/event-stream"

LARGEST = 2**63 - 1

#: The id of a frame: an event's sequence, or of a delta that and more.
FRAME_ID = r"^[0-9]{1,18}(\.[0-9]{1,9})?$"

FRAMES = """Server-Sent Events. A frame's id is an event's sequence, its event the event's type, and its data the event
(ChatEvent). While an answer is being written, frames of the event message.delta carry {"run", "index", "text"}: some
text that no message has yet; their id begins with the last sequence and a dot. session.expiring warns of the deadline,
with {"expires_at", "threshold_minutes"} as the event's data. A comment comes every 15 seconds."""

FRAME_EXAMPLE = """id: 3.0
event: message.delta
data: {"run": "94d4b292-0202-4faf-928b-2ea5bac334b0", "index": 0, "text": "Good "}

id: 5
event: run.succeeded
data: {"sequence": 5, "type": "run.succeeded", "created_at": "2026-11-21T09:00:03.120000Z", "data": {}}

"""

NO_STREAM = "What is accepted is not to be had; or a stream, of a server that has none: WSGI."
FAILED = "The agent raised while it was waited for. The question is stored."
REFUSED = "The session is over, or another tab has it; or, with run_in_progress, the agent is still answering."
NO_ANSWER = "With agent_unavailable the agent cannot answer now, and nothing is stored; or the database does not."
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
        streams: whether it answers as Server-Sent Events, with 200.
        told: what statuses mean, where that is more than the summary or a problem.
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
    streams: bool = False
    told: dict[int, str] | None = None
    public: bool = False


HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Chat-Client": ("The name of the calling tab.", text(NAME_LENGTH)),
    "If-Match": ("The entity tag that the session must still have.", {**TEXT, "example": '"3"'}),
    "Idempotency-Key": ("A name for the message, where it has no external_id.", text(EXTERNAL_ID_LENGTH)),
    "Last-Event-ID": ("The id of the last frame that arrived; it beats after.", {**TEXT, "pattern": FRAME_ID}),
}

PATH: dict[str, tuple[str, Schema]] = {
    "session": ("The session's public id.", {"type": "string", "format": "uuid"}),
    "sequence": ("The message's sequence.", {"type": "integer", "minimum": 1, "maximum": LARGEST}),
    "run": ("The run's public id.", {"type": "string", "format": "uuid"}),
    "agent": ("The agent's name.", text(NAME_LENGTH, least=1)),
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

_AFTER = {**TEXT, "pattern": FRAME_ID, "description": "The id of the last frame that arrived; by default now."}

S, M, E, R = "SessionViewSet", "MessageViewSet", "EventViewSet", "RunViewSet"


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
        {201: "ChatPosted", 200: "ChatPosted", 202: "ChatQueued"},
        body="ChatMessageBody",
        headers=(*MATCH, "Idempotency-Key"),
        errors=(404, *WRITE, *WITH_BODY, 502),
        streams=True,
        told={
            200: "What came of the same message before, of which nothing is stored again. With delivery stream, the"
            " message and its answer as the agent speaks, until the run is over.",
            201: "Stored (delivery store), or stored and answered (wait).",
            202: "Stored, and a run queued that answers it (background).",
            406: NO_STREAM,
            409: REFUSED,
            502: FAILED,
            503: NO_ANSWER,
        },
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
    (R, "list"): _read("listRuns", "List the answers, latest first", "ChatRunPage", query=_PAGE),
    (R, "create"): _write(
        "answerAgain",
        "Have a question answered again",
        {201: "ChatPosted", 200: None, 202: "ChatQueued"},
        body="ChatRunBody",
        errors=(404, *WRITE, *WITH_BODY, 502),
        streams=True,
        told={
            200: "With delivery stream: the answer as the agent speaks, until the run is over.",
            201: "Answered (delivery wait); the old answer left the conversation.",
            202: "A run is queued that answers (background).",
            406: NO_STREAM,
            409: REFUSED,
            502: FAILED,
            503: NO_ANSWER,
        },
    ),
    (R, "retrieve"): _read("getRun", "Read one answer's run", "ChatRun"),
    (R, "cancel"): _write(
        "cancelRun",
        "Stop an answer, and keep what was said",
        {202: "ChatRun"},
        body="ChatNothing",
        tagged=False,
        told={202: "It is over: cancelled now, or finished before and unchanged."},
    ),
    ("StreamViewSet", "retrieve"): Call(
        id="streamSession",
        summary="Follow a session live",
        answers={200: None, 204: None},
        query={"after": _AFTER},
        headers=(*TAB, "Last-Event-ID"),
        errors=(400, 404),
        streams=True,
        told={
            200: "What was missed, once and in order, and then what happens, until the session is over.",
            204: "The session is over, and nothing was missed: no use in coming back.",
            406: NO_STREAM,
        },
    ),
    ("QueryViewSet", "create"): Call(
        id="askAgent",
        summary="Ask an agent something that nobody stores",
        answers={200: "ChatAnswered"},
        body="ChatQueryBody",
        headers=TAB,
        errors=(404, 409, *WITH_BODY, 502),
        told={
            409: "The transcript is as long as a session may be.",
            502: "The agent raised, or its time was over. Nothing is stored.",
            503: NO_ANSWER,
        },
    ),
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
    said["responses"] |= {str(status): _refusal(call, status) for status in sorted({*always, *call.errors})}
    return said


def _parameter(place: str, name: str, description: str, schema: Schema, *, required: bool = False) -> Schema:
    schema = dict(schema)
    description = schema.pop("description", description)
    said = {"in": place, "name": name, "schema": schema}
    return said | ({"description": description} if description else {}) | ({"required": True} if required else {})


def _answer(call: Call, status: int, name: str | None) -> Schema:
    content: Schema = {}
    if name is not None:
        content = {JSON: {"schema": ref(name)}} | {media: {"schema": TEXT} for media in call.media}
    if call.streams and status == 200:
        content[EVENTS] = {"schema": {**TEXT, "description": FRAMES}, "example": FRAME_EXAMPLE}
    said: Schema = {"description": _told(call, status, call.summary if content else "Done.")}
    if content:
        said["content"] = content
    if call.tagged and name is not None:
        said["headers"] = {"ETag": {"schema": TEXT, "description": "The last sequence, quoted."}}
    return said


def _refusal(call: Call, status: int) -> Schema:
    content = {PROBLEM: {"schema": ref("ChatProblem")}}
    said: Schema = {"description": _told(call, status, "A problem."), "content": content}
    if status in {429, 503}:
        said["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds, where time helps."}}
    return said


def _told(call: Call, status: int, otherwise: str) -> str:
    return (call.told or {}).get(status, otherwise)
