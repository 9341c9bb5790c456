"""Removing the chunks of finished answers: after their time, and never those of an answer that goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_chat_sessions import chunks, dialects
from django_chat_sessions.agents import Message
from django_chat_sessions.chunks import Cursor
from django_chat_sessions.models import Run, RunChunk
from django_chat_sessions.operations import pieces, runs, sweeps
from django_chat_sessions.testing import make_session
from tests.operations.reading import texts

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def answered(alice):
    """Return a function that makes an answer that was said in pieces, and finished some time ago."""

    def answered(pieces_: int = 3, *, ago: timedelta = timedelta(), status: str | None = None) -> Run:
        session = make_session(alice, agent="silent")
        now = dialects.now("default")
        run = Run.objects.create(
            session=session, input_sequence=1, status=status or "succeeded", created_at=now - ago, started_at=now - ago,
            heartbeat_at=now, finished_at=None if status else now - ago, expires_at=now + HOUR,
        )  # fmt: skip
        RunChunk.objects.bulk_create(
            RunChunk(session=session, run=run, sequence=1, index=n, text=f"{n} ", created_at=now - ago)
            for n in range(pieces_)
        )
        return run

    return answered


def left(run: Run) -> int:
    return RunChunk.objects.filter(run=run).count()


def test_chunks_of_an_answer_go_after_their_time(answered):
    old, recent = answered(ago=HOUR * 1.01), answered(ago=HOUR * 0.99)
    assert pieces.compact().count == 3
    assert (left(old), left(recent)) == (0, 3)
    assert pieces.compact().count == 0


def test_how_long_is_a_setting(answered, configured):
    run = answered(ago=timedelta(minutes=10))
    configured(KEEP_CHUNKS=timedelta(minutes=11))
    assert pieces.compact().count == 0
    configured(KEEP_CHUNKS=60 * 9)
    assert pieces.compact().count == 3
    assert left(run) == 0


def test_zero_is_with_the_next_sweep(answered, configured):
    configured(KEEP_CHUNKS=0)
    answered()
    assert pieces.compact().count == 3


@pytest.mark.parametrize("status", ["running", "queued"])
def test_an_answer_that_goes_on_keeps_what_it_said(answered, status):
    run = answered(ago=HOUR * 5, status=status)
    old = answered(ago=HOUR * 4)
    assert pieces.compact().count == 3
    assert (left(run), left(old)) == (3, 0)


def test_an_answer_that_was_finished_lately_keeps_what_it_said_long_ago(answered):
    run = answered(ago=HOUR * 5)
    Run.objects.filter(pk=run.pk).update(finished_at=dialects.now("default"))
    assert pieces.compact().count == 0
    assert left(run) == 3


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_batches_are_bounded_and_nothing_is_left_out(answered, configured, batch):
    configured(SWEEP_BATCH=batch)
    going, gone = answered(2, ago=HOUR * 9, status="running"), [answered(3, ago=HOUR * 2) for _ in range(3)]
    recent = answered(2)
    assert pieces.compact().count == 9
    assert [left(run) for run in (going, *gone, recent)] == [2, 0, 0, 0, 2]


def test_a_limit_is_kept_and_the_next_sweep_goes_on(answered):
    answered(5, ago=HOUR * 2)
    assert pieces.compact(limit=2).count == 2
    assert pieces.compact(limit=2).count == 2
    assert pieces.compact().count == 1


def test_a_preview_counts_what_would_go(answered):
    answered(4, ago=HOUR * 2)
    answered(4)
    preview = sweeps.preview("compact")
    assert (preview.total, preview.noun) == (4, "chunks")
    assert RunChunk.objects.count() == 8


def test_whoever_comes_back_finds_the_pieces_while_they_are_kept_and_the_whole_afterwards(alice, configured):
    session = make_session(alice, agent="pieces")
    runs.ask(session, Message("user", "hello"))
    if not RunChunk.objects.exists():
        RunChunk.objects.create(
            session=session, run=Run.objects.get(), sequence=3, index=0, text="hello", created_at=session.created_at
        )
    before = [frame.type for frame in chunks.frames(session, Cursor(0))]
    assert before.count("message.delta") >= 1
    assert pieces.compact().count == 0
    assert [frame.type for frame in chunks.frames(session, Cursor(0))] == before
    configured(KEEP_CHUNKS=0)
    pieces.compact()
    assert [frame.type for frame in chunks.frames(session, Cursor(0))] == [t for t in before if t != "message.delta"]
    assert texts(session) == ["hello", "hello"]
