"""What the page on scaling says to do to the table of events, done: the library works on the partitions as before."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from django_chat_sessions.agents import Message
from django_chat_sessions.models import ChatSession, SessionEvent
from django_chat_sessions.operations import messages, opening, sessions, verification
from django_chat_sessions.routers import ReplicaRouter
from django_chat_sessions.testing import make_session, say
from tests.docs import pages

SCALING = pages.DOCS / "scaling.md"
RANGE = "### By ranges, without copying"
HASH = "### By hash, copying"


def execute(*statements: str) -> None:
    """Execute what a page says, within the test's transaction."""
    with connection.cursor() as cursor:
        for text in statements:
            cursor.execute(re.sub(r"^(BEGIN|COMMIT);$|CONCURRENTLY ", "", text, flags=re.MULTILINE))


def bound() -> int:
    """Return a number above those of all sessions."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval(pg_get_serial_sequence('chat_sessions_chatsession', 'id'))")
        return int(cursor.fetchone()[0]) + 1000


def by_ranges(limit: int) -> list[str]:
    """Return the page's statements for ranges, with another bound."""
    found = pages.blocks("postgresql", page=SCALING, after=RANGE, before=HASH)
    return [block.code.replace("240000", str(limit)).replace("480000", str(limit + 240_000)) for block in found]


def by_hash() -> list[str]:
    return [block.code for block in pages.blocks("postgresql", page=SCALING, after=HASH)]


def partitions() -> set[str]:
    """Return the partitions that have events."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tableoid::regclass::text FROM chat_sessions_sessionevent")
        return {name for (name,) in cursor.fetchall()}


@pytest.fixture(params=["hash", "range"])
def partitioned(request: Any, alice: Any) -> ChatSession:
    """Return a session that was there before."""
    session = make_session(alice)
    say(session, "Before")
    if request.param == "hash":
        execute("SET CONSTRAINTS ALL IMMEDIATE", *by_hash())
    else:
        execute("SET CONSTRAINTS ALL IMMEDIATE", *by_ranges(bound())[:-1])
    assert partitions() != {"chat_sessions_sessionevent"}
    return session


@pytest.mark.postgres
@pytest.mark.django_db
def test_everything_works_on_partitions(partitioned: ChatSession, alice: Any) -> None:
    for session in (partitioned, make_session(alice)):
        asked = messages.append(session, Message("user", "Which one?", external_id="a"))
        again = messages.append(session, Message("user", "Which one?", external_id="a"))
        assert (asked.created, again.created, again.message.sequence) == (True, False, asked.message.sequence)
        edited = messages.append(session, Message("user", "Thsi one"))
        messages.edit(session, edited.message.sequence or 0, "This one")
        messages.withdraw(session, edited.message.sequence or 0)
        copied = opening.fork(session)
        assert [list(verification.verify(each)) for each in (session, copied)] == [[], []]
        sessions.end(session)
        sessions.delete(session)
        assert not SessionEvent.objects.filter(session_id=session.pk).exists()
    execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.postgres
@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["UPDATE {} SET content = 'x'", "DELETE FROM {}"])
def test_the_log_is_append_only_on_partitions(partitioned: ChatSession, verb: str) -> None:
    with pytest.raises(DatabaseError, match=r"append-only|go with their session"), transaction.atomic():
        execute(verb.format("chat_sessions_sessionevent"), "SET CONSTRAINTS ALL IMMEDIATE")
    execute("SET CONSTRAINTS ALL DEFERRED")


@pytest.mark.postgres
@pytest.mark.django_db
def test_a_range_goes_as_a_whole_when_all_its_sessions_may(alice: Any) -> None:
    old = make_session(alice)
    say(old, "Long ago")
    limit = bound()
    *conversion, purge = by_ranges(limit)
    execute("SET CONSTRAINTS ALL IMMEDIATE", *conversion)
    execute(f"SELECT setval(pg_get_serial_sequence('chat_sessions_chatsession', 'id'), {limit})")
    new = make_session(alice)
    say(new, "Just now")
    with pytest.raises(DatabaseError, match="may not go yet"), transaction.atomic():
        execute(purge)
    sessions.end(old)
    ChatSession.objects.filter(pk=old.pk).update(last_activity_at=timezone.now() - timedelta(days=91))
    execute("SET CONSTRAINTS ALL IMMEDIATE", purge)
    assert list(ChatSession.objects.values_list("pk", flat=True)) == [new.pk]
    assert partitions() == {f"chat_sessions_sessionevent_{limit}"}
    assert list(verification.verify(new)) == []


def test_router_and_middleware_of_the_page_are_there() -> None:
    block = next(block for block in pages.blocks("python", page=SCALING) if "DATABASE_ROUTERS" in block.code)
    names: dict[str, Any] = {}
    exec(block.code, names)
    assert import_string(names["DATABASE_ROUTERS"][0]) is ReplicaRouter
    assert callable(import_string(names["MIDDLEWARE"][0]))
    assert set(ReplicaRouter.replicas) <= set(names["DATABASES"])
