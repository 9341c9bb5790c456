"""Agents: who answers, and by which rules their sessions live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules

from . import conf
from .exceptions import AgentNotFound
from .rules.timeouts import TimeoutOverrides, TimeoutPolicy, merge, overlay

if TYPE_CHECKING:
    from django.http import HttpRequest


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation, as it reads now.

    Attributes:
        role: who speaks.
        content: the text.
        parts: what is more than text, as JSON objects with a ``type``.
        metadata: the application's own JSON object.
        external_id: the sender's own name for it, unique in its session.
        token_count: how many tokens it took, where somebody counted.
        sequence: its number in the log; None before it is stored.
        run: the public id of the run that wrote it.
        created_at: when it was stored.
        edited_at: when it was last edited.
    """

    role: str
    content: str = ""
    parts: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    external_id: str | None = None
    token_count: int | None = None
    sequence: int | None = None
    run: str | None = None
    created_at: datetime | None = None
    edited_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asked, and from where.

    Attributes:
        user: the caller; None where no request is involved.
        session: the public id of the session.
        metadata: what the door knows of the request: ``client``, ``user_agent``, ``path``.
        instant: when the request came in.
    """

    user: Any = None
    session: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    instant: datetime | None = None

    @classmethod
    def of(cls, request: HttpRequest, *, user: Any, session: str | None, instant: datetime) -> RequestContext:
        """Build the context of an HTTP request."""
        metadata = {
            "client": request.headers.get("X-Chat-Client"),
            "user_agent": request.headers.get("User-Agent", ""),
            "path": request.path,
        }
        return cls(user=user, session=session, metadata=metadata, instant=instant)


@dataclass(slots=True)
class Turn:
    """What a responder gets: one question and what it needs to answer it.

    Attributes:
        context: who asked.
        question: the message to answer.
        messages: the window of the conversation, oldest first, the question included.
        state: the session's state, to read and to change in place; what differs afterwards is applied as a
            merge patch (RFC 7396) when the answer is stored, so ``None`` removes a key.
        metadata: the session's metadata, to read.
    """

    context: RequestContext
    question: Message
    messages: tuple[Message, ...]
    state: dict[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


Saying = str | Message
Spoken = Saying | Sequence[Saying] | None
Answer = Spoken | Iterator[Saying] | AsyncIterator[Saying] | Awaitable[Spoken]
Responder = Callable[[Turn], Answer]


@dataclass(frozen=True, slots=True)
class Agent:
    """Somebody who answers, under a name.

    Args:
        name: unique, to 64 characters; sessions keep it.
        respond: a function or generator, sync or async, of a ``Turn``; returns or yields text or messages.
            Text that is yielded in pieces is one message. None: sessions of this agent only store.
        description: a line for people.
        strategy: what several tabs share; None is the global setting.
        timeouts: the agent's tier of the timeouts.
        time_limit_seconds: how long an answer may take.
        window_messages: how many messages the window takes; None is the setting ``WINDOW_MESSAGES``.
        available: whether it can answer now; asked before anything is stored.
    """

    name: str
    respond: Responder | None = None
    description: str = ""
    strategy: str | None = None
    timeouts: TimeoutOverrides = field(default_factory=TimeoutOverrides)
    time_limit_seconds: float = 60
    window_messages: int | None = None
    available: Callable[[], bool] | None = None

    @property
    def can_respond(self) -> bool:
        """Whether it answers at all."""
        return self.respond is not None

    @property
    def is_available(self) -> bool:
        """Whether it can answer now."""
        return self.available is None or self.available()

    @property
    def strategy_in_force(self) -> str:
        """What several tabs share."""
        return self.strategy or conf.get().DEFAULT_STRATEGY

    @property
    def inherited(self) -> TimeoutPolicy:
        """What a session's own timeouts are laid over, before anything in it gives way to them."""
        return overlay(conf.get().timeouts, self.timeouts)

    def policy(self, own: TimeoutOverrides | None = None) -> TimeoutPolicy:
        """Return the timeouts in force for a session with these overrides."""
        return _merged(conf.get().timeouts, self.timeouts, own or _NOTHING)


_NOTHING = TimeoutOverrides()

#: Every answer needs the timeouts in force, and hardly any differ.
_merged = lru_cache(maxsize=1024)(merge)

_registry: dict[str, Agent] = {}


def register(agent: Agent) -> Agent:
    """Make an agent known under its name; a later one of the same name replaces it."""
    _registry[agent.name] = agent
    base_policy.cache_clear()
    return agent


def unregister(name: str) -> None:
    """Forget an agent; its sessions stay readable."""
    _registry.pop(name, None)
    base_policy.cache_clear()


def registered() -> dict[str, Agent]:
    """Return all agents by name."""
    return dict(_registry)


def find(name: str) -> Agent:
    """Return the agent of that name; the empty name is an agent that only stores.

    Raises:
        AgentNotFound: nobody is registered under it.
    """
    agent = _registry.get(name)
    if agent is None and name:
        raise AgentNotFound
    return agent or Agent("")


def of(name: str) -> Agent:
    """Return the agent of an existing session; one that is no longer registered only stores."""
    return _registry.get(name) or Agent(name)


@lru_cache(maxsize=1024)
def base_policy(name: str) -> TimeoutPolicy:
    """Return what a session of that agent inherits; each append asks."""
    return of(name).inherited


def _forget(*, setting: str, **_: Any) -> None:
    if setting == conf.SETTING:
        base_policy.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_chat_sessions.agents")


def autodiscover() -> None:
    """Import the module ``chat_agents`` of every installed app."""
    autodiscover_modules("chat_agents")
