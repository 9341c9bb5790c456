"""What the example's logs leave out."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from django_chat_sessions.schedule import TASKS


def is_news(record: logging.LogRecord) -> bool:
    """Leave out what Celery says of every single sweep: one that did something says so itself."""
    if record.levelno > logging.INFO or not record.name.startswith("celery."):
        return True
    words = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
    return not any(isinstance(word, str) and word in _SWEEPS for word in words)


_SWEEPS = frozenset(TASKS.values())
