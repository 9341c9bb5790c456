"""Runs a handful of processes together: when one stops or somebody says so, all of them stop, and none stays behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

#: A Celery worker on the broker of files takes that long to notice.
GRACE_SECONDS = 15.0
POLL_SECONDS = 0.1
LINES_OF_LOG = 25

_PR_SET_PDEATHSIG = 1


class Stopped(Exception):
    """Somebody pressed Ctrl-C, or sent SIGTERM."""


class Failed(Exception):
    """A process did what it should not; the message is for people."""


@dataclass
class Child:
    """A process and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """Return the end of its log, to be shown to people."""
        lines = self.log.read_text(errors="replace").splitlines()[-LINES_OF_LOG:] or ["(nothing)"]
        return f"The end of {self.log}:\n\n" + "\n".join(f"    {line}" for line in lines)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to it and to its own children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


@dataclass
class Supervisor:
    """Starts, watches and stops.

    Args:
        environment: of all the processes.
        directory: where they run.
        say: how to tell people something.
    """

    environment: Mapping[str, str]
    directory: Path
    say: Callable[[str], None] = print
    children: list[Child] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _hurry: threading.Event = field(default_factory=threading.Event)

    def listen(self) -> None:
        """Take Ctrl-C, SIGTERM and a closed terminal as the wish to stop; a second one as the wish to stop at once."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def pause(self, seconds: float) -> None:
        """Wait, unless somebody wants to stop.

        Raises:
            Stopped: somebody does.
        """
        if self._stop.wait(seconds):
            raise Stopped

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a command to its end, with its output on ours.

        Raises:
            Failed: it did.
            Stopped: somebody wants to stop; the command is gone then.
        """
        process = self._spawn(command)
        try:
            while process.poll() is None:
                self.pause(POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode:
            raise Failed(f"{name} failed, as said above (exit code {process.returncode}).")

    def start(self, name: str, command: Sequence[str], log: Path) -> Child:
        """Start a process that stays, with its output in ``log``."""
        with log.open("wb") as output:
            child = Child(name, self._spawn(command, output), log)
        self.children.append(child)
        return child

    def _spawn(self, command: Sequence[str], output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        # A session of its own keeps the terminal's Ctrl-C away: who is stopped when is decided here.
        return subprocess.Popen(  # noqa: S603
            command,
            cwd=self.directory,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )

    def check(self) -> None:
        """Look whether all of them still run.

        Raises:
            Failed: one doesn't, with the end of its log.
        """
        for child in self.children:
            code = child.process.poll()
            if code is not None:
                raise Failed(f"The {child.name} stopped by itself ({_explain(code)}). {child.last_words()}")

    def wait_until(self, is_ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for something that the processes bring about.

        Raises:
            Failed: one of them stopped, or it took longer than ``seconds``.
            Stopped: somebody wants to stop.
        """
        give_up_at = time.monotonic() + seconds
        while not is_ready():
            self.check()
            if time.monotonic() > give_up_at:
                logs = "\n\n".join(child.last_words() for child in self.children)
                raise Failed(f"{what} took longer than {seconds:.0f} s.\n{logs}")
            self.pause(POLL_SECONDS)

    def watch(self) -> None:
        """Wait for as long as all of them run.

        Raises:
            Failed: one stopped.
            Stopped: somebody wants to stop.
        """
        while True:
            self.check()
            self.pause(POLL_SECONDS * 5)

    def stop(self) -> None:
        """Ask all of them to stop, and kill what has not after its grace."""
        self._stop.set()
        for child in self.children:
            if child.process.poll() is None:
                child.process.terminate()
        give_up_at = time.monotonic() + GRACE_SECONDS
        while any(child.process.poll() is None for child in self.children):
            if time.monotonic() > give_up_at or self._hurry.wait(POLL_SECONDS):
                break
        for child in self.children:
            if child.process.poll() is None:
                self.say(f"The {child.name} did not stop in time and is killed.")
            # Also where the process itself is gone: its own children may not be.
            child.signal_group(signal.SIGKILL)
            child.process.wait()
        self.children.clear()


def _explain(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _die_with_parent() -> None:
    """Have the kernel stop this process if the supervisor is killed and cannot."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
