"""Which live sessions are within a warning threshold that nobody has been warned of.

A session may be warned of several times before one deadline, at each threshold once: ``warned_at`` is when it last was,
and a deadline that moves on resets it. Where several thresholds have passed since, one warning says the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connections

from .. import agents, batches, dialects, logs
from ..batches import Due
from ..choices import EventType
from ..dialects import Dialect, PolicySQL
from ..rules.timeouts import MODES


@dataclass(frozen=True, slots=True)
class Kind:
    """Sessions of an agent that are all warned of first within the same time before their deadlines.

    Attributes:
        agent: the name.
        where: a condition on what they say themselves; text of ours alone.
        minutes: that time.
    """

    agent: str
    where: str
    minutes: int

    def due(self, using: str, now: datetime) -> Due:
        """Return those of which somebody has to be warned now."""
        connection = connections[using]
        reached = _reached(dialects.of(using), self.agent)
        threshold = dialects.of(using).interval.format(at="s.expires_at", minutes=f"-({reached})")
        where = (
            f"{self.where} AND s.agent = %(agent)s AND s.expires_at > %(now)s AND s.expires_at <= %(horizon)s"
            f" AND (s.warned_at IS NULL OR s.warned_at < {threshold}) AND {reached} IS NOT NULL"
        )
        horizon = dialects.instant(connection, now + timedelta(minutes=self.minutes))
        given = {"agent": self.agent, "now": dialects.instant(connection, now), "horizon": horizon}
        return Due(where, "s.expires_at", given)


def kinds(using: str, agent: str) -> Iterator[Kind]:
    """Yield the kinds of an agent's sessions: as it says itself, and of those that say something, each its own.

    So an index has those that may be due in one place, and nobody looks at those that are not.
    """
    known = agents.of(agent)
    yield Kind(agent, _AS_THE_AGENT_SAYS, known.policy().warning_threshold_minutes)
    if not batches.say_themselves(using, agent):
        return
    inherited = known.inherited.warning_threshold_minutes
    modes = {"s.timeout_mode IS NULL": inherited}
    modes |= {f"s.timeout_mode = '{name}'": mode.warning_threshold_minutes for name, mode in MODES.items()}
    for mode, minutes in modes.items():
        own = f"{batches.OWN_WARNINGS} AND {mode} AND s.warning_threshold_minutes"
        yield Kind(agent, f"{own} IS NULL", minutes)
        for threshold in batches.own_thresholds(using, agent, mode):
            yield Kind(agent, f"{own} = {int(threshold)}", threshold)


_AS_THE_AGENT_SAYS = (
    f"{batches.LIVE_SESSIONS} AND s.timeout_mode IS NULL AND s.timeout_minutes IS NULL"
    " AND s.warning_threshold_minutes IS NULL"
)


def due(using: str, agent: str, now: datetime) -> list[Due]:
    """Return the sessions of an agent of which somebody has to be warned now, of each kind."""
    return [kind.due(using, now) for kind in kinds(using, agent)]


def event(using: str, agent: str, now: datetime) -> logs.Same:
    """Return the warning, for sessions that are due at ``now``."""
    dialect = dialects.of(using)
    data = (
        f"{dialect.build}('expires_at', {dialect.iso.format(at='s.expires_at')},"
        f" 'threshold_minutes', {_reached(dialect, agent)})"
    )
    return logs.Same(type=EventType.SESSION_EXPIRING, data=data, columns={"warned_at": _now(dialect)})


def _now(dialect: Dialect) -> str:
    return dialect.instant.format(name="now")


def _reached(dialect: Dialect, agent: str) -> str:
    """Return the smallest threshold in force that a session has reached, as SQL; NULL where it has reached none."""
    inherited = agents.of(agent).inherited
    first = PolicySQL.over({}, inherited).warning
    own = "s.timeout_mode IS NOT NULL OR s.warning_threshold_minutes IS NOT NULL"
    # What a session says itself replaces its agent's thresholds, all of them.
    later = [
        f"CASE WHEN {own} OR {first} <= {minutes} THEN NULL ELSE {minutes} END" for minutes in inherited.later_warnings
    ]
    cases = (
        f"WHEN s.expires_at <= {dialect.interval.format(at=_now(dialect), minutes=minutes)} THEN {minutes}"
        for minutes in (*reversed(later), first)
    )
    return f"CASE {' '.join(cases)} END"
