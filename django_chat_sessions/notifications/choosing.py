"""Which backend carries the news of a database's sessions: what ``LISTENER`` asks for, where that can be had."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec

from .. import conf, dialects
from .backends import Backend
from .polling import Polling
from .redis import Redis

logger = logging.getLogger("django_chat_sessions")


def chosen(using: str) -> Backend:
    """Return the backend for that database; polling, and a warning once, where the wanted one can't be had."""
    settings = conf.get()
    return _chosen(using, settings.LISTENER, settings.REDIS_URL)


def problem(using: str) -> str | None:
    """Return in a sentence why the listener that the settings ask for can't be had; None where it can."""
    settings = conf.get()
    return _problem(using, _wanted(using, settings.LISTENER, settings.REDIS_URL), settings.REDIS_URL)


def forget() -> None:
    """Choose anew."""
    _chosen.cache_clear()


@lru_cache
def _chosen(using: str, listener: str, redis_url: str | None) -> Backend:
    wanted = _wanted(using, listener, redis_url)
    if reason := _problem(using, wanted, redis_url):
        logger.warning("%s Streams of %r poll the database instead.", reason, using)
        return Polling(using)
    if wanted == "redis":
        return Redis(redis_url or "")
    if wanted == "postgres":
        from .postgres import Postgres  # noqa: PLC0415 - needs an extra

        return Postgres(using)
    return Polling(using)


def _wanted(using: str, listener: str, redis_url: str | None) -> str:
    if listener != "auto":
        return listener
    if redis_url:
        return "redis"
    return "postgres" if dialects.is_postgresql(using) else "polling"


def _problem(using: str, wanted: str, redis_url: str | None) -> str | None:
    if wanted == "redis" and not redis_url:
        return "LISTENER is 'redis', but REDIS_URL is not set."
    if wanted == "redis" and find_spec("redis") is None:
        return "The listener 'redis' needs the package redis, which is not installed."
    if wanted == "postgres" and not dialects.is_postgresql(using):
        return f"LISTENER is 'postgres', but the database {using!r} is not PostgreSQL."
    if wanted == "postgres" and find_spec("psycopg") is None:
        return "The listener 'postgres' needs the package psycopg, version 3, which is not installed."
    return None
