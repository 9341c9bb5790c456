"""Restoring: what was archived comes back, sequence for sequence, or nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.utils import timezone

from django_chat_sessions.agents import Message
from django_chat_sessions.choices import Status
from django_chat_sessions.exceptions import (
    ArchiveDamaged,
    ArchiveNotFound,
    ArchiveUnavailable,
    LegalHold,
    SessionNotFound,
)
from django_chat_sessions.models import Archive, ChatSession
from django_chat_sessions.operations import (
    expiry,
    figures,
    files,
    messages,
    opening,
    privacy,
    restoring,
    sessions,
    verification,
)
from django_chat_sessions.testing import age, make_session, say
from tests.operations.archives import Away, archive, doing, everything, over, shelf, skeleton, whole
from tests.operations.reading import fresh, last, texts, types
from tests.operations.test_archiving import CONTENT, STRANGE, at_once, stored, told

__all__ = ["at_once", "stored", "told"]

pytestmark = pytest.mark.usefixtures("stored")


def archived(session: ChatSession) -> ChatSession:
    assert archive().count == 1
    return fresh(session)


def test_everything_comes_back_sequence_for_sequence(told: ChatSession) -> None:
    before, state, figured = whole(told), fresh(told).state, figures.summarize(told)
    read = list(messages.everything(told))
    session = restoring.restore(archived(told))
    assert whole(session, up_to=len(before)) == before
    assert list(messages.everything(session)) == read
    assert types(session)[len(before) :] == ["session.archived", "session.restored"]
    assert last(session).data == {"status": "ended", "state": state}
    assert (session.status, session.state, session.end_reason) == (Status.ENDED, state, "in-reason")
    assert (fresh(session).status, fresh(session).state) == (Status.ENDED, state)
    assert verification.verify(session) == []
    counted = figures.summarize(session)
    assert (counted.events_by_type.pop("session.archived"), counted.events_by_type.pop("session.restored")) == (1, 1)
    assert counted == figured


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_comes_back(alice: Any, text: str) -> None:
    session = make_session(alice, agent="silent", state={text: [text, 1, 1.0, -0.5, None, True, 10**20]})
    messages.append(session, Message("user", text, parts=[{"type": text or "x"}], metadata={text: text}))
    messages.append(session, Message("user", "named", external_id=f"{text}!"))
    messages.record(session, "app.x", {text: {"deep": [text]}})
    before = whole(sessions.end(session))
    session = restoring.restore(archived(session))
    assert whole(session, up_to=len(before)) == before
    assert session.state == before[0]["data"]["state"]


@pytest.mark.parametrize("status", ["expired", "ended", "failed"])
def test_it_is_again_what_it_was_before(alice: Any, status: str) -> None:
    session = make_session(alice, agent="silent")
    if status == "expired":
        age(session, days=1)
        expiry.expire()
    else:
        (sessions.end if status == "ended" else sessions.fail)(session)
    ended_at = fresh(session).ended_at
    session = restoring.restore(archived(session))
    assert (session.status, session.ended_at) == (status, ended_at)


def test_a_log_of_several_pages_comes_back(alice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAGE", 3)
    monkeypatch.setattr(restoring, "PAGE", 2)
    session = over(alice, *"abcdefg")
    before = whole(session)
    assert whole(restoring.restore(archived(session)), up_to=len(before)) == before


def test_its_retention_counts_anew(alice: Any, configured: Callable[..., None]) -> None:
    configured(RETENTION={"ended": 2})
    session = age(over(alice), days=3)
    ChatSession.objects.update(ended_at=last(session).data["ended_at"])
    session = age(archived(session), days=3)
    ChatSession.objects.update(ended_at=session.events.get(type="session.ended").data["ended_at"])
    session = restoring.restore(fresh(session))
    assert session.settled_at is not None
    assert timezone.now() - session.settled_at < timedelta(minutes=1)
    assert archive().count == 0
    ChatSession.objects.update(settled_at=timezone.now() - timedelta(days=2, seconds=1))
    assert archive().count == 1


def test_it_can_be_archived_and_restored_again(told: ChatSession) -> None:
    before = whole(told)
    first = restoring.restore(archived(told))
    again = whole(first)
    assert [marker for marker in CONTENT if marker not in everything() and marker != "in-withdrawn"] == [
        "in-request",
        "in-chunk",
    ]
    session = archived(told)
    assert [marker for marker in CONTENT if marker in everything()] == []
    assert verification.verify(session) == []
    session = restoring.restore(session)
    assert whole(session, up_to=len(again)) == again
    assert whole(session, up_to=len(before)) == before
    assert verification.verify(session) == []


def test_a_hold_comes_with_it(alice: Any) -> None:
    session = restoring.restore(archived(over(alice)), hold=True)
    assert session.is_held
    assert types(session)[-2:] == ["session.restored", "session.held"]
    assert archive().count == 0
    with pytest.raises(LegalHold):
        sessions.delete(session)


def test_a_held_session_can_be_restored_and_is_not_held_twice(alice: Any) -> None:
    session = archived(over(alice))
    privacy.hold(session)
    restoring.restore(session, hold=True)
    assert session.is_held
    assert types(session).count("session.held") == 1


def test_what_happened_after_archiving_stays(alice: Any) -> None:
    session = archived(over(alice))
    sessions.change(session, title="Renamed")
    sessions.rotate(session)
    restoring.restore(session)
    assert session.title == "Renamed"
    assert types(session)[-4:] == ["session.archived", "session.changed", "session.changed", "session.restored"]


def test_its_file_is_removed_by_the_next_sweep(alice: Any, configured: Callable[..., None]) -> None:
    session = restoring.restore(archived(over(alice)))
    assert len(shelf().files()) == 1
    configured(RETENTION={"ended": None})
    archive()
    assert (shelf().files(), Archive.objects.count()) == ([], 0)
    assert texts(session) == ["Hello"]


def test_a_restored_session_reads_and_forks_as_before(alice: Any) -> None:
    session = restoring.restore(archived(over(alice, "one", "two")))
    fork = opening.fork(session)
    assert texts(fork) == ["one", "two"]
    assert fork.state == {"working": "on it"}
    assert opening.fork(session, at=3).state == {}


# ---------------------------------------------------------------------------------------------------- what is refused


def unchanged(session: ChatSession, kept: list[dict[str, Any]]) -> bool:
    return fresh(session).status == Status.ARCHIVED and whole(session) == kept and Archive.objects.count() >= 1


def test_what_is_not_archived_is_not_restored(alice: Any) -> None:
    for session in (make_session(alice), over(alice)):
        before = whole(session)
        with pytest.raises(ArchiveNotFound):
            restoring.restore(session)
        assert whole(session) == before


def test_what_was_not_stored_is_not_restored(alice: Any, configured: Callable[..., None]) -> None:
    configured(ARCHIVE_STORAGE=None)
    session = archived(over(alice))
    with pytest.raises(ArchiveNotFound):
        restoring.restore(session)


def test_nothing_is_restored_twice(alice: Any) -> None:
    session = archived(over(alice))
    restoring.restore(fresh(session))
    with pytest.raises(ArchiveNotFound):
        restoring.restore(session)
    assert types(session).count("session.restored") == 1


def test_who_restores_at_the_same_time_is_told(alice: Any) -> None:
    session = archived(over(alice))
    other = fresh(session)
    restored = []

    def overtake(name: str) -> None:
        if not restored:
            restored.append(None)
            restoring.restore(other)

    with doing(opening=overtake), pytest.raises(ArchiveNotFound):
        restoring.restore(session)
    assert types(session).count("session.restored") == 1


def test_what_is_gone_is_not_restored(alice: Any) -> None:
    session = archived(over(alice))
    with doing(opening=lambda name: sessions.delete(fresh(session))), pytest.raises(SessionNotFound):
        restoring.restore(session)


def _flip(name: str) -> None:
    data = bytearray(shelf().read(name))
    data[len(data) // 2] ^= 1
    shelf().write(name, bytes(data))


@pytest.mark.parametrize(
    "spoil",
    [_flip, lambda name: shelf().cut(name), lambda name: shelf().write(name, b""), lambda name: shelf().delete(name)],
    ids=["one bit", "half of it", "nothing in it", "gone"],
)
def test_a_damaged_file_restores_nothing(alice: Any, spoil: Callable[[str], None]) -> None:
    session = archived(over(alice))
    kept = whole(session)
    spoil(Archive.objects.get().name)
    with pytest.raises(ArchiveDamaged):
        restoring.restore(session)
    assert unchanged(session, kept)


def test_the_file_of_another_session_restores_nothing(alice: Any) -> None:
    first, second = over(alice, "one"), over(alice, "two")
    archive()
    other = Archive.objects.get(session=second)
    kept = whole(first)
    Archive.objects.filter(session=first).update(name="elsewhere")
    Archive.objects.filter(pk=other.pk).update(session=None)
    Archive.objects.filter(name="elsewhere").update(session=first, sha256=other.sha256)
    Archive.objects.filter(pk=other.pk).update(name="moved")
    Archive.objects.filter(session=first).update(name=other.name)
    with pytest.raises(ArchiveDamaged, match="not of this session"):
        restoring.restore(fresh(first))
    assert unchanged(first, kept)


@pytest.mark.usefixtures("spoilt")
def test_a_log_with_another_skeleton_takes_no_content(alice: Any) -> None:
    session = archived(over(alice, "one", "two"))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("UPDATE chat_sessions_sessionevent SET role = 'system' WHERE sequence = 3")
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = origin")
    kept = whole(session)
    with pytest.raises(ArchiveDamaged, match="not of this log"):
        restoring.restore(session)
    assert unchanged(session, kept)


def test_a_file_of_a_later_format_is_refused(alice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "VERSION", 2)
        session = archived(over(alice))
    with pytest.raises(ArchiveDamaged, match="format"):
        restoring.restore(session)
    assert fresh(session).status == Status.ARCHIVED


def test_a_storage_that_is_away_is_told_from_a_file_that_is_gone(alice: Any, settings: Any) -> None:
    session = archived(over(alice))
    kept = whole(session)

    def fail(name: str) -> None:
        raise Away

    with doing(opening=fail), pytest.raises(ArchiveUnavailable):
        restoring.restore(session)
    settings.STORAGES = {name: value for name, value in settings.STORAGES.items() if name != "archives"}
    with pytest.raises(ArchiveUnavailable, match="archives"):
        restoring.restore(session)
    assert unchanged(session, kept)


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_the_storage_gives_the_file(alice: Any) -> None:
    restoring.restore(archived(over(alice)))
    assert shelf().in_transactions == []


@pytest.mark.django_db(transaction=True)
def test_async_code_restores_too(alice: Any) -> None:
    session = archived(over(alice))

    async def restore() -> ChatSession:
        try:
            return await restoring.arestore(session)
        finally:
            await sync_to_async(connections.close_all)()

    assert asyncio.run(restore()).status == Status.ENDED


def test_what_is_restored_says_the_skeleton_that_it_had(told: ChatSession) -> None:
    kept = skeleton(told)
    session = archived(told)
    say(make_session(told.owner, agent="silent"), "Another session meanwhile.")
    assert skeleton(restoring.restore(session), up_to=len(kept)) == kept
