"""What the tests of archiving and restoring share: a storage that goes wrong on demand, and whole logs to compare."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages
from django.db import connection

from django_chat_sessions.models import Archive, ChatSession, OutboxEntry, Run, RunChunk, SessionEvent
from django_chat_sessions.operations import archiving, messages, sessions
from django_chat_sessions.operations.files import COLUMNS
from django_chat_sessions.operations.sweeping import Swept
from django_chat_sessions.testing import make_session, say

#: Every table that belongs to us.
TABLES = (ChatSession, SessionEvent, Run, RunChunk, OutboxEntry, Archive)


class Away(Exception):
    """The storage is away; its words name what nobody should read in a log."""


class Shelf(FileSystemStorage):
    """A storage in a directory, which does what a test says when it saves, opens and deletes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.saving: Callable[[str], Any] | None = None
        self.saved: Callable[[str], Any] | None = None
        self.opening: Callable[[str], Any] | None = None
        self.deleting: Callable[[str], Any] | None = None
        self.in_transactions: list[str] = []

    def _save(self, name: str, content: Any) -> str:
        self._note("save")
        if self.saving:
            self.saving(name)
        name = super()._save(name, content)
        if self.saved:
            name = self.saved(name) or name
        return name

    def _open(self, name: str, mode: str = "rb") -> Any:
        self._note("open")
        if self.opening:
            self.opening(name)
        return super()._open(name, mode)

    def delete(self, name: str) -> None:
        self._note("delete")
        if self.deleting:
            self.deleting(name)
        super().delete(name)

    def _note(self, act: str) -> None:
        if connection.in_atomic_block:
            self.in_transactions.append(act)

    def files(self) -> list[str]:
        """Return the names of the files that are there."""
        root = Path(self.location)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def cut(self, name: str) -> None:
        """Leave half of a file."""
        data = self.read(name)
        self.write(name, data[: len(data) // 2])

    def read(self, name: str) -> bytes:
        return Path(self.path(name)).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        Path(self.path(name)).write_bytes(data)

    def rename(self, name: str) -> str:
        """Keep a file under another name than it was given, as some storages do."""
        data = self.read(name)
        super().delete(name)
        return super()._save(f"renamed-{Path(name).name}", ContentFile(data))


class Deadly(Shelf):
    """A storage whose process is killed as soon as a file is whole, before anything else happens."""

    def _save(self, name: str, content: Any) -> str:
        super()._save(name, content)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def shelf() -> Shelf:
    """Return the storage of the archives."""
    found = storages["archives"]
    assert isinstance(found, Shelf)
    return found


def lines(name: str) -> list[dict[str, Any]]:
    """Return what a file says."""
    return [json.loads(line) for line in gzip.decompress(shelf().read(name)).splitlines()]


def over(owner: Any = None, *said: str, **fields: Any) -> ChatSession:
    """Return a session that is over, in which something was said."""
    session = make_session(owner, agent="silent", **fields)
    for text in said or ("Hello",):
        say(session, text)
    sessions.change_state(session, {"working": "on it"})
    messages.record(session, "app.noted", {"note": "this"})
    return sessions.end(session, reason="done")


def whole(session: ChatSession, *, up_to: int | None = None) -> list[dict[str, Any]]:
    """Return every column of a session's log."""
    events = session.events.order_by("sequence")
    return list((events if up_to is None else events.filter(sequence__lte=up_to)).values(*COLUMNS))


def skeleton(session: ChatSession, *, up_to: int | None = None) -> list[dict[str, Any]]:
    """Return what archiving leaves of a session's log."""
    kept = [name for name in COLUMNS if name not in {"content", "data", "external_id"}]
    return [{name: event[name] for name in kept} for event in whole(session, up_to=up_to)]


def everything() -> str:
    """Return all that our tables have, as text."""
    found = []
    for model in TABLES:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {model._meta.db_table}")
            found += [repr(row) for row in cursor.fetchall()]
    return "\n".join(found)


def age_leases() -> None:
    """Let every lease be over."""
    Archive.objects.update(leased_until="2000-01-01T00:00Z")


@contextmanager
def doing(**acts: Any) -> Iterator[Shelf]:
    """Let the storage do something as long as this lasts."""
    storage = shelf()
    for name, act in acts.items():
        setattr(storage, name, act)
    yield storage
    for name in acts:
        setattr(storage, name, None)


def archive(**options: Any) -> Swept:
    return archiving.archive(**options)
