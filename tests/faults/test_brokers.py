"""Two beats by mistake, and a broker that is away for a while: each session expires once all the same."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from django_chat_sessions.choices import EventType
from tests.celery.conftest import Broker, Process
from tests.faults.conftest import (
    PATIENCE,
    are_expired,
    assert_sound,
    assert_whole,
    events_of,
    expired,
    make,
    make_due,
    shift,
)
from tests.faults.proxies import Proxy
from tests.recovery.conftest import eventually

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

AMQP = pytest.param("amqp", marks=pytest.mark.services("amqp"))
QUIET = ("--without-gossip", "--without-mingle")
HOST = {"DJANGO_SETTINGS_MODULE": "tests.faults.host"}


@pytest.fixture
def start_beat(start: Callable[..., Process], tmp_path: Path) -> Callable[..., Process]:
    """Return a function that starts a beat which sends every task every second."""
    started: list[Process] = []

    def start_beat(**environment: str) -> Process:
        files = ("--schedule", str(tmp_path / f"beat-{len(started)}"), "--pidfile", "")
        started.append(start("beat", *files, TEST_BEAT_SCHEDULE="1", **HOST, **environment))
        return started[-1]

    return start_beat


def start_worker(start: Callable[..., Process], name: str, **environment: str) -> Process:
    return start("worker", "--pool", "solo", "--hostname", f"{name}@%h", *QUIET, **HOST, **environment)


@pytest.mark.parametrize("broker", [AMQP], indirect=True)
def test_two_beats_and_two_workers_do_nothing_twice(
    alice: Any, start: Callable[..., Process], start_beat: Callable[..., Process], tmp_path: Path
) -> None:
    due, near, others = make_due(alice, 60), shift(*make(alice, 12), minutes=27), make(alice, 3)
    beats = [start_beat(), start_beat()]
    workers = [start_worker(start, "one"), start_worker(start, "two")]
    eventually(lambda: are_expired(*due), "all to expire", PATIENCE)
    late = make_due(alice, 30)
    eventually(lambda: are_expired(*late), "the others to expire")
    for beat in beats:
        eventually(lambda beat=beat: beat.said.count("chat_sessions.expire") >= 2, "both beats to send")
    eventually(lambda: all("chat_sessions.expire" in worker.said for worker in workers), "both workers to sweep")
    assert [len(events_of(one, EventType.SESSION_EXPIRING)) for one in (*near, *others)] == [1] * 12 + [0] * 3
    assert expired(*near, *others) == 0
    assert_whole(*due, *late, *near, *others)
    assert_sound()


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[Proxy]:
    """Return a way to the broker that can be cut."""
    parts = urlsplit(amqp_url)
    found = Proxy(parts.hostname or "127.0.0.1", parts.port or 5672)
    yield found
    found.close()


@pytest.mark.postgres
@pytest.mark.services("amqp")
@pytest.mark.parametrize("broker", [AMQP], indirect=True)
def test_what_fell_due_while_the_broker_was_away_is_done_when_it_is_back(
    alice: Any,
    start: Callable[..., Process],
    start_beat: Callable[..., Process],
    broker: Broker,
    proxy: Proxy,
) -> None:
    parts = urlsplit(broker.url)
    way = {"TEST_BROKER_URL": parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}").geturl()}
    beat, worker = start_beat(**way), start_worker(start, "one", **way)
    before = make_due(alice, 12)
    eventually(lambda: are_expired(*before), "some to expire", PATIENCE)
    proxy.cut()
    time.sleep(0.5)  # What a worker has begun by now it finishes.
    meanwhile, others = make_due(alice, 12), make(alice, 3)
    time.sleep(2.5)
    assert expired(*meanwhile) == 0
    proxy.mend()
    eventually(lambda: are_expired(*meanwhile), "the rest to expire", PATIENCE)
    after = make_due(alice, 12)
    eventually(lambda: are_expired(*after), "what fell due since to expire", PATIENCE)
    assert (beat.popen.poll(), worker.popen.poll()) == (None, None)
    assert expired(*before, *meanwhile, *after) == 36
    assert expired(*others) == 0
    assert_sound()


@pytest.mark.postgres
@pytest.mark.parametrize("broker", [AMQP], indirect=True)
def test_workers_that_were_away_find_no_heap_of_sweeps(
    alice: Any, start: Callable[..., Process], start_beat: Callable[..., Process], broker: Broker
) -> None:
    due = make_due(alice, 12)
    beat = start_beat(TEST_EXPIRES="1")
    eventually(lambda: beat.said.count("Sending due task chat-sessions-expire") >= 3, "some tasks to be sent", PATIENCE)
    beat.stop()
    time.sleep(1.1)  # By now they are all too old.
    worker = start_worker(start, "late")
    broker.send("chat_sessions.expire")
    eventually(lambda: are_expired(*due), "one sweep to do it all", PATIENCE)
    assert len(re.findall(r"Task chat_sessions\.expire\[.*succeeded", worker.said)) <= 1
    assert expired(*due) == 12
    assert_sound()
