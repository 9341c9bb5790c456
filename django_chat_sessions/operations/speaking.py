"""What an agent says, put together: pieces become messages, changes of state, and usage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

from .. import conf
from ..choices import Role
from ..exceptions import MessageTooLong
from ..turns import PIECES, Message, Piece, StateChange, ToolCall, ToolResult, Usage
from . import limits

#: What a column of costs holds.
MAX_COST = Decimal(10) ** 10

#: What is stored as soon as it is whole.
Whole = Message | StateChange


@dataclass(slots=True)
class Speech:
    """One answer as it is spoken.

    Attributes:
        text: of the message that is being said.
        calls: the tool calls that belong to it.
        usage: what was reported so far; None where nothing was.
        messages: how many messages are whole.
        counted: the tokens that those messages count themselves.
        last_role: the last whole message's.
    """

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    usage: Usage | None = None
    messages: int = 0
    counted: int = 0

    def hear(self, piece: Piece) -> Iterator[Whole]:
        """Take a piece; yield what is whole by it.

        Raises:
            TypeError: it is none that an agent may say.
            ValueError: it is a usage that cannot be.
            MessageTooLong: the message would be; what was said before is kept.
            ChatSessionError: a message is not one that can be stored.
        """
        if not isinstance(piece, PIECES):
            raise TypeError(f"A responder returns or yields text, messages or the like, not {type(piece).__name__}.")
        if isinstance(piece, ToolCall):
            self.calls.append(piece)
        elif isinstance(piece, Usage):
            self._add(piece)
        elif isinstance(piece, StateChange):
            yield piece
        elif not isinstance(piece, str):
            yield from self.close()
            yield self._whole(piece.as_message() if isinstance(piece, ToolResult) else piece)
        elif piece:
            if self.calls:
                yield from self.close()
            self._continue(piece)

    def _continue(self, text: str) -> None:
        limit = conf.get().MAX_MESSAGE_LENGTH
        if len(self.text) + len(text) > limit:
            raise MessageTooLong(limit=limit)
        self.text += text

    def _add(self, usage: Usage) -> None:
        before = self.usage or Usage()
        _check_usage(usage)
        costs = [cost for cost in (before.cost, usage.cost) if cost is not None]
        after = Usage(
            before.input_tokens + usage.input_tokens,
            before.output_tokens + usage.output_tokens,
            sum(costs[1:], start=costs[0]) if costs else None,
        )
        _check_usage(after)
        self.usage = after

    def close(self) -> Iterator[Message]:
        """Yield the message that is being said, if there is one: it is whole now."""
        if not self.text and not self.calls:
            return
        parts = [call.as_part() for call in self.calls]
        if parts and self.text:
            parts.insert(0, {"type": "text", "text": self.text})
        message = Message(Role.ASSISTANT, self.text, parts=tuple(parts))
        self.text, self.calls = "", []
        yield self._whole(message)

    def _whole(self, message: Message) -> Message:
        limits.check_message(message)
        self.messages += 1
        self.counted += message.token_count or 0
        # Where it stands, whose it is and when it was said is for the log to say.
        return replace(message, sequence=None, run=None, external_id=None, created_at=None, edited_at=None)


def _check_usage(usage: Usage) -> None:
    """Refuse a usage that no column takes.

    Raises:
        ValueError: a count is none, or too large; or a cost is.
    """
    counts = (usage.input_tokens, usage.output_tokens)
    if not all(type(count) is int and 0 <= count <= limits.MAX_TOKENS for count in counts):
        raise ValueError(f"Tokens are counted from 0 to {limits.MAX_TOKENS}.")
    cost = usage.cost
    if cost is not None and not (cost.is_finite() and 0 <= cost < MAX_COST):
        raise ValueError(f"A cost is a Decimal from 0 to less than {MAX_COST}.")
