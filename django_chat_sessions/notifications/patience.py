"""What a thread that nobody watches does about failures: try again, later each time, and say so once a minute."""

from __future__ import annotations

import logging
import random
from time import monotonic

logger = logging.getLogger("django_chat_sessions")

#: Seconds between two lines in the log.
SILENCE = 60.0
SHORTEST, LONGEST = 0.1, 5.0


class Patience:
    """The failures of one task in a row."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._failures = 0
        self._complained_at: float | None = None

    def complain(self, error: Exception) -> None:
        """Log a failure, if the last one in the log is old."""
        now = monotonic()
        if self._complained_at is None or now - self._complained_at > SILENCE:
            self._complained_at = now
            logger.warning("Failed at %s, trying again: %s: %s", self._task, type(error).__name__, error)

    def delay(self) -> float:
        """Count a failure, and return the seconds to wait; processes that failed together don't return together."""
        seconds: float = min(LONGEST, SHORTEST * 2 ** min(self._failures, 10))
        self._failures += 1
        return seconds * (0.5 + random.random() / 2)  # noqa: S311 - no secret

    @property
    def is_tried(self) -> bool:
        """Whether it failed the last time."""
        return self._failures > 0

    def renew(self) -> None:
        """Note that it works."""
        self._failures = 0
