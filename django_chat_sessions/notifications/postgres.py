"""News by PostgreSQL's LISTEN and NOTIFY, on connections of their own, which no pooler of transactions may share."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connections

from .backends import Mailbox
from .payloads import CHANNEL

# A connection whose other end is gone without a word is noticed within half a minute; seconds, a count, milliseconds.
_DEFAULTS: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "fallback_application_name": "django-chat-sessions",
}

#: The advisory lock that whoever listens holds, shared, so that nobody is notified where nobody listens: all that
#: notify commit one after another, all over the server.
LISTENING = 0x6368_6174

# Nobody waits for the disk while the lock of all that notify is held: news of a crashed server is no news.
_NOTIFY = (
    "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, p) FROM unnest(%s::text[]) AS p"
    f" WHERE NOT pg_try_advisory_xact_lock({LISTENING})"
)


@dataclass(frozen=True, slots=True)
class Postgres:
    """The server of one database.

    Attributes:
        using: its alias.
    """

    using: str

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"PostgreSQL ({self.using})"

    @property
    def is_published(self) -> bool:
        """News has to be sent."""
        return True

    def sender(self) -> _Sender:
        """Connect in order to publish."""
        return _Sender(_connect(self.using))

    def receiver(self, mailbox: Mailbox) -> _Receiver:
        """Connect in order to listen."""
        return _Receiver(_connect(self.using), mailbox)


def _connect(using: str) -> psycopg.Connection[Any]:
    """Connect to where Django would, in autocommit, without its pool."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    given = connections[using].get_connection_params()
    options = {name: value for name, value in given.items() if name in known}
    defaults = {name: value for name, value in _DEFAULTS.items() if name in known}
    return psycopg.connect(**{**defaults, **options}, autocommit=True, prepare_threshold=None)


class _Sender:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def send(self, payloads: Sequence[str]) -> None:
        self._connection.execute(_NOTIFY, (CHANNEL, list(payloads)))

    def close(self) -> None:
        self._connection.close()


class _Receiver:
    def __init__(self, connection: psycopg.Connection[Any], mailbox: Mailbox) -> None:
        self._connection = connection
        self._mailbox = mailbox
        self._inner, self._outer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        try:
            connection.execute(f"SELECT pg_advisory_lock_shared({LISTENING})")
            connection.execute(f"LISTEN {CHANNEL}")
            self._selector.register(connection.fileno(), selectors.EVENT_READ)
            self._selector.register(self._inner, selectors.EVENT_READ)
        except BaseException:
            self.close()
            raise
        mailbox.everything()

    def receive(self, seconds: float) -> None:
        # Not by Connection.notifies(), which can't be interrupted.
        if not self._selector.select(seconds):
            return
        connection = self._connection.pgconn
        connection.consume_input()
        while notification := connection.notifies():
            self._mailbox.payload(notification.extra.decode(errors="replace"))

    def interrupt(self) -> None:
        self._outer.send(b".")

    def close(self) -> None:
        self._selector.close()
        self._inner.close()
        self._outer.close()
        self._connection.close()
