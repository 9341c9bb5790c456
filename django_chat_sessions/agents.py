"""Agents: who answers, and by which rules their sessions live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules

from . import conf
from .choices import Cleanup
from .exceptions import AgentNotFound
from .rules import retention
from .rules.retention import Retention
from .rules.timeouts import TimeoutOverrides, TimeoutPolicy, merge, overlay
from .turns import Message, Piece, Price, RequestContext, StateChange, ToolCall, ToolResult, Turn, Usage

__all__ = [
    "Agent",
    "Message",
    "Piece",
    "Price",
    "RequestContext",
    "StateChange",
    "ToolCall",
    "ToolResult",
    "Turn",
    "Usage",
    "autodiscover",
    "find",
    "of",
    "register",
    "registered",
    "unregister",
]

Spoken = Piece | Sequence[Piece] | None
Answer = Spoken | Iterator[Piece] | AsyncIterator[Piece] | Awaitable[Spoken]
Responder = Callable[[Turn], Answer]
Summarizer = Callable[[Sequence[Message], str | None], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Agent:
    """Somebody who answers, under a name.

    Args:
        name: unique, to 64 characters; sessions keep it.
        respond: a function or generator, sync or async, of a ``Turn``; returns or yields pieces: text, messages,
            tool calls and results, state changes, usage. Text that is yielded in pieces is one message. None:
            sessions of this agent only store.
        description: a line for people.
        strategy: what several tabs share; None is the global setting.
        timeouts: the agent's tier of the timeouts.
        time_limit_seconds: how long an answer may take.
        max_attempts: how often an answer is begun where the process that gives it is lost; 1 is never again. Only for
            a responder that may be asked twice: one that orders a pizza may not.
        price: what its tokens cost; None: nobody knows.
        window_messages: how many messages the window takes; None is the setting ``WINDOW_MESSAGES``.
        window_tokens: how many tokens the window takes; None is the setting ``WINDOW_TOKENS``.
        summarize: takes the messages that no longer fit the window, and the summary so far, and returns text; None is
            the setting ``SUMMARIZE``.
        available: whether it can answer now; asked before anything is stored.
        retention: the agent's tier of ``RETENTION``: days by status, and the action.
        cleanup: when its sessions are archived or deleted; None is the setting ``CLEANUP``.
    """

    name: str
    respond: Responder | None = None
    description: str = ""
    strategy: str | None = None
    timeouts: TimeoutOverrides = field(default_factory=TimeoutOverrides)
    time_limit_seconds: float = 60
    max_attempts: int = 1
    price: Price | None = None
    window_messages: int | None = None
    window_tokens: int | None = None
    summarize: Summarizer | None = None
    available: Callable[[], bool] | None = None
    retention: Mapping[str, Any] = field(default_factory=dict, hash=False)
    cleanup: str | None = None

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

    @property
    def cleanup_in_force(self) -> str:
        """When what is over is archived or deleted."""
        return self.cleanup or conf.get().CLEANUP

    def keeps(self, application: str = "") -> Retention:
        """Return for how long its sessions of an application are kept when they are over."""
        settings = conf.get()
        at_once = {"expired": 0} if self.cleanup_in_force == Cleanup.IMMEDIATE else {}
        applications = settings.APPLICATION_RETENTION
        return retention.overlay(settings.RETENTION, self.retention, at_once, applications.get(application, {}))


_NOTHING = TimeoutOverrides()
_FOR_EVER: Mapping[str, None] = MappingProxyType(dict.fromkeys(map(str, retention.KEPT)))

#: Every answer needs the timeouts in force, and hardly any differ.
_merged = lru_cache(maxsize=1024)(merge)

_registry: dict[str, Agent] = {}


def register(agent: Agent) -> Agent:
    """Make an agent known under its name; a later one of the same name replaces it."""
    _registry[agent.name] = agent
    base_policy.cache_clear()
    return agent


def unregister(name: str) -> None:
    """Forget an agent; its sessions stay readable, and are kept for as long as nobody registers it again."""
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
    """Return the agent of an existing session; one that is no longer registered only stores, and keeps for ever.

    Nobody says any more for how long its sessions were to be kept, and what is deleted does not come back.
    """
    found = _registry.get(name)
    if found is not None or not name:
        return found or Agent(name)
    is_immediate = conf.get().CLEANUP == Cleanup.IMMEDIATE
    return Agent(name, retention=_FOR_EVER, cleanup=Cleanup.DEFERRED if is_immediate else None)


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
