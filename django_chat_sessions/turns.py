"""What passes between a session and its agent: a turn with its question, and the pieces that an answer is made of."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.http import HttpRequest

#: The types of parts that carry tool calls and their results.
TOOL_CALL, TOOL_RESULT = "tool_call", "tool_result"

#: The key, in a message's metadata, that says that its agent was cut short, and by what: ``cancelled`` or ``failed``.
CUT_SHORT = "cut_short"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation, as it reads now.

    Attributes:
        role: who speaks.
        content: the text.
        parts: what is more than text, as JSON objects with a ``type``.
        metadata: the application's own JSON object.
        external_id: the sender's own name for it, unique in its session.
        token_count: how many tokens it took, where somebody counted.
        sequence: its number in the log; None before it is stored.
        run: the public id of the run that wrote it.
        created_at: when it was stored.
        edited_at: when it was last edited.
    """

    role: str
    content: str = ""
    parts: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    external_id: str | None = None
    token_count: int | None = None
    sequence: int | None = None
    run: str | None = None
    created_at: datetime | None = None
    edited_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent calls a tool. Calls that follow each other, and the text before them, are one message.

    It is stored as a part ``{"type": "tool_call", "id", "name", "arguments"}`` of a message of the agent.

    Attributes:
        id: the call's own name, which its result repeats.
        name: the tool's.
        arguments: a JSON object.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def as_part(self) -> dict[str, Any]:
        """Return the part of a message that stores it."""
        return {"type": TOOL_CALL, "id": self.id, "name": self.name, "arguments": dict(self.arguments)}


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered; a message of the role ``tool``.

    It is stored as a part ``{"type": "tool_result", "id", "name", "is_error"}``, the text as the content.

    Attributes:
        id: the call's.
        content: what the tool said, as text.
        name: the tool's.
        is_error: whether the tool failed.
    """

    id: str
    content: str = ""
    name: str = ""
    is_error: bool = False

    def as_message(self) -> Message:
        """Return the message that stores it."""
        part = {"type": TOOL_RESULT, "id": self.id, "name": self.name, "is_error": self.is_error}
        return Message("tool", self.content, parts=(part,))


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of the session's state, recorded as soon as it is said.

    Attributes:
        patch: a JSON merge patch (RFC 7396).
    """

    patch: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the answer took; several are added up.

    Attributes:
        input_tokens, output_tokens: as the model's provider counts them.
        cost: in whatever the host's currency is; None is worked out from the agent's price, if it has one.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What an agent's tokens cost.

    Attributes:
        input_million, output_million: of a million tokens, in whatever the host's currency is.
    """

    input_million: Decimal
    output_million: Decimal

    def of(self, usage: Usage) -> Decimal:
        """Return what that many tokens cost, to six places."""
        exact = self.input_million * usage.input_tokens + self.output_million * usage.output_tokens
        return (Decimal(exact) / 1_000_000).quantize(Decimal("0.000001"))


#: What an agent says, piece by piece. Text that follows text is one message.
Piece = str | Message | ToolCall | ToolResult | StateChange | Usage
PIECES = (str, Message, ToolCall, ToolResult, StateChange, Usage)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asked, and from where.

    Attributes:
        user: the caller; None where no request is involved.
        session: the public id of the session.
        metadata: what the door knows of the request: ``client``, ``user_agent``, ``path``.
        instant: when the request came in.
    """

    user: Any = None
    session: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    instant: datetime | None = None

    @classmethod
    def of(cls, request: HttpRequest, *, user: Any, session: str | None, instant: datetime) -> RequestContext:
        """Build the context of an HTTP request."""
        metadata = {
            "client": request.headers.get("X-Chat-Client"),
            "user_agent": request.headers.get("User-Agent", ""),
            "path": request.path,
        }
        return cls(user=user, session=session, metadata=metadata, instant=instant)


def _nowhere(type_: str, data: Mapping[str, Any]) -> None:
    """Record nothing: a turn of no session has no log."""


async def _anowhere(type_: str, data: Mapping[str, Any]) -> None:
    """Record nothing: a turn of no session has no log."""


@dataclass(slots=True)
class Turn:
    """What a responder gets: one question and what it needs to answer it.

    Attributes:
        context: who asked.
        question: the message to answer.
        messages: the window of the conversation, oldest first, the question included.
        state: the session's state, to read and to change in place; what differs afterwards is applied as a
            merge patch (RFC 7396) when the answer is stored, so ``None`` removes a key.
        metadata: the session's metadata, to read.
        run: the public id of the run; None where nothing is stored.
        attempt: 1, or more where a process that answered was lost and the agent may be retried.
        cancellation: set when the answer is no longer wanted: cancelled, out of time, or its session is over.
            A responder that blocks waits on it, or looks at ``is_cancelled``; an asynchronous one is cancelled, and a
            generator closed, without its doing.
        summary: what the part of the conversation that no longer fits the window was compacted to.
        record: appends an application's event, ``app.…``, to the session's log at once; for synchronous responders.
        arecord: the same for asynchronous ones.
    """

    context: RequestContext
    question: Message
    messages: tuple[Message, ...]
    state: dict[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    run: str | None = None
    attempt: int = 1
    cancellation: threading.Event = field(default_factory=threading.Event)
    summary: str | None = None
    record: Callable[[str, Mapping[str, Any]], None] = _nowhere
    arecord: Callable[[str, Mapping[str, Any]], Awaitable[None]] = _anowhere

    @property
    def is_cancelled(self) -> bool:
        """Whether the answer is no longer wanted."""
        return self.cancellation.is_set()
