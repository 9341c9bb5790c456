"""News as text: who sent it, and which sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

#: The channel, in PostgreSQL and in Redis.
CHANNEL = "chat_sessions"
#: PostgreSQL takes payloads of less than 8000 bytes.
MOST_BYTES = 7900


def pack(origin: str, sessions: Sequence[UUID]) -> list[str]:
    """Return the payloads that name these sessions.

    Args:
        origin: the name of the sending process, which has woken its own streams already.
        sessions: public ids.
    """
    each = 33
    size = (MOST_BYTES - len(origin)) // each
    batches = (sessions[start : start + size] for start in range(0, len(sessions), size))
    return [" ".join([origin, *(session.hex for session in batch)]) for batch in batches]


def unpack(origin: str, payload: str) -> Iterator[UUID]:
    """Return the sessions that a payload names, none if it is from that origin; what is no id is passed over."""
    sender, *names = payload.split(" ")
    if sender == origin:
        return
    for name in names:
        try:
            yield UUID(hex=name)
        except ValueError:
            continue
