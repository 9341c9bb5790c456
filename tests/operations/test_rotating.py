"""A public id that got into the wrong hands."""

from __future__ import annotations

from typing import Any

import pytest

from django_chat_sessions import lookups
from django_chat_sessions.agents import Message
from django_chat_sessions.exceptions import SessionNotFound
from django_chat_sessions.operations import messages, opening, sessions, verification

pytestmark = pytest.mark.django_db


def test_a_rotated_id_is_nothing_any_more_and_the_conversation_stays(alice: Any) -> None:
    session = opening.open(alice).session
    messages.append(session, Message("user", "kept"))
    child = opening.open(alice, parent=session).session
    old = session.uuid
    assert session.root_uuid == old
    sessions.rotate(session)
    assert session.root_uuid == session.uuid != old
    with pytest.raises(SessionNotFound):
        lookups.session(alice, old)
    found = lookups.session(alice, session.uuid).session
    assert [message.content for message in messages.everything(found)] == ["kept"]
    assert lookups.session(alice, child.uuid).session.parent_uuid == session.uuid
    assert verification.verify(session) == []


def test_an_id_can_be_rotated_when_the_session_is_over(alice: Any) -> None:
    session = opening.open(alice).session
    sessions.end(session)
    old = session.uuid
    assert sessions.rotate(session).uuid != old
