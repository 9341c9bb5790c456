"""What retention says of the sessions that are over: what is to be archived now, and what deleted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import connections
from django.db.models import Min

from .. import agents, batches, dialects
from ..batches import Due
from ..choices import LIVE, Cleanup, RetentionAction
from ..fields import hide, unhide
from ..models import ChatSession
from ..rules.retention import KEPT, Retention

#: What subscribers have yet to be told of it is not lost with a session, nor told without its content.
_WAITING = "EXISTS (SELECT 1 FROM chat_sessions_outboxentry o WHERE o.session_id = s.id AND o.set_aside_at IS NULL)"
_TOLD = f"NOT {_WAITING}"

logger = logging.getLogger("django_chat_sessions")


@dataclass(frozen=True, slots=True)
class Group:
    """Sessions that are over in one status, of one application and agent: retention says the same of all of them.

    Attributes:
        status: in which they are over.
        application: as it is stored.
        agent: the name.
    """

    status: str
    application: str
    agent: str

    @property
    def kept(self) -> Retention:
        """For how long they are kept."""
        return agents.of(self.agent).keeps(unhide(self.application))

    @property
    def cleanup(self) -> str:
        """When what retention says is done."""
        return agents.of(self.agent).cleanup_in_force

    @property
    def action(self) -> str | None:
        """What is done to them after their retention; None is nothing, ever."""
        kept = self.kept
        return None if kept.of(self.status) is None else kept.action_for(self.status)

    def is_over(self, since: datetime, now: datetime) -> bool:
        """Tell whether the retention is over of one that is over since then."""
        kept = self.kept.of(self.status)
        return kept is not None and since <= now - kept

    def due(self, using: str, now: datetime) -> Due:
        """Return those whose retention is over, and of which subscribers know all; ``action`` is not None."""
        return self._due(using, now, batches.settled(using))

    def due_but_held(self, using: str, now: datetime) -> Due:
        """Return those of which only a legal hold says that nothing happens to them."""
        return self._due(using, now, batches.held(using))

    def due_but_waiting(self, using: str, now: datetime) -> Due:
        """Return those of which only the subscribers, who have yet to be told, say that nothing happens to them."""
        return self._due(using, now, batches.settled(using), _WAITING)

    def _due(self, using: str, now: datetime, among: str, also: str = _TOLD) -> Due:
        where = (
            f"{among} AND s.status = '{self.status}' AND s.application = %(application)s"
            f" AND s.agent = %(agent)s AND s.settled_at <= %(before)s AND {also}"
        )
        given = {"application": self.application, "agent": self.agent, "before": self._before(using, now)}
        return Due(where, "s.settled_at", given)

    def _before(self, using: str, now: datetime) -> object:
        return dialects.instant(connections[using], now - (self.kept.of(self.status) or timedelta(0)))


@dataclass(frozen=True, slots=True)
class Fate:
    """What retention says of one session that is over.

    Attributes:
        action: what becomes of it; None is nothing, ever.
        at: from when on.
        cleanup: who does that.
    """

    action: RetentionAction | None
    at: datetime | None
    cleanup: str


def fate(session: ChatSession, now: datetime) -> Fate | None:
    """Return what becomes of a session that is over, its expiry recorded or not; None of a live one.

    A legal hold outranks it.
    """
    status = session.status_at(now)
    if status in LIVE:
        return None
    group = Group(status, hide(session.application), session.agent)
    since = session.expires_at if session.status in LIVE else session.settled_at
    kept = group.kept.of(status)
    if group.action is None or kept is None or since is None:
        return Fate(None, None, group.cleanup)
    return Fate(RetentionAction(group.action), since + kept, group.cleanup)


def is_told(session: ChatSession) -> bool:
    """Tell whether subscribers know all of a session."""
    return not batches.untold(session._state.db or "default", [session.pk])


def groups(
    using: str,
    action: RetentionAction | None,
    now: datetime,
    *,
    statuses: Sequence[str] = KEPT,
    unknown: set[str] | None = None,
) -> Iterator[Group]:
    """Yield the groups of these statuses in which sweeps have to do that (None: anything) now.

    Args:
        using: the database.
        action: what has to be done.
        now: as of when.
        statuses: of which sessions.
        unknown: takes the agents because of which nothing is done, as nobody registers them.
    """
    for status in statuses:
        for application, agent, first in batches.settled_groups(using, status):
            group = Group(status, application, agent)
            if unknown is not None and _is_in_doubt(group, action, first, now):
                unknown.add(agent)
            is_wanted = group.action is not None and action in {None, group.action}
            if is_wanted and group.cleanup != Cleanup.LAZY and group.is_over(first, now):
                yield group


def _is_in_doubt(group: Group, action: RetentionAction | None, first: datetime, now: datetime) -> bool:
    """Tell whether that would have to be done now, were the agent not one that nobody registers."""
    if not group.agent or group.agent in agents.registered() or group.action is not None:
        return False
    nobodys = replace(group, agent="")
    return nobodys.action == action and nobodys.cleanup != Cleanup.LAZY and nobodys.is_over(first, now)


def groups_to_sweep(using: str, action: RetentionAction) -> Iterator[Group]:
    """Yield the groups in which a sweep has to do that now; at last, warn of the agents that nobody registers."""
    unknown: set[str] = set()
    yield from groups(using, action, dialects.now(using), unknown=unknown)
    if unknown:
        names = sorted(unknown)
        logger.warning(
            "Nobody registers the agents %s any more: their sessions are kept for ever, unless the retention of their"
            " application says otherwise",
            ", ".join(map(repr, names)),
            extra={"agents": names},
        )


def held_groups(using: str, action: RetentionAction, now: datetime) -> Iterator[Group]:
    """Yield the groups in which that would have to be done now, of the sessions under legal hold."""
    held = ChatSession.objects.using(using).filter(is_held=True, settled_at__isnull=False).order_by()
    firsts = held.values_list("status", "application", "agent").annotate(first=Min("settled_at"))
    for status, application, agent, first in firsts:
        group = Group(status, hide(application), agent)
        if group.action == action and group.cleanup != Cleanup.LAZY and group.is_over(first, now):
            yield group


def due(using: str, now: datetime, action: RetentionAction) -> list[Due]:
    """Return what a sweep that does that deals with."""
    return [group.due(using, now) for group in groups(using, action, now)]


def count(using: str, now: datetime) -> Counter[str]:
    """Count the sessions with which the next sweeps deal, by what they do."""
    counted: Counter[str] = Counter()
    for group in groups(using, None, now):
        counted[str(group.action)] += _number(using, [group.due(using, now)], now)
    return counted


def waiting(using: str, action: RetentionAction) -> int:
    """Count the sessions to which that is not done yet, because subscribers have yet to be told of them."""
    now = dialects.now(using)
    return _number(using, (group.due_but_waiting(using, now) for group in groups(using, action, now)), now)


def held(using: str, action: RetentionAction) -> int:
    """Count the sessions to which that is not done because of a legal hold."""
    now = dialects.now(using)
    return _number(using, (group.due_but_held(using, now) for group in held_groups(using, action, now)), now)


def _number(using: str, every: Iterable[Due], now: datetime) -> int:
    return sum(found.number for due in every for found in batches.count(using, due, now))
