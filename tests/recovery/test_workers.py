"""Celery workers that are killed or told to stop while they answer, and brokers that lose messages or are away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_chat_sessions.models import ChatSession, Run, SessionEvent
from django_chat_sessions.operations import verification
from tests.celery.conftest import Broker, Process
from tests.recovery.conftest import KILL, QUICK, TERM, Talk, eventually, is_there, settings
from tests.streams.conftest import ROOT, Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.postgres]

QUIET = ("--without-gossip", "--without-mingle")
CELERY = settings(RUNNER="celery")
GRACE = QUICK["GRACE_SECONDS"]


@pytest.fixture
def start_host(start_servers: Callable[..., list[Server]], broker: Broker) -> Callable[..., Server]:
    """Return a function that starts the server of a host whose answers Celery gives."""

    def start_host() -> Server:
        environment = {**broker.environment, **CELERY, "DJANGO_SETTINGS_MODULE": "tests.celery.host"}
        return start_servers(1, application="tests.recovery.asgi:application", **environment)[0]

    return start_host


def start_pool(start: Callable[..., Process], name: str, concurrency: int = 4) -> Process:
    """Start a worker with children."""
    return start("worker", "--concurrency", str(concurrency), "--hostname", f"{name}@%h", *QUIET, **CELERY)


def children(process: Process) -> list[int]:
    path = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
    return [int(number) for number in path.read_text().split()]


def test_what_a_worker_was_saying_when_it_was_killed_is_recovered_by_another(
    start: Callable[..., Process], start_host: Callable[..., Server], tmp_path: Path
) -> None:
    first = start_pool(start, "first")
    host = start_host()
    first.hear(" ready.")
    one_by_one = [Talk.begin(host, f"{kind}_thrice", "one stay two") for kind in ("script", "script_async")]
    together = [Talk.begin(host, f"script_{kind}", "one stay two") for kind in ("thrice", "once")]
    eventually(lambda: all(talk.said for talk in [*one_by_one, *together]), "some words")
    for talk in one_by_one:
        # A child alone: the worker goes on, and has another.
        assert talk.giver() in children(first)
        os.kill(talk.giver(), KILL)
    second = start_pool(start, "second")
    start("beat", "--schedule", str(tmp_path / "beat"), TEST_BEAT_SCHEDULE="1", **CELERY)
    for talk in one_by_one:
        assert talk.wait_over(40) == "succeeded"
    pids = [first.popen.pid, *children(first)]
    for number in pids:
        os.kill(number, KILL)
    second.hear(" ready.")
    assert [talk.wait_over(40) for talk in together] == ["succeeded", "failed"]
    assert together[1].run.error == "ProcessLost"
    for talk in [*one_by_one, *together]:
        talk.wait_read()
        talk.assert_read_once_and_in_order()
        said = "one " if talk.run.error else "one two "
        assert talk.conversation() == [("user", "one stay two"), ("assistant", said)]
        talk.assert_usable()


def test_what_the_broker_loses_is_asked_again_and_answered_once(
    start: Callable[..., Process], start_host: Callable[..., Server], broker: Broker, tmp_path: Path
) -> None:
    host = start_host()
    talks = []
    for number in range(20):
        session = host.open("script_once")
        body = {"content": f"this is {number}", "delivery": "background"}
        assert host.call("POST", f"sessions/{session}/messages", json=body).status_code == 202
        talks.append(session)
    assert purge(broker) == 20
    worker = start_pool(start, "worker", 2)
    start("beat", "--schedule", str(tmp_path / "beat"), TEST_BEAT_SCHEDULE="1", **CELERY)
    worker.hear(" ready.")
    eventually(lambda: Run.objects.filter(status="succeeded").count() == 20, "all answers", 40)
    time.sleep(1)
    assert set(Run.objects.values_list("attempt", flat=True)) == {1}
    for session in ChatSession.objects.all():
        question, *answers = SessionEvent.objects.filter(session=session).conversation()
        assert [answer.content for answer in answers] == [f"{question.content} "]
        assert verification.verify(session) == []


def purge(broker: Broker) -> int:
    """Lose all messages, and return how many there were."""
    from celery import Celery

    from tests.celery.queues import queue

    with Celery("purger", broker=broker.url, set_as_current=False) as app:
        app.conf.update(broker_transport_options=broker.options)
        with app.connection_for_write() as connection:
            return int(queue(broker.name)(connection.default_channel).purge())


def test_a_worker_that_is_told_to_stop_finishes_what_it_can_and_hands_over_the_rest(
    start: Callable[..., Process], start_host: Callable[..., Server], broker: Broker
) -> None:
    stopping = start_pool(start, "stopping", 3)
    host = start_host()
    stopping.hear(" ready.")
    once, thrice = (Talk.begin(host, f"script_{kind}", "one stay two") for kind in ("once", "thrice"))
    eventually(lambda: once.said and thrice.said, "some words")
    short = Talk.begin(host, "script_async_once", "one slow slow slow slow slow two")
    eventually(lambda: short.said, "the short answer to begin")
    numbers = [stopping.popen.pid, *children(stopping)]
    told_at = time.monotonic()
    stopping.popen.send_signal(TERM)
    stopping.popen.wait(GRACE + 10)
    assert time.monotonic() - told_at >= GRACE
    eventually(lambda: not any(map(is_there, numbers)), "the children to be gone")
    assert short.status() == "succeeded"
    assert (once.status(), once.run.error) == ("failed", "ProcessStopped")
    # It is at the broker again: no recovery is needed. (Celery reads from some brokers until its last child is done.)
    assert thrice.status() == "queued" or broker.url == "filesystem://"
    assert thrice.run.attempt == 2
    start_pool(start, "next", 1)
    assert thrice.wait_over(40) == "succeeded"
    for talk in (once, thrice, short):
        talk.wait_read()
        talk.assert_read_once_and_in_order()
        talk.assert_usable()


def closed_port() -> socket.socket:
    """Return a socket at which nobody listens."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found


def silent_port() -> socket.socket:
    """Return a socket at which somebody listens and never says a word."""
    found = closed_port()
    found.listen()
    return found


@pytest.mark.parametrize("make", [closed_port, silent_port])
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_question_is_taken_at_once_though_the_broker_is_away(
    start_servers: Callable[..., list[Server]],
    subprocess_environment: dict[str, str],
    make: Callable[[], socket.socket],
    scheme: str,
) -> None:
    pytest.importorskip(scheme)
    with make() as port:
        away = Broker(f"{scheme}://127.0.0.1:{port.getsockname()[1]}//", "away")
        environment = {**away.environment, **CELERY, "DJANGO_SETTINGS_MODULE": "tests.celery.host"}
        (host,) = start_servers(1, application="tests.recovery.asgi:application", **environment)
        took = []
        for _ in range(3):
            session, asked_at = host.open("echo"), time.monotonic()
            body = {"content": "?", "delivery": "background"}
            response = host.call("POST", f"sessions/{session}/messages", json=body)
            assert (response.status_code, response.json()["run"]["status"]) == (202, "queued")
            took.append(time.monotonic() - asked_at)
    assert max(took) < 3
    assert min(took) < 1
    # The broker never comes back, and so somebody else gives the answers.
    time.sleep(QUICK["STALE_AFTER"])
    command = [sys.executable, "-m", "django", "chat_sessions", "sweep"]
    subprocess.run(command, cwd=ROOT, env=subprocess_environment, check=True, timeout=60)
    assert set(Run.objects.values_list("status", flat=True)) == {"succeeded"}
    host.signal(signal.SIGTERM)
    host.process.wait(10)
