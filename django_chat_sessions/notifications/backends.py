"""What a way of carrying news between processes has to offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol
from uuid import UUID


class Sender(Protocol):
    """A connection on which news goes out; one thread uses it."""

    def send(self, payloads: Sequence[str]) -> None:
        """Publish."""

    def close(self) -> None:
        """Let the connection go."""


class Mailbox(Protocol):
    """Where what comes in is put."""

    def watched(self) -> list[UUID]:
        """Return the sessions that somebody here waits for."""

    def news(self, sessions: Iterable[UUID]) -> None:
        """Wake who waits for these."""

    def payload(self, text: str) -> None:
        """Wake who waits for the sessions in a payload, unless it is of this process."""

    def everything(self) -> None:
        """Wake everybody, as something may have been missed."""


class Receiver(Protocol):
    """A connection on which news comes in; one thread uses it."""

    def receive(self, seconds: float) -> None:
        """Put what comes in into the mailbox; return after that many seconds at the most, or about that."""

    def interrupt(self) -> None:
        """Make ``receive`` return, from another thread."""

    def close(self) -> None:
        """Let the connection go."""


class Backend(Protocol):
    """A way of carrying news. Equal ones share a thread that listens, and one that publishes.

    Attributes:
        name: what logs call it.
        is_published: whether news has to be sent.
    """

    @property
    def name(self) -> str:
        """Return what logs call it."""

    @property
    def is_published(self) -> bool:
        """Tell whether news has to be sent."""

    def sender(self) -> Sender:
        """Connect in order to publish."""

    def receiver(self, mailbox: Mailbox) -> Receiver:
        """Connect in order to listen; once it hears, it wakes everybody, for what came before."""

    def __hash__(self) -> int: ...
