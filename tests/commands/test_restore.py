"""The command `chat_sessions restore`."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import archiving, sessions
from django_chat_sessions.testing import age, make_session, say

pytestmark = pytest.mark.django_db

NOBODYS = "2f0c9b0e-5d0f-4a53-9b7e-6c1c7f3f6f10"


@pytest.fixture(autouse=True)
def folder(settings, tmp_path: Path) -> Path:
    """Return the directory that archives are written to."""
    archives = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path)}}
    settings.STORAGES = {**settings.STORAGES, "archives": archives}
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "ARCHIVE_STORAGE": "archives"}
    return tmp_path


@pytest.fixture
def archived(alice) -> list[ChatSession]:
    found = [make_session(alice, agent="silent") for _ in range(3)]
    for number, session in enumerate(found):
        say(session, f"what was said in {number}")
        sessions.end(session)
        age(session, days=100)
    assert archiving.archive().count == 3
    for session in found:
        assert contents(session) == [""]
    return found


def restore(*args: str) -> tuple[str, str, str]:
    """Return what the command says, of what it complains, and how it fails."""
    out, errors = StringIO(), StringIO()
    try:
        call_command("chat_sessions", "restore", *args, stdout=out, stderr=errors)
    except CommandError as error:
        return out.getvalue(), errors.getvalue(), str(error)
    return out.getvalue(), errors.getvalue(), ""


def contents(session: ChatSession) -> list[str]:
    return list(session.events.filter(type="message").values_list("content", flat=True))


def test_an_archived_session_comes_back(archived):
    session = archived[1]
    session.refresh_from_db()
    events = session.last_sequence
    assert restore(str(session.uuid)) == (f"{session.uuid}: ended again, {events + 1} events\n", "", "")
    session.refresh_from_db()
    assert (session.status, session.is_held, contents(session)) == ("ended", False, ["what was said in 1"])
    assert contents(archived[0]) == [""]


def test_it_may_be_held_so_that_no_sweep_takes_it_again(archived):
    restore(str(archived[0].uuid), "--hold")
    archived[0].refresh_from_db()
    assert archived[0].is_held
    assert age(archived[0], days=500).status == "ended"
    assert archiving.archive().count == 0


def test_of_several_those_that_cannot_be_restored_are_named_and_the_others_come_back(archived, folder):
    first, damaged, last = archived
    [file] = folder.rglob(f"{damaged.uuid}*")
    file.write_bytes(file.read_bytes()[:-20])
    names = [str(session.uuid) for session in archived]
    out, errors, failure = restore(names[0], names[1], NOBODYS, "no-uuid", names[2], names[0])
    assert [line.partition(":")[0] for line in out.splitlines()] == [names[0], names[2]]
    complaints = dict(line.split(": ", 1) for line in errors.splitlines())
    assert list(complaints) == [names[1], NOBODYS, "no-uuid", names[0]]
    assert complaints[names[1]] == "The file of the archive does not have its checksum."
    assert complaints[NOBODYS] == f"There is no session {NOBODYS}."
    assert failure == "2 restored, 4 not."
    assert [contents(session) for session in (first, damaged, last)] == [
        ["what was said in 0"],
        [""],
        ["what was said in 2"],
    ]


def test_which_session_has_to_be_said():
    assert "required: UUID" in restore()[2]
