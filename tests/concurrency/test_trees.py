"""Whole trees: everybody locks them from the oldest session to the youngest, so nobody waits in a circle."""

from __future__ import annotations

from typing import Any

import pytest

from django_chat_sessions.choices import LIVE
from django_chat_sessions.exceptions import SessionNotFound, SessionNotLive
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import opening, sessions

from .conftest import at_once, unexpected

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("close", [sessions.end, sessions.delete])
def test_opening_below_a_child_races_the_end_of_the_root(alice: Any, close: Any) -> None:
    for _ in range(12):
        root = opening.open(alice).session
        child = opening.open(alice, parent=root).session
        outcomes = at_once(
            lambda child=child: opening.open(alice, parent=child),
            lambda root=root: close(root),
            lambda child=child: opening.open(alice, parent=child),
        )
        assert unexpected(outcomes, SessionNotLive, SessionNotFound) == []
        assert not isinstance(outcomes[1], BaseException)
        assert not ChatSession.objects.filter(root=root, status__in=LIVE).exists()


def test_continuing_a_session_races_its_deletion(alice: Any) -> None:
    for _ in range(12):
        source = opening.open(alice, title="source").session
        outcomes = at_once(
            lambda source=source: opening.open(alice, continue_from=source),
            lambda source=source: sessions.delete(source),
        )
        assert unexpected(outcomes, SessionNotFound) == []
        if not isinstance(outcomes[0], BaseException):
            made = ChatSession.objects.get(pk=outcomes[0].session.pk)
            assert made.title == "source"
            assert made.forked_from_id is None
