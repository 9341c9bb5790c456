"""``chat_sessions verify``: proof that rows say what their logs say."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import router

from ..exceptions import SessionNotFound
from ..models import ChatSession
from ..operations.verification import Difference, verify
from . import arguments
from .progress import Progress

HELP = "Fold the log of sessions and report where a row says something else."
MORE = "Exits with 1 if any does."

#: Sessions that are read at a time.
CHUNK = 500


def add_arguments(parser: ArgumentParser) -> None:
    """Say which sessions can be verified."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="verify every session")
    which.add_argument("--session", action="append", metavar="UUID", help="verify this session; may be repeated")


def handle(command: BaseCommand, *, session: list[str] | None, **_: Any) -> None:
    """Verify the sessions that were asked for."""
    rows = ChatSession.objects.using(router.db_for_write(ChatSession))
    sessions = map(arguments.session, session) if session else _every()
    count = different = 0
    progress = Progress(command, "{} verified", total=lambda done: len(session) if session else rows.count())
    for count, found in enumerate(sessions, 1):
        differences = _differences(found)
        different += bool(differences)
        for one in differences:
            progress.clear()
            command.stdout.write(f"{one.session} {one.field}: row {one.row!r}, log {one.log!r}")
        progress.show(count)
    progress.clear()
    summary = f"{count} verified, {different} different."
    if different:
        raise CommandError(summary)
    command.stdout.write(command.style.SUCCESS(summary))


def _every() -> Iterator[ChatSession]:
    rows = ChatSession.objects.using(router.db_for_write(ChatSession)).order_by("pk")
    last = 0
    while chunk := list(rows.filter(pk__gt=last).only("pk", "uuid")[:CHUNK]):
        yield from chunk
        last = chunk[-1].pk


def _differences(session: ChatSession) -> list[Difference]:
    try:
        return verify(session)
    except SessionNotFound:
        return []  # deleted since its chunk was read
