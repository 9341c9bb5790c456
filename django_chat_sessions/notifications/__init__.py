"""News of sessions, from the process that wrote to the streams that wait for it, wherever they are.

``tell`` says that something happened to a session; who waits in ``subscribe`` wakes up and looks. What happened is
never said, so that a wake-up may come twice, or for nothing, and does no harm. Within a process the way is direct.
To other processes one thread publishes, and one listens, whatever the number of sessions and streams: a stream that
waits holds neither a thread nor a connection.
"""

from __future__ import annotations

import atexit
import os
from uuid import UUID

from .choosing import chosen, forget, problem
from .exchange import Exchange
from .patience import Patience
from .subscriptions import Subscription

__all__ = ["Subscription", "problem", "reset", "subscribe", "tell", "wake_all"]

#: Seconds that a process which exits gives to what it has not published yet, unless that fails.
FAREWELL = 5.0

_exchange = Exchange()
_patience = Patience("telling of news")


def tell(using: str, session: UUID) -> None:
    """Wake who waits for news of a session, here and in other processes; to be called once they can read it.

    It takes microseconds, from any thread, and never raises: what fails is logged, and streams look by themselves
    every now and then.

    Args:
        using: the database.
        session: the public id.
    """
    try:
        _exchange.tell(chosen(using), session)
    except Exception as error:  # noqa: BLE001 - what has been written must not fail because of its news
        _patience.complain(error)


def subscribe(session: UUID, using: str = "default") -> Subscription:
    """Return a subscription to a session's news, to be entered by ``async with``; it looks up nothing.

    Args:
        session: the public id.
        using: the database.
    """
    return Subscription(_exchange, chosen(using), session)


def wake_all() -> None:
    """Wake whoever waits in this process, because it is about to stop, say."""
    _exchange.audience.wake_all()


def reset() -> None:
    """Stop the threads, close their connections and forget the subscriptions; the next call begins anew.

    For tests. A process that forks needs nothing, as the child begins anew by itself.
    """
    _exchange.stop()
    forget()


def _begin_anew() -> None:
    """Leave the parent its threads, connections and locks, of which a fork has only the memory."""
    global _exchange, _patience  # noqa: PLW0603 - a process's own
    _exchange = Exchange()
    _patience = Patience("telling of news")


def _take_leave() -> None:
    _exchange.drain(FAREWELL)
    _exchange.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_take_leave)
