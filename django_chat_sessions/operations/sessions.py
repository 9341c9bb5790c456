"""What is done to a session as a whole: keep it, change it, end it, remove it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.db import transaction

from .. import agents, conf, dialects, log, logs, notifications, signals, statements
from ..choices import ALIVE, EventType, RunStatus
from ..exceptions import LegalHold, RenewalLimitReached
from ..models import ChatSession, Run
from ..rules import concurrency, timeouts
from ..rules import merge as patches
from ..rules.concurrency import ANY, Client
from ..rules.timeouts import TimeoutOverrides, TimeoutPolicy
from . import cascades, endings, limits, opening, writing
from .settling import settle


@dataclass(frozen=True, slots=True)
class Resumed:
    """A session that somebody came back to, and for how long it had been idle."""

    session: ChatSession
    idle_seconds: float


def resume(session: ChatSession, *, client: Client = ANY, expected_sequence: int | None = None) -> Resumed:
    """Come back to a live session: records it where it was idle for long enough, and takes control by the strategy.

    Raises:
        SessionExpired, SessionEnded: it is over.
        ClientConflict: it belongs to another tab (``per_tab``).
    """
    before = session.last_activity_at
    if log.append(session, (), client=client, expected_sequence=expected_sequence):
        return Resumed(session, (session.last_activity_at - before).total_seconds())
    if client is not ANY:
        concurrency.check_named(session.strategy, client)
    with writing.writing(session) as draft:
        row = draft.session
        if not concurrency.takes_control(row.strategy, row.client, client):
            concurrency.check_control(row.strategy, row.client, client)
        writing.check_sequence(row, expected_sequence)
        idle = draft.come_back()
        opening.take_control(draft, client)
        draft.touch()
    return Resumed(session, idle)


def heartbeat(session: ChatSession, *, client: Client = ANY, expected_sequence: int | None = None) -> ChatSession:
    """Keep a live session alive without an event; the deadline moves only where activity renews it.

    Raises:
        SessionExpired, SessionEnded: it is over.
        ClientConflict: another client holds it.
    """
    if not log.append(session, (), client=client, expected_sequence=expected_sequence):
        with writing.writing(session, client=client, expected_sequence=expected_sequence) as draft:
            draft.touch()
    return session


def touch(session_id: int, agent: str, *, using: str) -> bool:
    """Note a page view, at most once in ``TOUCH_INTERVAL``; tell whether anything was written.

    The clock of activity stays where somebody has been idle for long enough to come back, so that the coming back is
    still recorded; only the deadline moves then.
    """
    statement = statements.touch(using, agents.base_policy(agent))
    return statement.run(using, session_id)


def renew(session: ChatSession, *, client: Client = ANY, expected_sequence: int | None = None) -> ChatSession:
    """Move the deadline on request, also where activity does not.

    Raises:
        RenewalLimitReached: the deadline already stands at the maximum duration.
        SessionExpired, SessionEnded: it is over.
        ClientConflict: another client holds it.
    """
    with writing.writing(session, client=client, expected_sequence=expected_sequence) as draft:
        row, policy = draft.session, draft.session.policy
        limit = timeouts.limit(policy, row.created_at)
        if row.expires_at >= limit:
            raise RenewalLimitReached(max_duration_minutes=policy.max_duration_minutes)
        draft.come_back()
        draft.touch()
        renewed_at = max(row.renewed_at, draft.now)  # the clock may have been set back since
        deadline = max(row.expires_at, timeouts.deadline(policy, row.created_at, renewed_at))
        draft.columns["renewed_at"] = renewed_at
        draft.extend(deadline)
        draft.record(EventType.SESSION_RENEWED, {"expires_at": log.iso(deadline)})
    return session


def change_timeout(
    session: ChatSession, changes: Mapping[str, Any], *, client: Client = ANY, expected_sequence: int | None = None
) -> ChatSession:
    """Change the session's own timeouts and compute its deadline anew from its last renewal.

    Args:
        session: a live session.
        changes: fields of ``TimeoutOverrides``; one that is missing keeps its value, None returns it to the inherited.
        client, expected_sequence: as for every write.

    Raises:
        InvalidTimeout: the result is out of bounds; nothing changed.
        SessionExpired, SessionEnded: it is over.
        ClientConflict: another client holds it.
    """
    _changed(session, changes)
    with writing.writing(session, client=client, expected_sequence=expected_sequence) as draft:
        row = draft.session
        own, policy = _changed(row, changes)
        deadline = timeouts.deadline(policy, row.created_at, row.renewed_at)
        running = Run.objects.using(writing.alias(row)).filter(session=row, status__in=ALIVE).first()
        draft.extend(max(deadline, running.expires_at) if running else deadline)
        draft.columns["warned_at"] = None
        data = {"timeout": own.as_dict(), "expires_at": log.iso(draft.columns["expires_at"])}
        draft.record(EventType.SESSION_TIMEOUT_CHANGED, data)
    return session


def _changed(session: ChatSession, changes: Mapping[str, Any]) -> tuple[TimeoutOverrides, TimeoutPolicy]:
    own = timeouts.change(session.overrides, changes)
    policy = agents.of(session.agent).policy(own)
    timeouts.check(policy, conf.get().bounds, own=own)
    return own, policy


def change(
    session: ChatSession,
    *,
    title: str | None = None,
    tags: list[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    expected_sequence: int | None = None,
) -> ChatSession:
    """Rename, tag or describe a session, live or over; each given field is replaced.

    Raises:
        MetadataTooLarge: with the limit.
        SequenceConflict: it has moved on.
    """
    if metadata is not None:
        limits.check_json("metadata", metadata)
    asked = {"title": title, "tags": tags, "metadata": None if metadata is None else dict(metadata)}
    with writing.writing(session, live=False, expected_sequence=expected_sequence) as draft:
        given = {name: value for name, value in asked.items() if value is not None}
        changed = {
            name: value for name, value in given.items() if not patches.same(getattr(draft.session, name), value)
        }
        if changed:
            draft.record(EventType.SESSION_CHANGED, changed)
    return session


def rotate(session: ChatSession) -> ChatSession:
    """Give a session, live or over, another public id: whoever has the old one has nothing any more.

    For an id that got into the wrong hands, in a link or a log file. Everything else stays as it is.
    """
    with writing.writing(session, live=False) as draft:
        # Who listens under the old id has nothing to hear any more.
        transaction.on_commit(partial(notifications.tell, writing.alias(session), session.uuid), writing.alias(session))
        draft.columns["uuid"] = uuid4()
        draft.record(EventType.SESSION_CHANGED, {"public_id": "rotated"})
    session.__dict__.pop("root_uuid", None)  # at the top it is its own
    return session


def change_state(
    session: ChatSession, patch: Mapping[str, Any], *, client: Client = ANY, expected_sequence: int | None = None
) -> ChatSession:
    """Apply a JSON merge patch (RFC 7396) to the session's state; what changes nothing is no event.

    Raises:
        MetadataTooLarge: the state would be larger than ``MAX_STATE_BYTES``.
        SessionExpired, SessionEnded: it is over.
        ClientConflict: another client holds it.
    """
    limits.check_nesting("state", patch)
    _check_state(patches.merge(session.state, dict(patch)))
    # A null for what is not there changes nothing of the state, but it would fill the log.
    limits.check_json("state", patch, conf.get().MAX_STATE_BYTES)
    with writing.writing(session, client=client, expected_sequence=expected_sequence) as draft:
        draft.come_back()
        draft.touch()
        record_state(draft, patch)
    return session


def record_state(draft: writing.Draft, patch: Mapping[str, Any]) -> None:
    """Record a state change where the patch makes one."""
    after = patches.merge(draft.session.state, dict(patch))
    if not patches.same(after, draft.session.state):
        _check_state(after)
        draft.record(EventType.STATE_CHANGED, {"patch": dict(patch)})


def _check_state(state: Mapping[str, Any]) -> None:
    limits.check_json("state", state, conf.get().MAX_STATE_BYTES)


def end(
    session: ChatSession, *, reason: str = "", client: Client = ANY, expected_sequence: int | None = None
) -> ChatSession:
    """End a live session on purpose: one event keeps the reason, the final state and the figures.

    A running answer is cancelled. Live children end too, unless the setting ``END_CHILDREN`` leaves them; of more than
    ``CASCADE_BOUND`` descendants the rest ends with the next recovery.

    Raises:
        SessionExpired, SessionEnded: it is over already.
        ClientConflict: another client holds it.
    """
    with writing.writing(session, client=client, expected_sequence=expected_sequence) as draft:
        _close(draft, EventType.SESSION_ENDED, reason)
        draft.announce(signals.session_ended, reason=reason)
    return session


def fail(session: ChatSession, *, reason: str = "") -> ChatSession:
    """Declare a live session broken; what is left of it stays readable.

    Raises:
        SessionExpired, SessionEnded: it is over already.
    """
    with writing.writing(session) as draft:
        _close(draft, EventType.SESSION_FAILED, reason)
        draft.announce(signals.session_failed, reason=reason)
    return session


def _close(draft: writing.Draft, type_: EventType, reason: str) -> None:
    row = draft.session
    runs = Run.objects.using(writing.alias(row)).filter(session=row, status__in=ALIVE)
    for run in runs:
        draft.entries += settle(run, RunStatus.CANCELLED, now=draft.now, next_sequence=draft.next_sequence)
    draft.record(type_, endings.ended(row, draft.now, reason))
    if conf.get().END_CHILDREN:
        # Before the parent is written, whose row may be marked.
        cascades.end_below(writing.alias(row), [row.pk], draft.now)


def delete(session: ChatSession, *, expected_sequence: int | None = None) -> int:
    """Remove a session with all its descendants; return how many sessions went.

    Raises:
        LegalHold: one of them is held; nothing went.
        SequenceConflict: it has moved on.
    """
    using = writing.alias(session)
    with log.begin(using):
        row = log.lock(session)
        tree = ChatSession.objects.using(using).tree(row)
        locked = tree.select_for_update(of=("self",)) if dialects.is_postgresql(using) else tree
        rows = list(locked.order_by("pk").values_list("pk", "uuid", "is_held"))
        if any(is_held for _, _, is_held in rows):
            raise LegalHold
        writing.check_sequence(row, expected_sequence)
        logs.remove(using, [pk for pk, _, _ in rows])
        for _, uuid, _ in rows:
            transaction.on_commit(partial(notifications.tell, using, uuid), using=using)
    return len(rows)


# Thin twins for async code; the synchronous functions are the truth.
aresume = sync_to_async(resume)
aheartbeat = sync_to_async(heartbeat)
arenew = sync_to_async(renew)
achange_timeout = sync_to_async(change_timeout)
achange = sync_to_async(change)
arotate = sync_to_async(rotate)
achange_state = sync_to_async(change_state)
aend = sync_to_async(end)
afail = sync_to_async(fail)
adelete = sync_to_async(delete)
