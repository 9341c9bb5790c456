"""``settings.CHAT_SESSIONS`` as typed values, read live: one dict, every key and its default in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .choices import Cleanup, EventType, Strategy, TimeoutMode
from .rules.timeouts import Bounds, TimeoutOverrides

SETTING = "CHAT_SESSIONS"

#: The subscriber that posts to ``WEBHOOK_URL``.
WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The keys of ``CHAT_SESSIONS`` and their defaults.

    Attributes:
        DEFAULT_AGENT: the agent of a session that names none; empty is a session that only stores.
        DEFAULT_STRATEGY: what several tabs share where the agent does not say: ``multiple``, ``single``,
            ``per_tab`` or ``active_tab_wins``.
        TIMEOUT_MODE: the global named set of timeouts: ``aggressive``, ``standard``, ``lenient`` or ``persistent``.
        TIMEOUT_MINUTES: idle minutes until a session expires; None is the mode's.
        MAX_DURATION_MINUTES: minutes from opening past which nothing renews a session; None is the mode's, or 720.
        WARNING_THRESHOLD_MINUTES: minutes before expiry at which a session is near expiration; None is the mode's. Of
            several the first is, and each is warned of.
        AUTO_RENEW: whether activity moves the deadline.
        MIN_TIMEOUT_MINUTES: the shortest idle timeout that a session may ask for.
        MAX_TIMEOUT_MINUTES: the longest idle timeout that a session may ask for.
        MAX_DURATION_LIMIT_MINUTES: the longest maximum duration that a session may ask for.
        RESUME_AFTER: idleness after which coming back is recorded; seconds or a timedelta.
        TOUCH_INTERVAL: how often at the most page views move the activity clock; seconds or a timedelta.
        MAX_MESSAGE_LENGTH: characters of a message's content.
        MAX_PARTS_BYTES: bytes of a message's parts as JSON.
        MAX_METADATA_BYTES: bytes of one metadata, environment or application event as JSON.
        MAX_STATE_BYTES: bytes of a session's state as JSON.
        MAX_MESSAGES: messages a session; None is without limit.
        MAX_LIVE_SESSIONS: live sessions a user; None is without limit.
        MAX_DEPTH: how many sessions deep a tree may be, its root included.
        END_CHILDREN: whether ending a parent ends its live children.
        EXPIRE_CHILDREN: whether a parent's expiry ends its live children.
        PURGE_CHILDREN: whether a parent whose retention is over is deleted with children whose own is not; if not, it
            waits for them.
        CASCADE_BOUND: sessions of one tree that are ended, or deleted, in one transaction; more are in several.
        WINDOW_MESSAGES: messages that an agent's window takes where nobody says.
        WINDOW_TOKENS: tokens that an agent's window takes where nobody says; None is without limit.
        TOKEN_COUNTER: a callable, or its dotted path, that takes a message and returns its tokens; None estimates.
        SUMMARIZE: a callable, or its dotted path, that takes the messages that no longer fit the window and the
            summary so far, and returns text; None compacts nothing.
        RUNNER: who answers a question that nobody waits for: ``celery``, ``server`` (this process), or ``auto``, which
            is Celery where the project has a broker for it.
        LISTENER: how streams learn of news: ``postgres`` (LISTEN/NOTIFY), ``redis``, ``polling``, or ``auto``, which
            is Redis where ``REDIS_URL`` is set here, else PostgreSQL where that is the database, else polling.
        REDIS_URL: the Redis of the listener.
        POLL_SECONDS: how often the listener ``polling`` looks.
        RUN_CONCURRENCY: answers that one process gives at once; more wait for their turn.
        CHUNK_SECONDS: how long text that an agent says may wait to be stored, to 0.25.
        HEARTBEAT_SECONDS: how often a process says of its answers that it is still alive.
        STALE_AFTER: silence after which an answer's process is taken to be lost; seconds or a timedelta.
        GRACE_SECONDS: how long a process that is told to stop goes on with the answers that it gives.
        STREAM_SECONDS: how long a stream may last before the client has to come back, and show again who it is.
        TRANSCRIPT_SECONDS: for how long the signed transcript of a question that nobody stored is good.
        SWEEP_BATCH: sessions that a sweep takes in one transaction.
        SWEEP_EVENTS: events that a sweep erases or deletes in one transaction, unless one session has more.
        SWEEP_SECONDS: after how long a sweep's task leaves the rest to the next one.
        RETENTION: for how many days what is over is kept, by status (``expired``, ``ended``, ``failed``,
            ``archived``; None is for ever), and the ``action`` that follows: ``archive`` or ``delete``.
        APPLICATION_RETENTION: the same by application, over the agent's own.
        CLEANUP: when that happens where the agent does not say: ``deferred``, ``immediate`` or ``lazy``.
        ARCHIVE_STORAGE: the alias in ``STORAGES`` to which a log is written before its content is removed; None
            writes none.
        KEEP_CHUNKS: for how long what a finished run said in pieces is kept for streams; seconds or a timedelta.
        SUBSCRIBERS: dotted paths of callables by event type, or by its beginning and ``*``; each is called with every
            such event, at least once and in order per session.
        DELIVERY_ATTEMPTS: how often that is tried before it is set aside.
        WEBHOOK_URL: the address to which events are posted; None is nowhere.
        WEBHOOK_SECRET: what signs them; of several, which a rotation needs, each does.
        WEBHOOK_EVENTS: types of events, or beginnings and ``*``, that are posted.
        WEBHOOK_TIMEOUT: seconds that the webhook has to answer.
        COOKIE_NAME: the cookie in which a page names its session.
        CREATE_SESSIONS: whether the middleware opens a session where a page asks for one and there is none.
        CAPTURE: a callable, or its dotted path, that takes the request and returns what to add to a new session's
            environment.
    """

    DEFAULT_AGENT: str = ""
    DEFAULT_STRATEGY: str = Strategy.MULTIPLE
    TIMEOUT_MODE: str = TimeoutMode.STANDARD
    TIMEOUT_MINUTES: int | None = None
    MAX_DURATION_MINUTES: int | None = None
    WARNING_THRESHOLD_MINUTES: int | Sequence[int] | None = None
    AUTO_RENEW: bool = True
    MIN_TIMEOUT_MINUTES: int = 5
    MAX_TIMEOUT_MINUTES: int = 1440
    MAX_DURATION_LIMIT_MINUTES: int = 10_080
    RESUME_AFTER: float | timedelta = timedelta(minutes=5)
    TOUCH_INTERVAL: float | timedelta = timedelta(seconds=60)
    MAX_MESSAGE_LENGTH: int = 32_768
    MAX_PARTS_BYTES: int = 262_144
    MAX_METADATA_BYTES: int = 16_384
    MAX_STATE_BYTES: int = 262_144
    MAX_MESSAGES: int | None = 10_000
    MAX_LIVE_SESSIONS: int | None = None
    MAX_DEPTH: int = 5
    END_CHILDREN: bool = True
    EXPIRE_CHILDREN: bool = False
    PURGE_CHILDREN: bool = False
    CASCADE_BOUND: int = 1000
    WINDOW_MESSAGES: int = 50
    WINDOW_TOKENS: int | None = None
    TOKEN_COUNTER: str | Callable[[Any], int] | None = None
    SUMMARIZE: str | Callable[..., Any] | None = None
    RUNNER: str = "auto"
    LISTENER: str = "auto"
    REDIS_URL: str | None = field(default=None, repr=False)
    POLL_SECONDS: float = 0.25
    RUN_CONCURRENCY: int = 64
    CHUNK_SECONDS: float = 0.2
    HEARTBEAT_SECONDS: float = 5
    STALE_AFTER: float | timedelta = timedelta(seconds=30)
    GRACE_SECONDS: float = 20
    STREAM_SECONDS: float = 900
    TRANSCRIPT_SECONDS: int = 86_400
    SWEEP_BATCH: int = 1000
    SWEEP_EVENTS: int = 20_000
    SWEEP_SECONDS: float = 300
    RETENTION: Mapping[str, Any] = field(default_factory=dict)
    APPLICATION_RETENTION: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    CLEANUP: str = Cleanup.DEFERRED
    ARCHIVE_STORAGE: str | None = None
    KEEP_CHUNKS: float | timedelta = timedelta(hours=1)
    SUBSCRIBERS: Mapping[str, Sequence[str]] = field(default_factory=dict)
    DELIVERY_ATTEMPTS: int = 16
    WEBHOOK_URL: str | None = field(default=None, repr=False)
    WEBHOOK_SECRET: str | Sequence[str] | None = field(default=None, repr=False)
    WEBHOOK_EVENTS: Sequence[str] = (EventType.SESSION_EXPIRING,)
    WEBHOOK_TIMEOUT: float = 10
    COOKIE_NAME: str = "chat_session"
    CREATE_SESSIONS: bool = False
    CAPTURE: str | Callable[[Any], Mapping[str, Any]] | None = None

    @property
    def resume_after(self) -> timedelta:
        """``RESUME_AFTER`` as a duration."""
        return _duration(self.RESUME_AFTER)

    @property
    def touch_interval(self) -> timedelta:
        """``TOUCH_INTERVAL`` as a duration."""
        return _duration(self.TOUCH_INTERVAL)

    @property
    def stale_after(self) -> timedelta:
        """``STALE_AFTER`` as a duration."""
        return _duration(self.STALE_AFTER)

    @property
    def keep_chunks(self) -> timedelta:
        """``KEEP_CHUNKS`` as a duration."""
        return _duration(self.KEEP_CHUNKS)

    @property
    def timeouts(self) -> TimeoutOverrides:
        """The global tier of the timeouts."""
        return TimeoutOverrides(
            mode=self.TIMEOUT_MODE,
            timeout_minutes=self.TIMEOUT_MINUTES,
            max_duration_minutes=self.MAX_DURATION_MINUTES,
            warning_threshold_minutes=self.WARNING_THRESHOLD_MINUTES,
            auto_renew=self.AUTO_RENEW,
        )

    @property
    def bounds(self) -> Bounds:
        """What a session may ask for."""
        return Bounds(self.MIN_TIMEOUT_MINUTES, self.MAX_TIMEOUT_MINUTES, self.MAX_DURATION_LIMIT_MINUTES)

    def capture(self, request: Any) -> dict[str, Any]:
        """Return what the ``CAPTURE`` hook adds to the environment of a session that ``request`` opens."""
        hook = _imported(self.CAPTURE)
        return dict(hook(request)) if hook else {}

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody is told of any events."""
        return bool(self.SUBSCRIBERS) or self.WEBHOOK_URL is not None

    def subscribers(self, event_type: str) -> tuple[str, ...]:
        """Return who is told of events of a type: dotted paths, and ``WEBHOOK`` where the webhook is."""
        if not self.has_subscribers:
            return ()
        told = (paths for pattern, paths in self.SUBSCRIBERS.items() if _matches(pattern, event_type))
        hooks = [WEBHOOK] if self.WEBHOOK_URL and any(_matches(one, event_type) for one in self.WEBHOOK_EVENTS) else []
        return tuple(dict.fromkeys([path for paths in told for path in paths] + hooks))

    @property
    def token_counter(self) -> Callable[[Any], int] | None:
        """``TOKEN_COUNTER``, imported."""
        return _imported(self.TOKEN_COUNTER)

    @property
    def summarize(self) -> Callable[..., Any] | None:
        """``SUMMARIZE``, imported."""
        return _imported(self.SUMMARIZE)


def _matches(pattern: str, event_type: str) -> bool:
    beginning = pattern.removesuffix("*")
    return event_type == pattern or (beginning != pattern and event_type.startswith(beginning))


def _imported(hook: str | Callable[..., Any] | None) -> Callable[..., Any] | None:
    return import_string(hook) if isinstance(hook, str) else hook


KEYS = frozenset(f.name for f in fields(Settings))


def _duration(value: float | timedelta) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def get() -> Settings:
    """Return the settings in force; keys that do not exist are left to the system check."""
    return _read()


@lru_cache(maxsize=1)
def _read() -> Settings:
    given = getattr(django_settings, SETTING, None) or {}
    return Settings(**{key: value for key, value in given.items() if key in KEYS})


def _forget(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        _read.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_chat_sessions.conf")
