"""How far a long command is."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.core.management.base import BaseCommand

#: How much is done between two lines where nobody watches.
EACH = 10_000

#: Seconds between two looks of somebody who watches.
GLANCE_SECONDS = 0.2

#: Characters of the bar.
WIDTH = 20


class Progress:
    """A bar that is rewritten for a person, now and then a line for a log."""

    def __init__(self, command: BaseCommand, words: str, *, total: Callable[[int], int]) -> None:
        """Show nothing yet.

        Args:
            command: whose standard error it is shown on.
            words: what is done, with ``{}`` for how much of it.
            total: takes how much is done, and says how much that will be in the end. It is asked once, and only where
                a person has waited for a moment: counting is work, too.
        """
        self._out = command.stderr
        self._is_watched = command.stderr.isatty()
        self._words = words
        self._count_total = total
        self._total: int | None = None
        self._began_at = self._shown_at = time.monotonic()
        self._shown = 0

    def show(self, count: int) -> None:
        """Say how much is done, if it is time to."""
        if not self._is_watched:
            if count // EACH > self._shown // EACH:
                self._out.write(f"{self._words.format(count)} …", style_func=str)
            self._shown = count
        elif time.monotonic() - self._shown_at > GLANCE_SECONDS:
            if self._total is None:
                self._total = self._count_total(count)
            # The cursor goes back, so that what others say there begins on a line of its own.
            self._out.write(f"\r\x1b[K{self._line(count, self._total)}\r", ending="", style_func=str)
            self._shown_at = time.monotonic()

    def clear(self) -> None:
        """Make room for another line."""
        if self._is_watched:
            self._out.write("\r\x1b[K", ending="", style_func=str)

    def _line(self, count: int, total: int) -> str:
        total = max(count, total)  # there may be more meanwhile
        part = count / total if total else 1.0
        rate = count / max(time.monotonic() - self._began_at, 0.001)
        left = f", {_duration((total - count) / rate)} left" if rate and count < total else ""
        bar = "#" * int(WIDTH * part)
        return f"{self._words.format(count)} of {total} [{bar:.<{WIDTH}}] {part:.0%}, {rate:.0f}/s{left}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
