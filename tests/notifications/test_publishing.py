"""News between processes, by PostgreSQL and by Redis."""

from __future__ import annotations

import os
import threading
import time
from uuid import uuid4

import psycopg
import pytest
from django.db import connection

from django_chat_sessions import notifications
from django_chat_sessions.notifications import listener as listener_module
from django_chat_sessions.notifications import publisher as publisher_module
from django_chat_sessions.notifications.payloads import CHANNEL
from django_chat_sessions.notifications.postgres import LISTENING
from django_chat_sessions.testing import make_session
from tests.notifications.conftest import QUIET, SAY, eventually, streams, threads

SESSION = uuid4()


def listening() -> list[int]:
    """Return the backends of PostgreSQL that listen."""
    sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = %s"
    with connection.cursor() as cursor:
        cursor.execute(sql, [f"LISTEN {CHANNEL}"])
        return [pid for (pid,) in cursor.fetchall()]


def ours() -> list[int]:
    """Return the backends of PostgreSQL that carry news."""
    sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    with connection.cursor() as cursor:
        cursor.execute(sql, ["django-chat-sessions"])
        return [pid for (pid,) in cursor.fetchall()]


def end(pids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])


def test_what_another_process_tells_wakes_this_one_within_a_second(published, elsewhere):
    tell = elsewhere()
    with streams(SESSION, uuid4()) as waiting:
        tell(SESSION)
        waiting.hear(SESSION, within=1)
        assert waiting.hears_nothing()


def test_a_message_that_another_process_writes_wakes_this_one_within_a_second(published, elsewhere, alice):
    session = make_session(alice, agent="silent")
    say = elsewhere(SAY)
    with streams(session.uuid) as waiting:
        say(session.uuid)
        waiting.hear(session.uuid, within=1)


def test_a_process_that_tells_a_thousand_and_exits_wakes_all(published, elsewhere):
    sessions = [uuid4() for _ in range(1000)]
    tell = elsewhere(warmth="cold")
    with streams(*sessions) as waiting:
        tell(*sessions)
        waiting.hear(*sessions)


def test_what_this_process_tells_comes_back_to_it_no_second_time(published):
    with streams(SESSION) as waiting:
        notifications.tell("default", SESSION)
        waiting.hear(SESSION, within=1)
        notifications._exchange.drain(5)
        assert waiting.hears_nothing()


def test_nothing_is_lost_in_a_storm_from_several_processes(published, elsewhere):
    """Whoever told last is heard: after the last wake-up, nobody is left who was not woken since."""
    sessions = [uuid4() for _ in range(50)]
    work = "for _ in range(40):\n  for name in names: notifications.tell('default', UUID(name))\n"
    tells = [elsewhere(work), elsewhere(work)]
    last = elsewhere()
    with streams(*sessions) as waiting:
        for tell in tells:
            tell(*sessions)
        waiting.hear(*sessions)
        waiting.hear_nothing_more()
        last(*sessions)
        waiting.hear(*sessions, within=2)


def test_a_fork_publishes_by_itself_and_leaves_its_parents_connections_alone(published):
    with streams(SESSION) as waiting:
        notifications.tell("default", uuid4())
        notifications._exchange.drain(5)
        pid = os.fork()
        if pid == 0:
            notifications.tell("default", SESSION)
            notifications._exchange.drain(5)
            notifications.reset()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        waiting.hear(SESSION, within=1)
        pid = os.fork()
        if pid == 0:
            notifications.tell("default", SESSION)
            notifications._exchange.drain(5)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        waiting.hear(SESSION, within=1)


def test_idle_threads_end_and_new_ones_begin(published, monkeypatch, elsewhere):
    monkeypatch.setattr(listener_module, "LINGER", 0.1)
    monkeypatch.setattr(listener_module, "LOOK", 0.1)
    monkeypatch.setattr(publisher_module, "IDLE", 0.1)
    for _ in range(2):
        tell = elsewhere()
        with streams(SESSION) as waiting:
            notifications.tell("default", SESSION)
            waiting.hear(SESSION)
            tell(SESSION)
            waiting.hear(SESSION, within=1)
        assert eventually(lambda: not threads())
        if published == "postgres":
            assert eventually(lambda: not ours())


def test_telling_without_anybody_who_waits_opens_no_listener(published):
    notifications.tell("default", SESSION)
    assert [thread.name for thread in threads()] == ["chat-sessions-publisher"]


def test_resetting_leaves_no_thread(published):
    with streams(SESSION):
        notifications.tell("default", SESSION)
        assert len(threads()) == 2
        began = time.monotonic()
        notifications.reset()
        assert time.monotonic() - began < 1
        assert threads() == []


# ------------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture
def postgres(transactional_db, listener):
    listener("postgres")


def backends() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


