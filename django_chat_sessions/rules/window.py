"""Which messages fit a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Sized(Protocol):
    """What the window needs to know of a message."""

    @property
    def role(self) -> str:
        """Who speaks."""

    @property
    def content(self) -> str:
        """The text."""

    @property
    def token_count(self) -> int | None:
        """Its own count, where somebody counted."""


M = TypeVar("M", bound=Sized)

#: Characters a token, for a cheap estimate: what BPE vocabularies average on English text.
CHARACTERS_A_TOKEN = 4


def estimate_tokens(message: Sized) -> int:
    """Return the message's own token count, or a cheap estimate from its length; at least 1."""
    if message.token_count is not None:
        return message.token_count
    return max(1, -(-len(message.content) // CHARACTERS_A_TOKEN))


def fit(
    messages: Sequence[M],
    *,
    max_messages: int | None,
    max_tokens: int | None,
    count: Callable[[Sized], int] = estimate_tokens,
) -> list[M]:
    """Choose the messages of a conversation, oldest first, that a model gets to see.

    System messages are kept and pay first; then the latest others, without a gap, as far as the budget reaches.

    Args:
        messages: the conversation, oldest first.
        max_messages: how many at the most, or None.
        max_tokens: how many tokens at the most, or None.
        count: the tokens of a message.

    Returns:
        The chosen messages, oldest first.
    """
    kept = [message for message in messages if message.role == "system"]
    room = None if max_messages is None else max_messages - len(kept)
    tokens = None if max_tokens is None else max_tokens - sum(map(count, kept))
    for message in reversed(messages):
        if message.role == "system":
            continue
        if tokens is not None:
            tokens -= count(message)
        if (room is not None and room <= 0) or (tokens is not None and tokens < 0):
            break
        room = None if room is None else room - 1
        kept.append(message)
    chosen = {id(message) for message in kept}
    return [message for message in messages if id(message) in chosen]
