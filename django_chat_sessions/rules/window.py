"""Which messages fit a budget, and which of them belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ..choices import Role
from . import tokens
from .tokens import Countable

#: The types of the parts that say that a tool was called, and what it answered.
CALL, RESULT = "tool_call", "tool_result"


class Spoken(Countable, Protocol):
    """What the window needs to know of a message: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def role(self) -> str:
        """Who speaks."""


M = TypeVar("M", bound=Spoken)
Counter = Callable[[Any], int]


@dataclass(slots=True)
class _Talk(Generic[M]):
    """A conversation, taken apart into units: what can't be shown without each other.

    Attributes:
        messages: oldest first, as a model may see them; None where it may not.
        units: of each unit, the indexes of its messages, which adjoin but for system messages.
    """

    messages: list[M | None]
    units: list[list[int]] = field(default_factory=list)
    _open: dict[str, tuple[int, int]] = field(default_factory=dict)
    _answered: set[tuple[int, str]] = field(default_factory=set)

    @classmethod
    def of(cls, messages: Sequence[M]) -> _Talk[M]:
        """Take a conversation apart.

        A tool's result belongs to its call, and so does what was said in between. A result without a call is nothing
        to a model; nor is a call without a result, unless nothing came after it yet.
        """
        talk = cls(list(messages))
        for index, message in enumerate(messages):
            results = _ids(message, RESULT) if message.role == Role.TOOL else set()
            if results:
                talk._answer(index, results)
            elif message.role != Role.SYSTEM:
                talk._speak(index, message)
        talk._settle()
        return talk

    def _speak(self, index: int, message: M) -> None:
        for name in _ids(message, CALL):
            self._open[name] = (index, len(self.units))
        self.units.append([index])

    def _answer(self, index: int, results: set[str]) -> None:
        if not results <= self._open.keys():
            self.messages[index] = None
            return
        found = {name: self._open.pop(name) for name in results}
        self._answered |= {(call, name) for name, (call, _) in found.items()}
        first = min(unit for _, unit in found.values())
        for unit in self.units[first + 1 :]:
            self.units[first] += unit
        del self.units[first + 1 :]
        self.units[first].append(index)
        self._open = {name: (call, min(unit, first)) for name, (call, unit) in self._open.items()}

    def _settle(self) -> None:
        """Take out the calls that nobody answered, with their message where it says nothing else."""
        for unit in self.units[:-1]:
            for index in unit:
                message = self.messages[index]
                if message is not None:
                    self.messages[index] = self._without_open_calls(index, message)
        self.units = [seen for unit in self.units if (seen := [i for i in unit if self.messages[i] is not None])]

    def _without_open_calls(self, index: int, message: M) -> M | None:
        lost = _ids(message, CALL) - {name for call, name in self._answered if call == index}
        if not lost:
            return message
        parts = tuple(part for part in message.parts if part.get("type") != CALL or str(part.get("id")) not in lost)
        return replace(message, parts=parts) if parts or message.content else None

    def at(self, index: int) -> M:
        """Return the message of an index of a unit."""
        message = self.messages[index]
        assert message is not None  # noqa: S101 - units name none that may not be seen
        return message


def _ids(message: Spoken, kind: str) -> set[str]:
    if kind == CALL and message.role != Role.ASSISTANT:
        return set()
    return {str(part.get("id")) for part in message.parts if part.get("type") == kind}


@dataclass(slots=True)
class _Purse:
    """What is left of a budget."""

    messages: int | None
    tokens: int | None

    def pay(self, messages: int, tokens: int) -> bool:
        """Take that much, and tell whether there was enough."""
        self.messages = None if self.messages is None else self.messages - messages
        self.tokens = None if self.tokens is None else self.tokens - tokens
        return (self.messages is None or self.messages >= 0) and (self.tokens is None or self.tokens >= 0)


def fit(
    messages: Sequence[M],
    *,
    max_messages: int | None,
    max_tokens: int | None,
    count: Counter = tokens.estimate,
    keep: Callable[[M], bool] | None = None,
) -> list[M]:
    """Choose the messages of a conversation, oldest first, that a model gets to see.

    System messages are kept and pay first; then the latest others, without a gap, as far as the budget reaches. A
    tool call and its results are seen together or not at all.

    Args:
        messages: the conversation, oldest first.
        max_messages: how many at the most, or None.
        max_tokens: how many tokens at the most, or None.
        count: the tokens of a message.
        keep: says which others are kept, and pay first, as well: the question, without which there is no answer.

    Returns:
        The chosen messages, oldest first; without calls that nobody answered, unless they are the last word.
    """
    talk = _Talk.of(messages)
    chosen = [index for index, message in enumerate(messages) if message.role == Role.SYSTEM]
    kept = [unit for unit in talk.units if keep is not None and any(keep(talk.at(index)) for index in unit)]
    chosen += [index for unit in kept for index in unit]
    purse = _Purse(max_messages, max_tokens)
    purse.pay(len(chosen), sum(count(talk.at(index)) for index in chosen))
    for unit in reversed(talk.units):
        if unit in kept:
            continue
        if not purse.pay(len(unit), sum(count(talk.at(index)) for index in unit)):
            break
        chosen += unit
    return [talk.at(index) for index in sorted(chosen)]


def oldest(
    messages: Sequence[M], *, max_messages: int | None, max_tokens: int | None, count: Counter = tokens.estimate
) -> list[M]:
    """Return the oldest messages that fit a budget, at least something, and no tool call without its results.

    Args:
        messages: of a conversation without system messages, oldest first.
        max_messages, max_tokens, count: as for ``fit``.
    """
    purse, end = _Purse(max_messages, max_tokens), 0
    starts = [unit[0] for unit in _Talk.of(messages).units[1:]]
    for border in [*starts, len(messages)]:
        more = messages[end:border]
        if not purse.pay(len(more), sum(map(count, more))) and end:
            break
        end = border
    return list(messages[:end])
