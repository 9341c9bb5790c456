"""What a subscriber is told: one event of one session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import ChatSession


@dataclass(frozen=True, slots=True)
class Notice:
    """An event, as a subscriber gets it; read when it is told, so that content erased meanwhile is not in it.

    Attributes:
        session: as it is now, which may be further than the event; its ``uuid`` is its public id.
        sequence: the event's number in the session's log. Together they name the event: it may come more than once.
        type: an ``EventType`` or a name under ``app.``.
        created_at: when it was recorded.
        data: its JSON object as the API shows it; a message's is the message object.
        attempt: 1, or more where the subscriber raised, or its process was lost.
    """

    session: ChatSession
    sequence: int
    type: str
    created_at: datetime
    data: Mapping[str, Any] = field(repr=False)
    attempt: int = 1
