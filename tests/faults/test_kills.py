"""A process is killed in mid-sweep, between two batches or inside one: the next sweep finishes what it began."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F

from django_chat_sessions.choices import EventType, Status
from django_chat_sessions.models import Archive, ChatSession, RunChunk
from django_chat_sessions.operations import privacy
from django_chat_sessions.operations import sessions as verbs
from tests.celery.conftest import Broker, Process
from tests.faults.conftest import (
    BATCH,
    PATIENCE,
    Stay,
    are_expired,
    assert_sound,
    assert_whole,
    events_of,
    eventually,
    expired,
    make,
    make_due,
    shift,
    sweep_until_done,
)
from tests.recovery.conftest import KILL, Sweep, is_there

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

#: Have a process stay where the first batch is done, and the next is chosen.
BETWEEN = {"TEST_STAY": r"^SELECT s\.id, s\.uuid, ", "TEST_STAY_COUNT": "1"}


def inside(pattern: str) -> dict[str, str]:
    """Have a process stay behind a statement that changes something, before its transaction commits."""
    return {"TEST_STAY": pattern}


@pytest.fixture
def kill(begin: Callable[..., Sweep], stay: Stay) -> Callable[..., None]:
    """Return a function that begins a sweep, and kills its process where it stays."""

    def kill(task: str, **environment: str) -> None:
        process = begin(task, **environment).process
        assert stay.wait() == process.pid
        process.kill()
        process.wait(10)

    return kill


WHERE = pytest.mark.parametrize("is_between", [True, False], ids=["between", "inside"])


@WHERE
def test_each_session_expires_once_at_its_deadline(alice: Any, kill: Callable[..., None], is_between: bool) -> None:
    due, others = make_due(alice, 12), make(alice, 3)
    kill("expire", **(BETWEEN if is_between else inside(r"UPDATE.*SESSION_EXPIRED")))
    assert expired(*due) == (BATCH if is_between else 0)
    sweep_until_done("expire")
    assert expired(*due) == 12
    assert expired(*others) == 0
    assert_whole(*due, *others)
    assert_sound()


@WHERE
def test_each_session_is_warned_of_once_at_each_threshold(
    alice: Any, kill: Callable[..., None], configure: Callable[..., None], is_between: bool
) -> None:
    configure(WARNING_THRESHOLD_MINUTES=[15, 5])
    near, others = shift(*make(alice, 12), minutes=20), make(alice, 3)
    kill("warn", **(BETWEEN if is_between else inside(r"UPDATE.*SESSION_EXPIRING")))
    assert sum(len(events_of(session, EventType.SESSION_EXPIRING)) for session in near) == BATCH * is_between
    sweep_until_done("warn")
    sweep_until_done("warn")
    assert all(len(events_of(session, EventType.SESSION_EXPIRING)) == 1 for session in near)
    near = shift(*near, minutes=6)
    sweep_until_done("warn")
    for session in near:
        warnings = events_of(session, EventType.SESSION_EXPIRING)
        assert [event.data["threshold_minutes"] for event in warnings] == [15, 5]
    assert not any(events_of(session, EventType.SESSION_EXPIRING) for session in others)
    assert_sound()


@pytest.fixture
def over(alice: Any, configure: Callable[..., None]) -> tuple[list[ChatSession], list[ChatSession]]:
    """Return expired sessions, which are not kept, and others: live ones, ended ones, and one under legal hold."""
    configure(RETENTION={"expired": 0})
    gone, held, live, ended = make_due(alice, 12), make_due(alice, 1), make(alice, 2), make(alice, 2)
    for session in ended:
        verbs.end(session)
    sweep_until_done("expire")
    privacy.hold(held[0])
    return gone, [*held, *live, *ended]


@WHERE
def test_each_session_is_archived_once(
    over: tuple[list[ChatSession], list[ChatSession]], kill: Callable[..., None], is_between: bool
) -> None:
    gone, others = over
    kill("archive", **(BETWEEN if is_between else inside(r"UPDATE.*SESSION_ARCHIVED")))
    done = ChatSession.objects.filter(status=Status.ARCHIVED)
    assert done.count() == BATCH * is_between
    assert_whole(*ChatSession.objects.exclude(status=Status.ARCHIVED))
    sweep_until_done("archive")
    assert set(done) == set(gone)
    for session in gone:
        assert len(events_of(session, EventType.SESSION_ARCHIVED)) == 1
        assert not RunChunk.objects.filter(session=session).exists()
    assert_whole(*others)
    assert_sound()


def test_each_session_is_archived_once_and_has_one_file(
    over: tuple[list[ChatSession], list[ChatSession]],
    kill: Callable[..., None],
    configure: Callable[..., None],
    settings: Any,
    tmp_path: Path,
) -> None:
    gone, others = over
    folder = tmp_path / "archives"
    files = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder)}}
    settings.STORAGES = {**settings.STORAGES, "archives": files}
    configure(RETENTION={"expired": 0}, ARCHIVE_STORAGE="archives")
    # The file is there, and what it has is erased, but for the commit.
    kill("archive", **inside(r"UPDATE.*SESSION_ARCHIVED"), TEST_ARCHIVES=str(folder))
    assert not ChatSession.objects.filter(status=Status.ARCHIVED).exists()
    assert_whole(*gone, *others)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1
    # The time comes when nobody takes the dead process to be at it.
    Archive.objects.update(leased_until=F("created_at"))
    sweep_until_done("archive")
    sweep_until_done("archive")
    assert set(ChatSession.objects.filter(status=Status.ARCHIVED)) == set(gone)
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    kept = {archive.name: archive for archive in Archive.objects.all()}
    assert set(paths) == set(kept)
    assert {archive.session_id for archive in kept.values()} == {session.pk for session in gone}
    for name, path in paths.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == kept[name].sha256
    assert_whole(*others)
    assert_sound()


@WHERE
def test_sessions_are_deleted_whole_or_not_at_all(
    over: tuple[list[ChatSession], list[ChatSession]],
    kill: Callable[..., None],
    configure: Callable[..., None],
    is_between: bool,
) -> None:
    configure(RETENTION={"expired": 0, "action": "delete"})
    gone, others = over
    kill("purge", **(BETWEEN if is_between else inside(r"DELETE FROM chat_sessions_(chatsession|run) ")))
    left = ChatSession.objects.filter(pk__in=[session.pk for session in gone])
    assert left.count() == 12 - BATCH * is_between
    assert_whole(*left, *others)
    assert_sound()
    sweep_until_done("purge")
    assert not left.all().exists()
    assert_whole(*others)
    assert_sound()


@pytest.mark.postgres
@pytest.mark.parametrize("broker", [pytest.param("amqp", marks=pytest.mark.services("amqp"))], indirect=True)
def test_what_a_worker_was_at_when_it_was_killed_is_done_by_the_next(
    alice: Any, broker: Broker, start: Callable[..., Process], stay: Stay
) -> None:
    due, others = make_due(alice, 23), make(alice, 3)
    pool = ("worker", "--concurrency", "2", "--without-gossip", "--without-mingle")
    host = {"DJANGO_SETTINGS_MODULE": "tests.faults.host"}
    doomed = start(*pool, "--hostname", "doomed@%h", **host, **inside(r"UPDATE.*SESSION_EXPIRED"))
    doomed.hear(" ready.")
    broker.send("chat_sessions.expire")
    child = stay.wait()
    assert child in children(doomed)
    # A child alone: the worker has another, which takes the next task, and stays as well.
    os.kill(child, KILL)
    stay.end()
    eventually(lambda: child not in children(doomed) and len(children(doomed)) == 2, "another child", PATIENCE)
    assert expired(*due) == 0
    broker.send("chat_sessions.expire")
    numbers = [stay.wait(), doomed.popen.pid, *children(doomed)]
    for number in numbers:
        os.kill(number, KILL)
    doomed.popen.wait(10)
    eventually(lambda: not any(map(is_there, numbers)), "all of it to be gone", PATIENCE)
    assert expired(*due) == 0
    start(*pool, "--hostname", "next@%h", **host).hear(" ready.")
    broker.send("chat_sessions.expire")
    eventually(lambda: are_expired(*due), "the next worker to finish", PATIENCE)
    assert expired(*others) == 0
    assert_whole(*due, *others)
    assert_sound()


def children(process: Process) -> list[int]:
    path = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
    return [int(number) for number in path.read_text().split()]
