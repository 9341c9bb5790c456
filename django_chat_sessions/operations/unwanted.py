"""Files that nobody wants any more: their sessions were deleted or restored, or were not archived after all."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.core.files.storage import storages
from django.db import connections

from . import files, leases
from .sweeping import FAILURES

logger = logging.getLogger("django_chat_sessions")


def remove(using: str) -> Iterator[int]:
    """Remove files from their storages, and then their rows; yield 0 after each, which is no session.

    One that cannot be removed is logged, and tried again later; after several in a row the rest waits, too.
    """
    failures = 0
    while failures < FAILURES:
        archive = leases.take_unwanted(using)
        if archive is None:
            return
        try:
            files.remove(storages[archive.storage], archive.name)
        except Exception as error:
            if not connections[using].is_usable():
                raise
            logger.warning("Archive %s cannot be removed now: %s", archive.pk, type(error).__name__)
            leases.keep(using, archive)
            failures += 1
        else:
            leases.forget(using, archive)
            failures = 0
        yield 0
