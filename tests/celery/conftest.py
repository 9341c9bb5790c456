"""Real brokers, workers and beats, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from tests.celery.queues import queue, transport

GRACE_SECONDS = 20
PATIENCE_SECONDS = 60


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until something is so, and return it."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {PATIENCE_SECONDS} s for {what}"
        time.sleep(0.1)
    return found


@dataclass
class Process:
    """A worker or beat, and what it says."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def hear(self, words: str) -> None:
        eventually(lambda: words in self.said or self.popen.poll() is not None, words)
        assert words in self.said, self.said

    def stop(self) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


@dataclass
class Broker:
    """Where messages go, in the words of Celery's settings."""

    url: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TEST_BROKER_URL": self.url,
            "TEST_BROKER_NAME": self.name,
            "TEST_BROKER_OPTIONS": json.dumps(self.options),
        }

    def send(self, task: str) -> None:
        """Send a task, as any process of the host would."""
        with Celery("sender", broker=self.url, set_as_current=False) as app:
            app.conf.update(broker_transport=transport(self.url), broker_transport_options=self.options)
            app.conf.update(task_default_queue=self.name, task_queues=[queue(self.name)])
            app.send_task(task, ignore_result=True)


@pytest.fixture(
    params=[
        "filesystem",
        pytest.param("redis", marks=pytest.mark.services("redis")),
        pytest.param("amqp", marks=pytest.mark.services("amqp")),
    ]
)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Return a broker; what a test leaves at a shared one is removed, or removes itself after a minute."""
    name = f"chat-sessions-test-{uuid4().hex}"
    if request.param == "amqp":
        yield Broker(request.getfixturevalue("amqp_url"), name)
        return
    if request.param == "filesystem":
        folder = str(tmp_path / "broker")
        options: dict[str, Any] = {
            "data_folder_in": folder,
            "data_folder_out": folder,
            "control_folder": f"{folder}-control",
        }
        options["polling_interval"] = 0.1
        for path in (folder, f"{folder}-control"):
            Path(path).mkdir()
        yield Broker("filesystem://", name, options)
        return
    import redis

    url = request.getfixturevalue("redis_url")
    yield Broker(url, name, {"global_keyprefix": name})
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"{name}*"):
            client.delete(key)


@pytest.fixture
def start(
    transactional_db: None, subprocess_environment: dict[str, str], broker: Broker, tmp_path: Path
) -> Iterator[Callable[..., Process]]:
    """Return a function that starts `celery …` on the test database; all are stopped before the database is cleaned."""
    started: list[Process] = []
    shared = {**subprocess_environment, **broker.environment, "DJANGO_SETTINGS_MODULE": "tests.celery.host"}

    def start(*arguments: str, **environment: str) -> Process:
        log = tmp_path / f"{len(started)}.log"
        command = [sys.executable, "-m", "celery", "-A", "tests.celery.host_app", *arguments, "--loglevel", "INFO"]
        with log.open("wb") as file:
            popen = subprocess.Popen(
                command, env={**shared, **environment}, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        started.append(Process(popen, log))
        return started[-1]

    yield start
    for process in started:
        process.popen.terminate()
    for process in started:
        process.stop()


@pytest.fixture
def start_worker(start: Callable[..., Process]) -> Callable[[], Process]:
    """Return a function that starts a worker and waits until it is ready."""

    def start_worker() -> Process:
        quiet = ("--without-gossip", "--without-mingle")
        worker = start("worker", "--pool", "solo", "--hostname", f"{uuid4().hex}@%h", *quiet)
        worker.hear(" ready.")
        return worker

    return start_worker
