"""The command ``chat_sessions``: proof, schedule, sweeps and restoring, each in a module of its own."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from django.core.management.base import BaseCommand

from django_chat_sessions.management import arguments, restoring, scheduling, sweeping, verifying


class Subcommand(Protocol):
    """A module that is a subcommand."""

    HELP: str
    MORE: str
    handle: Callable[..., None]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say what it takes."""


SUBCOMMANDS: Mapping[str, Subcommand] = MappingProxyType(
    {"verify": verifying, "schedule": scheduling, "sweep": sweeping, "restore": restoring}
)


class Command(BaseCommand):
    """Verify logs, install the schedule, sweep without Celery, restore archived sessions."""

    help = "Looks after chat sessions: proves their logs, installs the schedule, sweeps without Celery, restores."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
        for name, module in SUBCOMMANDS.items():
            module.add_arguments(arguments.add(commands, name, module.HELP, module.MORE))

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        SUBCOMMANDS[subcommand].handle(self, **options)
