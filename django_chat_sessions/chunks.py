"""What runs say, as soon as they say it: writing it, reading it back, and the frames of a stream.

A chunk comes after the event that was the session's last when it was written, and before the next one. It is written
under a lock on the session's row that no event can be written past, so that events and chunks have one order for
every reader at every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import connections

from . import dialects, transcripts
from .batches import Due
from .choices import ALIVE, RunStatus
from .fields import hide, reveal, unhide
from .models import ChatSession, Run, RunChunk

#: The type of a frame that carries a chunk; no event of the log.
DELTA = "message.delta"

#: Frames that are read at once.
BATCH = 100


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """How far a reader has come.

    Attributes:
        sequence: the last event that it has.
        index: the last chunk after that event that it has; -1 is none.
    """

    sequence: int
    index: int = -1

    def __str__(self) -> str:
        """Say it as the id of a frame."""
        return str(self.sequence) if self.index < 0 else f"{self.sequence}.{self.index}"


@dataclass(frozen=True, slots=True)
class Frame:
    """An event, or a chunk.

    Attributes:
        cursor: its place.
        type: the event's, or ``message.delta``.
        run: the public id of the run that a chunk belongs to; None of an event.
        json: an event as JSON text; a chunk's text.
    """

    cursor: Cursor
    type: str
    run: UUID | None
    json: str


def append(run: Run, index: int, text: str, *, waits: bool = True) -> bool:
    """Store some text that a run said; tell whether the run is still this attempt's to speak for.

    Args:
        run: with the attempt that speaks.
        index: the chunk's number in the run.
        text: what it said.
        waits: whether to wait for who holds the session; if not, False says that somebody does, or the other.
    """
    using = run._state.db or "default"
    connection = connections[using]
    parameters = {
        "session": run.session_id,
        "run": run.pk,
        "attempt": run.attempt,
        "index": index,
        "text": hide(text),
        "now": None if dialects.is_postgresql(using) else dialects.instant(connection, dialects.now(using)),
    }
    with connection.cursor() as cursor:
        cursor.execute(_insertion(dialects.is_postgresql(using), waits), parameters)
        return bool(cursor.rowcount > 0)


@lru_cache
def _insertion(is_postgresql: bool, waits: bool) -> str:  # noqa: FBT001 - keys of the cache
    """Build the statement. The session is locked first, as everywhere; then the run, seen as it is after that wait."""
    columns = 'INSERT INTO chat_sessions_runchunk (session_id, run_id, sequence, "index", text, created_at)'
    mine = f"r.id = %(run)s AND r.attempt = %(attempt)s AND r.status = '{RunStatus.RUNNING}'"
    if not is_postgresql:
        return (
            f"{columns} SELECT s.id, r.id, s.last_sequence, %(index)s, %(text)s, %(now)s"
            " FROM chat_sessions_chatsession s JOIN chat_sessions_run r ON r.session_id = s.id"
            f" WHERE s.id = %(session)s AND {mine}"
        )
    skip = "" if waits else " SKIP LOCKED"
    return (
        "WITH s AS MATERIALIZED"
        f" (SELECT id, last_sequence FROM chat_sessions_chatsession WHERE id = %(session)s FOR SHARE{skip}),"
        f" r AS MATERIALIZED (SELECT r.id FROM s, chat_sessions_run r WHERE {mine} FOR SHARE OF r{skip})"
        f" {columns} SELECT s.id, r.id, s.last_sequence, %(index)s, %(text)s, clock_timestamp() FROM s, r"
    )


def note_first(run: Run) -> None:
    """Note on the run when its first chunk was stored."""
    run.first_token_at = _of(run).order_by("index").values_list("created_at", flat=True).last()
    Run.objects.using(run._state.db or "default").filter(pk=run.pk, attempt=run.attempt).update(
        first_token_at=run.first_token_at
    )


def next_index(run: Run) -> int:
    """Return the number of a run's next chunk."""
    last = _of(run).order_by("-index").values_list("index", flat=True).first()
    return 0 if last is None else last + 1


def unspoken(run: Run) -> str:
    """Return what a run said that is in no message yet."""
    if run.spoken_sequence is None:
        return ""
    said = _of(run).filter(sequence__gte=run.spoken_sequence).order_by("index")
    return "".join(said.values_list("text", flat=True))


def erase(session: ChatSession, runs: Sequence[str]) -> None:
    """Remove what runs said, where a message of theirs is erased."""
    chunks = RunChunk.objects.using(session._state.db or "default")
    chunks.filter(session=session, run__uuid__in=runs).delete()


def _of(run: Run) -> Any:
    return RunChunk.objects.using(run._state.db or "default").filter(run=run)


