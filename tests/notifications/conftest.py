"""Streams that wait in an event loop of their own, and other processes that tell."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User

from django_chat_sessions import notifications

#: Seconds after which something that should come is taken not to.
PATIENCE = 20
#: Seconds after which what has not come does not.
QUIET = 0.4


class Streams:
    """Tasks in one event loop, each of which waits for a session's news again and again."""

    def __init__(self, sessions: Iterable[UUID]) -> None:
        self.sessions = list(sessions)
        self.woken: SimpleQueue[UUID] = SimpleQueue()
        self._entered = threading.Event()
        self._missing = len(self.sessions)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    def open(self) -> None:
        self._thread.start()
        assert self._entered.wait(PATIENCE)

    def close(self) -> None:
        def cancel() -> None:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(cancel)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def settle(self) -> None:
        """Let the first wake-ups pass, which come to those who were there before somebody listened."""
        listeners = notifications._exchange._listeners
        assert eventually(lambda: all(one._receiver for one in listeners.values()))
        self.hear_nothing_more()

    def hear(self, *sessions: UUID, within: float = PATIENCE) -> None:
        """Expect these to wake up."""
        until, missing = time.monotonic() + within, set(sessions)
        while missing:
            try:
                missing.discard(self.woken.get(timeout=max(0.001, until - time.monotonic())))
            except Empty:
                pytest.fail(f"{len(missing)} of {len(sessions)} streams slept on for {within} s")

    def hear_nothing_more(self) -> None:
        """Wait until none wakes up any more."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                self.woken.get(timeout=QUIET)
            except Empty:
                return
        pytest.fail("the streams are never at rest")

    def hears_nothing(self) -> bool:
        """Tell whether all sleep on."""
        with suppress(Empty):
            self.woken.get(timeout=QUIET)
            return False
        return True

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._wait_all())
        self._loop.close()

    async def _wait_all(self) -> None:
        await asyncio.gather(*map(self._wait, self.sessions))

    async def _wait(self, session: UUID) -> None:
        async with notifications.subscribe(session) as news:
            self._missing -= 1
            if not self._missing:
                self._entered.set()
            while True:
                if await news.wait(None):
                    self.woken.put(session)


@contextmanager
def streams(*sessions: UUID) -> Iterator[Streams]:
    """Open streams of sessions, and let them come to rest."""
    opened = Streams(sessions)
    opened.open()
    try:
        opened.settle()
        yield opened
    finally:
        opened.close()


def threads() -> list[threading.Thread]:
    """Return the threads that carry news."""
    return [one for one in threading.enumerate() if one.name.startswith("chat-sessions-")]


def eventually(condition: Callable[[], Any]) -> bool:
    """Tell whether something comes to be so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Begin each test without threads, and end it without."""
    notifications.reset()
    yield
    notifications.reset()
    assert threads() == []


@pytest.fixture
def listener(settings: Any) -> Callable[..., None]:
    """Return a function that chooses the backend."""

    def listener(name: str, **keys: Any) -> None:
        settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "LISTENER": name, "REDIS_URL": None, **keys}

    return listener


@pytest.fixture(
    params=[
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("redis", marks=pytest.mark.services("redis")),
    ]
)
def published(request: pytest.FixtureRequest, transactional_db: None, listener: Callable[..., None]) -> str:
    """Choose each backend that publishes."""
    name = str(request.param)
    listener(name, REDIS_URL=request.getfixturevalue("redis_url") if name == "redis" else None)
    return name


@pytest.fixture
def alice(transactional_db: None) -> User:
    """Return a user that other threads and processes can see."""
    return User.objects.create(username="alice")


SCRIPT = """
import json, sys
from django.conf import settings
chat_sessions, work = json.loads(sys.argv[1]), sys.argv[2]
settings.CHAT_SESSIONS = chat_sessions
import django
django.setup()
from uuid import UUID, uuid4
from django_chat_sessions import notifications
if "warm" in sys.argv:
    notifications.tell("default", uuid4())
    notifications._exchange.drain(20)
print("ready", flush=True)
names = json.loads(sys.stdin.readline())
exec(work)
"""

#: What other processes do.
TELL = "for name in names: notifications.tell('default', UUID(name))"
SAY = """
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import say
for name in names: say(ChatSession.objects.get(uuid=name), "hello")
"""


@pytest.fixture
def elsewhere(
    transactional_db: None, subprocess_environment: dict[str, str], settings: Any
) -> Iterator[Callable[..., Callable[..., None]]]:
    """Return a function that starts a process, and returns one that lets it do its work on sessions, and exit.

    The process has published before, as a server has, unless it is cold.
    """
    started: list[subprocess.Popen[str]] = []

    def elsewhere(work: str = TELL, *, warmth: str = "warm") -> Callable[..., None]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, json.dumps(settings.CHAT_SESSIONS), work, warmth],
            env=subprocess_environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"

        def act(*sessions: UUID) -> None:
            assert process.stdin
            process.stdin.write(json.dumps([str(one) for one in sessions]) + "\n")
            process.stdin.flush()

        return act

    yield elsewhere
    for process in started:
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
