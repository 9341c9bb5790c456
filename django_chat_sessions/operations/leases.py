"""Who writes which archive: the rows of files, which are there before the files and after them.

A process that is to write a log's file takes a lease: a row with the file's name. When the lease is over and the row
has not become an archive, somebody else takes the session; the old row, without a session now, says which file is to
go. So each name is written by one process alone, and what a crash leaves behind is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.core.files.storage import Storage
from django.db import connections

from .. import batches, dialects, log
from ..batches import Due, Taken
from ..models import Archive, ChatSession
from . import files
from .files import Written

#: How long a process may take to write a file; a session whose process was killed is taken by another after that.
LEASE = timedelta(minutes=30)

#: After how long a storage is asked again for what it refused.
RETRY = timedelta(hours=1)

#: A question of what is due at an instant.
DueAt = Callable[[datetime], Due]


@dataclass(frozen=True, slots=True)
class Lease:
    """A session whose log this process writes to a file, and nobody else.

    Attributes:
        session: as it was when the lease was taken.
        archive: the row of the file.
        taken: the place among those that are due.
    """

    session: ChatSession
    archive: Archive
    taken: Taken


def take(using: str, due: DueAt, storage: Storage, alias: str, *, after: Taken | None = None) -> Lease | None:
    """Take the next session that is due, and that nobody else writes; None where there is no more.

    Args:
        using: the database.
        due: what is due.
        storage, alias: where the file is to be.
        after: only those that come after this one.
    """
    while True:
        with log.begin(using):
            now = dialects.now(using)
            found = batches.take(using, _free(using, due(now), now), 1, after=after)
            if not found:
                return None
            after = found[0]
            lease = _take(using, after, storage, alias, now)
        if lease is not None:
            return lease


def _free(using: str, due: Due, now: datetime) -> Due:
    """Leave out what somebody else writes, or failed to write a short while ago."""
    leased = "SELECT 1 FROM chat_sessions_archive a WHERE a.session_id = s.id AND a.leased_until > %(leased)s"
    parameters = {**due.parameters, "leased": dialects.instant(connections[using], now)}
    return replace(due, where=f"{due.where} AND NOT EXISTS ({leased})", parameters=parameters)


def _take(using: str, taken: Taken, storage: Storage, alias: str, now: datetime) -> Lease | None:
    rows = Archive.objects.using(using)
    old = rows.filter(session=taken.id).first()
    if old is not None and old.leased_until > now:
        # Whoever took it committed after our question had begun, and before we had the session's lock.
        return None
    if old is not None:
        rows.filter(pk=old.pk).update(session=None, leased_until=now)
    session = ChatSession.objects.using(using).get(pk=taken.id)
    archive = rows.create(
        session=session,
        storage=alias,
        name=files.new_name(storage, session, now),
        leased_until=now + LEASE,
        created_at=now,
    )
    return Lease(session, archive, taken)


def rename(using: str, archive: Archive, name: str) -> None:
    """Note that the storage has given a file another name."""
    if name != archive.name:
        Archive.objects.using(using).filter(pk=archive.pk).update(name=name)
        archive.name = name


def is_held(using: str, lease: Lease) -> bool:
    """Tell, in the transaction that has locked the session, whether the lease is still this process's."""
    return Archive.objects.using(using).filter(pk=lease.archive.pk, session=lease.session.pk).exists()


def complete(using: str, lease: Lease, written: Written, now: datetime) -> None:
    """Make a lease an archive, in the transaction that erases what the file has."""
    Archive.objects.using(using).filter(pk=lease.archive.pk).update(
        sha256=written.sha256, size=written.size, events=written.events, leased_until=now, written_at=now
    )


def put_off(using: str, lease: Lease) -> None:
    """Leave a session alone for a while, because its file could not be written."""
    later = dialects.now(using) + RETRY
    Archive.objects.using(using).filter(pk=lease.archive.pk, session=lease.session.pk).update(leased_until=later)


def give_up(using: str, archive: Archive) -> bool:
    """Leave a file to be removed; False where its row is gone, so that nobody else will."""
    rows = Archive.objects.using(using).filter(pk=archive.pk)
    return bool(rows.update(session=None, leased_until=dialects.now(using)))


def take_unwanted(using: str) -> Archive | None:
    """Take a file whose session is gone or restored, to remove it; None where there is none."""
    while True:
        now = dialects.now(using)
        unwanted = Archive.objects.using(using).filter(session__isnull=True, leased_until__lte=now)
        archive = unwanted.order_by("leased_until").first()
        if archive is None:
            return None
        mine = unwanted.filter(pk=archive.pk, leased_until=archive.leased_until)
        if mine.update(leased_until=now + LEASE):
            return archive


def forget(using: str, archive: Archive) -> None:
    """Delete the row of a file that is gone."""
    Archive.objects.using(using).filter(pk=archive.pk).delete()


def keep(using: str, archive: Archive) -> None:
    """Leave the row of a file that could not be removed, for another time."""
    Archive.objects.using(using).filter(pk=archive.pk).update(leased_until=dialects.now(using) + RETRY)
