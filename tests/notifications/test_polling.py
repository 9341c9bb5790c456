"""News by looking at the database, and the choice of the way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone

from django_chat_sessions import notifications
from django_chat_sessions.models import ChatSession, Run, RunChunk
from django_chat_sessions.notifications import listener as listener_module
from django_chat_sessions.notifications.choosing import chosen
from django_chat_sessions.notifications.polling import Polling
from django_chat_sessions.testing import make_session, say
from tests.notifications.conftest import SAY, eventually, streams, threads


@pytest.fixture
def polling(transactional_db, listener):
    listener("polling", POLL_SECONDS=0.05)


@pytest.fixture
def session(alice) -> ChatSession:
    return make_session(alice, agent="silent")


def test_a_message_that_another_process_writes_wakes_this_one_within_a_second(polling, elsewhere, session, alice):
    other = make_session(alice)
    write = elsewhere(SAY)
    with streams(session.uuid, other.uuid) as waiting:
        write(session.uuid)
        waiting.hear(session.uuid, within=1)
        assert waiting.hears_nothing()


def test_a_chunk_wakes(polling, session):
    now = timezone.now()
    run = Run.objects.create(
        session=session, status="running", input_sequence=1, created_at=now, expires_at=now, heartbeat_at=now
    )
    with streams(session.uuid) as waiting:
        for index in range(2):
            RunChunk.objects.create(
                session=session, run=run, sequence=session.last_sequence, index=index, text="a", created_at=now
            )
            waiting.hear(session.uuid, within=1)
            waiting.hear_nothing_more()


def test_a_session_that_vanishes_wakes(polling, session):
    with streams(session.uuid) as waiting:
        session.delete()
        waiting.hear(session.uuid, within=1)


def test_a_session_that_is_not_there_is_no_news(polling):
    with streams(uuid4()) as waiting:
        assert waiting.hears_nothing()


def test_polling_publishes_nothing(polling, session):
    notifications.tell("default", session.uuid)
    assert threads() == []


def test_the_thread_ends_after_the_last_stream(polling, session, monkeypatch):
    monkeypatch.setattr(listener_module, "LINGER", 0.1)
    with streams(session.uuid):
        assert len(threads()) == 1
    assert eventually(lambda: not threads())


class Mailbox:
    """What a look puts in."""

    def __init__(self, sessions: Iterable[UUID]) -> None:
        self.sessions = list(sessions)
        self.came: list[UUID] = []

    def watched(self) -> list[UUID]:
        return self.sessions

    def news(self, sessions: Iterable[UUID]) -> None:
        self.came += sessions

    def payload(self, text: str) -> None:
        raise AssertionError(text)

    def everything(self) -> None:
        raise AssertionError


def test_one_query_looks_at_five_hundred_sessions(polling, session, django_assert_num_queries):
    mailbox = Mailbox([*(uuid4() for _ in range(1199)), session.uuid])
    receiver = Polling("default").receiver(mailbox)
    receiver.interrupt()
    with django_assert_num_queries(3):
        receiver.receive(1)
    assert sorted(mailbox.came) == sorted(mailbox.sessions)
    mailbox.came = []
    receiver.receive(1)
    assert mailbox.came == []
    say(session, "hello")
    receiver.receive(1)
    assert mailbox.came == [session.uuid]


def test_nothing_is_looked_for_and_no_connection_kept_without_streams(polling):
    receiver = Polling("default").receiver(Mailbox([]))
    receiver.interrupt()
    connection.ensure_connection()
    receiver.receive(1)
    assert connection.connection is None


# ------------------------------------------------------------------------------------------------------- the choice


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.sqlite
def test_sqlite_is_polled(settings):
    assert chosen("default") == Polling("default")
    assert notifications.problem("default") is None


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("redis", None, "REDIS_URL is not set"),
        pytest.param("postgres", None, "is not PostgreSQL", marks=pytest.mark.sqlite),
    ],
)
def test_a_listener_that_cannot_be_had_is_replaced_by_polling_with_one_warning(listener, caplog, name, url, words):
    listener(name, REDIS_URL=url)
    for _ in range(3):
        assert chosen("default") == Polling("default")
    assert words in str(notifications.problem("default"))
    (line,) = warnings(caplog)
    assert words in line


@pytest.mark.parametrize(
    ("package", "url"),
    [("redis", "redis://127.0.0.1/0"), pytest.param("psycopg", None, marks=pytest.mark.postgres)],
)
def test_a_listener_whose_package_is_missing_is_replaced_by_polling(listener, caplog, monkeypatch, package, url):
    monkeypatch.setitem(sys.modules, package, None)
    listener("auto", REDIS_URL=url)
    assert chosen("default") == Polling("default")
    (line,) = warnings(caplog)
    assert f"package {package}" in line


def test_the_address_of_redis_is_not_shown(listener):
    listener("redis", REDIS_URL="redis://:secret@127.0.0.1/0")
    assert "secret" not in repr(chosen("default")) + chosen("default").name
