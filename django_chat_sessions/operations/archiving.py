"""Removing the content of what was kept for long enough; its skeleton, metadata and figures stay.

Where there is a storage for archives, the whole log is in a file there before its content is removed, and no
transaction waits for that storage (``leases`` says how).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from tempfile import SpooledTemporaryFile

from asgiref.sync import sync_to_async
from django.core.files.storage import Storage, storages
from django.db import connections, transaction

from .. import batches, conf, dialects, log, logs
from ..batches import Due
from ..choices import EventType, RetentionAction, Status
from ..exceptions import SessionNotFound
from ..fields import hide
from ..models import ChatSession
from . import files, leases, retention, unwanted, writing
from .files import Written
from .leases import DueAt, Lease
from .retention import Group
from .sweeping import FAILURES, Budget, Swept, Watch, in_batches, leave, sweep


def archive(*, using: str | None = None, limit: int | None = None, watch: Watch | None = None) -> Swept:
    """Archive the sessions whose retention is over, where it says so; those under legal hold stay.

    Files of sessions that were deleted or restored are removed from their storage.

    Args:
        using: the database; the one that sessions are written to by default.
        limit: sessions at the most.
        watch: is told after each batch, and may end the sweep.
    """
    held = partial(retention.held, action=RetentionAction.ARCHIVE)
    return sweep("archive", _batches, using=using, limit=limit, watch=watch, held=held)


def _batches(using: str, budget: Budget) -> Iterator[int]:
    # Before, so that they do not wait for as long as there is something to archive; after, for what that leaves behind.
    yield from unwanted.remove(using)
    for group in retention.groups_to_sweep(using, RetentionAction.ARCHIVE):
        yield from archive_group(using, group, budget)
    yield from unwanted.remove(using)


def archive_group(using: str, group: Group, budget: Budget) -> Iterator[int]:
    """Yield, after each transaction, how many sessions of a group it archived, until none is due."""
    due = partial(group.due, using)
    if conf.get().ARCHIVE_STORAGE is not None:
        return _with_files(using, budget, due)

    def act(ids: list[int], now: datetime) -> int:
        untold = batches.untold(using, ids)
        told = [pk for pk in ids if pk not in untold]
        _archive(using, told, now)
        return len(told)

    return in_batches(using, budget, due, act, events=conf.get().SWEEP_EVENTS)


def archive_one(session: ChatSession, now: datetime) -> None:
    """Archive a locked session that is over and not held; refreshed in place.

    With a storage that is done once the transaction has committed; a failure is logged, and another try comes later.
    """
    using = writing.alias(session)
    if conf.get().ARCHIVE_STORAGE is not None:
        group = Group(session.status, hide(session.application), session.agent)
        transaction.on_commit(partial(_archive_alone, using, group, session.pk), using=using)
        return
    _archive(using, [session.pk], now)
    session.refresh_from_db(using=using)


def _archive_alone(using: str, group: Group, pk: int) -> None:
    for _ in _with_files(using, Budget(1, 1), lambda now: _only(group.due(using, now), pk)):
        continue


def _only(due: Due, pk: int) -> Due:
    return replace(due, where=f"{due.where} AND s.id = %(only)s", parameters={**due.parameters, "only": pk})


def _with_files(using: str, budget: Budget, due: DueAt) -> Iterator[int]:
    """Yield, after each session, whether it was archived; one that fails is left, with its content, and logged.

    Where one after the other fails, it is the storage, and the rest waits for the next sweep.
    """
    alias = conf.get().ARCHIVE_STORAGE or ""
    storage, last = storages[alias], None
    while budget.failures < FAILURES:
        lease = leases.take(using, due, storage, alias, after=last)
        if lease is None:
            return
        last = lease.taken
        try:
            done = _store(using, lease, storage, due)
            budget.failures = 0
        except Exception as error:
            if not connections[using].is_usable():
                raise
            leave(lease.session.uuid, error)
            leases.put_off(using, lease)
            budget.failures += 1
            done = False
        yield int(done)


def _store(using: str, lease: Lease, storage: Storage, due: DueAt) -> bool:
    """Write the file, prove that it is there, and only then erase what it has."""
    with SpooledTemporaryFile(files.MEMORY) as file:
        written = files.spool(lease.session, file)
        name = files.save(storage, lease.archive.name, file)
    leases.rename(using, lease.archive, name)
    files.check(storage, name, written)
    with log.begin(using):
        now = _lock(using, lease, written, due)
        if now is not None:
            _archive(using, [lease.session.pk], now, written)
            leases.complete(using, lease, written, now)
    if now is None and not leases.give_up(using, lease.archive):
        # The lease was over for so long that its row, and what there was of the file by then, were removed.
        files.remove(storage, name)
    return now is not None


def _lock(using: str, lease: Lease, written: Written, due: DueAt) -> datetime | None:
    """Lock the session and return the instant; None where something happened to it, or somebody else took it."""
    try:
        log.lock(lease.session)
    except SessionNotFound:
        return None
    now = dialects.now(using)
    found = batches.take(using, _only(due(now), lease.session.pk), 1)
    is_still_so = bool(found) and found[0].events == written.events and leases.is_held(using, lease)
    return now if is_still_so else None


def _archive(using: str, ids: Sequence[int], now: datetime, written: Written | None = None) -> None:
    if ids:
        logs.erase(using, ids)
        logs.record(using, ids, _archived(using, written), now=now)


def _archived(using: str, written: Written | None) -> logs.Same:
    dialect = dialects.of(using)
    columns = {
        "status": f"'{Status.ARCHIVED}'",
        "state": "'{}'",
        "settled_at": dialect.instant.format(name="now"),
    }
    stored = {} if written is None else {"sha256": written.sha256, "events": written.events}
    data = json.dumps({"reason": "retention", "stored": written is not None, **stored})
    said = dialect.json.format(name="said")
    return logs.Same(type=EventType.SESSION_ARCHIVED, data=said, columns=columns, parameters={"said": data})


# Thin twins for async code; the synchronous functions are the truth.
aarchive = sync_to_async(archive)
