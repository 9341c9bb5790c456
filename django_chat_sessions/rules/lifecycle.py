"""What a status allows, and what a log says of its session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from ..choices import LIVE, EventType, Status
from ..exceptions import IllegalTransition, SessionEnded, SessionExpired
from .merge import merge

#: From each status, the statuses that may follow.
TRANSITIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        Status.CREATED: frozenset({Status.ACTIVE, Status.RESUMED, Status.EXPIRED, Status.ENDED, Status.FAILED}),
        Status.ACTIVE: frozenset({Status.RESUMED, Status.EXPIRED, Status.ENDED, Status.FAILED}),
        Status.RESUMED: frozenset({Status.ACTIVE, Status.EXPIRED, Status.ENDED, Status.FAILED}),
        Status.EXPIRED: frozenset({Status.ARCHIVED}),
        Status.ENDED: frozenset({Status.ARCHIVED}),
        Status.FAILED: frozenset({Status.ARCHIVED}),
        # Back to where it was, when its content is restored.
        Status.ARCHIVED: frozenset({Status.EXPIRED, Status.ENDED, Status.FAILED}),
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a log, as far as it says something of the session."""

    type: str
    data: Mapping[str, Any]
    token_count: int | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """What a session's log says of it: the part of the row that can be computed anew at any time."""

    status: str = ""
    owner: str | None = None
    client: str | None = None
    title: str = ""
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    timeout: dict[str, Any] = field(default_factory=dict)
    last_sequence: int = 0
    message_count: int = 0
    token_count: int = 0
    renewal_count: int = 0
    ended_at: str | None = None
    end_reason: str = ""
    is_held: bool = False


def status_at(status: str, expires_at: datetime, now: datetime) -> str:
    """Return the status that a reader sees: a live session past its deadline is expired, swept or not."""
    return Status.EXPIRED if status in LIVE and expires_at <= now else Status(status)


def check_live(status: str, expires_at: datetime, now: datetime) -> None:
    """Refuse what needs a live session.

    Raises:
        SessionExpired: it is past its deadline, swept or not.
        SessionEnded: it was ended, failed or archived.
    """
    current = status_at(status, expires_at, now)
    if current == Status.EXPIRED:
        raise SessionExpired(expires_at=expires_at)
    if current not in LIVE:
        raise SessionEnded(status=current)


def move(current: str, target: str) -> str:
    """Return ``target`` where the transition is legal; staying is no transition.

    Raises:
        IllegalTransition: the table does not have it.
    """
    if current != target and target not in TRANSITIONS[current]:
        raise IllegalTransition(f"A session cannot go from {current} to {target}.", status=current, target=target)
    return target


def fold(events: Iterable[Event], start: Projection | None = None) -> Projection:
    """Compute what a log, from its first event on, says of its session."""
    projection = start or Projection()
    for event in events:
        projection = apply(projection, event)
    return projection


def apply(projection: Projection, event: Event) -> Projection:
    """Return the projection after one more event.

    Raises:
        IllegalTransition: the event moves the session to a status that it cannot have now.
    """
    advanced = replace(
        projection,
        last_sequence=projection.last_sequence + 1,
        token_count=projection.token_count + (event.token_count or 0),
    )
    change = _CHANGES.get(event.type)
    return change(advanced, event.data) if change else advanced


def _created(now: Projection, data: Mapping[str, Any]) -> Projection:
    known = ("client", "title", "tags", "metadata", "state", "timeout")
    return replace(now, status=Status.CREATED, owner=data.get("owner"), **{k: data[k] for k in known if k in data})


def _message(now: Projection, data: Mapping[str, Any]) -> Projection:
    return replace(now, status=move(now.status, Status.ACTIVE), message_count=now.message_count + 1)


def _answering(now: Projection, data: Mapping[str, Any]) -> Projection:
    return replace(now, message_count=now.message_count - len(data.get("supersedes", ())))


def _answered(now: Projection, data: Mapping[str, Any]) -> Projection:
    return replace(now, token_count=now.token_count + int(data.get("tokens", 0)))


def _replacement(now: Projection, data: Mapping[str, Any]) -> Projection:
    return replace(now, message_count=now.message_count - 1)


def _changed(now: Projection, data: Mapping[str, Any]) -> Projection:
    return replace(now, **{k: data[k] for k in ("title", "tags", "metadata", "owner") if k in data})


def _state(now: Projection, data: Mapping[str, Any]) -> Projection:
    # What an archived session's state was made of is erased, as the state is.
    return now if data.get("erased") else replace(now, state=merge(now.state, data["patch"]))


def _restored(now: Projection, data: Mapping[str, Any]) -> Projection:
    return replace(now, status=move(now.status, data["status"]), state=data.get("state", {}))


def _over(status: Status) -> Callable[[Projection, Mapping[str, Any]], Projection]:
    def change(now: Projection, data: Mapping[str, Any]) -> Projection:
        reason = str(data.get("reason", ""))
        return replace(now, status=move(now.status, status), ended_at=data["ended_at"], end_reason=reason)

    return change


_CHANGES: Mapping[str, Callable[[Projection, Mapping[str, Any]], Projection]] = {
    EventType.SESSION_CREATED: _created,
    EventType.SESSION_CHANGED: _changed,
    EventType.SESSION_RESUMED: lambda now, data: replace(now, status=move(now.status, Status.RESUMED)),
    EventType.SESSION_RENEWED: lambda now, data: replace(now, renewal_count=now.renewal_count + 1),
    EventType.SESSION_TIMEOUT_CHANGED: lambda now, data: replace(now, timeout=data["timeout"]),
    EventType.SESSION_EXPIRED: _over(Status.EXPIRED),
    EventType.SESSION_ENDED: _over(Status.ENDED),
    EventType.SESSION_FAILED: _over(Status.FAILED),
    EventType.SESSION_SUPERSEDED: lambda now, data: replace(now, client=data["client"]),
    EventType.SESSION_CLAIMED: lambda now, data: replace(now, owner=data["owner"]),
    EventType.SESSION_HELD: lambda now, data: replace(now, is_held=True),
    EventType.SESSION_RELEASED: lambda now, data: replace(now, is_held=False),
    EventType.SESSION_ARCHIVED: lambda now, data: replace(now, status=move(now.status, Status.ARCHIVED), state={}),
    EventType.SESSION_RESTORED: _restored,
    EventType.STATE_CHANGED: _state,
    EventType.MESSAGE: _message,
    EventType.MESSAGE_DELETED: _replacement,
    EventType.RUN_STARTED: _answering,
    EventType.RUN_SUCCEEDED: _answered,
    EventType.RUN_FAILED: _answered,
    EventType.RUN_CANCELLED: _answered,
}
