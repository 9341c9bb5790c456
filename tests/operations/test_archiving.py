"""Archiving: what goes, what stays, and the file that is there before anything goes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_chat_sessions import log
from django_chat_sessions.agents import Message, ToolCall, ToolResult
from django_chat_sessions.batches import Due
from django_chat_sessions.choices import EventType, RetentionAction, Status
from django_chat_sessions.exceptions import SessionEnded
from django_chat_sessions.models import Archive, ChatSession, OutboxEntry, Run, RunChunk, SessionEvent
from django_chat_sessions.operations import (
    archiving,
    cleaning,
    compaction,
    context,
    expiry,
    figures,
    files,
    leases,
    messages,
    opening,
    privacy,
    purging,
    retention,
    runs,
    sessions,
    unwanted,
    verification,
)
from django_chat_sessions.operations.sweeping import FAILURES
from django_chat_sessions.testing import age, make_session, say
from tests.operations.archives import (
    Away,
    age_leases,
    archive,
    doing,
    everything,
    lines,
    over,
    shelf,
    skeleton,
    whole,
)
from tests.operations.reading import fresh, last, types

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def at_once(configured: Callable[..., None]) -> None:
    """Let nothing be kept that is over."""
    configured(RETENTION={"ended": 0, "expired": 0, "failed": 0})


@pytest.fixture
def stored(at_once: None, settings: Any, configured: Callable[..., None], tmp_path: Path) -> None:
    """Let archives be written to a storage in a directory."""
    options = {"location": str(tmp_path / "archives")}
    backend = {"BACKEND": "tests.operations.archives.Shelf", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "archives": backend}
    configured(ARCHIVE_STORAGE="archives")


# --------------------------------------------------------------------------------------------- what goes, what stays

#: Planted in one place of a session each; none of it may survive.
CONTENT = (
    "in-content", "in-part", "in-message-metadata", "in-message-name", "in-edited", "in-history", "in-withdrawn",
    "in-opening-state", "in-state", "in-patch", "in-app-event", "in-call", "in-result", "in-answer", "in-run-state",
    "in-summary", "in-request", "in-chunk", "in-run-event",
)  # fmt: skip
#: Planted where it is metadata, which stays.
METADATA = ("in-title", "in-tag", "in-metadata", "in-environment", "in-reason", "in-session-name")


@pytest.fixture
def told(alice: Any, agent: Callable[..., Any]) -> ChatSession:
    """Return a session that is over, to which everything has happened, with something to be found in each place."""

    def respond(turn: Any) -> Any:
        yield ToolCall("1", "look", {"for": "in-call"})
        yield ToolResult("1", "in-result", "look")
        turn.record("app.looked", {"found": ["in-run-event"]})
        turn.state["answered"] = "in-run-state"
        yield "in-answer"

    agent("told", respond, window_messages=2, summarize=lambda said, so_far: "in-summary")
    session = make_session(
        alice,
        agent="told",
        title="in-title",
        tags=["in-tag"],
        metadata={"k": "in-metadata"},
        environment={"k": "in-environment"},
        external_id="in-session-name",
        state={"k": "in-opening-state"},
        messages=[Message("user", "in-history")],
    )
    part = {"type": "file", "name": "in-part"}
    meta = {"in-message-metadata": 1}
    message = Message("user", "in-content", parts=[part], metadata=meta, external_id="in-message-name")
    said = messages.append(session, message).message
    messages.edit(session, said.sequence or 0, "in-edited")
    messages.withdraw(session, say(session, "in-withdrawn").sequence or 0)
    sessions.change_state(session, {"k": "in-state", "in-patch": {"deep": [1]}})
    messages.record(session, "app.noted", {"in-app-event": True})
    runs.ask(session, Message("user", "And?"))
    for text in ("one", "two", "three"):
        say(session, text)
    assert compaction.compact(session) is not None
    sessions.end(session, reason="in-reason")
    run = Run.objects.get()
    Run.objects.update(context={"text": "in-request"})
    RunChunk.objects.create(session=session, run=run, sequence=1, index=99, text="in-chunk", created_at=timezone.now())
    return session


@pytest.mark.usefixtures("at_once")
def test_no_content_survives_archiving_and_all_metadata_does(told: ChatSession) -> None:
    before, kept, figured = everything(), skeleton(told), figures.summarize(told)
    assert [marker for marker in (*CONTENT, *METADATA) if marker not in before and marker != "in-withdrawn"] == []
    assert archive().count == 1
    after = everything()
    assert [marker for marker in CONTENT if marker in after] == []
    assert [marker for marker in METADATA if marker not in after] == []
    session = fresh(told)
    assert (session.status, session.state, session.title) == (Status.ARCHIVED, {}, "in-title")
    assert skeleton(session, up_to=session.last_sequence - 1) == kept
    assert last(session).data == {"reason": "retention", "stored": False}
    assert verification.verify(session) == []
    counted = figures.summarize(session)
    assert counted.events_by_type.pop("session.archived") == 1
    assert counted == figured


#: What archiving does to the content, data and external id of an event of each type.
GOES, STATELESS, STAYS = "goes", "stateless", "stays"
FATES = {
    EventType.SESSION_CREATED: STATELESS,
    EventType.SESSION_CHANGED: STAYS,
    EventType.SESSION_RESUMED: STAYS,
    EventType.SESSION_RENEWED: STAYS,
    EventType.SESSION_TIMEOUT_CHANGED: STAYS,
    EventType.SESSION_EXPIRING: STAYS,
    EventType.SESSION_EXPIRED: STAYS,
    EventType.SESSION_ENDED: STATELESS,
    EventType.SESSION_FAILED: STATELESS,
    EventType.SESSION_SUPERSEDED: STAYS,
    EventType.SESSION_FORKED: STAYS,
    EventType.SESSION_CLAIMED: STAYS,
    EventType.SESSION_HELD: STAYS,
    EventType.SESSION_RELEASED: STAYS,
    EventType.SESSION_ARCHIVED: STAYS,
    EventType.SESSION_RESTORED: STATELESS,
    EventType.STATE_CHANGED: GOES,
    EventType.CONTENT_ERASED: STAYS,
    EventType.CONTEXT_COMPACTED: GOES,
    EventType.MESSAGE: GOES,
    EventType.MESSAGE_EDITED: GOES,
    EventType.MESSAGE_DELETED: STAYS,
    EventType.RUN_STARTED: STAYS,
    EventType.RUN_SUCCEEDED: STAYS,
    EventType.RUN_FAILED: STAYS,
    EventType.RUN_CANCELLED: STAYS,
    "app.anything": GOES,
}


def test_the_fate_of_every_type_of_event_is_decided() -> None:
    assert set(FATES) == {*EventType, "app.anything"}


@pytest.mark.usefixtures("at_once", "spoilt")
def test_events_are_erased_by_their_type() -> None:
    session = over()
    entries = [
        log.Entry(type=type_, data={"state": {"s": 1}, "metadata": {"m": 1}, "other": 2}, position=1000 + number)
        for number, type_ in enumerate(FATES)
    ]
    first = session.last_sequence + 1
    log.insert("default", ((session.pk, first + n, entry) for n, entry in enumerate(entries)), now=timezone.now())
    ChatSession.objects.filter(pk=session.pk).update(last_sequence=first + len(entries) - 1)
    archive()
    found = dict(session.events.filter(sequence__gte=first, position__gte=1000).values_list("type", "data"))
    stays = {"state": {"s": 1}, "metadata": {"m": 1}, "other": 2}
    stateless = {"metadata": {"m": 1}, "other": 2}
    message, rest = {"erased": True, "metadata": {"erased": True}}, {"erased": True}
    for type_, fate in FATES.items():
        gone = message if type_ in {EventType.MESSAGE, EventType.MESSAGE_EDITED} else rest
        assert found[type_] == {GOES: gone, STATELESS: stateless, STAYS: stays}[fate], type_


@pytest.mark.usefixtures("at_once")
def test_an_archived_session_reads_as_a_skeleton(told: ChatSession, alice: Any, api_of: Any) -> None:
    api, path = api_of(alice), f"/sessions/{told.uuid}"
    base = _base(api, told)
    before = api.get(f"{base}{path}/messages").json()["messages"]
    archive()
    after = api.get(f"{base}{path}/messages").json()["messages"]
    assert [message["sequence"] for message in after] == [message["sequence"] for message in before]
    assert {message["content"] for message in after} == {""}
    assert [message["metadata"] for message in after] == [{"erased": True}] * len(before)
    assert {str(message["parts"]) for message in after} == {"[]"}
    assert [message["role"] for message in after] == [message["role"] for message in before]
    assert api.get(f"{base}{path}/state").json()["state"] == {}
    window = api.get(f"{base}{path}/context").json()
    assert ({message["content"] for message in window["messages"]}, window["summary"]) == ({""}, None)
    for name in ("summary", "events", "runs", "export"):
        response = api.get(f"{base}{path}/{name}")
        assert response.status_code == 200
        body = b"".join(response.streaming_content) if response.streaming else response.content
        assert [marker for marker in CONTENT if marker.encode() in body] == []
    assert api.get(f"{base}/sessions?search=in-answer").json()["results"] == []
    assert len(api.get(f"{base}/sessions?search=in-title").json()["results"]) == 1


def _base(api: Any, session: ChatSession) -> str:
    from django.urls import reverse

    return reverse("chat_sessions:session-detail", args=[session.uuid]).rpartition("/sessions/")[0]


@pytest.mark.usefixtures("at_once")
def test_nothing_continues_from_what_was_archived(alice: Any, api_of: Any) -> None:
    session = over(alice)
    archive()
    with pytest.raises(SessionEnded) as refused:
        opening.fork(session)
    assert refused.value.status == Status.ARCHIVED
    with pytest.raises(SessionEnded):
        opening.fork(session, at=2)
    with pytest.raises(SessionEnded):
        opening.open(alice, agent="silent", continue_from=session)
    api = api_of(alice)
    response = api.post(f"{_base(api, session)}/sessions/{session.uuid}/fork")
    assert (response.status_code, response.json()["code"]) == (409, "session_ended")
    assert ChatSession.objects.count() == 1


@pytest.mark.usefixtures("at_once")
def test_the_owner_may_still_rename_and_delete_what_was_archived(alice: Any) -> None:
    session = over(alice)
    archive()
    sessions.change(session, title="Another")
    assert fresh(session).title == "Another"
    sessions.delete(session)
    assert not ChatSession.objects.exists()


# ---------------------------------------------------------------------------------------------------------- the file

STRANGE = ("a\0b", "\ud800", "\ud83d" + "\ude00", "\ufdd0", "\ufdd0d800", "😀", "\u2028\n\r\x85", '"\\')


@pytest.mark.usefixtures("stored")
def test_the_whole_log_is_in_a_file_before_it_is_erased(told: ChatSession) -> None:
    before, state = whole(told), fresh(told).state
    assert archive().count == 1
    row = Archive.objects.get()
    assert shelf().files() == [row.name]
    data = shelf().read(row.name)
    assert (row.sha256, row.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (row.session, row.storage, row.events) == (told, "archives", len(before))
    assert row.written_at is not None
    header, *events = lines(row.name)
    assert header == {
        "format": files.FORMAT,
        "version": 1,
        "session": str(told.uuid),
        "status": "ended",
        "state": state,
        "events": len(before),
    }
    assert events == [json.loads(json.dumps(files.plain(event))) for event in before]
    said = {"reason": "retention", "stored": True, "sha256": row.sha256, "events": len(before)}
    assert last(fresh(told)).data == said
    assert [marker for marker in CONTENT if marker in everything()] == []


def test_a_file_has_every_column_of_an_event() -> None:
    columns = {field.attname for field in SessionEvent._meta.concrete_fields}
    assert set(files.COLUMNS) == columns - {"id", "session_id"}


@pytest.mark.usefixtures("stored")
def test_a_file_has_a_name_that_nobody_guesses_below_its_date(alice: Any) -> None:
    first, second = over(alice), over(alice)
    archive()
    names = {row.session_id: row.name for row in Archive.objects.all()}
    for session in (first, second):
        folder, _, name = names[session.pk].rpartition("/")
        assert folder == f"chat_sessions/{timezone.now():%Y/%m/%d}"
        public_id, _, token = name.removesuffix(".jsonl.gz").rpartition("-")
        assert (public_id, len(token)) == (str(session.uuid), 32)
    assert len({name.removesuffix(".jsonl.gz")[-32:] for name in names.values()}) == 2


@pytest.mark.usefixtures("stored")
def test_the_same_log_is_the_same_file(alice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = over(alice, *STRANGE)
    made = []
    for name, instant in (("one", 1e9), ("two", 2e9)):
        monkeypatch.setattr("time.time", lambda instant=instant: instant)
        with (tmp_path / name).open("w+b") as file:
            made.append(files.spool(session, file))
    assert made[0] == made[1]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.usefixtures("stored")
def test_a_long_log_is_written_with_little_memory(alice: Any, tmp_path: Path) -> None:
    session = make_session(alice, agent="silent")
    number, size = 4000, 4000
    entries = (log.Entry(type="app.x", data={"t": "x" * size}) for _ in range(number))
    log.insert("default", ((session.pk, 2 + n, entry) for n, entry in enumerate(entries)), now=timezone.now())
    ChatSession.objects.filter(pk=session.pk).update(last_sequence=number + 1)
    session.refresh_from_db()
    with (tmp_path / "log").open("w+b") as file:
        tracemalloc.start()
        written = files.spool(session, file)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert written.events == number + 1
    assert peak < number * size / 3


@pytest.mark.usefixtures("stored", "spoilt")
def test_a_log_with_a_gap_is_not_archived(caplog: pytest.LogCaptureFixture) -> None:
    session = over()
    ChatSession.objects.filter(pk=session.pk).update(last_sequence=session.last_sequence + 1)
    assert archive().count == 0
    assert fresh(session).status == Status.ENDED
    assert "ArchiveDamaged" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stored")
def test_no_transaction_is_open_while_the_storage_is_asked(alice: Any) -> None:
    for _ in range(2):
        over(alice)
    archive()
    sessions.delete(ChatSession.objects.all()[0])
    archive()
    assert len(shelf().files()) == 1
    assert shelf().in_transactions == []


@pytest.mark.usefixtures("stored")
def test_a_limit_and_whoever_watches_end_it_without_leaving_a_lease(alice: Any) -> None:
    for _ in range(4):
        over(alice)
    assert archive(limit=1).count == 1
    assert archive(watch=lambda swept: swept.count < 2).count == 2
    assert Archive.objects.count() == len(shelf().files()) == 3
    assert archive().count == 1


@pytest.mark.usefixtures("stored")
def test_where_nothing_is_due_the_storage_is_not_asked(alice: Any, django_assert_max_num_queries: Any) -> None:
    make_session(alice)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    with doing(saving=refuse, opening=refuse, deleting=refuse), django_assert_max_num_queries(12):
        assert archive().count == 0


@pytest.mark.usefixtures("stored")
def test_without_the_storage_later_what_was_stored_stays_and_is_removed(alice: Any, configured: Any) -> None:
    session, other = over(alice), over(alice)
    archive()
    configured(ARCHIVE_STORAGE=None)
    third = over(alice)
    archive()
    assert last(fresh(third)).data["stored"] is False
    sessions.delete(session)
    archive()
    assert shelf().files() == [Archive.objects.get(session=other).name]


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.usefixtures("stored")
def test_what_cannot_be_stored_keeps_its_content_and_holds_nobody_up(
    alice: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (over(alice, text) for text in ("one", "secret", "three"))
    before = whole(second)

    def fail(name: str) -> None:
        if str(second.uuid) in name:
            raise Away("secret")

    with doing(saving=fail):
        assert archive().count == 2
        assert archive().count == 0  # it is left alone for a while
    assert [fresh(session).status for session in (first, second, third)] == ["archived", "ended", "archived"]
    assert whole(second) == before
    assert "Away" in caplog.text
    assert str(second.uuid) in caplog.text
    assert "secret" not in caplog.text
    assert Archive.objects.get(session=second).leased_until > timezone.now() + timedelta(minutes=50)
    age_leases()
    assert archive().count == 1
    assert len(shelf().files()) == Archive.objects.count() == 3


@pytest.mark.usefixtures("stored")
def test_a_storage_that_is_away_is_not_asked_for_every_session(alice: Any) -> None:
    for _ in range(FAILURES + 3):
        over(alice)
    asked = []

    def fail(name: str) -> None:
        asked.append(name)
        raise Away

    with doing(saving=fail):
        assert archive().count == 0
    assert len(asked) == FAILURES
    assert archive().count == 3


@pytest.mark.usefixtures("stored")
def test_failures_that_do_not_follow_each_other_are_of_their_sessions(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "FAILURES", 2)
    for _ in range(6):
        over(alice)
    asked: list[str] = []

    def fail(name: str) -> None:
        asked.append(name)
        if len(asked) % 2:
            raise Away

    with doing(saving=fail):
        assert archive().count == 3
    assert len(asked) == 6


@pytest.mark.usefixtures("stored")
def test_files_that_cannot_be_removed_do_not_keep_others_from_being_written(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwanted, "FAILURES", 2)
    gone = [over(alice) for _ in range(6)]
    archive()
    for session in gone:
        sessions.delete(fresh(session))
    over(alice)
    asked: list[str] = []

    def fail(name: str) -> None:
        asked.append(name)
        raise Away

    with doing(deleting=fail):
        assert archive().count == 1
    assert len(asked) == 4  # two before, and two after


def _change(session: ChatSession) -> None:
    sessions.change(ChatSession.objects.get(pk=session.pk), title="Renamed")


def _hold(session: ChatSession) -> None:
    privacy.hold(ChatSession.objects.get(pk=session.pk))


def _delete(session: ChatSession) -> None:
    sessions.delete(ChatSession.objects.get(pk=session.pk))


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("happens", [_change, _hold, _delete])
def test_what_happens_while_the_file_is_written_counts(alice: Any, happens: Callable[[ChatSession], None]) -> None:
    session = over(alice)
    before = whole(session)
    with doing(saved=lambda name: happens(session)):
        assert archive().count == 0
    assert shelf().files() == []
    assert not Archive.objects.exists()
    if happens is not _delete:
        assert fresh(session).status == Status.ENDED
        assert whole(session)[: len(before)] == before
    assert archive().count == (1 if happens is _change else 0)
    if happens is _change:
        assert lines(Archive.objects.get().name)[-1]["data"] == {"title": "Renamed"}


@pytest.mark.usefixtures("stored")
def test_a_file_that_the_storage_names_otherwise_is_found_under_that_name(alice: Any) -> None:
    session = over(alice)
    with doing(saved=lambda name: shelf().rename(name)):
        assert archive().count == 1
    row = Archive.objects.get()
    assert shelf().files() == [row.name]
    assert row.name.startswith("renamed-")
    sessions.delete(session)
    archive()
    assert shelf().files() == []


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    "spoil",
    [lambda name: shelf().cut(name), lambda name: shelf().write(name, shelf().read(name)[::-1])],
    ids=["half of it", "something else"],
)
def test_what_the_storage_does_not_give_back_is_not_erased(alice: Any, spoil: Callable[[str], None]) -> None:
    session = over(alice)
    before = whole(session)
    with doing(saved=spoil):
        assert archive().count == 0
    assert (fresh(session).status, whole(session)) == (Status.ENDED, before)
    age_leases()
    assert archive().count == 1
    assert shelf().files() == [Archive.objects.get().name]


@pytest.mark.usefixtures("stored")
def test_a_session_that_somebody_else_writes_is_left_to_them(alice: Any) -> None:
    over(alice)
    counts = []
    with doing(saving=lambda name: counts.append(archive().count) if not counts else None):
        assert archive().count == 1
    assert counts == [0]
    assert len(shelf().files()) == 1


@pytest.mark.usefixtures("stored")
def test_who_took_too_long_leaves_no_second_file(alice: Any) -> None:
    session = over(alice)
    counts = []

    def overtake(name: str) -> None:
        if not counts:
            counts.append(None)
            age_leases()
            counts[0] = archive().count

    with doing(saving=overtake):
        assert archive().count == 0
    assert counts == [1]
    assert shelf().files() == [Archive.objects.get(session=session).name]
    assert types(session).count("session.archived") == 1


@pytest.mark.usefixtures("stored")
def test_nothing_is_erased_by_who_has_lost_the_session_to_another(alice: Any) -> None:
    session = over(alice)
    before = whole(session)
    taken: list[leases.Lease | None] = []

    def overtake(name: str) -> None:
        age_leases()
        taken.append(leases.take("default", _due, shelf(), "archives"))

    with doing(saving=overtake):
        assert archive().count == 0
    assert (fresh(session).status, whole(session)) == (Status.ENDED, before)
    assert [row.pk for row in Archive.objects.all()] == [lease.archive.pk for lease in taken if lease]
    assert shelf().files() == []


def _due(now: datetime) -> Due:
    return retention.due("default", now, RetentionAction.ARCHIVE)[0]


@pytest.mark.usefixtures("stored")
def test_a_refusal_of_the_database_is_of_one_session(
    alice: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison, other = over(alice), over(alice)
    erase = archiving.logs.erase

    def refuse(using: str, ids: Any) -> None:
        if poison.pk in ids:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO chat_sessions_archive (id) VALUES (1)")
        erase(using, ids)

    monkeypatch.setattr(archiving.logs, "erase", refuse)
    assert archive().count == 1
    assert (fresh(poison).status, fresh(other).status) == (Status.ENDED, Status.ARCHIVED)
    assert "IntegrityError" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stored")
def test_several_workers_at_once_write_each_log_once(alice: Any) -> None:
    talks = [over(alice, str(number)) for number in range(12)]
    counts: list[int] = []

    def work() -> None:
        try:
            counts.append(archive().count)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert (len(counts), sum(counts)) == (3, 12)
    assert shelf().files() == sorted(Archive.objects.values_list("name", flat=True))
    assert Archive.objects.filter(session__in=talks, written_at__isnull=False).count() == 12
    assert [types(session).count("session.archived") for session in talks] == [1] * 12


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stored")
def test_a_worker_that_is_killed_between_file_and_transaction_loses_nothing(
    alice: Any, subprocess_environment: dict[str, str], tmp_path: Path
) -> None:
    session = over(alice)
    before = whole(session)
    settings = {
        "DJANGO_SETTINGS_MODULE": "tests.operations.archive_settings",
        "TEST_ARCHIVES": str(tmp_path / "archives"),
        "TEST_CHAT_SESSIONS": json.dumps({"RETENTION": {"ended": 0}, "ARCHIVE_STORAGE": "archives"}),
    }
    code = "import django; django.setup(); from django_chat_sessions.operations import archiving; archiving.archive()"
    killed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={**subprocess_environment, **settings}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr.decode()
    left = shelf().files()
    assert len(left) == 1
    assert left == [Archive.objects.get(session=session, written_at=None).name]
    assert (fresh(session).status, whole(session)) == (Status.ENDED, before)
    assert archive().count == 0  # as long as it may be at work
    age_leases()
    assert archive().count == 1
    assert shelf().files() == [Archive.objects.get(session=session).name]
    assert shelf().files() != left
    assert Archive.objects.count() == 1


# ------------------------------------------------------------------------------------------------- files that are to go


def _purge(session: ChatSession) -> None:
    age(ChatSession.objects.get(pk=session.pk), days=1)
    assert purging.purge().count == 1


def _delete_owner(session: ChatSession) -> None:
    session.owner.delete()


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("goes", [_purge, _delete, _delete_owner])
def test_the_file_goes_when_its_session_has_gone(
    alice: Any, configured: Callable[..., None], goes: Callable[[ChatSession], None]
) -> None:
    configured(RETENTION={"ended": 0, "archived": 0.5})
    session = over(alice)
    archive()
    assert len(shelf().files()) == 1
    goes(ChatSession.objects.get(pk=session.pk))
    assert not ChatSession.objects.exists()
    assert Archive.objects.get().session is None
    assert archive().count == 0
    assert (shelf().files(), Archive.objects.count()) == ([], 0)


@pytest.mark.usefixtures("stored")
def test_a_file_that_cannot_be_removed_is_tried_again_later_and_holds_nobody_up(
    alice: Any, caplog: pytest.LogCaptureFixture
) -> None:
    talks = [over(alice) for _ in range(3)]
    archive()
    stuck = Archive.objects.get(session=talks[0]).name
    for session in talks:
        sessions.delete(session)
    asked = []

    def fail(name: str) -> None:
        asked.append(name)
        if name == stuck:
            raise Away("secret")

    with doing(deleting=fail):
        archive()
        archive()
    assert len(asked) == 3
    assert shelf().files() == [stuck]
    assert "Away" in caplog.text
    assert "secret" not in caplog.text
    age_leases()
    archive()
    assert (shelf().files(), Archive.objects.count()) == ([], 0)


@pytest.mark.usefixtures("stored")
def test_a_file_that_is_gone_already_is_as_good_as_removed(alice: Any) -> None:
    session = over(alice)
    archive()
    name = Archive.objects.get().name
    sessions.delete(session)

    def remove_first(name: str) -> None:
        Path(shelf().path(name)).unlink()
        raise FileNotFoundError

    with doing(deleting=remove_first):
        archive()
    assert name not in shelf().files()
    assert not Archive.objects.exists()


@pytest.mark.usefixtures("stored")
def test_a_storage_that_is_no_longer_there_keeps_its_rows(
    alice: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    session = over(alice)
    archive()
    sessions.delete(session)
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "ARCHIVE_STORAGE": None}
    settings.STORAGES = {name: value for name, value in settings.STORAGES.items() if name != "archives"}
    archive()
    assert Archive.objects.count() == 1
    assert "InvalidStorageError" in caplog.text


# ------------------------------------------------------------------------------------- at other times than the sweeps'


@pytest.mark.usefixtures("stored")
def test_immediate_cleanup_stores_too(alice: Any, configured: Callable[..., None]) -> None:
    configured(CLEANUP="immediate", RETENTION={})
    session = age(make_session(alice, agent="silent"), days=1)
    expiry.expire()
    assert types(session) == ["session.created", "session.expired", "session.archived"]
    assert shelf().files() == [Archive.objects.get(session=session).name]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stored")
def test_lazy_cleanup_stores_too_without_a_transaction(alice: Any, configured: Callable[..., None]) -> None:
    configured(CLEANUP="lazy")
    session = age(make_session(alice, agent="silent"), days=1)
    assert archive().count == 0
    found = cleaning.on_access(session)
    assert (found.status, types(session)) == ("archived", ["session.created", "session.expired", "session.archived"])
    assert shelf().files() == [Archive.objects.get(session=session).name]
    assert shelf().in_transactions == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stored")
def test_lazy_cleanup_in_a_transaction_stores_after_it(alice: Any, configured: Callable[..., None]) -> None:
    configured(CLEANUP="lazy")
    session = over(alice)
    with transaction.atomic():
        assert cleaning.on_access(session).status == Status.ENDED
        assert not Archive.objects.exists()
    assert fresh(session).status == Status.ARCHIVED
    assert shelf().in_transactions == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stored")
def test_lazy_cleanup_gives_what_is_there_while_the_storage_is_away(alice: Any, configured: Any) -> None:
    configured(CLEANUP="lazy")
    session = over(alice)

    def fail(name: str) -> None:
        raise Away

    with doing(saving=fail):
        assert cleaning.on_access(session).status == Status.ENDED
    assert context.window(session).messages[0].content == "Hello"


@pytest.mark.usefixtures("stored")
def test_held_sessions_are_not_stored(alice: Any) -> None:
    privacy.hold(over(alice))
    swept = archive()
    assert (swept.count, swept.held) == (0, 1)
    assert shelf().files() == []


@pytest.mark.usefixtures("stored")
def test_a_lease_is_over_after_its_time(alice: Any) -> None:
    over(alice)
    lease = leases.take("default", _due, shelf(), "archives")
    assert lease is not None
    assert leases.take("default", _due, shelf(), "archives") is None
    age_leases()
    again = leases.take("default", _due, shelf(), "archives")
    assert again is not None
    assert again.archive.name != lease.archive.name
    assert not leases.is_held("default", lease)
    assert leases.is_held("default", again)


@pytest.mark.usefixtures("stored")
def test_content_waits_until_subscribers_were_told_of_it(alice: Any) -> None:
    session = over(alice)
    now = timezone.now()
    entry = OutboxEntry(session=session, sequence=2, subscriber="a.b", next_attempt_at=now, created_at=now)

    def post(name: str) -> None:
        OutboxEntry.objects.bulk_create([entry])

    with doing(saved=post):
        assert archive().count == 0
    assert archive().count == 0
    OutboxEntry.objects.update(set_aside_at=now)
    assert archive().count == 1
    assert shelf().files() == [Archive.objects.get().name]
