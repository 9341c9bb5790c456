"""Telling subscribers of events: at least once, and in order per session."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, router
from django.utils.module_loading import import_string

from .. import conf, deliveries, dialects, transcripts
from ..batches import Due
from ..models import ChatSession, OutboxEntry
from ..notices import Notice
from ..rules import backoff
from . import calling, dispatching, webhook
from .sweeping import Budget, Swept, Watch, sweep

logger = logging.getLogger("django_chat_sessions")

#: Entries that one claim takes.
CLAIM = 100

#: Seconds after which a subscriber's turn is over, and another one's begins.
TURN_SECONDS = 5.0

#: Seconds for which what was told may stay in the outbox; a process that dies meanwhile has it told again.
SETTLE_SECONDS = 1.0

#: Seconds that a subscriber is given; with what is settled before, less than a lease.
CALL_SECONDS = 50.0

#: Seconds more until one is left behind that does not even end when it is told to.
END_SECONDS = 2.0

#: Seconds after which who has other things to do, such as a worker of Celery's, leaves the rest to the next sweep.
LONGEST_SECONDS = 20.0

#: Celery's own room, which nothing here may import.
_TASKS = "django_chat_sessions.tasks"

#: Who had the last turn here, by database: the next sweep, which may be a short one, begins with who is next.
_last: dict[str, str] = {}

Subscriber = Callable[[Notice], Any]


class NotSubscribed(Exception):
    """The settings name this subscriber no more, or this process has older ones."""


def deliver(*, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
    """Tell subscribers of the events that wait for it; its count is of those that were told.

    Safe in any number of workers at once: they share the work. A worker that dies loses nothing: what it was about to
    tell is told a minute later, and what it has told may be told again. A subscriber that raises is told again later,
    and its next events of that session wait; after ``DELIVERY_ATTEMPTS`` the event is set aside, and they go on. One
    that does not return in ``CALL_SECONDS`` counts as one that raises; its thread is left behind.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: events at the most.
        watch: is told after each batch, and may end the sweep.
    """
    return sweep("deliver", _batches, using=using, limit=limit, watch=watch)


def due(using: str, now: datetime) -> list[Due]:
    """Return the events that are to be delivered now; what waits behind them in its session is not yet."""
    source = "chat_sessions_outboxentry o JOIN chat_sessions_chatsession s ON s.id = o.session_id"
    where = "o.set_aside_at IS NULL AND o.subscriber = %(subscriber)s AND o.next_attempt_at <= %(now)s"
    instant = dialects.instant(connections[using], now)
    return [
        Due(where, "o.next_attempt_at", {"subscriber": name, "now": instant}, source=source, key="o.id")
        for name in deliveries.subscribers(using)
    ]


def redeliver(entries: Collection[int], *, using: str | None = None) -> list[int]:
    """Have what was set aside, or put off for more than a minute, told as soon as possible; return which.

    What was set aside comes after events that were told meanwhile.

    Args:
        entries: keys of ``OutboxEntry``.
        using: the database; the one that sessions are written to by default.
    """
    return deliveries.try_again(using or router.db_for_write(ChatSession), entries)


def drop(entries: Collection[int], *, using: str | None = None) -> list[int]:
    """Never tell what waits or was set aside; return which entries that were.

    Args:
        entries: keys of ``OutboxEntry``.
        using: the database; the one that sessions are written to by default.
    """
    return deliveries.drop(using or router.db_for_write(ChatSession), entries)


def nudge(using: str, *, seconds: float = 0.0) -> None:
    """Have a Celery worker look at the outbox, now or in a while, where the project has workers; waits for nothing."""
    if dispatching.uses_celery():
        import_string(f"{_TASKS}.nudge")(using, seconds)


def _batches(using: str, budget: Budget) -> Iterator[int]:
    """Give one subscriber after the other its turn, until nothing is due; one that is slow has turns no longer."""
    is_busy = True
    while is_busy:
        is_busy = False
        for subscriber in _in_turn(using, deliveries.due_subscribers(using)):
            _last[using] = subscriber
            turn = Turn(using, subscriber)
            turn.take(min(budget.size, CLAIM))
            is_busy = is_busy or turn.has_moved
            yield turn.told


def _in_turn(using: str, subscribers: list[str]) -> list[str]:
    """Begin with who comes after the last one, and leave out who does not return."""
    found = [name for name in subscribers if not calling.is_stuck(name)]
    last = _last.get(using, "")
    return sorted(found, key=lambda name: (name <= last, name))


@dataclass(slots=True)
class Turn:
    """One subscriber's: some entries are claimed, and told one after the other.

    Attributes:
        using: the database.
        subscriber: as the settings name it.
        told: how many it was told of.
        has_moved: whether anything was done, so that there may be more to do.
    """

    using: str
    subscriber: str
    told: int = 0
    has_moved: bool = False
    _done: list[OutboxEntry] = field(default_factory=list)
    _failures: Counter[str] = field(default_factory=Counter)
    _caller: calling.Caller = field(init=False)

    def take(self, size: int) -> None:
        """Claim entries and tell them, as long as the turn lasts."""
        attempts = conf.get().DELIVERY_ATTEMPTS
        claim = deliveries.claim(self.using, self.subscriber, size, attempts=attempts)
        self.has_moved = bool(claim.entries or claim.exhausted or claim.parked)
        for entry in claim.exhausted:
            _mourn(entry, entry.error)
        left, clock = list(claim.entries), claim.clock
        is_over, settled = False, clock.began
        self._caller = calling.Caller(self.subscriber)
        try:
            while left and not is_over:
                self._tell(left.pop(0), clock)
                now = clock.now()
                if now > settled + timedelta(seconds=SETTLE_SECONDS):
                    self._settle(clock)
                    settled = now
                is_over = now > clock.began + timedelta(seconds=TURN_SECONDS) or calling.is_stuck(self.subscriber)
        finally:
            try:
                self._caller.close()
                self._settle(clock)
            finally:
                deliveries.give_back(self.using, left, clock.now())
                self._complain()

    def _tell(self, entry: OutboxEntry, clock: deliveries.Clock) -> None:
        if not deliveries.begin(self.using, entry, clock.now()):
            return  # Another process has it, as a subscriber took longer than a lease; or it was dropped.
        notice = _notice(self.using, entry)
        try:
            if notice is not None:
                self._caller.call(partial(_call, _found(self.subscriber), notice), CALL_SECONDS + END_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever a subscriber raises
            self._fail(entry, error, clock.now())
        else:
            self._done.append(entry)
            self.told += 1

    def _fail(self, entry: OutboxEntry, error: Exception, now: datetime) -> None:
        said = _said(error, self.subscriber)
        if entry.attempts >= conf.get().DELIVERY_ATTEMPTS:
            deliveries.set_aside(self.using, [entry], said, now)
            _mourn(entry, said)
            return
        self._failures[said] += 1
        asked = getattr(error, "retry_after", None)
        asked = asked if isinstance(asked, (int, float)) else None
        seconds = backoff.delay(entry.attempts, chance=random.random(), asked=asked)  # noqa: S311 - no secret
        deliveries.put_off(self.using, entry, now + timedelta(seconds=seconds), said)
        if seconds < deliveries.LEASE.total_seconds():
            nudge(self.using, seconds=seconds)

    def _settle(self, clock: deliveries.Clock) -> None:
        done, self._done = self._done, []
        deliveries.settle(self.using, done, clock.now())

    def _complain(self) -> None:
        for said, number in self._failures.items():
            text = "Subscriber %s was not told of %d events, which are tried again: %s"
            logger.warning(text, self.subscriber, number, said)


def _mourn(entry: OutboxEntry, said: str) -> None:
    text = "Subscriber %s is not told of event %d of session %s: set aside after %d attempts: %s"
    logger.error(text, entry.subscriber, entry.sequence, entry.session.uuid, entry.attempts, said)


def _notice(using: str, entry: OutboxEntry) -> Notice | None:
    """Read the event as it is now; None where its session is gone."""
    session = ChatSession.objects.using(using).select_related("owner").filter(pk=entry.session_id).first()
    if session is None:
        return None
    event = transcripts.event(session, entry.sequence)
    if event is None:
        return None
    created_at = datetime.fromisoformat(event["created_at"])
    return Notice(session, entry.sequence, event["type"], created_at, event["data"], entry.attempts)


def _found(subscriber: str) -> Subscriber:
    """Return the callable of that name, if the settings have it.

    Raises:
        NotSubscribed: they have not.
        ImportError: it is not there.
    """
    settings = conf.get()
    if subscriber == conf.WEBHOOK:
        return webhook.post
    if not any(subscriber in paths for paths in settings.SUBSCRIBERS.values()):
        raise NotSubscribed
    found: Subscriber = import_string(subscriber)
    return found


def _call(subscriber: Subscriber, notice: Notice) -> None:
    answer = subscriber(notice)
    if inspect.isawaitable(answer):
        async_to_sync(asyncio.wait_for)(answer, CALL_SECONDS)


def _said(error: Exception, subscriber: str) -> str:
    """Return what kind of error it is and where it comes from; its words may have what nobody is to read."""
    if isinstance(error, (webhook.WebhookFailed, NotSubscribed, calling.TimedOut)):
        return f"{type(error).__name__} {error}".strip()
    package = subscriber.partition(".")[0]
    frames = [
        (str(frame.f_globals.get("__name__", "?")), line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    module, line = next((frame for frame in reversed(frames) if frame[0].partition(".")[0] == package), frames[-1])
    return f"{type(error).__name__} at {module}:{line}"


# Thin twins for async code; the synchronous functions are the truth.
adeliver = sync_to_async(deliver)
aredeliver = sync_to_async(redeliver)
adrop = sync_to_async(drop)
