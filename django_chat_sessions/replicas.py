"""What read replicas have: where the primary stood when somebody wrote, and whether a replica has come as far.

PostgreSQL numbers all its changes by their place in its log, and a replica knows the place up to which it has replayed
them. Whoever wrote is noted with a place behind what they wrote, in a cache that all processes share; a replica may
answer them from that place on. What cannot be known is a doubt, and in doubt the primary answers.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import Error, connections

from . import dialects

logger = logging.getLogger("django_chat_sessions")

#: Seconds that a note is kept. One that is gone is a doubt, which costs its reader one answer of the primary.
KEEP_SECONDS = 3600

#: Seconds for which a replica that did not answer is not asked.
AWAY_SECONDS = 5.0


class Position(int):
    """A place in the primary's log; what was committed before it was asked for is before it."""

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read PostgreSQL's form, two hexadecimal numbers."""
        high, low = text.split("/")
        return cls((int(high, 16) << 32) + int(low, 16))

    def __str__(self) -> str:
        """Return PostgreSQL's form."""
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"


def position_of(primary: str) -> Position:
    """Return where the primary stands, what is not on its disk yet included: not every commit waits for that.

    Raises:
        django.db.Error: it does not answer, or is none.
    """
    with connections[primary].cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn()::text")
        return Position.parse(cursor.fetchone()[0])


def has_reached(replica: str, position: Position) -> bool:
    """Tell whether a replica has replayed everything before a place; what is no replica (any more) has not.

    It asks on the connection that is then read from, so that behind one address there may be several replicas.

    Raises:
        django.db.Error: it does not answer.
    """
    with connections[replica].cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= %s::pg_lsn", [str(position)])
        return bool(cursor.fetchone()[0])


class Notes:
    """Who has to see what was written until where, known to all processes."""

    def __init__(self, cache: str, primary: str) -> None:
        """Keep them in that cache, for that primary."""
        self._cache, self._primary = cache, primary
        self._is_told = False

    def of(self, who: Hashable) -> Position | None:
        """Return the place that somebody has to see; None is a doubt."""
        try:
            found = self._shared and self._shared.get(self._key(who))
        except Exception:
            logger.warning("The notes of who wrote cannot be read; the primary answers", exc_info=True)
            return None
        return Position(found) if found else None

    def write(self, everybody: Iterable[Hashable]) -> None:
        """Note that these have to see what has been committed so far."""
        cache = self._shared
        if cache is None:
            return
        keys = [self._key(who) for who in everybody]
        try:
            try:
                position = position_of(self._primary)
            except Error:
                # What was written is not known: no note at all is better than an older one.
                cache.delete_many(keys)
                raise
            for key in keys:
                # Somebody's requests may be noted in another order than that in which they asked for their places.
                if (cache.get(key) or 0) < position:
                    cache.set(key, int(position), KEEP_SECONDS)
        except Exception:
            # What was written is written; the request must not fail for this.
            logger.exception("It cannot be noted who wrote; they may read from a replica that does not have it yet")

    def _key(self, who: Hashable) -> str:
        return f"chat_sessions.position.{self._primary}.{who}"

    @property
    def _shared(self) -> BaseCache | None:
        """The cache, where it is one that other processes see."""
        cache: BaseCache = caches[self._cache]
        if not isinstance(cache, LocMemCache | DummyCache):
            return cache
        if not self._is_told:
            self._is_told = True
            logger.warning("Replicas are not used: other processes do not see the cache %r", self._cache)
        return None


class Floor:
    """How far a replica has to be for anybody: where the primary stood some seconds ago, as this process knows it."""

    def __init__(self, primary: str, seconds: float) -> None:
        """Let nobody be further behind than that."""
        self._primary, self._seconds = primary, seconds
        self._asked_at = float("-inf")
        self._samples: list[tuple[float, Position]] = []

    def get(self) -> Position | None:
        """Return the place; None while the primary has never answered."""
        now = monotonic()
        if now - self._asked_at > self._seconds / 2:
            self._asked_at = now
            # Where the primary is away it writes nothing: the last place holds.
            with suppress(Error):
                self._samples.append((now, position_of(self._primary)))
        while len(self._samples) > 1 and self._samples[0][0] < now - self._seconds:
            del self._samples[0]
        return self._samples[0][1] if self._samples else None


class Replicas:
    """The replicas of a primary, as one process knows them."""

    def __init__(self, primary: str, aliases: Sequence[str], *, cache: str, max_lag_seconds: float) -> None:
        """Take those of the aliases that there are; they may be none, as in development."""
        self.primary = primary
        self.aliases = tuple(alias for alias in aliases if alias in connections)
        self.notes = Notes(cache, primary)
        self._floor = Floor(primary, max_lag_seconds)
        self._away_until: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self.aliases) and dialects.is_postgresql(self.primary)

    def choose(self, noted: Position) -> str | None:
        """Return a replica that has everything up to a place, and lags no more than allowed; None if there is none."""
        floor = self._floor.get()
        if floor is None:
            return None
        return next((alias for alias in self.aliases if self._has_reached(alias, max(noted, floor))), None)

    def _has_reached(self, alias: str, position: Position) -> bool:
        if monotonic() < self._away_until.get(alias, 0):
            return False
        try:
            return has_reached(alias, position)
        except Error as error:
            self._away_until[alias] = monotonic() + AWAY_SECONDS
            logger.warning("The replica %s does not answer; the primary does: %s", alias, error)
            _hang_up(connections[alias])
            return False


def _hang_up(connection: Any) -> None:
    """Have the next one connect anew."""
    with suppress(Exception):
        connection.close()
