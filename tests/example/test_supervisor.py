"""Processes that are started, watched and stopped together."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_project import supervisor as module
from example_project.supervisor import Failed, Stopped, Supervisor

SLEEP = "import time; print('here I am', flush=True); time.sleep(60)"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(os.environ, tmp_path, said.append)
    yield supervisor
    supervisor.stop()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # What nobody has waited for yet is still listed.
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def wait_for(path: Path) -> str:
    for _ in range(200):
        if path.exists() and path.read_text().strip():
            return path.read_text().strip()
        time.sleep(0.05)
    raise AssertionError(f"{path} stayed empty")


def test_a_process_that_dies_is_named_with_the_end_of_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("worker", python("print('no broker here'); raise SystemExit(3)"), tmp_path / "worker.log")
    with pytest.raises(Failed, match=r"(?s)worker stopped by itself \(exit code 3\).*no broker here"):
        supervisor.watch()


def test_all_of_them_stop(supervisor: Supervisor, tmp_path: Path, said: list[str]) -> None:
    children = [supervisor.start(name, python(SLEEP), tmp_path / name) for name in ("server", "worker")]
    for child in children:
        wait_for(child.log)
    supervisor.stop()
    assert [child.process.returncode for child in children] == [-signal.SIGTERM] * 2
    assert said == []


def test_one_that_does_not_listen_is_killed_after_its_grace(
    supervisor: Supervisor, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.3)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
    child = supervisor.start("worker", python(deaf), tmp_path / "log")
    wait_for(child.log)
    supervisor.stop()
    assert child.process.returncode == -signal.SIGKILL
    assert said == ["The worker did not stop in time and is killed."]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_processs_own_children_go_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\ntime.sleep(60)"
    )
    child = supervisor.start("worker", python(parent), tmp_path / "log")
    grandchild = int(wait_for(child.log))
    supervisor.stop()
    for _ in range(100):
        if not is_alive(grandchild):
            return
        time.sleep(0.05)
    pytest.fail("the grandchild still runs")


def test_a_command_that_fails_says_so(supervisor: Supervisor) -> None:
    supervisor.run("Doing nothing", python("pass"))
    with pytest.raises(Failed, match=r"Migrating failed.*exit code 4"):
        supervisor.run("Migrating", python("raise SystemExit(4)"))


def test_what_never_gets_ready_is_given_up_on(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("server", python(SLEEP), tmp_path / "log")
    with pytest.raises(Failed, match=r"Starting took longer than 0 s"):
        supervisor.wait_until(lambda: False, "Starting", 0.4)


def test_a_signal_ends_the_wait(supervisor: Supervisor, tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        supervisor.listen()
        supervisor.start("server", python(SLEEP), tmp_path / "log")
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Stopped):
            supervisor.watch()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
