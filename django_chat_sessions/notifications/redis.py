"""News by Redis' publish and subscribe: one channel, whatever the database and the number of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .backends import Mailbox
from .payloads import CHANNEL

if TYPE_CHECKING:
    import redis

# Trying again is the caller's, which then knows that something may have been missed.
_DEFAULTS: dict[str, Any] = {
    "socket_connect_timeout": 10,
    "socket_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 15,
    "decode_responses": True,
}


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis.

    Attributes:
        url: where, perhaps with a password, so it is not shown.
    """

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """What logs call it."""
        return "Redis"

    @property
    def is_published(self) -> bool:
        """News has to be sent."""
        return True

    def sender(self) -> _Sender:
        """Connect in order to publish."""
        return _Sender(_client(self.url))

    def receiver(self, mailbox: Mailbox) -> _Receiver:
        """Connect in order to listen."""
        return _Receiver(_client(self.url), mailbox)


def _client(url: str) -> redis.Redis:
    # Here, as it takes half a second, which is the thread's and not that of who tells first.
    import redis  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return redis.Redis.from_url(url, **_DEFAULTS, retry=Retry(NoBackoff(), 0))


class _Sender:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def send(self, payloads: Sequence[str]) -> None:
        for payload in payloads:
            self._client.publish(CHANNEL, payload)

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()


class _Receiver:
    def __init__(self, client: redis.Redis, mailbox: Mailbox) -> None:
        self._client = client
        self._mailbox = mailbox
        self._subscriber = client.pubsub()  # type: ignore[no-untyped-call]
        try:
            self._subscriber.subscribe(CHANNEL)
        except BaseException:
            self.close()
            raise

    def receive(self, seconds: float) -> None:
        message = self._subscriber.get_message(timeout=seconds)
        if message is None:
            return
        if message["type"] == "subscribe":
            # Also when the client has connected again by itself.
            self._mailbox.everything()
        elif message["type"] == "message":
            self._mailbox.payload(str(message["data"]))

    def interrupt(self) -> None:
        # Shuts the socket on which the listening thread waits.
        self._client.connection_pool.disconnect()

    def close(self) -> None:
        self._subscriber.close()
        self._client.close()
        self._client.connection_pool.disconnect()
