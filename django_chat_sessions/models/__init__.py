"""The records: sessions, their logs, the answers of agents, what is to be delivered, and archives."""

from .archives import Archive
from .events import SessionEvent
from .lengths import EXTERNAL_ID_LENGTH, NAME_LENGTH, REASON_LENGTH, SUBSCRIBER_LENGTH, TITLE_LENGTH
from .outbox import OutboxEntry
from .runs import Run, RunChunk
from .sessions import OWN_WARNING, ChatSession, unless_held

__all__ = [
    "EXTERNAL_ID_LENGTH",
    "NAME_LENGTH",
    "OWN_WARNING",
    "REASON_LENGTH",
    "SUBSCRIBER_LENGTH",
    "TITLE_LENGTH",
    "Archive",
    "ChatSession",
    "OutboxEntry",
    "Run",
    "RunChunk",
    "SessionEvent",
    "unless_held",
]
