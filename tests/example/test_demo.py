"""``make demo`` as its user meets it: all its processes, its own data, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass
class Demo:
    process: subprocess.Popen[str]
    url: str
    var: Path

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Token {token}"} if token else {})}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data=data, headers=headers, method=method)
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except HTTPError as error:
            return error.code, json.loads(error.read())

    def token(self, name: str) -> str:
        status, body = self.call("POST", "/api/token", {"username": name, "password": "demo"})
        assert status == 200
        return body["token"]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "TEST_"))}
    for name in ("DATABASE_URL", "CELERY_BROKER_URL", "DB"):
        environment.pop(name, None)
    environment |= {"PORT": str(port), "DEMO_VAR_DIR": str(tmp_path), "DEMO_SWEEP_SECONDS": "2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "example_project.demo"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said: list[str] = []
    for line in process.stdout or ():
        said.append(line)
        if "Ctrl-C stops everything." in line:
            break
    else:
        pytest.fail("The demo did not come up:\n" + "".join(said))
    yield Demo(process, f"http://127.0.0.1:{port}", tmp_path)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def processes_of(group: int) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if group in (os.getpgid(process.pid), os.getsid(process.pid)):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.sqlite
def test_demo_answers_expires_by_its_worker_and_stops_without_leaving_anything(demo: Demo) -> None:
    alice, bob = demo.token("alice"), demo.token("bob")
    status, session = demo.call("POST", "/api/chat/sessions", {"agent": "tasks"}, alice)
    assert status == 201
    path = f"/api/chat/sessions/{session['id']}"
    status, answer = demo.call("POST", f"{path}/messages", {"content": "Create a task: Review Q4 budget"}, alice)
    assert (status, answer["reply"]["content"]) == (201, "✓ Created")
    status, answer = demo.call("POST", f"{path}/messages", {"content": "Mark it complete"}, alice)
    assert (status, answer["reply"]["content"]) == (201, "✓ Marked complete")
    assert demo.call("GET", path, token=bob)[0] == 404

    with closing(sqlite3.connect(demo.var / "db.sqlite3", timeout=20)) as database, database:
        database.execute("UPDATE chat_sessions_chatsession SET expires_at = created_at")
    assert demo.call("GET", path, token=alice)[1]["status"] == "expired"
    until, recorded = time.monotonic() + 60, []
    while not recorded and time.monotonic() < until:
        recorded = demo.call("GET", f"{path}/events?type=session.expired&after=0", token=alice)[1]["events"]
        time.sleep(0.5)
    assert [event["type"] for event in recorded] == ["session.expired"]

    demo.process.send_signal(signal.SIGINT)
    said, _ = demo.process.communicate(timeout=60)
    assert demo.process.returncode == 0, said
    assert "Stopped." in said
    assert processes_of(demo.process.pid) == []


@pytest.mark.sqlite
def test_demo_says_which_port_is_taken(demo: Demo) -> None:
    port = demo.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "example_project.demo"],
        cwd=ROOT,
        env={**os.environ, "PORT": port, "DEMO_VAR_DIR": str(demo.var)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert f"Port {port} is taken" in second.stdout
