"""A real ASGI server in a process of its own, on the test database, and clients that read its streams."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Server:
    """An ASGI server.

    Attributes:
        process: what runs it.
        url: the mount of the API, without a slash at its end.
        token: of the user whose sessions are talked about.
    """

    process: subprocess.Popen[bytes]
    port: int
    token: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/chat"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {self.token}"}

    def call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        headers = {**self.headers, **kwargs.pop("headers", {})}
        return httpx.request(method, f"{self.url}/{path}", headers=headers, timeout=30, **kwargs)

    def open(self, agent: str, **fields: Any) -> str:
        response = self.call("POST", "sessions", json={"agent": agent, **fields})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def stream(self, path: str, **kwargs: Any) -> Reader:
        return Reader(self, path, **kwargs)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10)

    def wait_until_up(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/sessions/health", timeout=2).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())


@dataclass
class Frame:
    id: str
    type: str
    data: Any


class Reader:
    """Reads a stream in a thread of its own, until it is cut or closed."""

    def __init__(
        self,
        server: Server,
        path: str,
        *,
        method: str = "GET",
        last: str | None = None,
        headers: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.frames: list[Frame] = []
        self.comments = 0
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.error: BaseException | None = None
        self.is_closed = threading.Event()
        self._changed = threading.Condition()
        sent = {**server.headers, **(headers or {}), **({"Last-Event-ID": last} if last else {})}
        self._request = (method, f"{server.url}/{path}", {"headers": sent, **kwargs})
        self._client = httpx.Client(timeout=httpx.Timeout(10, read=60))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        method, url, kwargs = self._request
        try:
            with self._client.stream(method, url, **kwargs) as response:
                with self._changed:
                    self.status, self.headers = response.status_code, dict(response.headers)
                    self._changed.notify_all()
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    self._parse(response.iter_lines())
                else:
                    self.body = response.read()
        except (httpx.TransportError, httpx.StreamError) as error:
            self.error = error
        finally:
            self.is_closed.set()
            with self._changed:
                self._changed.notify_all()

    def _parse(self, lines: Iterator[str]) -> None:
        frame: dict[str, str] = {}
        for line in lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                frame[name] = value
            elif "data" in frame:
                with self._changed:
                    self.frames.append(Frame(frame["id"], frame["event"], json.loads(frame["data"])))
                    self._changed.notify_all()
                frame = {}
            else:
                frame = {}

    def wait_for(self, is_there: Callable[[list[Frame]], Any], seconds: float = 15) -> Any:
        """Wait until something is among the frames."""
        with self._changed:
            self._changed.wait_for(lambda: is_there(self.frames), timeout=seconds)
            found = is_there(self.frames)
        assert found, [f"{frame.id} {frame.type}" for frame in self.frames]
        return found

    def wait_for_type(self, kind: str, seconds: float = 15) -> Frame:
        return self.wait_for(lambda frames: next((f for f in frames if f.type == kind), None), seconds)

    def wait_open(self, seconds: float = 15) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.status is not None, timeout=seconds), self.error

    def wait_closed(self, seconds: float = 15) -> None:
        assert self.is_closed.wait(seconds), [f"{frame.id} {frame.type}" for frame in self.frames]

    def cut(self) -> None:
        """Cut the connection."""
        self._client.close()
        self.is_closed.wait(5)

    @property
    def types(self) -> list[str]:
        return [frame.type for frame in self.frames]

    @property
    def text(self) -> str:
        return "".join(frame.data["text"] for frame in self.frames if frame.type == "message.delta")


@dataclass
class Servers:
    environment: dict[str, str]
    token: str
    folder: Path
    started: list[Server] = field(default_factory=list)

    def start(self, **environment: str) -> Server:
        port = free_port()
        log = self.folder / f"server-{len(self.started)}.log"
        command = [sys.executable, "-m", "uvicorn", "tests.streams.asgi:application"]
        command += ["--port", str(port), "--log-level", "warning", "--lifespan", "on"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**self.environment, **environment}, stdout=output, stderr=subprocess.STDOUT
            )
        server = Server(process, port, self.token, log)
        self.started.append(server)
        server.wait_until_up()
        return server


@pytest.fixture
def servers(
    transactional_db: None, alice: Any, subprocess_environment: dict[str, str], tmp_path: Path
) -> Iterator[Servers]:
    """Start ASGI servers on the test database; what is left of them is killed."""
    from rest_framework.authtoken.models import Token

    found = Servers(subprocess_environment, Token.objects.create(user=alice).key, tmp_path)
    yield found
    for server in found.started:
        if server.process.poll() is None:
            server.signal(signal.SIGTERM)
    for server in found.started:
        try:
            server.process.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
        if os.environ.get("SHOW_SERVER_LOGS"):
            sys.stderr.write(server.log.read_text())


@pytest.fixture(scope="session")
def _lasting() -> Iterator[dict[str, Server]]:
    """Keep servers for all tests that do them no harm; starting one takes seconds."""
    started: dict[str, Server] = {}
    yield started
    for server in started.values():
        server.kill()


def _last(name: str, servers: Servers, lasting: dict[str, Server]) -> Server:
    if name not in lasting or lasting[name].process.poll() is not None:
        lasting[name] = servers.start()
        servers.started.remove(lasting[name])
    return replace(lasting[name], token=servers.token)


@pytest.fixture
def server(servers: Servers, _lasting: dict[str, Server]) -> Server:
    """Return a server on the test database that outlives the test."""
    return _last("first", servers, _lasting)


@pytest.fixture
def other_server(servers: Servers, _lasting: dict[str, Server]) -> Server:
    """Return another one."""
    return _last("second", servers, _lasting)
