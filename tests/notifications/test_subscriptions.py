"""What a stream sees of what is told in its own process."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from uuid import UUID, uuid4

import pytest

from django_chat_sessions import notifications
from tests.notifications.conftest import PATIENCE, streams

SESSION = uuid4()


@pytest.fixture(autouse=True)
def nothing_from_outside(db, listener):
    """Let the only wake-up from elsewhere be the first."""
    listener("polling", POLL_SECONDS=60)


async def at_rest(news) -> None:
    while await news.wait(0.3):
        pass


def test_what_is_told_between_entering_and_waiting_is_not_lost():
    async def scenario() -> bool:
        async with notifications.subscribe(SESSION) as news:
            await at_rest(news)
            notifications.tell("default", SESSION)
            await asyncio.sleep(0.05)
            return await news.wait(0.01)

    assert asyncio.run(scenario())


def test_several_wake_ups_are_one():
    async def scenario() -> list[bool]:
        async with notifications.subscribe(SESSION) as news:
            await at_rest(news)
            for _ in range(100):
                notifications.tell("default", SESSION)
            return [await news.wait(0.2), await news.wait(0.2)]

    assert asyncio.run(scenario()) == [True, False]


def test_news_that_comes_right_after_a_wake_up_wakes_again():
    async def scenario() -> list[bool]:
        async with notifications.subscribe(SESSION) as news:
            await at_rest(news)
            heard = []
            for _ in range(3):
                notifications.tell("default", SESSION)
                heard.append(await news.wait(0.2))
            return [*heard, await news.wait(0.2)]

    assert asyncio.run(scenario()) == [True, True, True, False]


def test_a_wait_without_news_ends_in_time():
    async def scenario() -> tuple[bool, float]:
        async with notifications.subscribe(SESSION) as news:
            await at_rest(news)
            began = time.monotonic()
            return await news.wait(0.2), time.monotonic() - began

    woken, took = asyncio.run(scenario())
    assert not woken
    assert 0.15 < took < 2


def test_a_stream_wakes_only_for_its_own_session():
    other = uuid4()
    with streams(SESSION, other) as waiting:
        notifications.tell("default", other)
        assert waiting.woken.get(timeout=PATIENCE) == other
        assert waiting.hears_nothing()


def test_each_of_several_streams_of_a_session_wakes_in_its_own_loop():
    with streams(SESSION, SESSION) as here, streams(SESSION) as there:
        here.hear_nothing_more()
        notifications.tell("default", SESSION)
        assert [here.woken.get(timeout=1), here.woken.get(timeout=1), there.woken.get(timeout=1)] == [SESSION] * 3


def test_a_stream_that_has_left_is_forgotten():
    with streams(SESSION):
        pass
    assert notifications._exchange.audience._sessions == {}


def test_a_stream_whose_loop_is_gone_is_forgotten():
    loop = asyncio.new_event_loop()
    news = notifications.subscribe(SESSION)
    loop.run_until_complete(news.__aenter__())
    loop.run_until_complete(at_rest(news))
    loop.close()
    notifications.tell("default", SESSION)
    assert notifications._exchange.audience._sessions == {}


def test_nothing_is_lost_in_a_storm():
    """Each writer counts up and then tells, as commits do; who sleeps on while there is more to read has lost one."""
    sessions, writers, rounds = [uuid4() for _ in range(10)], 6, 200
    written: dict[UUID, list[int]] = {session: [0] * writers for session in sessions}

    async def read(session: UUID) -> bool:
        async with notifications.subscribe(session) as news:
            while sum(written[session]) < writers * rounds:
                if not await news.wait(5):
                    return False
        return True

    def write(number: int) -> None:
        for session in sessions * rounds:
            written[session][number] += 1
            notifications.tell("default", session)

    async def scenario() -> list[bool]:
        writing = [asyncio.to_thread(write, number) for number in range(writers)]
        heard = await asyncio.gather(*map(read, sessions), *writing)
        return heard[: len(sessions)]

    assert asyncio.run(scenario()) == [True] * len(sessions)


def test_telling_never_raises_and_says_so_once(listener, caplog):
    listener("auto")
    with caplog.at_level(logging.WARNING, "django_chat_sessions"):
        for _ in range(3):
            notifications.tell("no such database", SESSION)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no such database" in caplog.text


def test_telling_takes_microseconds():
    sessions = [uuid4() for _ in range(5_000)]
    notifications.tell("default", SESSION)
    began = time.process_time()
    for session in sessions:
        notifications.tell("default", session)
    assert (time.process_time() - began) / len(sessions) < 50e-6


def test_subscriptions_hold_no_thread():
    with streams(SESSION):
        few = threading.active_count()
    with streams(*(uuid4() for _ in range(100))):
        assert threading.active_count() == few


def test_a_fork_begins_with_nobody_and_leaves_its_parent_alone():
    with streams(SESSION) as waiting:
        pid = os.fork()
        if pid == 0:
            audience = notifications._exchange.audience._sessions
            os._exit(0 if not audience else 1)
        assert os.waitpid(pid, 0)[1] == 0
        notifications.tell("default", SESSION)
        waiting.hear(SESSION, within=1)
