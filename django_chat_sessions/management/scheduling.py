"""``chat_sessions schedule``: the entries of django-celery-beat."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from .. import schedule
from . import arguments

HELP = "Install the tasks in django-celery-beat."
MORE = "A re-run adds what is missing and keeps what was changed in the admin."


def add_arguments(parser: ArgumentParser) -> None:
    """Say what can be done with the entries."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--reset", action="store_true", help="put existing entries back, too")
    what.add_argument("--remove", action="store_true", help="remove the entries")
    what.add_argument("--show", action="store_true", help="only show the entries")
    parser.add_argument(
        "--every",
        type=arguments.positive,
        metavar="SECONDS",
        help="how often new entries run that are not for quiet hours, and with --reset all"
        f" (default: {schedule.EVERY}, and {schedule.COMPACT_EVERY} for removing chunks)",
    )
    quiet = parser.add_mutually_exclusive_group()
    quiet.add_argument(
        "--crontab",
        default=schedule.QUIET_HOURS,
        metavar='"M H DOM MON DOW"',
        help='when new entries for archiving and purging run, and with --reset all (default: "%(default)s")',
    )
    quiet.add_argument(
        "--no-crontab",
        dest="crontab",
        action="store_const",
        const=None,
        help="archive and purge as often as the other tasks run",
    )


def handle(
    command: BaseCommand, *, every: int | None, crontab: str | None, reset: bool, remove: bool, show: bool, **_: Any
) -> None:
    """Install, show or remove the entries."""
    try:
        if remove:
            command.stdout.write(f"{schedule.remove()} removed.")
            return
        entries = schedule.show() if show else schedule.install(seconds=every, crontab=crontab, reset=reset)
    except (ImproperlyConfigured, ValueError) as error:
        raise CommandError(str(error)) from error
    for entry in entries:
        command.stdout.write(_line(entry))
    if not entries:
        command.stdout.write("Nothing is installed: run `manage.py chat_sessions schedule`.")


def _line(entry: schedule.Entry) -> str:
    state = "" if entry.is_enabled else ", disabled"
    last = f", last sent {entry.last_run_at:%Y-%m-%d %H:%M:%S} UTC" if entry.last_run_at else ""
    outcome = f" ({entry.outcome})" if entry.outcome else ""
    return f"{entry.name}: {entry.task}, {entry.schedule}{state}{last}{outcome}"
