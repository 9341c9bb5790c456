"""Checks of the settings: their names, types and values, each by itself and together."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register
from django.utils.module_loading import import_string

from django_chat_sessions import conf
from django_chat_sessions.choices import APP_PREFIX, Cleanup, EventType, Strategy, TimeoutMode
from django_chat_sessions.exceptions import InvalidTimeout
from django_chat_sessions.models import NAME_LENGTH, SUBSCRIBER_LENGTH
from django_chat_sessions.rules import retention, timeouts

TAG = "chat_sessions"

#: What a value has to be, in words; None where it is that.
Rule = Callable[[Any], str | None]

#: A cookie's name (RFC 6265, section 4.1.1: a token).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def whole(least: int, most: int | None = None, *, optional: bool = False) -> Rule:
    """Return the rule of a whole number."""
    words = f"a whole number from {least}" + (f" to {most}" if most else " on")
    words += ", or None" if optional else ""

    def rule(value: Any) -> str | None:
        if value is None and optional:
            return None
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return None if is_whole and least <= value <= (most or value) else words

    return rule


def one_of(names: Iterable[str]) -> Rule:
    """Return the rule of a closed list of words."""
    known = [str(name) for name in names]
    words = "one of " + ", ".join(repr(name) for name in known)
    return lambda value: None if isinstance(value, str) and value in known else words


def duration(*, zero: bool) -> Rule:
    """Return the rule of a duration: a timedelta, or seconds."""
    words = "a timedelta or a number of seconds" + (", not negative" if zero else ", above zero")

    def rule(value: Any) -> str | None:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return words
        # A number that is not finite, or more than a timedelta can say, is not below the limit.
        is_long_enough = value >= 0 if zero else value > 0
        return None if is_long_enough and value < 1e9 else words

    return rule


def seconds(least: float, most: float) -> Rule:
    """Return the rule of a number of seconds."""
    words = f"a number of seconds from {least:g} to {most:g}"

    def rule(value: Any) -> str | None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return None if is_number and least <= value <= most else words

    return rule


def _address(value: Any) -> str | None:
    return None if value is None or (isinstance(value, str) and "://" in value) else "a URL, or None"


def _web_address(value: Any) -> str | None:
    is_address = value is None or (isinstance(value, str) and value.startswith(("https://", "http://")))
    return None if is_address else "an address that begins with https://, or None"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def _name(value: Any) -> str | None:
    is_name = isinstance(value, str) and len(value) <= NAME_LENGTH
    return None if is_name else f"text to {NAME_LENGTH} characters"


def _cookie(value: Any) -> str | None:
    is_token = isinstance(value, str) and _TOKEN.fullmatch(value)
    return None if is_token else "a cookie's name: letters, digits and -_.!#$%&'*+^`|~"


def _hook(value: Any) -> str | None:
    is_hook = value is None or isinstance(value, str) or callable(value)
    return None if is_hook else "a callable, its dotted path, or None"


def _thresholds(value: Any) -> str | None:
    several = value if isinstance(value, (list, tuple)) else [value]
    is_sound = value is None or (several and all(whole(0)(minutes) is None for minutes in several))
    return None if is_sound else "minutes, a whole number from 0 on, or a list of such, or None"


def _retention(value: Any) -> str | None:
    wrong = "; ".join(retention.problems(value))
    return f"a dict of days by status, and an action, but {wrong}" if wrong else None


def _retentions(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return "a dict of applications and their RETENTION"
    names = [f"{name!r} is no text" for name in value if not isinstance(name, str)]
    tiers = (f"{name!r}: {text}" for name, tier in value.items() for text in retention.problems(tier))
    wrong = "; ".join((*names, *tiers))
    return f"a dict of applications and dicts of days by status, and an action, but {wrong}" if wrong else None


def is_event_pattern(value: Any) -> bool:
    """Tell whether a value names a type of events, or the beginning of some and ``*``."""
    if not isinstance(value, str):
        return False
    beginning = value.removesuffix("*")
    known = [*EventType.values, APP_PREFIX]
    return (
        value in EventType.values
        or value.startswith(APP_PREFIX)
        or (beginning != value and any(name.startswith(beginning) for name in known))
    )


def _patterns(value: Any) -> str | None:
    is_sound = isinstance(value, (list, tuple)) and all(map(is_event_pattern, value))
    return None if is_sound else "a list of types of events, or of beginnings and *, such as 'session.*'"


def _subscribers(value: Any) -> str | None:
    is_sound = isinstance(value, Mapping) and all(
        is_event_pattern(pattern)
        and isinstance(paths, (list, tuple))
        and all(isinstance(path, str) and len(path) <= SUBSCRIBER_LENGTH for path in paths)
        for pattern, paths in value.items()
    )
    return None if is_sound else "a dict of types of events, or beginnings and *, and lists of dotted paths"


def _secrets(value: Any) -> str | None:
    several = value if isinstance(value, (list, tuple)) else [value]
    is_sound = value is None or (several and all(isinstance(one, str) and one for one in several))
    return None if is_sound else "text, a list of texts, or None"


#: Settings whose values are never shown.
_SECRETS = ("REDIS_URL", "WEBHOOK_URL", "WEBHOOK_SECRET")

#: What each setting has to be.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "DEFAULT_AGENT": _name,
        "DEFAULT_STRATEGY": one_of(Strategy.values),
        "TIMEOUT_MODE": one_of(TimeoutMode.values),
        "TIMEOUT_MINUTES": whole(1, optional=True),
        "MAX_DURATION_MINUTES": whole(1, optional=True),
        "WARNING_THRESHOLD_MINUTES": _thresholds,
        "AUTO_RENEW": _flag,
        "MIN_TIMEOUT_MINUTES": whole(1),
        "MAX_TIMEOUT_MINUTES": whole(1),
        "MAX_DURATION_LIMIT_MINUTES": whole(1),
        "RESUME_AFTER": duration(zero=False),
        "TOUCH_INTERVAL": duration(zero=True),
        "MAX_MESSAGE_LENGTH": whole(1),
        "MAX_PARTS_BYTES": whole(1),
        "MAX_METADATA_BYTES": whole(1),
        "MAX_STATE_BYTES": whole(1),
        "MAX_MESSAGES": whole(1, optional=True),
        "MAX_LIVE_SESSIONS": whole(1, optional=True),
        "MAX_DEPTH": whole(1),
        "END_CHILDREN": _flag,
        "EXPIRE_CHILDREN": _flag,
        "PURGE_CHILDREN": _flag,
        "CASCADE_BOUND": whole(1, 30_000),
        "WINDOW_MESSAGES": whole(1),
        "WINDOW_TOKENS": whole(1, optional=True),
        "TOKEN_COUNTER": _hook,
        "SUMMARIZE": _hook,
        "RUNNER": one_of(("auto", "celery", "server")),
        "LISTENER": one_of(("auto", "postgres", "redis", "polling")),
        "REDIS_URL": _address,
        "POLL_SECONDS": seconds(0.01, 60),
        "RUN_CONCURRENCY": whole(1),
        "CHUNK_SECONDS": seconds(0.01, 0.25),
        "HEARTBEAT_SECONDS": seconds(0.1, 60),
        "STALE_AFTER": duration(zero=False),
        "GRACE_SECONDS": seconds(0, 3600),
        "STREAM_SECONDS": seconds(1, 86_400),
        "TRANSCRIPT_SECONDS": whole(1),
        # A sweep names its sessions in one statement, and SQLite takes 32 766 parameters.
        "SWEEP_BATCH": whole(1, 30_000),
        "SWEEP_EVENTS": whole(1),
        "SWEEP_SECONDS": seconds(1, 86_400),
        "RETENTION": _retention,
        "APPLICATION_RETENTION": _retentions,
        "CLEANUP": one_of(Cleanup.values),
        "ARCHIVE_STORAGE": lambda value: None if value is None or isinstance(value, str) else "an alias, or None",
        "KEEP_CHUNKS": duration(zero=True),
        "SUBSCRIBERS": _subscribers,
        "DELIVERY_ATTEMPTS": whole(1, 1000),
        "WEBHOOK_URL": _web_address,
        "WEBHOOK_SECRET": _secrets,
        "WEBHOOK_EVENTS": _patterns,
        "WEBHOOK_TIMEOUT": seconds(0.1, 50),
        "COOKIE_NAME": _cookie,
        "CREATE_SESSIONS": _flag,
        "CAPTURE": _hook,
    }
)


@register(TAG)
def check_settings(**_: Any) -> list[CheckMessage]:
    """Check each key of ``CHAT_SESSIONS`` by itself."""
    given = _given()
    if not isinstance(given, Mapping):
        return [
            Error(
                f"CHAT_SESSIONS is a {type(given).__name__}, not a dict.",
                hint='For example CHAT_SESSIONS = {"TIMEOUT_MODE": "standard"}.',
                id="chat_sessions.E001",
            )
        ]
    return [problem for key, value in given.items() for problem in _check_key(key, value)]


@register(TAG)
def check_timeouts(**_: Any) -> list[CheckMessage]:
    """Check that the global timeouts and their bounds agree."""
    if not is_sound():
        return []
    settings = conf.get()
    problems = [*_check_bounds(settings.bounds)]
    try:
        # By itself, not through a session's tier, where an explicit contradiction would give way.
        timeouts.check(timeouts.merge(settings.timeouts), settings.bounds)
    except InvalidTimeout as error:
        hint = "Change the timeout, or the bounds MIN_TIMEOUT_MINUTES, MAX_TIMEOUT_MINUTES and"
        hint += " MAX_DURATION_LIMIT_MINUTES."
        problems.append(Error(f"CHAT_SESSIONS, globally: {error}", hint=hint, id="chat_sessions.E004"))
    return problems


@register(TAG)
def check_hooks(**_: Any) -> list[CheckMessage]:
    """Check that the hooks that are named by a path are there."""
    if not is_sound():
        return []
    return [problem for name, hint in _HOOKS.items() for problem in _check_hook(name, getattr(conf.get(), name), hint)]


_HOOKS = {
    "CAPTURE": "a request and returns a dict",
    "TOKEN_COUNTER": "a message and returns its tokens",
    "SUMMARIZE": "messages and the summary so far, and returns text",
}


def wrong_path(path: str) -> str | None:
    """Return what is wrong with the dotted path of a callable, in words."""
    try:
        return None if callable(import_string(path)) else "is not callable"
    except ImportError as error:
        return f"cannot be imported: {error}"


def _check_hook(name: str, path: Any, takes: str) -> list[CheckMessage]:
    problem = wrong_path(path) if isinstance(path, str) else None
    if problem is None:
        return []
    hint = f"Give the dotted path of a callable that takes {takes}."
    return [Error(f"{name}, {path!r}, {problem}.", hint=hint, id="chat_sessions.E005")]


@register(TAG)
def check_time_zones(**_: Any) -> list[CheckMessage]:
    """Check that Django knows instants from local times."""
    if django_settings.USE_TZ:
        return []
    hint = "Set USE_TZ = True: deadlines are instants, and local time jumps."
    return [Error("USE_TZ is off.", hint=hint, id="chat_sessions.E009")]


def is_sound() -> bool:
    """Tell whether each setting by itself is possible, so that what follows from them can be computed."""
    return not check_settings()


def _given() -> Any:
    given = getattr(django_settings, conf.SETTING, None)
    return {} if given is None else given


def _check_key(key: Any, value: Any) -> list[CheckMessage]:
    if key not in RULES:
        near = difflib.get_close_matches(str(key).upper(), RULES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"The keys are {', '.join(RULES)}."
        return [Error(f"CHAT_SESSIONS has no key {key!r}.", hint=hint, id="chat_sessions.E002")]
    expected = RULES[key](value)
    if expected is None:
        return []
    text = f"CHAT_SESSIONS[{key!r}] cannot be {'what it is' if key in _SECRETS else repr(value)}."
    return [Error(text, hint=f"It has to be {expected}.", id="chat_sessions.E003")]


def _check_bounds(bounds: timeouts.Bounds) -> list[CheckMessage]:
    if bounds.min_timeout_minutes <= min(bounds.max_timeout_minutes, bounds.max_duration_minutes):
        return []
    return [
        Error(
            "The bounds of the timeouts leave nothing between them.",
            hint="MIN_TIMEOUT_MINUTES must not be above MAX_TIMEOUT_MINUTES or MAX_DURATION_LIMIT_MINUTES.",
            id="chat_sessions.E004",
        )
    ]
