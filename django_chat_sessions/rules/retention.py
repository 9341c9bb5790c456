"""For how long what is over is kept, in three tiers, and what becomes of it then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..choices import RetentionAction, Status

#: Statuses that retention knows; an archived session is deleted after its own.
KEPT = (Status.EXPIRED, Status.ENDED, Status.FAILED, Status.ARCHIVED)

#: The key of a tier that says what happens.
ACTION = "action"

#: Days: a century, which a clock can still be set back by.
MOST_DAYS = 36_525


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long a session is kept in each status, counted from when it got it.

    Attributes:
        expired, ended, failed, archived: the duration; None is for ever.
        action: what happens then to an expired, ended or failed one; an archived one is deleted.
    """

    expired: timedelta | None = timedelta(days=30)
    ended: timedelta | None = timedelta(days=90)
    failed: timedelta | None = timedelta(days=180)
    archived: timedelta | None = None
    action: str = RetentionAction.ARCHIVE

    def of(self, status: str) -> timedelta | None:
        """Return for how long a session is kept in a status; None is for ever, as in any that is not over."""
        found: timedelta | None = getattr(self, status) if status in KEPT else None
        return found

    def action_for(self, status: str) -> str:
        """Return what happens to a session in that status when its retention is over."""
        return RetentionAction.DELETE if status == Status.ARCHIVED else self.action


def overlay(*tiers: Mapping[str, Any]) -> Retention:
    """Return what is in force, from the outermost tier to the innermost, laid over one another key by key.

    Args:
        tiers: of each status the days (a number or a timedelta; None is for ever), and ``action``.
    """
    laid: dict[str, Any] = {}
    for tier in tiers:
        laid.update(tier)
    given: dict[str, Any] = {name: value if name == ACTION else _duration(value) for name, value in laid.items()}
    return Retention(**given)


def _duration(value: Any) -> timedelta | None:
    return value if value is None or isinstance(value, timedelta) else timedelta(days=value)


def problems(tier: Any) -> Iterator[str]:
    """Tell what is wrong with a tier, in words."""
    if not isinstance(tier, Mapping):
        yield f"{tier!r} is no dict of statuses and days"
        return
    known = (*map(str, KEPT), ACTION)
    for name, value in tier.items():
        if name not in known:
            yield f"{name!r} is none of {', '.join(known)}"
        elif name == ACTION and value not in RetentionAction.values:
            yield f"the action {value!r} is none of {', '.join(RetentionAction.values)}"
        elif name != ACTION and not _is_duration(value):
            yield f"{name} is {value!r}: not days from 0 to {MOST_DAYS}, a timedelta, or None for ever"


def _is_duration(value: Any) -> bool:
    if isinstance(value, timedelta):
        value = value / timedelta(days=1)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (is_number and 0 <= value <= MOST_DAYS)
