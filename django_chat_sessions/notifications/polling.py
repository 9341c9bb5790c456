"""News by looking: one query every now and then for all sessions that somebody in the process waits for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any
from uuid import UUID

from django.db import connections

from .. import conf, dialects
from .backends import Mailbox, Sender

#: Sessions that one query asks for.
BATCH = 500

# The latest chunk is the last one in the order of an index, which no other is.
_LOOK = (
    "SELECT s.uuid, s.last_sequence, (SELECT c.id FROM chat_sessions_runchunk c WHERE c.session_id = s.id"
    ' ORDER BY c.sequence DESC, c."index" DESC LIMIT 1) FROM chat_sessions_chatsession s WHERE s.uuid IN ({places})'
)


@dataclass(frozen=True, slots=True)
class Polling:
    """One database.

    Attributes:
        using: its alias.
    """

    using: str

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"polling ({self.using})"

    @property
    def is_published(self) -> bool:
        """Nothing has to be sent."""
        return False

    def sender(self) -> Sender:
        """Never: who looks needs nobody to tell."""
        raise NotImplementedError

    def receiver(self, mailbox: Mailbox) -> _Receiver:
        """Begin to look; Django connects when there is something to look for."""
        return _Receiver(self.using, mailbox)


class _Receiver:
    def __init__(self, using: str, mailbox: Mailbox) -> None:
        self._using = using
        self._mailbox = mailbox
        self._interrupted = Event()
        #: What was seen last of each session: None is that there is no such session.
        self._seen: dict[UUID, tuple[Any, ...] | None] = {}

    def receive(self, seconds: float) -> None:
        watched = self._mailbox.watched()
        if not watched:
            connections[self._using].close()
        seen = dict(self._look(watched))
        # A session that is new here may have changed since its reader looked.
        nothing = object()
        self._mailbox.news(one for one, state in seen.items() if self._seen.get(one, nothing) != state)
        self._seen = seen
        self._interrupted.wait(conf.get().POLL_SECONDS)

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        connections[self._using].close()

    def _look(self, sessions: Sequence[UUID]) -> Iterator[tuple[UUID, tuple[Any, ...] | None]]:
        is_postgresql = dialects.is_postgresql(self._using)
        for start in range(0, len(sessions), BATCH):
            batch = sessions[start : start + BATCH]
            parameters = [one if is_postgresql else one.hex for one in batch]
            with connections[self._using].cursor() as cursor:
                cursor.execute(_LOOK.format(places=", ".join(["%s"] * len(batch))), parameters)
                found = {row[0] if is_postgresql else UUID(row[0]): row[1:] for row in cursor.fetchall()}
            yield from ((one, found.get(one)) for one in batch)