@pytest.mark.postgres
def test_postgresql_is_chosen_by_itself(transactional_db, elsewhere):
    tell = elsewhere()
    with streams(SESSION) as waiting:
        assert len(listening()) == 1
        tell(SESSION)
        waiting.hear(SESSION, within=1)


@pytest.mark.postgres
def test_five_hundred_streams_take_one_connection_and_one_thread(postgres):
    before, few = backends(), threading.active_count()
    with streams(*(uuid4() for _ in range(500))):
        assert len(listening()) == 1
        assert backends() == before + 1
        # The loop's own, and the listener's.
        assert threading.active_count() == few + 2


@pytest.mark.postgres
def test_a_listener_that_is_cut_off_comes_back_and_wakes_all(postgres, elsewhere):
    sessions = [uuid4() for _ in range(20)]
    tell = elsewhere()
    with streams(*sessions) as waiting:
        (pid,) = listening()
        end([pid])
        waiting.hear(*sessions, within=3)
        waiting.hear_nothing_more()
        assert listening() not in ([], [pid])
        tell(sessions[0])
        waiting.hear(sessions[0], within=1)


@pytest.mark.postgres
def test_a_publisher_that_is_cut_off_publishes_later(postgres):
    others = uuid4()
    with psycopg.connect(**_parameters(), autocommit=True) as outside:
        outside.execute("SELECT pg_advisory_lock_shared(%s)", [LISTENING])
        outside.execute(f"LISTEN {CHANNEL}")
        notifications.tell("default", SESSION)
        notifications._exchange.drain(5)
        end(ours())
        notifications.tell("default", others)
        heard = "".join(one.payload for one in outside.notifies(timeout=3, stop_after=2))
    assert SESSION.hex in heard
    assert others.hex in heard


@pytest.mark.postgres
def test_news_is_published_in_batches(postgres):
    sessions = [uuid4() for _ in range(2000)]
    with psycopg.connect(**_parameters(), autocommit=True) as outside:
        outside.execute("SELECT pg_advisory_lock_shared(%s)", [LISTENING])
        outside.execute(f"LISTEN {CHANNEL}")
        for session in sessions:
            notifications.tell("default", session)
        heard = [one.payload for one in outside.notifies(timeout=QUIET)]
    assert {name for payload in heard for name in payload.split(" ")[1:]} == {session.hex for session in sessions}
    assert len(heard) < 50
    assert max(map(len, heard)) <= 7900


@pytest.mark.postgres
def test_what_is_no_news_on_the_channel_does_no_harm(postgres, elsewhere):
    tell = elsewhere()
    with streams(SESSION) as waiting:
        with connection.cursor() as cursor:
            for payload in ("", "x", "x y é", f"x {uuid4()}"):
                cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])
        assert waiting.hears_nothing()
        tell(SESSION)
        waiting.hear(SESSION, within=1)


def _parameters() -> dict[str, object]:
    given = connection.get_connection_params()
    return {name: given[name] for name in ("dbname", "user", "password", "host", "port") if name in given}


# ------------------------------------------------------------------------------------------------------------ Redis


@pytest.fixture
def redis_name(transactional_db, listener, redis_url):
    """Choose Redis, with clients that have a name by which nobody else's is meant."""
    name = f"test-{uuid4().hex}"
    listener("auto", REDIS_URL=f"{redis_url}{'&' if '?' in redis_url else '?'}client_name={name}")
    return name


@pytest.mark.services("redis")
def test_redis_is_chosen_by_its_url(redis_name, redis_url):
    import redis

    with streams(*(uuid4() for _ in range(100))), redis.Redis.from_url(redis_url) as client:
        assert [one["name"] for one in client.client_list()].count(redis_name) == 1


@pytest.mark.services("redis")
def test_a_redis_listener_that_is_cut_off_comes_back_and_wakes_all(redis_name, redis_url, elsewhere):
    import redis

    sessions = [uuid4() for _ in range(20)]
    tell = elsewhere()
    with streams(*sessions) as waiting, redis.Redis.from_url(redis_url) as client:
        (mine,) = [one for one in client.client_list() if one["name"] == redis_name and one["sub"] == "1"]
        client.client_kill_filter(_id=mine["id"])
        waiting.hear(*sessions, within=3)
        waiting.hear_nothing_more()
        tell(sessions[0])
        waiting.hear(sessions[0], within=1)


@pytest.mark.services("redis")
def test_news_told_while_redis_is_away_is_published_later(listener, db):
    """The address is one where nobody answers; the publisher keeps trying, and telling is as quick as ever."""
    listener("redis", REDIS_URL="redis://127.0.0.1:1/0")
    notifications.tell("default", SESSION)
    (publisher,) = notifications._exchange._publishers.values()
    assert eventually(lambda: publisher._patience._failures > 1)
    assert SESSION in publisher._pending or publisher._is_sending
