"""Logs in files: gzipped lines of JSON, the first of which says of what log they are, then one for each event.

A file has all that it takes to bring a log back as it was. Its text is stored as in the database: what a database
cannot hold is written as ``fields`` says. The same log always gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from django.core.files import File
from django.core.files.storage import InvalidStorageError, Storage, storages

from .. import log
from ..exceptions import ArchiveDamaged, ArchiveUnavailable
from ..fields import dump, load
from ..models import Archive, ChatSession, SessionEvent

FORMAT = "django-chat-sessions log"
VERSION = 1

#: What is kept of an event: all but whose it is.
COLUMNS = (
    "sequence", "type", "role", "content", "data", "external_id", "position", "superseded_by", "token_count",
    "created_at",
)  # fmt: skip

#: Events that are in memory at once; each may have a quarter of a megabyte.
PAGE = 200

#: A file that is larger is on the disk while it is written or read.
MEMORY = 4 * 1024 * 1024
CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it should be.

    Attributes:
        sha256: of its bytes, in hexadecimal digits.
        size: bytes.
        events: how many it has, which is the log's last sequence.
    """

    sha256: str
    size: int
    events: int


class _Counted:
    """A file that says afterwards what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def new_name(storage: Storage, session: ChatSession, now: datetime) -> str:
    """Return a name that nobody guesses, and no other file has, as the storage spells it."""
    return storage.generate_filename(f"chat_sessions/{now:%Y/%m/%d}/{session.uuid}-{token_hex(16)}.jsonl.gz")


def spool(session: ChatSession, file: IO[bytes]) -> Written:
    """Write a session's log to a local file, a page at a time; whoever writes to the log meanwhile is not waited for.

    Args:
        session: as its row was read; the file has the log up to its last sequence.
        file: empty.

    Raises:
        ArchiveDamaged: the log has a gap.
    """
    counted = _Counted(file)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "session": str(session.uuid),
        "status": str(session.status),
        "state": session.state,
        "events": session.last_sequence,
    }
    # Without a name and an instant in it, the same log is the same file.
    with gzip.GzipFile(filename="", mode="wb", fileobj=counted, mtime=0) as packed:
        packed.write(_line(header))
        written = 0
        for event in _events(session):
            packed.write(_line(event))
            written += 1
    if written != session.last_sequence:
        raise ArchiveDamaged("The log has a gap.")
    return Written(counted.sha256, counted.size, written)


def _line(value: Mapping[str, Any]) -> bytes:
    return dump(value).encode() + b"\n"


def _events(session: ChatSession) -> Iterator[dict[str, Any]]:
    events = SessionEvent.objects.using(session._state.db).filter(session=session, sequence__lte=session.last_sequence)
    last = 0
    while True:
        page = list(events.filter(sequence__gt=last).order_by("sequence").values(*COLUMNS)[:PAGE])
        yield from map(plain, page)
        if len(page) < PAGE:
            return
        last = page[-1]["sequence"]


def plain(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's columns as a file has them."""
    return {**event, "created_at": log.iso(event["created_at"])}


def save(storage: Storage, name: str, file: IO[bytes]) -> str:
    """Give a local file to the storage, and return the name that it has there."""
    file.seek(0)
    return storage.save(name, File(file, name), max_length=Archive._meta.get_field("name").max_length)


def check(storage: Storage, name: str, written: Written) -> None:
    """Read a file back.

    Raises:
        ArchiveDamaged: it is not what was written.
    """
    digest, size = hashlib.sha256(), 0
    with storage.open(name, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    if (digest.hexdigest(), size) != (written.sha256, written.size):
        raise ArchiveDamaged("What the storage gives back is not what it was given.")


def remove(storage: Storage, name: str) -> None:
    """Remove a file, which may be gone already."""
    try:
        storage.delete(name)
    except Exception:
        # Some storages mind that there is no such file.
        if storage.exists(name):
            raise


@dataclass(frozen=True, slots=True)
class Log:
    """A log that was read from a file.

    Attributes:
        status: in which the session was.
        state: the session's.
        count: how many events there are.
        events: those, once, in order; each by its columns, as in the file.
    """

    status: str
    state: dict[str, Any]
    count: int
    events: Iterator[dict[str, Any]]


@contextmanager
def opened(archive: Archive) -> Iterator[Log]:
    """Fetch a file, hold it to its checksum, and give the log that is in it.

    Raises:
        ArchiveDamaged: it is gone, or is not what was written.
        ArchiveUnavailable: the storage does not give it.
    """
    with SpooledTemporaryFile(MEMORY) as file:
        counted = _Counted(file)
        _fetch(archive, counted)
        if counted.sha256 != archive.sha256:
            raise ArchiveDamaged("The file of the archive does not have its checksum.")
        file.seek(0)
        with gzip.GzipFile(fileobj=file, mode="rb") as packed:
            yield _read(packed)


def _fetch(archive: Archive, file: _Counted) -> None:
    try:
        with storages[archive.storage].open(archive.name, "rb") as stored:
            while chunk := stored.read(CHUNK):
                file.write(chunk)
    except FileNotFoundError as error:
        raise ArchiveDamaged("The file of the archive is not there.") from error
    except InvalidStorageError as error:
        raise ArchiveUnavailable(f"STORAGES has no {archive.storage!r}, where the archive is.") from error
    except Exception as error:  # a storage raises what it likes
        raise ArchiveUnavailable from error


def _read(lines: gzip.GzipFile) -> Log:
    header = load(lines.readline())
    if (header["format"], header["version"]) != (FORMAT, VERSION):
        raise ArchiveDamaged("The file of the archive has a format that this release does not read.")
    return Log(header["status"], header["state"], header["events"], map(load, lines))
