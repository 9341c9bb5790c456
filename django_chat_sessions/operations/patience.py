"""How long a database is waited for: one that is away, as long as the answer can wait; a lock, hardly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connections

from .. import conf, dialects, log

#: What a database that is away for a moment, or busy, fails with.
AWAY = (OperationalError, InterfaceError)

#: Seconds between two tries.
PAUSE_SECONDS = 0.1

#: Milliseconds that somebody without patience waits for a lock.
LOCK_MILLISECONDS = 50

Result = TypeVar("Result")


@contextmanager
def impatient(using: str, *, milliseconds: int = LOCK_MILLISECONDS) -> Iterator[None]:
    """Open a transaction that fails with ``OperationalError`` where it would wait for a lock for longer.

    On SQLite everybody waits for everybody anyway, for as long as the connection's ``timeout`` says.
    """
    with log.begin(using):
        if dialects.is_postgresql(using):
            with connections[using].cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {int(milliseconds)}")
        yield


def patiently(using: str, act: Callable[[], Result], *, between: Callable[[], object] = lambda: None) -> Result:
    """Do something, again and again while the database is away, for ``STALE_AFTER`` at the most.

    Within a transaction of the caller's there is one try.

    Args:
        using: the database.
        act: finds out by itself whether the last try came through, although the database did not say so.
        between: called after each pause; what it raises ends it.
    """
    until = monotonic() + conf.get().stale_after.total_seconds()
    while True:
        try:
            return act()
        except AWAY:
            if connections[using].in_atomic_block or monotonic() > until:
                raise
            hang_up(using)
        sleep(PAUSE_SECONDS)
        between()


def hang_up(using: str) -> None:
    """Have the next statement connect anew."""
    if not connections[using].in_atomic_block:
        with suppress(Exception):
            connections[using].close()


def let_connections_go() -> None:
    """Give this thread's database connections back before it waits, but none in a transaction."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
