"""How much of a model's attention a message takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Countable(Protocol):
    """What counting needs to know of a message."""

    @property
    def content(self) -> str:
        """The text."""

    @property
    def parts(self) -> Sequence[Mapping[str, Any]]:
        """What is more than text."""

    @property
    def token_count(self) -> int | None:
        """Its own count, where somebody counted."""


#: Bytes of UTF-8 a token, for a cheap estimate: what BPE vocabularies average on English text, where a byte is a
#: character. Other scripts take more bytes a character, and more tokens.
BYTES_A_TOKEN = 4


def texts(message: Countable) -> list[str]:
    """Return what a model reads of a message: the text, and as JSON what is more, such as a tool call's arguments."""
    parts = [part for part in message.parts if part.get("type") != "text"]
    return [message.content, *(json.dumps(part, ensure_ascii=False, default=str) for part in parts)]


def estimate(message: Countable) -> int:
    """Return the message's own token count, or a cheap estimate from its length; at least 1."""
    if message.token_count is not None:
        return message.token_count
    size = sum(len(text.encode(errors="surrogatepass")) for text in texts(message))
    return max(1, -(-size // BYTES_A_TOKEN))
