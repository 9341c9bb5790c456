"""Processes that can be killed, and what the log has to say afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from django_chat_sessions.choices import EventType
from django_chat_sessions.models import ChatSession, Run, RunChunk
from django_chat_sessions.operations import verification
from tests.celery.conftest import broker, start, start_worker
from tests.streams.conftest import ROOT, Frame, Reader, Server, Servers, free_port, servers

__all__ = ["broker", "servers", "start", "start_worker"]

#: Seconds after which a process is taken to be lost, here.
STALE = 1.5
QUICK = {"HEARTBEAT_SECONDS": 0.3, "STALE_AFTER": STALE, "GRACE_SECONDS": 2}

ENDS = {"run.succeeded", "run.failed", "run.cancelled"}


def eventually(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Wait until something is so, and return it."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {seconds} s for {what() if callable(what) else what}"
        time.sleep(0.05)
    return found


@pytest.fixture
def subprocess_environment(subprocess_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Return an environment with impatient settings, and a place for the traces of agents."""
    (tmp_path / "traces").mkdir()
    ours = {"TEST_CHAT_SESSIONS": json.dumps(QUICK), "TEST_TRACES": str(tmp_path / "traces")}
    return {**subprocess_environment, **ours}


@pytest.fixture
def start_servers(servers: Servers) -> Callable[..., list[Server]]:
    """Return a function that starts some servers at once, and waits until all are up."""

    def start_servers(
        count: int, *, application: str = "tests.streams.asgi:application", **environment: str
    ) -> list[Server]:
        found = []
        for _ in range(count):
            port, log = free_port(), servers.folder / f"server-{len(servers.started)}.log"
            command = [sys.executable, "-m", "uvicorn", application, "--port", str(port)]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*command, "--log-level", "warning", "--lifespan", "on"],
                    cwd=ROOT,
                    env={**servers.environment, **environment},
                    stdout=output,
                    stderr=output,
                )
            found.append(Server(process, port, servers.token, log))
            servers.started.append(found[-1])
        for server in found:
            server.wait_until_up()
        return found

    return start_servers


def settings(**keys: Any) -> dict[str, str]:
    """Return the environment in which a process has these settings, too."""
    return {"TEST_CHAT_SESSIONS": json.dumps({**QUICK, **keys})}


@pytest.fixture
def traces(tmp_path: Path) -> Callable[[Run], list[str]]:
    """Return a function that gives the traces of a run."""

    def traces(run: Run) -> list[str]:
        path = tmp_path / "traces" / str(run.uuid)
        return path.read_text().split("\n")[:-1] if path.exists() else []

    return traces


@dataclass
class Sweep:
    """A process that sweeps."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_up(self) -> None:
        eventually(lambda: "Sweeping" in self.log.read_text(), "the sweep to begin", 40)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def sweeping(
    transactional_db: None, subprocess_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., Sweep]]:
    """Return a function that starts `chat_sessions sweep`."""
    started: list[Sweep] = []

    def sweeping(*arguments: str, **environment: str) -> Sweep:
        log = tmp_path / f"sweep-{len(started)}.log"
        command = [sys.executable, "-m", "django", "chat_sessions", "sweep", *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**subprocess_environment, "PYTHONUNBUFFERED": "1", **environment},
                stdout=output,
                stderr=output,
            )
        started.append(Sweep(process, log))
        return started[-1]

    yield sweeping
    for sweep in started:
        sweep.stop()
        if os.environ.get("SHOW_SERVER_LOGS"):
            sys.stderr.write(sweep.log.read_text())


@dataclass
class Talk:
    """A session, the question that was asked in it, and who reads what comes."""

    server: Server
    session: ChatSession
    reader: Reader
    run: Run

    @classmethod
    def begin(cls, server: Server, agent: str, content: str) -> Talk:
        public_id = server.open(agent)
        reader = server.stream(f"sessions/{public_id}/stream")
        reader.wait_open()
        body = {"content": content, "delivery": "background"}
        response = server.call("POST", f"sessions/{public_id}/messages", json=body)
        assert response.status_code == 202, response.text
        run = Run.objects.get(uuid=response.json()["run"]["id"])
        return cls(server, ChatSession.objects.get(uuid=public_id), reader, run)

    def come_back(self, server: Server) -> None:
        """Read on from another server, from where this reader stands."""
        # In a thread, as a server that is held does not let its clients go.
        threading.Thread(target=self.reader.cut, daemon=True).start()
        frames = list(self.reader.frames)
        last = frames[-1].id if frames else "1"
        self.server, self.reader = server, server.stream(f"sessions/{self.session.uuid}/stream", last=last)
        self.reader.frames[:0] = frames

    @property
    def frames(self) -> list[Frame]:
        return list(self.reader.frames)

    @property
    def said(self) -> str:
        """What chunks of the run say, in order."""
        return "".join(RunChunk.objects.filter(run=self.run).order_by("index").values_list("text", flat=True))

    def giver(self) -> int:
        """Return the number of the process that gives the answer."""
        self.status()
        name = self.run.worker.split(":")
        # A worker's children have its name and token before their number; a server has its token behind.
        return int(name[-1] if "@" in name[0] else name[1])

    def status(self) -> str:
        self.run.refresh_from_db()
        return self.run.status

    def wait_over(self, seconds: float = 20) -> str:
        eventually(lambda: self.status() in {"succeeded", "failed", "cancelled"}, f"{self.run} to be over", seconds)
        return self.status()

    def wait_read(self) -> None:
        """Wait until the reader has the end of the run."""
        self.reader.wait_for(lambda frames: any(frame.type in ENDS for frame in frames))

    def assert_read_once_and_in_order(self) -> None:
        """Hold what was read, over all connections, to the log."""
        places = [tuple(map(int, f"{frame.id}.-1".split(".")[:2])) for frame in self.frames]
        assert places == sorted(set(places)), places
        logged = list(self.session.events.filter(sequence__gt=1).order_by("sequence").values_list("sequence", "type"))
        assert [
            (place[0], frame.type) for place, frame in zip(places, self.frames, strict=True) if place[1] < 0
        ] == logged
        deltas = [frame.data for frame in self.frames if frame.type == "message.delta"]
        assert "".join(delta["text"] for delta in deltas) == self.said
        assert [delta["index"] for delta in deltas] == list(range(len(deltas)))

    def conversation(self) -> list[tuple[str, str]]:
        """Return how the conversation reads now: roles and texts."""
        page = self.server.call("GET", f"sessions/{self.session.uuid}/messages").json()["messages"]
        return [(message["role"], message["content"]) for message in page]

    def types(self) -> list[str]:
        return list(self.session.events.order_by("sequence").values_list("type", flat=True))

    def assert_usable(self) -> None:
        """Ask something else, wait for the answer, and verify the log."""
        body = {"content": "and then", "delivery": "wait"}
        response = self.server.call("POST", f"sessions/{self.session.uuid}/messages", json=body)
        assert response.status_code == 201, response.text
        assert response.json()["reply"]["content"] == "and then "
        self.assert_sound()

    def assert_sound(self) -> None:
        assert verification.verify(ChatSession.objects.get(pk=self.session.pk)) == []
        starts = self.session.events.filter(type=EventType.RUN_STARTED).count()
        assert starts == sum(Run.objects.filter(session=self.session).values_list("attempt", flat=True))


def is_there(number: int) -> bool:
    """Tell whether a process lives."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


STOP, GO, TERM, KILL = signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM, signal.SIGKILL
