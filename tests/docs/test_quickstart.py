"""The quickstarts work: their blocks, as they stand, in a fresh Django project."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.docs import pages

pytestmark = [
    pytest.mark.slow,
    # What it runs on is its own affair: the fresh project's SQLite.
    pytest.mark.sqlite,
]

#: Where a block goes that begins with a comment of its file's name.
PLACES = {"settings.py": "mysite/settings.py", "urls.py": "mysite/urls.py", "views.py": "assistants/views.py"}

USE = """
import django, os
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
from django.contrib.auth.models import User
from django.test import Client
client = Client(headers={"host": "localhost"})
client.force_login(User.objects.create_user("alice"))
session = client.post("/api/chat/sessions", {}, content_type="application/json").json()
for number in (1, 2):
    answer = client.post("/say/", {"text": "Good morning"}, headers={"X-Chat-Session": session["id"]})
    assert answer.json() == {"reply": f"Hello number {number}! You said: Good morning"}, answer.content
assert client.post("/say/", {"text": "Good morning"}).status_code == 404
"""


class Project:
    """A directory for a project, and what is run in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ours = ("DJANGO_", "TEST_", "DATABASE_URL")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment["PYTHONPATH"] = str(pages.ROOT)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def shell(self, script: str) -> str:
        return self.run("bash", "-euo", "pipefail", "-c", script)

    def add(self, block: pages.Block) -> None:
        """Put a block where its first line says, at the end of what is there."""
        first = block.code.partition("\n")[0].removeprefix("# ")
        path = self.directory / PLACES.get(first, first)
        assert path.parent.is_dir(), block
        with path.open("a") as file:
            file.write(f"\n{block.code}")

    @contextmanager
    def server(self, port: int) -> Iterator[None]:
        command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
        with subprocess.Popen(
            command, cwd=self.directory, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                _wait(f"http://127.0.0.1:{port}/api/chat/sessions/health")
                yield
            finally:
                server.terminate()


def _wait(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            urlopen(url, timeout=5).close()
        except (URLError, OSError):
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.2)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(port: int, session: str, text: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/chat/sessions/{session}/messages"
    login = base64.b64encode(b"alice:wonderland").decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps({"content": text}).encode(), headers), timeout=30) as answer:
        return json.load(answer)


def test_readme_takes_a_new_project_to_a_conversation_that_lasts(tmp_path: Path) -> None:
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    project, port = Project(tmp_path), _free_port()
    *blocks, last = pages.blocks("python", "bash", page=pages.README, after="## Quickstart", before="## Settings")
    for block in blocks:
        if block.language == "bash":
            project.shell(block.code)
        else:
            project.add(block)
    project.run("python", "manage.py", "check")

    with project.server(port):
        told = json.loads(project.shell(last.code.replace("127.0.0.1:8000", f"127.0.0.1:{port}")))
    assert told["reply"]["content"] == "Hello number 1! You said: Good morning"

    with project.server(port):
        told = _say(port, told["session"]["id"], "Good night")
    assert told["reply"]["content"] == "Hello number 2! You said: Good night"
    assert told["session"]["message_count"] == 4


def test_long_quickstart_works_up_to_a_page_of_ones_own(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("django-admin", "startproject", "mysite", ".")
    project.run("python", "manage.py", "startapp", "assistants")
    for block in pages.blocks("python", page=pages.DOCS / "quickstart.md"):
        project.add(block)
    urls = tmp_path / "mysite/urls.py"
    urls.write_text(f"{urls.read_text()}\nfrom assistants.views import say\nurlpatterns += [path('say/', say)]\n")
    project.run("python", "manage.py", "migrate", "--verbosity", "0")
    project.run("python", "manage.py", "check")
    (tmp_path / "use.py").write_text(USE)
    project.run("python", "use.py")
