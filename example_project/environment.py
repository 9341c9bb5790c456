"""What the settings read from the environment."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

#: Names that operators know from elsewhere, and what they set here.
SESSION_VARIABLES = {
    "SESSION_DEFAULT_TIMEOUT_MINUTES": "TIMEOUT_MINUTES",
    "SESSION_MIN_TIMEOUT_MINUTES": "MIN_TIMEOUT_MINUTES",
    "SESSION_MAX_TIMEOUT_MINUTES": "MAX_TIMEOUT_MINUTES",
    "SESSION_MAX_DURATION_MINUTES": "MAX_DURATION_MINUTES",
    "SESSION_WARNING_THRESHOLD_MINUTES": "WARNING_THRESHOLD_MINUTES",
}

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})

# A writer begins its transaction as one (IMMEDIATE): one that reads first and then writes fails with "database is
# locked" whatever the timeout. WAL lets readers go on meanwhile.
_SQLITE_OPTIONS = {
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
}


def text(name: str, default: str = "") -> str:
    """Return a variable; an empty one counts as not set."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, *, default: bool) -> bool:
    """Return a variable that says yes or no."""
    value = text(name).lower()
    if not value:
        return default
    if value not in _TRUE | _FALSE:
        raise ImproperlyConfigured(f"{name} must be 0 or 1, not {value!r}.")
    return value in _TRUE


def words(name: str, default: str = "") -> list[str]:
    """Return a variable that holds a list, separated by commas."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def number(name: str, default: int) -> int:
    """Return a variable that is a whole number."""
    value = text(name, str(default))
    try:
        return int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}.") from None


def session_settings() -> dict[str, int]:
    """Return the keys of ``CHAT_SESSIONS`` that the environment sets."""
    return {key: number(name, 0) for name, key in SESSION_VARIABLES.items() if text(name)}


def installed(*modules: str) -> list[str]:
    """Return those of the optional apps that can be imported."""
    return [module for module in modules if find_spec(module)]


def database(url: str, *, pool_size: int) -> dict[str, Any]:
    """Return the ``DATABASES`` entry for a URL, tuned for its engine."""
    config: dict[str, Any] = {**dj_database_url.parse(url)}
    given = config.get("OPTIONS", {})
    if config["ENGINE"].endswith("sqlite3"):
        config["OPTIONS"] = {**_SQLITE_OPTIONS, **given}
    elif config["ENGINE"].endswith("postgresql"):
        # Connecting is what costs most, and under ASGI every request has a thread of its own, so that persistent
        # connections would be of no use: hence the pool. A statement is prepared when a connection sees it again;
        # at once (0) would refuse migrations that hold several in one string.
        config["OPTIONS"] = {
            "pool": {"min_size": 1, "max_size": pool_size, "timeout": 10},
            "prepare_threshold": 1,
            "server_side_binding": True,
            **given,
        }
    return config
