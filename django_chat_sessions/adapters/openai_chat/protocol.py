"""OpenAI's chat completions: how a conversation is written in them, and what an answer's pieces say."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import Any
from uuid import uuid4

from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

from ...choices import Role
from ...turns import TOOL_CALL, TOOL_RESULT, Message, ToolCall, ToolResult, Turn, Usage

#: A message, or a part of one, as the protocol writes it.
Wire = dict[str, Any]

#: Stands for the result that a tool could not give any more: the protocol wants one for each call.
NO_RESULT = "There is no result: the answer was cut short."
SUMMARY = "What was said before, in short:"

# ------------------------------------------------------------------------------------------------- what was said before


def conversation(turn: Turn, *, system: str = "", sees_images: bool = True) -> Iterator[Wire]:
    """Yield a turn's messages as the protocol writes them.

    What the model is told first is one message, the summary included: many models' templates take no second one.

    Args:
        turn: whose window and summary it is.
        system: comes before the conversation's own system messages.
        sees_images: whether images are passed on, or just named.
    """
    own = list(takewhile(lambda message: message.role == Role.SYSTEM, turn.messages))
    summary = f"{SUMMARY}\n{turn.summary}" if turn.summary else ""
    first = "\n\n".join(filter(None, [system, *map(_text, own), summary]))
    if first:
        yield {"role": "system", "content": _sendable(first)}
    yield from _exchange(turn.messages[len(own) :], sees_images=sees_images)


def transcript(messages: Sequence[Message], summary: str | None) -> str:
    """Return messages as one text, for a model that is to read them and not to go on."""
    lines = [f"{SUMMARY}\n{_sendable(summary)}"] if summary else []
    for message in messages:
        calls = [f"[calls {p.get('name')} {json.dumps(p.get('arguments'))}]" for p in _parts(message, TOOL_CALL)]
        files = map(_named, _parts(message, "file"))
        lines.append(f"{message.role}: " + " ".join(filter(None, [_text(message), *calls, *files])))
    return "\n\n".join(lines)


def _exchange(messages: Sequence[Message], *, sees_images: bool) -> Iterator[Wire]:
    """Yield messages, each call's result right behind it: whatever else was said meanwhile comes later."""
    results: dict[str, deque[Message]] = {}
    for message in messages:
        for part in _parts(message, TOOL_RESULT):
            results.setdefault(str(part.get("id")), deque()).append(message)
    called = {str(part.get("id")) for message in messages for part in _parts(message, TOOL_CALL)}
    for is_calling, group in groupby(messages, key=lambda message: bool(_parts(message, TOOL_CALL))):
        if is_calling:
            yield from _calling(list(group), results)
            continue
        for message in group:
            if not any(str(part.get("id")) in called for part in _parts(message, TOOL_RESULT)):
                yield from _plain(message, sees_images=sees_images)


def _calling(messages: Sequence[Message], results: Mapping[str, deque[Message]]) -> Iterator[Wire]:
    """Yield messages with calls, which are one to the protocol, and the results."""
    parts = [part for message in messages for part in _parts(message, TOOL_CALL)]
    text = "\n\n".join(filter(None, map(_text, messages)))
    calls = [called(str(p.get("id")), str(p.get("name")), p.get("arguments") or {}) for p in parts]
    yield {"role": "assistant", "content": text or None, "tool_calls": calls}
    for call in calls:
        there = results.get(call["id"])
        yield result(call["id"], _text(there.popleft()) if there else NO_RESULT)


def _plain(message: Message, *, sees_images: bool) -> Iterator[Wire]:
    """Yield a message, if it says anything."""
    text, files = _text(message), _parts(message, "file")
    images = [part for part in files if sees_images and message.role == Role.USER and _is_image(part)]
    named = [_named(part) for part in files if part not in images]
    text = "\n".join(filter(None, [text, *named]))
    if message.role == Role.TOOL:
        # Nobody called it, so that the protocol has no place for what it says.
        yield {"role": "user", "content": f"[result of a tool]\n{text}"}
    elif images:
        pictures = [{"type": "image_url", "image_url": {"url": _sendable(part["url"])}} for part in images]
        said = [{"type": "text", "text": text}] if text else []
        yield {"role": "user", "content": [*said, *pictures]}
    elif text:
        yield {"role": str(message.role), "content": text}


