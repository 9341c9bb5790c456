"""Checks of the database that sessions are written to: what was measured to matter."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from django_chat_sessions.models import ChatSession

from .configuration import TAG

SQLITE_LEAST = (3, 38)
_WAL = re.compile(r"journal_mode\s*[=(]\s*['\"]?wal", re.IGNORECASE)


@register(TAG)
def check_sqlite(**_: Any) -> list[CheckMessage]:
    """Check a SQLite database for what several writers need."""
    connection = _connection()
    if connection.vendor != "sqlite":
        return []
    problems: list[CheckMessage] = []
    if sqlite3.sqlite_version_info < SQLITE_LEAST:
        text = f"SQLite {sqlite3.sqlite_version} is older than 3.38."
        hint = "Use a Python that is built with a newer SQLite library."
        problems.append(Error(text, hint=hint, id="chat_sessions.E011"))
    # Nobody else writes to a database in memory.
    return problems if _is_in_memory(connection) else problems + _check_writers(connection)


@register(TAG, deploy=True)
def check_postgresql(**_: Any) -> list[CheckMessage]:
    """Check a PostgreSQL database for what was measured to cost the most."""
    connection = _connection()
    if connection.vendor != "postgresql":
        return []
    options = connection.settings_dict.get("OPTIONS", {})
    problems: list[CheckMessage] = []
    if connection.settings_dict.get("CONN_MAX_AGE") == 0 and not options.get("pool"):
        hint = 'Set OPTIONS["pool"] (for ASGI) or CONN_MAX_AGE (for WSGI): connecting costs twenty'
        hint += " times what storing a message does. Behind a pooler, silence this check."
        text = f"The database {connection.alias!r} connects anew for each request."
        problems.append(Warning(text, hint=hint, id="chat_sessions.W008"))
    # Django turns preparation off where no threshold is given; at 0 other apps' migrations fail, which send several
    # commands at once.
    if not options.get("server_side_binding") or not options.get("prepare_threshold"):
        hint = 'Set OPTIONS["server_side_binding"] = True and OPTIONS["prepare_threshold"] = 1:'
        hint += " a message is stored up to a third faster. Behind a pooler that knows no prepared"
        hint += " statements, silence this check."
        text = f"The database {connection.alias!r} does not prepare its statements."
        problems.append(Warning(text, hint=hint, id="chat_sessions.W009"))
    return problems


def _connection() -> BaseDatabaseWrapper:
    return connections[router.db_for_write(ChatSession)]


def _check_writers(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    options = connection.settings_dict.get("OPTIONS", {})
    problems: list[CheckMessage] = []
    if str(options.get("transaction_mode", "")).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
        text = f"The SQLite database {connection.alias!r} begins transactions without a lock."
        hint = 'Set OPTIONS["transaction_mode"] = "IMMEDIATE", or two writers at once fail with'
        hint += ' "database is locked" without waiting for each other.'
        problems.append(Warning(text, hint=hint, id="chat_sessions.W006"))
    if not (_WAL.search(str(options.get("init_command", ""))) or _has_wal(connection)):
        text = f"The SQLite database {connection.alias!r} has no write-ahead log."
        hint = 'Set OPTIONS["init_command"] = "PRAGMA journal_mode=WAL;", or readers and writers'
        hint += " block each other."
        problems.append(Warning(text, hint=hint, id="chat_sessions.W007"))
    return problems


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    name = str(connection.settings_dict["NAME"])
    return not name or ":memory:" in name or "mode=memory" in name


def _has_wal(connection: BaseDatabaseWrapper) -> bool:
    """Read the mode from the file's header (byte 18, 2 is WAL): no connection, no lock, no file made."""
    path = Path(str(connection.settings_dict["NAME"]).removeprefix("file:").partition("?")[0])
    try:
        with path.open("rb") as file:
            return file.read(19)[18:] == b"\x02"
    except OSError:
        return False
