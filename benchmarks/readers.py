"""Reading: the last 50 of short and long conversations, coming back, opening, and a user's latest sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from . import data, floor
from .measure import Plan, Row, alternate, compare

AIM = 2.0


def measure(plan: Plan) -> Iterator[Row]:
    """Measure all of them."""
    owner = data.user("reader")
    sessions = {length: data.long(owner, length) for length in data.LENGTHS}
    collector = data.user("collector")
    data.many(collector, data.LISTED)
    data.settle()
    with floor.connect() as connection:
        for length, session in sessions.items():
            yield last_50(plan, connection, session, f"last 50 of {length}")
        for length in (data.LENGTHS[0], data.LENGTHS[-1]):
            yield resume(plan, connection, sessions[length], f"coming back, {length} messages")
        yield latest(plan, connection, collector)
        yield opened(plan, connection, data.user("opener"))


def last_50(plan: Plan, connection: Any, session: Any, variant: str) -> Row:
    """Measure the read of the conversation as JSON text."""
    from django_chat_sessions import transcripts

    def ours() -> str:
        return transcripts.messages(session).json

    def theirs() -> str:
        return connection.execute(floor.LAST_50, (session.pk,)).fetchone()[0]

    assert ours() == theirs(), "not the same bytes"
    return compare("resume", variant, *alternate(ours, theirs, rounds=plan.rounds, calls=plan.calls(300)), AIM)


def resume(plan: Plan, connection: Any, session: Any, variant: str) -> Row:
    """Measure coming back to a session that was idle for a moment only: its clock moves."""
    from django_chat_sessions.operations import sessions

    def ours() -> object:
        return sessions.resume(session)

    def theirs() -> object:
        return connection.execute(floor.RESUME, (session.pk,)).fetchone()

    return compare("resume", variant, *alternate(ours, theirs, rounds=plan.rounds, calls=plan.calls(100)), AIM)


def latest(plan: Plan, connection: Any, owner: Any) -> Row:
    """Measure the first page of a user's sessions."""
    from django_chat_sessions import lookups

    def ours() -> lookups.Listed:
        return lookups.latest(owner, lookups.Filters())

    def theirs() -> list[Any]:
        return connection.execute(floor.LATEST, (owner.pk,)).fetchall()

    found = [(s.uuid, s.title, s.last_activity_at, s.metadata, s.root_uuid) for s in ours().sessions]
    assert found == [(r[0], r[4], r[17], r[9], r[27] or r[0]) for r in theirs()[:20]], "not the same sessions"
    variant = "20 latest of 10000"
    return compare("list", variant, *alternate(ours, theirs, rounds=plan.rounds, calls=plan.calls(200)), AIM)


def opened(plan: Plan, connection: Any, owner: Any) -> Row:
    """Measure a new session."""
    from django_chat_sessions.operations import opening

    told = {
        "owner": str(owner.pk), "agent": "", "application": "", "external_id": None, "title": "", "tags": [],
        "metadata": {}, "environment": {}, "state": {}, "timeout": {}, "strategy": "multiple", "client": None,
        "parent": None,
    }  # fmt: skip

    def ours() -> object:
        return opening.open(owner)

    def theirs() -> object:
        return connection.execute(floor.OPEN, (uuid4(), owner.pk, json.dumps(told))).fetchone()

    return compare("open", "a new session", *alternate(ours, theirs, rounds=plan.rounds, calls=plan.calls(100)), None)
