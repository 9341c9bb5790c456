"""The command `chat_sessions verify`."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_chat_sessions.management import progress
from django_chat_sessions.management import verifying as module
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import make_session, say

pytestmark = pytest.mark.django_db


def verify(*args, **options) -> str:
    out = StringIO()
    call_command("chat_sessions", "verify", *args, stdout=out, **options)
    return out.getvalue()


def spoil(session: ChatSession) -> None:
    ChatSession.objects.filter(pk=session.pk).update(title="somebody wrote past the log", message_count=7)


@pytest.fixture
def talks(alice):
    found = [make_session(alice, agent="silent", title=f"Talk {number}") for number in range(5)]
    for session in found:
        say(session, "hello")
    return found


def test_sound_logs_are_proven(talks):
    assert verify("--all") == "5 verified, 0 different.\n"


def test_no_sessions_are_sound():
    assert verify("--all") == "0 verified, 0 different.\n"


def test_each_difference_is_reported_and_the_command_fails(talks, capsys):
    spoil(talks[1])
    with pytest.raises(CommandError, match="5 verified, 1 different") as failure:
        call_command("chat_sessions", "verify", "--all")
    assert failure.value.returncode == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{talks[1].uuid} title: row 'somebody wrote past the log', log 'Talk 1'",
        f"{talks[1].uuid} message_count: row 7, log 1",
    ]


def test_one_session_is_verified_by_its_id(talks):
    spoil(talks[0])
    assert verify("--session", str(talks[2].uuid)) == "1 verified, 0 different.\n"


def test_several_sessions_are_verified_by_their_ids(talks):
    names = [part for session in talks[:2] for part in ("--session", str(session.uuid))]
    assert verify(*names) == "2 verified, 0 different.\n"


@pytest.mark.parametrize("name", ["no-uuid", "2f0c9b0e-5d0f-4a53-9b7e-6c1c7f3f6f10"])
def test_a_session_that_is_not_there_is_an_error(name):
    with pytest.raises(CommandError, match=f"There is no session {name}"):
        verify("--session", name)


def test_what_to_verify_has_to_be_said():
    with pytest.raises(CommandError, match="--all --session"):
        verify()


def test_sessions_are_read_in_chunks(talks, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    assert verify("--all") == "5 verified, 0 different.\n"


def test_a_session_that_goes_meanwhile_is_no_difference(talks, monkeypatch):
    real = module.verify

    def verify_late(session):
        ChatSession.objects.filter(pk=session.pk).delete()
        return real(session)

    monkeypatch.setattr(module, "verify", verify_late)
    assert verify("--all") == "5 verified, 0 different.\n"


def test_a_terminal_sees_progress_on_one_line(talks, monkeypatch, terminal):
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    verify("--all", stderr=terminal)
    assert "\r\x1b[K3 verified of 5 [############........] 60%, " in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


def test_a_log_file_sees_progress_now_and_then(talks, monkeypatch):
    monkeypatch.setattr(progress, "EACH", 2)
    errors = StringIO()
    verify("--all", stderr=errors)
    assert errors.getvalue().splitlines() == ["2 verified …", "4 verified …"]
