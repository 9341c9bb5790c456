"""Several processes sweep at once while others write; on SQLite only one of them at a time can."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import make_session, say
from tests.faults.conftest import PATIENCE, are_expired, assert_sound, expired, make, make_due, meanwhile
from tests.recovery.conftest import Sweep, eventually

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_two_processes_sweep_while_others_write_and_none_is_locked_out(alice: Any, begin: Callable[..., Sweep]) -> None:
    loops = [begin("--loop", "--interval", "0.05") for _ in range(2)]
    others = make(alice, 2)
    before = ChatSession.objects.get(pk=others[0].pk).message_count
    for loop in loops:
        loop.wait_until_up()
    due: list[ChatSession] = []
    with meanwhile(lambda: say(others[0], "one word")) as first, meanwhile(lambda: _talk(alice)) as second:
        for _ in range(5):
            due += make_due(alice, 17)
        eventually(lambda: are_expired(*due), "all to expire", PATIENCE)
    assert (first, second) == ([], [])
    for loop in loops:
        loop.process.send_signal(signal.SIGTERM)
        assert loop.process.wait(10) == 0
        assert "again" not in loop.log.read_text()
        assert "Traceback" not in loop.log.read_text()
    assert expired(*due) == 85
    assert expired(*others) == 0
    assert ChatSession.objects.get(pk=others[0].pk).message_count > before
    assert_sound()


def _talk(owner: Any) -> None:
    say(make_session(owner, agent="silent"), "another word")
