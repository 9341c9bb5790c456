"""The example as its users have it: a real server, its own database, people with browsers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from .proxy import Proxy

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

ROOT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "demo"
READY_SECONDS = 60
GRACE_SECONDS = 20
GUESTS = 60
DATABASE = "db.sqlite3"

FILL = f"""
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", interactive=False, verbosity=0)
call_command("demo_setup")
password = make_password("{PASSWORD}")
User.objects.bulk_create(User(username=f"guest{{n}}", password=password) for n in range({GUESTS}))
"""

AGE = """
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import age
age(ChatSession.objects.get(uuid="{session}"), seconds={seconds})
"""


@dataclass
class Site:
    """A running example project.

    Attributes:
        url: where it answers.
        directory: its database and its logs.
        environment: of all its processes.
    """

    url: str
    directory: Path
    environment: dict[str, str]
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def manage(self, *arguments: str) -> None:
        """Run a management command to its end."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def age(self, session: str, **duration: float) -> None:
        """Let time pass for one session, on the server."""
        units = {"seconds": 1, "minutes": 60}
        seconds = sum(amount * units[unit] for unit, amount in duration.items())
        self.manage("shell", "-c", AGE.format(session=session, seconds=seconds))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def serve(self) -> None:
        """Start the server."""
        manners = ("--lifespan", "on", "--timeout-graceful-shutdown", "2")
        address = ("--host", "127.0.0.1", "--port", str(self.port))
        self.start("server", "-m", "uvicorn", "example_project.asgi:application", *address, *manners)

    def kill(self, name: str) -> None:
        """Kill one of its processes as a power cut would."""
        os.killpg(self.children[name].pid, signal.SIGKILL)
        self.children.pop(name).wait()

    def start(self, name: str, *arguments: str) -> None:
        """Start a process that stays."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/api/chat/sessions/health", timeout=5).status_code == 200:
                    return
            assert all(child.poll() is None for child in self.children.values()), self.logs()
            time.sleep(0.2)
        pytest.fail(f"The example did not answer within {READY_SECONDS} s.\n{self.logs()}")

    def stop(self) -> None:
        """Stop all its processes."""
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-4000:]}" for log in self.directory.glob("*.log"))

    def api(self, username: str) -> httpx.Client:
        """Return somebody's API client."""
        answer = httpx.post(f"{self.url}/api/token", json={"username": username, "password": PASSWORD}, timeout=30)
        headers = {"Authorization": f"Token {answer.json()['token']}"}
        return httpx.Client(base_url=f"{self.url}/api/chat/", headers=headers, timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


#: Databases as sites begin, by the settings that matter to them; made once, as it takes longer than many a test.
_databases: dict[str, tempfile.TemporaryDirectory[str]] = {}


def _filled(site: Site) -> Path:
    """Return a database with all tables, the people of the demo, the guests, and the schedule."""
    seconds = site.environment.get("DEMO_SWEEP_SECONDS", "")
    if seconds not in _databases:
        _databases[seconds] = tempfile.TemporaryDirectory()
        database = f"sqlite:///{_databases[seconds].name}/{DATABASE}"
        replace(site, environment={**site.environment, "DATABASE_URL": database}).manage("shell", "-c", FILL)
    return Path(_databases[seconds].name, DATABASE)


def serve(
    directory: Path,
    *,
    celery: bool = False,
    wsgi: bool = False,
    sweep: bool = False,
    chat_sessions: dict[str, Any] | None = None,
    **environment: str,
) -> Iterator[Site]:
    """Serve the example from a database of its own; with whatever matters to a test beside it."""
    port = free_port()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "TEST_", "SESSION_", "DEMO_", "CELERY_", "OPENAI_"))
    }
    site = Site(
        url=f"http://127.0.0.1:{port}",
        directory=directory,
        environment={
            **inherited,
            "DJANGO_SETTINGS_MODULE": "tests.browser.settings",
            "TEST_CHAT_SESSIONS": json.dumps(chat_sessions or {}),
            "DATABASE_URL": f"sqlite:///{directory / DATABASE}",
            "DEMO_VAR_DIR": str(directory),
            "DEMO_BROKER_DIR": str(directory / "broker"),
            "DEMO_THROTTLING": "0",
            "PYTHONUNBUFFERED": "1",
            **environment,
        },
    )
    shutil.copy(_filled(site), directory / DATABASE)
    try:
        if wsgi:
            site.start("server", "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
        else:
            site.serve()
        if sweep:
            site.start("sweep", "manage.py", "chat_sessions", "sweep", "--loop", "--interval", "1")
        if celery:
            pool = ("--pool", "threads", "--concurrency", "2", "--loglevel", "INFO")
            quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
            site.start("worker", "-m", "celery", "--app", "example_project", "worker", *pool, *quiet)
            schedule = ("--pidfile", "", "--schedule", str(directory / "beat-schedule"))
            site.start("beat", "-m", "celery", "--app", "example_project", "beat", "--loglevel", "INFO", *schedule)
        site.wait()
        yield site
    finally:
        site.stop()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve the example, once for all tests; each brings people of its own."""
    yield from serve(tmp_path_factory.mktemp("site"))


@pytest.fixture
def short_lived_site(tmp_path: Path) -> Iterator[Site]:
    """Serve the example with conversations that expire after an idle minute, recorded by a Celery worker."""
    yield from serve(
        tmp_path,
        celery=True,
        DEMO_RUNNER="celery",
        SESSION_MIN_TIMEOUT_MINUTES="1",
        SESSION_DEFAULT_TIMEOUT_MINUTES="1",
        DEMO_SWEEP_SECONDS="2",
    )


@pytest.fixture
def brittle_site(tmp_path: Path) -> Iterator[Site]:
    """Serve the example with a server that is to be killed, which is noticed after two seconds."""
    clocks = {"HEARTBEAT_SECONDS": 0.5, "STALE_AFTER": 2}
    yield from serve(tmp_path, sweep=True, chat_sessions=clocks)


@pytest.fixture
def wsgi_site(tmp_path: Path) -> Iterator[Site]:
    """Serve the example by WSGI, which streams nothing."""
    yield from serve(tmp_path, wsgi=True)


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    """Return a wire to the server that can be cut."""
    proxy = Proxy(site.port)
    yield proxy
    proxy.close()


@pytest.fixture
def wired_site(site: Site, proxy: Proxy) -> Site:
    """Return the site as it is reached over that wire."""
    return replace(site, url=proxy.url)


guest_numbers = count()


@pytest.fixture
def guest() -> str:
    """Name somebody whom no other test knows."""
    return f"guest{next(guest_numbers) % GUESTS}"


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Return a function that opens a browser of somebody's own; what goes wrong inside fails the test."""
    opened: list[BrowserContext] = []
    troubles: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            troubles.append(message.text)

    def watch(page: Page) -> None:
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: troubles.append(f"{error}\n{error.stack}"))
        page.on("console", note)

    def contexts(**options: Any) -> BrowserContext:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options})
        context.on("page", watch)
        opened.append(context)
        return context

    yield contexts
    for context in opened:
        context.close()
    assert troubles == []


def log_in(context: BrowserContext, site: Site, username: str) -> BrowserContext:
    """Log somebody in without the page."""
    form = f"{site.url}/accounts/login/"
    context.request.get(form)
    token = next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "csrftoken")
    fields: dict[str, str | float | bool] = {"username": username, "password": PASSWORD, "csrfmiddlewaretoken": token}
    answer = context.request.post(form, form=fields, headers={"Referer": form}, max_redirects=0)
    assert answer.status == 302, answer.text()
    return context


@pytest.fixture
def context_of(contexts: Callable[..., BrowserContext], site: Site) -> Callable[..., BrowserContext]:
    """Return a function that opens a browser in which somebody is logged in."""
    return lambda username, **options: log_in(contexts(**options), site, username)
