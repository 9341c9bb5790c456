"""``chat_sessions restore``: archived sessions come back."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ..exceptions import ChatSessionError
from ..operations import restoring
from . import arguments

HELP = "Bring the content of archived sessions back from where it was stored."
MORE = "What cannot be restored is named, and the others are; exits with 1 then."


def add_arguments(parser: ArgumentParser) -> None:
    """Say what can be restored."""
    parser.add_argument("session", nargs="+", metavar="UUID", help="the session")
    parser.add_argument(
        "--hold", action="store_true", help="place it under legal hold, so that no sweep takes it again"
    )


def handle(command: BaseCommand, *, session: Sequence[str], hold: bool = False, **_: Any) -> None:
    """Restore sessions, as far as that can be done."""
    failed = 0
    for name in session:
        try:
            found = arguments.session(name)
            restoring.restore(found, hold=hold)
        except (ChatSessionError, CommandError) as error:
            failed += 1
            command.stderr.write(f"{name}: {error}")
        else:
            command.stdout.write(f"{name}: {found.status} again, {found.last_sequence} events")
    if failed:
        raise CommandError(f"{len(session) - failed} restored, {failed} not.")
