"""``chat_sessions sweep``: what time does, without Celery; once, or round by round until told to stop."""

from __future__ import annotations

import logging
import math
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseTrouble
from django.db import close_old_connections

from .. import conf, schedule
from ..operations import recovery
from ..operations.runner import RUNNER
from ..operations.sweeping import Swept
from ..operations.sweeps import SWEEPS, preview
from . import arguments, previewing
from .progress import Progress
from .stopping import Stop

logger = logging.getLogger("django_chat_sessions")

HELP = f"Sweep without Celery: {', '.join(SWEEPS)}."
MORE = "Safe beside workers and other sweeps. SIGINT or SIGTERM ends it after the batch, a second one at once."

#: Seconds between two looks, within a pause of a loop, at what subscribers are to be told.
DELIVER_SECONDS = 1.0

#: Seconds that such a look, and that of a round, may take; what is left then is for the next one.
LONGEST_SECONDS = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    """Say what can be swept, and how."""
    parser.add_argument("task", nargs="*", type=_task, metavar="TASK", help="only these (default: all, in this order)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    how.add_argument("--loop", action="store_true", help="go on until told to stop")
    parser.add_argument(
        "--interval",
        type=arguments.seconds,
        default=float(schedule.EVERY),
        metavar="SECONDS",
        help="pause between two rounds of a loop (default: %(default)g)",
    )
    parser.add_argument("--limit", type=arguments.positive, metavar="N", help="so many at the most, a task and round")


def _task(text: str) -> str:
    if text not in SWEEPS:
        raise ArgumentTypeError(f"{text!r} is none of {', '.join(SWEEPS)}")
    return text


def handle(
    command: BaseCommand,
    *,
    task: Sequence[str] = (),
    dry_run: bool = False,
    loop: bool = False,
    interval: float = schedule.EVERY,
    limit: int | None = None,
    **_: Any,
) -> None:
    """Sweep once, or until told to stop, or only look."""
    names = [name for name in SWEEPS if not task or name in task]
    if dry_run:
        previewing.handle(command, names)
        return
    with Stop() as stop:
        sweeper = Sweeper(command, names, limit, stop, goes_on=loop)
        if loop:
            sweeper.loop(interval)
        else:
            sweeper.once()


@dataclass(frozen=True, slots=True)
class Sweeper:
    """A process that sweeps.

    Attributes:
        command: says what was done.
        names: the sweeps.
        limit: how much each may do in a round.
        stop: ends it.
        goes_on: whether there is a next round, for which what takes long is left.
    """

    command: BaseCommand
    names: Sequence[str]
    limit: int | None
    stop: Stop
    goes_on: bool = False

    def once(self) -> None:
        """Do one round, and give the answers that were recovered.

        Raises:
            CommandError: not all of it could be done.
        """
        try:
            done = self._round(self.names)
        except DatabaseTrouble as error:
            raise CommandError(f"The sweep failed: {error}") from error
        self._say(done)
        if not RUNNER.wait(0):
            self._answer()
        failed = [name for name, swept in done.items() if swept is None]
        if failed:
            raise CommandError(f"Failed: {', '.join(failed)}.")
        if self.stop.is_asked:
            self.command.stdout.write("Stopped; the next sweep goes on.")

    def loop(self, interval: float) -> None:
        """Do one round after the other."""
        self.command.stdout.write(f"Sweeping every {interval:g} s; Ctrl-C stops.")
        while not self.stop.is_asked:
            close_old_connections()
            self._try(self.names)
            self._pause(interval)
        _drain()
        self.command.stdout.write("Stopped.")

    def _pause(self, seconds: float) -> None:
        """Wait for the next round; subscribers need not wait for it."""
        until = time.monotonic() + seconds
        delivers = "deliver" in self.names and conf.get().has_subscribers
        while not self.stop.is_asked and (left := until - time.monotonic()) > 0:
            self.stop.wait(min(left, DELIVER_SECONDS) if delivers else left)
            if delivers and not self.stop.is_asked:
                delivers = self._try(["deliver"])

    def _try(self, names: Sequence[str]) -> bool:
        """Sweep, and say so if anything was done; tell whether the database was there."""
        try:
            done = self._round(names)
        except DatabaseTrouble as error:
            self.command.stderr.write(f"The sweep failed and is tried again: {error}")
            return False
        if any(swept is None or swept.count for swept in done.values()):
            self._say(done)
        return True

    def _round(self, names: Sequence[str]) -> dict[str, Swept | None]:
        """Sweep; what fails by itself keeps none of the others from it, and comes out as None."""
        done: dict[str, Swept | None] = {}
        for name in names:
            if self.stop.is_asked:
                break
            try:
                done[name] = self._sweep(name)
            except DatabaseTrouble:
                raise
            except Exception:
                logger.exception("The sweep %s failed; the next one tries again", name)
                done[name] = None
        return done

    def _sweep(self, name: str) -> Swept:
        sweep = SWEEPS[name]
        progress = Progress(self.command, f"{name}: {{}} {sweep.noun}", total=lambda count: self._total(name, count))

        longest = LONGEST_SECONDS if self.goes_on and name == "deliver" else math.inf

        def watch(swept: Swept) -> bool:
            progress.show(swept.count)
            return swept.seconds < longest and not self.stop.is_asked

        try:
            return sweep.work(limit=self.limit, watch=watch)
        finally:
            progress.clear()

    def _total(self, name: str, count: int) -> int:
        total = count + preview(name).total
        return total if self.limit is None else min(total, self.limit)

    def _say(self, done: dict[str, Swept | None]) -> None:
        self.command.stdout.write(", ".join(f"{name}: {_outcome(swept)}" for name, swept in done.items()))

    def _answer(self) -> None:
        """Give the answers that were recovered, where this process is the one to do it."""
        self.command.stdout.write("Giving the answers that were recovered; Ctrl-C hands them on.")
        while not self.stop.is_asked and not RUNNER.wait(0.2):
            pass
        _drain()


def _outcome(swept: Swept | None) -> str:
    if swept is None:
        return "failed"
    return f"{swept.count} ({swept.held} held)" if swept.held else str(swept.count)


def _drain() -> None:
    """Finish the answers that were recovered here, within the grace."""
    if not RUNNER.wait(0):
        recovery.drain()