def here(session: ChatSession) -> Cursor:
    """Return where a session stands now: what is said from now on comes after it."""
    using = session._state.db or "default"
    sql = (
        'SELECT s.last_sequence, (SELECT max(c."index") FROM chat_sessions_runchunk c'
        " WHERE c.session_id = s.id AND c.sequence = s.last_sequence)"
        " FROM chat_sessions_chatsession s WHERE s.id = %s"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, [session.pk])
        row = cursor.fetchone()
    return Cursor(session.last_sequence) if row is None else Cursor(row[0], -1 if row[1] is None else row[1])


def frames(session: ChatSession, after: Cursor, *, limit: int = BATCH) -> list[Frame]:
    """Return what a reader has not seen yet, oldest first, in one statement.

    Args:
        session: live or over.
        after: how far the reader has come.
        limit: frames at the most.
    """
    using = session._state.db or "default"
    uuid = session.uuid if dialects.is_postgresql(using) else session.uuid.hex
    given = {"session": session.pk, "uuid": uuid, "sequence": after.sequence, "index": after.index}
    with connections[using].cursor() as cursor:
        cursor.execute(_selection(using, limit), given)
        return [_frame(row) for row in cursor.fetchall()]


def _frame(row: tuple[int, int, str, Any, str]) -> Frame:
    sequence, index, kind, run, text = row
    if run is None:
        return Frame(Cursor(sequence), kind, None, reveal(text))
    return Frame(Cursor(sequence, index), kind, run if isinstance(run, UUID) else UUID(run), unhide(text))


@lru_cache
def _selection(using: str, limit: int) -> str:
    dialect = dialects.of(using)
    text, no_run = ("({})::text", "NULL::uuid") if dialects.is_postgresql(using) else ("{}", "NULL")
    event = text.format(transcripts.event_object(dialect))
    # Whoever has an id that was taken away reads nothing by it any more.
    there = "EXISTS (SELECT 1 FROM chat_sessions_chatsession s WHERE s.id = %(session)s AND s.uuid = %(uuid)s)"
    events = (
        f"SELECT e.sequence AS sequence, -1 AS place, e.type AS type, {no_run} AS run, {event} AS text"
        " FROM chat_sessions_sessionevent e WHERE e.session_id = %(session)s AND e.sequence > %(sequence)s"
        f" AND {there} ORDER BY e.sequence LIMIT {limit}"
    )
    chunks = (
        f"""SELECT c.sequence AS sequence, c."index" AS place, '{DELTA}' AS type, r.uuid AS run, c.text AS text"""
        " FROM chat_sessions_runchunk c JOIN chat_sessions_run r ON r.id = c.run_id"
        ' WHERE c.session_id = %(session)s AND (c.sequence, c."index") > (%(sequence)s, %(index)s)'
        f' AND {there} ORDER BY c.sequence, c."index" LIMIT {limit}'
    )
    return (
        "SELECT sequence, place, type, run, text FROM"
        f" (SELECT * FROM ({events}) e UNION ALL SELECT * FROM ({chunks}) c) f"
        f" ORDER BY sequence, place LIMIT {limit}"
    )


_FINISHED = (
    f"r.status NOT IN ({', '.join(f'{status!r}' for status in map(str, ALIVE))}) AND r.finished_at <= %(before)s"
)


def finished(using: str, *, before: datetime) -> Due:
    """Return the chunks of answers that were finished by an instant."""
    source = "chat_sessions_runchunk c JOIN chat_sessions_run r ON r.id = c.run_id"
    source += " JOIN chat_sessions_chatsession s ON s.id = c.session_id"
    given = {"before": dialects.instant(connections[using], before)}
    return Due(_FINISHED, "r.finished_at", given, source=source, key="c.id")


def compact(using: str, *, before: datetime, after: int, limit: int) -> tuple[int, int | None]:
    """Delete the oldest chunks of answers that were finished by an instant.

    No chunk that was said later than that can belong to one, so that the search ends where those begin; the chunks
    before them are few, once they are compacted.

    Args:
        using: the database.
        before: the instant.
        after: the chunk (by its key) to begin behind.
        limit: chunks to look at.

    Returns:
        How many went, and the last that was looked at; None where nothing is left to look at.
    """
    given = {"before": dialects.instant(connections[using], before), "after": after}
    looked = (
        f"SELECT c.id, ({_FINISHED}) AS is_finished, c.created_at FROM chat_sessions_runchunk c"
        f" JOIN chat_sessions_run r ON r.id = c.run_id WHERE c.id > %(after)s ORDER BY c.id LIMIT {int(limit)}"
    )
    among = dialects.of(using).among.format(column="id", name="ids")
    gone = 0
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT id, is_finished FROM ({looked}) c WHERE created_at <= %(before)s", given)
        rows = cursor.fetchall()
        ids = [pk for pk, is_finished in rows if is_finished]
        if ids:
            cursor.execute(f"DELETE FROM chat_sessions_runchunk WHERE {among}", {"ids": dialects.integers(using, ids)})
            gone = cursor.rowcount
    return gone, rows[-1][0] if len(rows) == limit else None
