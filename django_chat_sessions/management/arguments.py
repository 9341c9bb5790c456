"""What the subcommands read from the command line."""

from __future__ import annotations

import threading
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError
from django.db import router

from ..exceptions import SessionNotFound
from ..models import ChatSession


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


def session(text: str) -> ChatSession:
    """Return the session of that public id.

    Raises:
        CommandError: there is none.
    """
    try:
        return ChatSession.objects.using(router.db_for_write(ChatSession)).named(text)
    except SessionNotFound:
        raise CommandError(f"There is no session {text}.") from None


def add(commands: Any, name: str, text: str, more: str) -> ArgumentParser:
    """Add a subcommand, after whose name Django's own options are understood too, not only before it."""
    common = ArgumentParser(add_help=False, argument_default=SUPPRESS)
    common.add_argument("-v", "--verbosity", type=int, choices=range(4), help=SUPPRESS)
    for option in ("--settings", "--pythonpath"):
        common.add_argument(option, help=SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        common.add_argument(flag, action="store_true", help=SUPPRESS)
    parser: ArgumentParser = commands.add_parser(name, help=text, description=f"{text} {more}", parents=[common])
    return parser
