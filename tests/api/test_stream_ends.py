"""When a stream knows that there is nothing more to come."""

from __future__ import annotations

from typing import Any

import pytest

from django_chat_sessions import chunks
from django_chat_sessions.api.streams import _Feed
from django_chat_sessions.operations import sessions
from django_chat_sessions.testing import make_session


@pytest.mark.django_db
def test_an_end_that_comes_while_the_stream_looks_whether_there_is_one_is_sent(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(alice, agent="silent")
    feed = _Feed(session, chunks.here(session), None, is_once=False)
    read, looks = chunks.frames, []

    def frames(*args: Any, **options: Any) -> list[chunks.Frame]:
        found = read(*args, **options)
        if not looks:
            sessions.end(make_copy(session))
        looks.append(found)
        return found

    monkeypatch.setattr(chunks, "frames", frames)
    assert [frame.type for frame in feed._read()] == ["session.ended"]
    assert feed.is_over


def make_copy(session: Any) -> Any:
    """Return the session as another process knows it."""
    return type(session).objects.get(pk=session.pk)
