"""Bringing back the content of an archived session from its file."""

from __future__ import annotations

from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from .. import dialects, log
from ..choices import EventType, Status
from ..exceptions import ArchiveDamaged, ArchiveNotFound
from ..fields import hide
from ..models import Archive, ChatSession, SessionEvent
from ..rules.merge import same
from . import files, leases, writing
from .files import COLUMNS, PAGE

#: What archiving removes of an event; the rest is its skeleton.
CONTENT = ("content", "data", "external_id")

#: In what a session can have been when it was archived.
RESTORED = (Status.EXPIRED, Status.ENDED, Status.FAILED)


def restore(session: ChatSession, *, hold: bool = False) -> ChatSession:
    """Bring back what was archived, sequence for sequence; the session is again in the status that it was archived in.

    Its retention counts anew from now. The file is removed by the next archive sweep. What answers were asked with
    beside the conversation, and the pieces in which they were said, do not come back.

    Args:
        session: archived, and stored when it was; refreshed in place.
        hold: place it under legal hold, too.

    Raises:
        ArchiveNotFound: it is not archived, or was archived without being stored.
        ArchiveDamaged: the file is gone or is not what was written; nothing was restored.
        ArchiveUnavailable: the storage does not answer.
        SessionNotFound: the session is gone.
    """
    using = writing.alias(session)
    archive = _archives(using, session).first()
    if archive is None:
        raise ArchiveNotFound
    with files.opened(archive) as stored, writing.writing(session, live=False) as draft:
        if draft.session.status != Status.ARCHIVED or not _archives(using, session).filter(pk=archive.pk).exists():
            raise ArchiveNotFound  # somebody else restored it meanwhile
        _check(stored, archive, draft.session)
        _bring_back(stored, draft.session)
        draft.record(EventType.SESSION_RESTORED, {"status": stored.status, "state": stored.state})
        draft.columns["settled_at"] = draft.now
        if hold and not draft.session.is_held:
            draft.record(EventType.SESSION_HELD, {"reason": "restored"})
        leases.give_up(using, archive)
    return session


def _archives(using: str, session: ChatSession) -> Any:
    return Archive.objects.using(using).filter(session=session.pk, written_at__isnull=False)


def _check(stored: files.Log, archive: Archive, session: ChatSession) -> None:
    """Refuse a file that is not of this log as it was when it was archived."""
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session)
    archived = events.filter(sequence=stored.count + 1, type=EventType.SESSION_ARCHIVED).first()
    is_its = archived is not None and archived.data.get("sha256") == archive.sha256
    if not is_its or stored.status not in RESTORED:
        raise ArchiveDamaged("The archive is not of this session.")


def _bring_back(stored: files.Log, session: ChatSession) -> None:
    """Write what the events' content was, a page at a time, having held each skeleton to the one in the log."""
    count = 0
    with log.erasing(writing.alias(session)):
        while page := list(islice(stored.events, PAGE)):
            _bring_back_page(session, page, count)
            count += len(page)
    if count != stored.count:
        raise ArchiveDamaged("The archive ends too early.")


def _bring_back_page(session: ChatSession, page: list[dict[str, Any]], after: int) -> None:
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session)
    rows = events.filter(sequence__gt=after, sequence__lte=after + len(page)).order_by("sequence").values(*COLUMNS)
    now = list(map(files.plain, rows))
    if [_skeleton(event) for event in now] != [_skeleton(event) for event in page]:
        raise ArchiveDamaged("The archive is not of this log.")
    _write(session, [was for was, is_now in zip(page, now, strict=True) if not same(was, is_now)])


def _skeleton(event: dict[str, Any]) -> list[Any]:
    return [event.get(name) for name in COLUMNS if name not in CONTENT]


def _write(session: ChatSession, events: list[dict[str, Any]]) -> None:
    using = writing.alias(session)
    sql = (
        "UPDATE chat_sessions_sessionevent SET content = %(content)s,"
        f" data = {dialects.of(using).json.format(name='data')}, external_id = %(external_id)s"
        " WHERE session_id = %(session)s AND sequence = %(sequence)s"
    )
    with connections[using].cursor() as cursor:
        cursor.executemany(sql, [{**_content(event), "session": session.pk} for event in events])


def _content(event: dict[str, Any]) -> dict[str, Any]:
    name = event["external_id"]
    return {
        "sequence": event["sequence"],
        "content": hide(event["content"]),
        "data": dialects.as_json(event["data"]),
        "external_id": name if name is None else hide(name),
    }


# A thin twin for async code; the synchronous function is the truth.
arestore = sync_to_async(restore)
