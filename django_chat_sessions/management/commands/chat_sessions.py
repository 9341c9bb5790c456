"""The command ``chat_sessions``: proof, schedule and sweeps."""

from __future__ import annotations

import signal
import threading
import time
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, close_old_connections, router

from django_chat_sessions import conf, schedule
from django_chat_sessions.exceptions import SessionNotFound
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import expiry, recovery
from django_chat_sessions.operations.runner import RUNNER
from django_chat_sessions.operations.sweeping import Swept
from django_chat_sessions.operations.verification import verify

#: Sessions that ``verify`` reads at a time, and between two lines of progress where nobody watches.
CHUNK = 500
PROGRESS = 10_000


def positive(text: str) -> int:
    """Read a whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def seconds(text: str) -> float:
    """Read a duration above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < threading.TIMEOUT_MAX:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above zero")
    return value


def _add(commands: Any, name: str, text: str, more: str) -> ArgumentParser:
    """Add a subcommand, after whose name Django's own options are understood too, not only before it."""
    common = ArgumentParser(add_help=False, argument_default=SUPPRESS)
    common.add_argument("-v", "--verbosity", type=int, choices=range(4), help=SUPPRESS)
    for option in ("--settings", "--pythonpath"):
        common.add_argument(option, help=SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        common.add_argument(flag, action="store_true", help=SUPPRESS)
    parser: ArgumentParser = commands.add_parser(name, help=text, description=f"{text} {more}", parents=[common])
    return parser


class Command(BaseCommand):
    """Verify logs, install the schedule, sweep without Celery."""

    help = "Looks after chat sessions: proves their logs, installs the schedule, sweeps without Celery."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
        self._add_verify(commands)
        self._add_schedule(commands)
        self._add_sweep(commands)

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        act: Callable[..., None] = getattr(self, subcommand)
        act(**options)

    @staticmethod
    def _add_verify(commands: Any) -> None:
        text = "Fold the log of sessions and report where a row says something else."
        parser = _add(commands, "verify", text, "Exits with 1 if any does.")
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--all", action="store_true", help="verify every session")
        which.add_argument("--session", action="append", metavar="UUID", help="verify this session; may be repeated")

    @staticmethod
    def _add_schedule(commands: Any) -> None:
        text = "Install the tasks in django-celery-beat."
        more = "A re-run adds what is missing and keeps what was changed in the admin."
        parser = _add(commands, "schedule", text, more)
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--reset", action="store_true", help="put existing entries back, too")
        what.add_argument("--remove", action="store_true", help="remove the entries")
        what.add_argument("--show", action="store_true", help="only show the entries")
        parser.add_argument(
            "--every",
            type=positive,
            default=schedule.EVERY,
            metavar="SECONDS",
            help="how often new entries run, and with --reset all (default: %(default)s)",
        )

    @staticmethod
    def _add_sweep(commands: Any) -> None:
        text = "Warn, expire and recover, without Celery."
        more = "Safe beside workers and other sweeps. SIGINT or SIGTERM ends a loop after the batch."
        parser = _add(commands, "sweep", text, more)
        parser.add_argument("--loop", action="store_true", help="go on until told to stop")
        parser.add_argument(
            "--interval",
            type=seconds,
            default=float(schedule.EVERY),
            metavar="SECONDS",
            help="pause between two rounds of a loop (default: %(default)g)",
        )
        parser.add_argument("--limit", type=positive, metavar="N", help="sessions at the most, of each kind and round")

    # -- verify

    def verify(self, *, session: list[str] | None, **_: Any) -> None:
        """Verify the sessions that were asked for."""
        sessions = self._named(session) if session else self._every()
        count = different = 0
        progress = _Progress(self)
        for count, found in enumerate(sessions, 1):
            differences = _differences(found)
            different += bool(differences)
            for one in differences:
                progress.clear()
                self.stdout.write(f"{one.session} {one.field}: row {one.row!r}, log {one.log!r}")
            progress.show(count)
        progress.clear()
        summary = f"{count} verified, {different} different."
        if different:
            raise CommandError(summary)
        self.stdout.write(self.style.SUCCESS(summary))

    @staticmethod
    def _named(names: list[str]) -> Iterator[ChatSession]:
        rows = ChatSession.objects.using(router.db_for_write(ChatSession))
        for name in names:
            try:
                yield rows.all().named(UUID(name))
            except (ValueError, SessionNotFound):
                raise CommandError(f"There is no session {name}.") from None

    @staticmethod
    def _every() -> Iterator[ChatSession]:
        rows = ChatSession.objects.using(router.db_for_write(ChatSession)).order_by("pk")
        last = 0
        while chunk := list(rows.filter(pk__gt=last).only("pk", "uuid")[:CHUNK]):
            yield from chunk
            last = chunk[-1].pk

    # -- schedule

    def schedule(self, *, every: int, reset: bool, remove: bool, show: bool, **_: Any) -> None:
        """Install, show or remove the entries of django-celery-beat."""
        try:
            if remove:
                self.stdout.write(f"{schedule.remove()} removed.")
                return
            entries = schedule.show() if show else schedule.install(seconds=every, reset=reset)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        for entry in entries:
            self.stdout.write(_line(entry))
        if not entries:
            self.stdout.write("Nothing is installed: run `manage.py chat_sessions schedule`.")

    # -- sweep

    def sweep(self, *, loop: bool, interval: float, limit: int | None, **_: Any) -> None:
        """Sweep once, or until told to stop."""
        if not loop:
            self._once(limit)
            if RUNNER.wait(0):
                return
        stop = threading.Event()
        before = {number: signal.signal(number, lambda *_: stop.set()) for number in _STOPPING}
        try:
            self._loop(stop, interval, limit) if loop else self._answer(stop)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _once(self, limit: int | None) -> None:
        try:
            self._round(limit)
        except DatabaseError as error:
            raise CommandError(f"The sweep failed: {error}") from error

    def _loop(self, stop: threading.Event, interval: float, limit: int | None) -> None:
        self.stdout.write(f"Sweeping every {interval:g} s; Ctrl-C stops.")
        while not stop.is_set():
            try:
                close_old_connections()
                self._round(limit, stop)
            except DatabaseError as error:
                self.stderr.write(f"The sweep failed and is tried again: {error}")
            stop.wait(interval)
        _drain()
        self.stdout.write("Stopped.")

    def _answer(self, stop: threading.Event) -> None:
        """Give the answers that were recovered, where this process is the one to do it."""
        self.stdout.write("Giving the answers that were recovered; Ctrl-C hands them on.")
        while not stop.is_set() and not RUNNER.wait(0.2):
            pass
        _drain()

    def _round(self, limit: int | None, stop: threading.Event | None = None) -> None:
        done = {name: _sweep(sweep, limit, stop) for name, sweep in _SWEEPS.items()}
        if stop is None or any(done.values()):
            self.stdout.write(", ".join(f"{name}: {count}" for name, count in done.items()))


_STOPPING = (signal.SIGINT, signal.SIGTERM)
_SWEEPS = {"warn": expiry.warn, "expire": expiry.expire, "recover": recovery.recover}


def _sweep(sweep: Callable[..., Swept], limit: int | None, stop: threading.Event | None) -> int:
    """Sweep in batches, so that a loop over a large backlog stops soon after it was told to."""
    size, count = conf.get().SWEEP_BATCH, 0
    while stop is None or not stop.is_set():
        wanted = size if limit is None else min(size, limit - count)
        done = sweep(limit=wanted).count
        count += done
        if done < wanted or count == limit:
            break
    return count


def _drain() -> None:
    """Finish the answers that were recovered here, within the grace."""
    if not RUNNER.wait(0):
        recovery.drain()


def _differences(session: ChatSession) -> list[Any]:
    try:
        return verify(session)
    except SessionNotFound:
        return []  # deleted since its chunk was read


def _line(entry: schedule.Entry) -> str:
    state = "" if entry.is_enabled else ", disabled"
    last = f", last sent {entry.last_run_at:%Y-%m-%d %H:%M:%S} UTC" if entry.last_run_at else ""
    outcome = f" ({entry.outcome})" if entry.outcome else ""
    return f"{entry.name}: {entry.task}, {entry.schedule}{state}{last}{outcome}"


class _Progress:
    """How far a long command is: one line that is rewritten for a person, now and then a line for a log."""

    def __init__(self, command: BaseCommand) -> None:
        self._out = command.stderr
        self._is_watched = command.stderr.isatty()
        self._shown_at = time.monotonic()

    def show(self, count: int) -> None:
        """Say how many were verified, if it is time to."""
        if not self._is_watched:
            if count % PROGRESS == 0:
                self._out.write(f"{count} verified …", style_func=str)
        elif time.monotonic() - self._shown_at > 0.2:
            self._shown_at = time.monotonic()
            self._out.write(f"\r{count} verified …", ending="", style_func=str)

    def clear(self) -> None:
        """Make room for another line."""
        if self._is_watched:
            self._out.write("\r\x1b[K", ending="", style_func=str)
