"""Timeouts in three tiers, and the deadline that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from ..choices import TimeoutMode
from ..exceptions import InvalidRequest, InvalidTimeout

#: Built in, under the global settings: a day's half.
DEFAULT_MAX_DURATION_MINUTES = 720


@dataclass(frozen=True, slots=True)
class Mode:
    """What a named mode stands for; minutes, None is inherited."""

    timeout_minutes: int
    warning_threshold_minutes: int
    max_duration_minutes: int | None = None


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        TimeoutMode.AGGRESSIVE: Mode(5, 1),
        TimeoutMode.STANDARD: Mode(30, 5),
        TimeoutMode.LENIENT: Mode(240, 15),
        TimeoutMode.PERSISTENT: Mode(1440, 60, 10_080),
    }
)


@dataclass(frozen=True, slots=True)
class TimeoutOverrides:
    """What one tier says itself; None is inherited. Minutes beat the mode.

    ``warning_threshold_minutes`` may be several, for as many warnings, except in a session's own tier: the largest is
    when it is near expiration.
    """

    mode: str | None = None
    timeout_minutes: int | None = None
    max_duration_minutes: int | None = None
    warning_threshold_minutes: int | Sequence[int] | None = None
    auto_renew: bool | None = None

    def __post_init__(self) -> None:
        """Have several thresholds in their order, as a value that can be compared and kept."""
        if isinstance(self.warning_threshold_minutes, (list, tuple, set, frozenset)):
            several = tuple(sorted(set(self.warning_threshold_minutes), reverse=True))
            object.__setattr__(self, "warning_threshold_minutes", several or None)

    def as_dict(self) -> dict[str, Any]:
        """Return only what is set."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in pairs if value is not None}


@dataclass(frozen=True, slots=True)
class TimeoutPolicy:
    """What is in force. Minutes; ``later_warnings`` are the thresholds after the first, in the order of time."""

    mode: str
    timeout_minutes: int
    max_duration_minutes: int
    warning_threshold_minutes: int
    auto_renew: bool
    later_warnings: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What minutes a session may ask for."""

    min_timeout_minutes: int = 5
    max_timeout_minutes: int = 1440
    max_duration_minutes: int = 10_080


BUILT_IN = TimeoutOverrides(
    mode=TimeoutMode.STANDARD, max_duration_minutes=DEFAULT_MAX_DURATION_MINUTES, auto_renew=True
)


def merge(*tiers: TimeoutOverrides) -> TimeoutPolicy:
    """Return what is in force, from the outermost tier (global) to the innermost (session).

    Within a tier its mode expands first and its minutes override that; then the tiers overlay field by field.
    Of an inherited field that contradicts a nearer one, the maximum is raised to the idle timeout and the warning
    is halved below it.
    """
    laid = overlay(*tiers)
    own = tiers[-1] if tiers else TimeoutOverrides()
    idle, maximum, warning = laid.timeout_minutes, laid.max_duration_minutes, laid.warning_threshold_minutes
    if own.max_duration_minutes is None and "max_duration_minutes" not in _expand(own):
        maximum = max(maximum, idle)
    if own.warning_threshold_minutes is None and warning >= idle:
        warning = idle // 2
    later = tuple(minutes for minutes in laid.later_warnings if minutes < warning)
    return replace(laid, max_duration_minutes=maximum, warning_threshold_minutes=warning, later_warnings=later)


def overlay(*tiers: TimeoutOverrides) -> TimeoutPolicy:
    """Lay the tiers over one another and no more: what gives way depends on a nearer tier that may still come."""
    result: dict[str, Any] = {}
    for tier in (BUILT_IN, *tiers):
        result.update(_expand(tier))
        result.update(_explicit(tier))
    return TimeoutPolicy(**result)


def _explicit(tier: TimeoutOverrides) -> dict[str, Any]:
    own = tier.as_dict()
    thresholds = own.get("warning_threshold_minutes")
    if thresholds is None:
        return own
    first, *later = thresholds if isinstance(thresholds, tuple) else (thresholds,)
    return {**own, "warning_threshold_minutes": first, "later_warnings": tuple(later)}


def _expand(tier: TimeoutOverrides) -> dict[str, Any]:
    if tier.mode is None:
        return {}
    if tier.mode not in MODES:
        raise InvalidRequest({"mode": [f"The modes are {', '.join(MODES)}."]})
    mode = MODES[tier.mode]
    names = ("timeout_minutes", "warning_threshold_minutes")
    expanded: dict[str, Any] = {"later_warnings": (), **{name: getattr(mode, name) for name in names}}
    if mode.max_duration_minutes is not None:
        expanded["max_duration_minutes"] = mode.max_duration_minutes
    return expanded


def check(policy: TimeoutPolicy, bounds: Bounds, *, own: TimeoutOverrides | None = None) -> None:
    """Refuse a policy out of bounds.

    Args:
        policy: what would be in force.
        bounds: what is allowed.
        own: a session's tier, which is kept in a row.

    Raises:
        InvalidTimeout: with the field and its bounds in minutes.
        InvalidRequest: the session has several thresholds of its own.
    """
    if own is not None and isinstance(own.warning_threshold_minutes, tuple):
        raise InvalidRequest({"warning_threshold_minutes": ["A session has one threshold of its own."]})
    idle = policy.timeout_minutes
    _within("timeout_minutes", idle, bounds.min_timeout_minutes, bounds.max_timeout_minutes)
    _within("max_duration_minutes", policy.max_duration_minutes, idle, bounds.max_duration_minutes)
    for minutes in (policy.warning_threshold_minutes, *policy.later_warnings):
        _within("warning_threshold_minutes", minutes, 0, idle - 1)


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        message = f"{name} must be from {least} to {most} minutes, not {value}."
        raise InvalidTimeout(message, field=name, min_minutes=least, max_minutes=most)


def change(own: TimeoutOverrides, changes: Mapping[str, Any]) -> TimeoutOverrides:
    """Return a tier after a partial change: a name not given keeps its value, None returns it to the inherited one."""
    return replace(own, **changes)


def limit(policy: TimeoutPolicy, created_at: datetime) -> datetime:
    """Return the instant past which no renewal moves the deadline."""
    return created_at + timedelta(minutes=policy.max_duration_minutes)


def deadline(policy: TimeoutPolicy, created_at: datetime, renewed_at: datetime) -> datetime:
    """Return the instant at which a session expires that was last renewed at ``renewed_at``."""
    return min(renewed_at + timedelta(minutes=policy.timeout_minutes), limit(policy, created_at))
