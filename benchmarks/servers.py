"""Servers in processes of their own, on free ports."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: What the connections of a server that is measured are called by the database.
NAME = "benchmarked"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    port: int
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """The processor time that it has taken so far."""
        import psutil

        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    @property
    def resident_bytes(self) -> int:
        """The memory that it holds."""
        import psutil

        return psutil.Process(self.pid).memory_info().rss

    @property
    def threads(self) -> int:
        """How many threads it has."""
        import psutil

        return psutil.Process(self.pid).num_threads()


@contextmanager
def uvicorn(application: str, *, lifespan: str = "on", **environment: str) -> Iterator[Server]:
    """Have uvicorn serve an application of this package, on the same database, with its connections in a pool."""
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.{application}", "--port", "{port}"]
    command += ["--log-level", "critical", "--no-access-log", "--lifespan", lifespan]
    with running(command, BENCH_POOL="1", **environment) as server:
        yield server


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[Server]:
    """Have a server run whose command takes its ``{port}``, until the block is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    every = {**os.environ, "DJANGO_SETTINGS_MODULE": "benchmarks.settings", "BENCH_NAME": NAME, **environment}
    process = subprocess.Popen([part.format(port=port) for part in command], env=every)
    try:
        _wait(port, process)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            client.request("GET", "/api/chat/sessions/health")
            if client.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The server did not start.")
