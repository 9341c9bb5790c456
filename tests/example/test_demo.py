"""``make demo``, as somebody who has just cloned it would meet it."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.sqlite]  # it brings its own database, so once is enough

ROOT = Path(__file__).resolve().parents[2]
OURS = ("DATABASE_URL", "CELERY_BROKER_URL", "DB", "DJANGO_SETTINGS_MODULE", "TEST_DATABASE", "DEMO_RUNNER")


class Demo:
    """A demo that runs in a directory of its own."""

    def __init__(self, directory: Path, **environment: str) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.directory = directory
        self.output = directory / "output.txt"
        settings = {"PORT": str(self.port), "DEMO_VAR_DIR": str(directory), "DEMO_THROTTLING": "0"}
        inherited = {
            key: value for key, value in os.environ.items() if key not in OURS and not key.startswith("OPENAI_")
        }
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "example_project.demo"],
                cwd=ROOT,
                env=inherited | settings | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait(self, text: str, seconds: float = 90) -> None:
        for _ in range(int(seconds * 10)):
            if text in self.said or self.process.poll() is not None:
                break
            time.sleep(0.1)
        assert text in self.said, self.said

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def client_of(self, name: str) -> httpx.Client:
        with self.client() as nobody:
            token = nobody.post("/api/token", json={"username": name, "password": "demo"}).json()["token"]
        client = self.client()
        client.headers["Authorization"] = f"Token {token}"
        return client


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("demo"), DEMO_SWEEP_SECONDS="1")
    try:
        demo.wait("Ctrl-C stops everything")
        yield demo
    finally:
        demo.stop()


def ask(client: httpx.Client, session: str, text: str) -> str:
    answer = client.post(f"/api/chat/sessions/{session}/messages", json={"content": text})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["reply"]["content"])


def open_session(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/api/chat/sessions", json=fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_conversation_lasts_and_is_nobody_elses(demo: Demo) -> None:
    with demo.client_of("alice") as first, demo.client_of("alice") as second, demo.client_of("bob") as bob:
        session = open_session(first)["id"]
        assert ask(first, session, "Create a task: Review Q4 budget") == "✓ Created"
        assert ask(second, session, "Mark it complete") == "✓ Marked complete"
        messages = second.get(f"/api/chat/sessions/{session}/messages").json()["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * 2
        assert bob.get(f"/api/chat/sessions/{session}").status_code == 404
        assert bob.get("/api/chat/sessions").json()["results"] == []


def begin_story(client: httpx.Client) -> str:
    """Have a story begun, and return its session once some of it has been told."""
    session = str(open_session(client, agent="storyteller")["id"])
    with client.stream("GET", f"/api/chat/sessions/{session}/stream", params={"after": 0}) as stream:
        question = {"content": "A kettle", "delivery": "background"}
        assert client.post(f"/api/chat/sessions/{session}/messages", json=question).status_code == 202
        assert any(line == "event: message.delta" for line in stream.iter_lines())
    return session


def test_the_worker_gives_the_answers_and_what_it_says_is_streamed(demo: Demo) -> None:
    with demo.client_of("alice") as alice:
        session = begin_story(alice)
        run = alice.get(f"/api/chat/sessions/{session}/runs").json()["results"][0]
        assert run["status"] == "running"
        stopped = alice.post(f"/api/chat/sessions/{session}/runs/{run['id']}/cancel", json={})
        assert (stopped.status_code, stopped.json()["status"]) == (202, "cancelled")
        messages = alice.get(f"/api/chat/sessions/{session}/messages").json()["messages"]
        assert messages[-1]["metadata"] == {"cut_short": "cancelled"}
    assert "chat_sessions.run[" in (demo.directory / f"worker-{demo.port}.log").read_text()


def test_celery_records_the_expiry_and_the_logs_say_that_and_not_each_sweep(demo: Demo) -> None:
    with demo.client_of("alice") as alice:
        session = open_session(alice)["id"]
        with closing(sqlite3.connect(demo.directory / "db.sqlite3", timeout=20)) as database, database:
            moved = database.execute(
                "UPDATE chat_sessions_chatsession SET expires_at = datetime('now', '-1 minute') WHERE uuid IN (?, ?)",
                (session, session.replace("-", "")),
            )
            assert moved.rowcount == 1
        for _ in range(300):
            types = [e["type"] for e in alice.get(f"/api/chat/sessions/{session}/events").json()["events"]]
            said = {name: (demo.directory / f"{name}-{demo.port}.log").read_text() for name in ("worker", "beat")}
            if "session.expired" in types and "chat_sessions.sweep task=expire count=1" in said["worker"]:
                break
            time.sleep(0.1)
        else:
            pytest.fail(said["worker"][-3000:])
    assert "chat_sessions.warn[" not in said["worker"]
    assert "beat: Starting" in said["beat"]
    assert "Sending due task" not in said["beat"]


def test_a_token_takes_name_and_password(demo: Demo) -> None:
    with demo.client() as nobody:
        right = {"username": "bob", "password": "demo"}
        assert set(nobody.post("/api/token/", json=right).json()) == {"token"}
        assert set(nobody.post("/api/token", data=right).json()) == {"token"}
        assert nobody.post("/api/token", json={**right, "password": "?"}).status_code == 400
        outdated = {"Authorization": "Token gone"}
        assert nobody.post("/api/token", json=right, headers=outdated).status_code == 200


def test_nobody_in_particular_is_asked_who_they_are(demo: Demo) -> None:
    with demo.client() as nobody:
        answer = nobody.get("/api/chat/sessions")
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
        assert nobody.get("/").headers["location"] == "/accounts/login/?next=/"
        assert nobody.get("/api/chat/sessions/health").status_code == 200


@pytest.mark.parametrize(
    "path", ["/accounts/login/", "/admin/login/", "/static/admin/css/base.css", "/api/schema/", "/api/docs/"]
)
def test_it_serves(demo: Demo, path: str) -> None:
    with demo.client() as nobody:
        assert nobody.get(path).status_code == 200


def test_the_schedule_and_the_people_are_there_after_a_restart(demo: Demo) -> None:
    """Run last: it stops the demo of this module and starts it again."""
    with demo.client_of("alice") as alice:
        begin_story(alice)  # which is waited for, but not to its end
        begun = time.monotonic()
        assert demo.stop() == 0
        assert time.monotonic() - begun < 20
    assert demo.said.rstrip().endswith("Stopped.")
    assert "is killed" not in demo.said
    again = Demo(demo.directory)
    try:
        again.wait("Ctrl-C stops everything")
        assert "user alice: there already" in again.said
    finally:
        assert again.stop() == 0


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = Demo(tmp_path, PORT=str(port))
        assert demo.process.wait(30) == 1
    assert f"Port {port} is taken" in demo.said


def test_what_dies_takes_the_rest_along(tmp_path: Path) -> None:
    demo = Demo(tmp_path, CELERY_BROKER_URL="nonsense://")
    try:
        assert demo.process.wait(90) == 1
    finally:
        demo.stop()
    assert "stopped by itself" in demo.said
    assert "nonsense" in demo.said


def test_it_runs_on_the_embedded_postgresql(tmp_path: Path) -> None:
    demo = Demo(tmp_path, DB="postgres")
    try:
        demo.wait("Ctrl-C stops everything")
        with demo.client_of("alice") as alice:
            assert ask(alice, open_session(alice, agent="echo")["id"], "Hello") == "Hello"
    finally:
        assert demo.stop() == 0
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