def _parts(message: Message, kind: str) -> list[Mapping[str, Any]]:
    return [part for part in message.parts if part.get("type") == kind]


def _text(message: Message) -> str:
    return _sendable(message.content or "".join(str(part.get("text", "")) for part in _parts(message, "text")))


def _sendable(text: str) -> str:
    """Return text that UTF-8 can write: the log holds any string, halves of surrogate pairs included."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_image(part: Mapping[str, Any]) -> bool:
    """Whether a model's server may fetch it: one that stands in a private network should not be sent around in it."""
    url = str(part.get("url", "")).lower()
    return str(part.get("media_type", "")).startswith("image/") and url.startswith(("https://", "data:image/"))


def _named(part: Mapping[str, Any]) -> str:
    about = filter(None, [str(part.get("name") or ""), str(part.get("media_type") or "")])
    return _sendable(f"[file: {', '.join(about) or 'unnamed'}]")


def called(id_: str, name: str, arguments: Mapping[str, Any]) -> Wire:
    """Return how the protocol writes a tool call: its arguments are JSON within JSON."""
    written = _sendable(json.dumps(dict(arguments), ensure_ascii=False))
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": written}}


def result(id_: str, content: str) -> Wire:
    """Return how the protocol writes what a tool said."""
    return {"role": "tool", "tool_call_id": id_, "content": _sendable(content)}


# ------------------------------------------------------------------------------------------------- what the model says


@dataclass(slots=True)
class AskedFor:
    """A tool call as it is put together.

    Attributes:
        id: the model's name for it, or one that it gets here.
        name: the tool's.
        written: the arguments, as far as they came.
    """

    id: str
    name: str = ""
    written: str = ""

    @property
    def arguments(self) -> dict[str, Any] | None:
        """What the model wrote, if that is a JSON object; some write nothing for none."""
        try:
            arguments = json.loads(self.written.strip() or "{}")
        except ValueError:
            return None
        return arguments if isinstance(arguments, dict) else None

    def as_piece(self) -> ToolCall:
        """Return what the answer says of it."""
        return ToolCall(self.id, self.name, self.arguments or {})

    def failed(self, reason: str) -> ToolResult:
        """Return the result of a call that led to nothing."""
        return ToolResult(self.id, reason, self.name, is_error=True)


@dataclass(slots=True)
class Heard:
    """What one request brings.

    Attributes:
        text: all of it.
        calls: the tools that the model asks for.
        usage: what the server counts; None where it does not.
        finish_reason: why it ended; None while it has not.
    """

    text: str = ""
    calls: list[AskedFor] = field(default_factory=list)
    usage: Usage | None = None
    finish_reason: str | None = None
    _latest: dict[int, AskedFor] = field(default_factory=dict)

    def take(self, chunk: ChatCompletionChunk) -> str:
        """Take a piece and return its text. Servers leave out what they do not have, whatever the types say."""
        if chunk.usage:
            # Some servers count with every piece: the last count is the round's.
            self.usage = Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
        text = ""
        for choice in chunk.choices or ():
            self.finish_reason = choice.finish_reason or self.finish_reason
            text += _said(choice.delta)
            self._add(getattr(choice.delta, "tool_calls", None) or ())
        self.text += text
        return text

    def _add(self, deltas: Iterable[ChoiceDeltaToolCall]) -> None:
        for delta in deltas:
            call = self._latest.get(delta.index)
            # Some servers number every call as the first, but name each.
            if call is None or (delta.id and delta.id != call.id):
                call = self._latest[delta.index] = AskedFor(delta.id or f"call_{uuid4().hex}")
                self.calls.append(call)
            if delta.function:
                call.name = delta.function.name or call.name
                call.written += delta.function.arguments or ""

    def as_wire(self) -> Wire:
        """Return it as a message of the conversation that goes on."""
        calls = [called(call.id, call.name, call.arguments or {}) for call in self.calls]
        return {"role": "assistant", "content": self.text or None, "tool_calls": calls}


def _said(delta: object) -> str:
    """Return the text of a piece; a refusal is said, too."""
    said = (getattr(delta, "content", None), getattr(delta, "refusal", None))
    return "".join(text for text in said if isinstance(text, str))
