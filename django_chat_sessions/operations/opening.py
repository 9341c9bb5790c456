"""Opening sessions: new ones, the ones that a strategy or a name finds, forks, children and continuations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError, router

from .. import agents, conf, dialects, log, signals
from ..agents import Message
from ..choices import LIVE, EventType, Status, Strategy
from ..exceptions import InvalidRequest, SessionEnded, SessionNotFound
from ..models import ChatSession, SessionEvent
from ..rules import concurrency, lifecycle, timeouts
from ..rules.concurrency import ANY, Client
from ..rules.timeouts import TimeoutOverrides
from . import cascades, limits, places, writing
from . import messages as conversation
from .endings import record_expiry
from .places import Opening

#: Attempts to open where others open the same at the same instant; each failed one found a winner.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, and whether this call made it."""

    session: ChatSession
    created: bool


def open(  # noqa: A001, PLR0913 - the field's word, and its fields
    owner: Any,
    *,
    agent: str | None = None,
    application: str | None = None,
    external_id: str | None = None,
    title: str | None = None,
    tags: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    timeout: TimeoutOverrides | None = None,
    parent: ChatSession | None = None,
    continue_from: ChatSession | None = None,
    messages: Iterable[Message] = (),
    client: Client = ANY,
    using: str | None = None,
) -> Opened:
    """Open a session, or find the live one that the agent's strategy or the ``external_id`` names.

    Args:
        owner: the user whose session it is.
        agent: who answers; a continuation's is its source's, else the setting ``DEFAULT_AGENT``.
        application: which application of the host it belongs to.
        external_id: the host's own name for it, unique among the owner's live ones of this agent and application.
        title, tags, metadata, state: what to begin with; a continuation begins with its source's.
        environment: what to remember of the circumstances; never changes.
        timeout: the session's own timeouts; a continuation's are its source's.
        parent: a live session of the same owner under which it opens; always a new one.
        continue_from: a session of the same owner whose conversation and state it takes over; always a new one.
        messages: a history to start with.
        client: the tab that opens.
        using: the database; the one that sessions are written to by default.

    Returns:
        The session and whether it is new. One that was found is unchanged but for coming back and for who controls it.

    Raises:
        AgentNotFound: no such agent.
        InvalidTimeout: the timeouts are out of bounds.
        InvalidRequest: the client must name itself, the tree would be too deep, or the ``external_id`` of what has to
            be a new session is taken.
        MessageTooLong, MetadataTooLarge, MessageLimitReached: too much of something.
        SessionNotFound: the parent or the source is gone, or somebody else's.
        SessionExpired, SessionEnded: the parent is over, or the source was archived.
        SessionLimitReached: the owner has too many live sessions.
    """
    using = using or router.db_for_write(ChatSession)
    source = _own(continue_from, owner, using)
    name = agent if agent is not None else (source.agent if source else conf.get().DEFAULT_AGENT)
    known = agents.find(name)
    strategy = known.strategy_in_force
    _check_client(strategy, client)
    if timeout is not None and timeout.as_dict():
        timeouts.check(known.policy(timeout), conf.get().bounds, own=timeout)
    history = _checked(messages)
    alone = parent is not None or source is not None
    wanted = Opening(
        owner=owner,
        agent=name,
        application=_first(application, source and source.application, ""),
        external_id=external_id,
        title=_first(title, source and source.title, ""),
        tags=list(_first(tags, source and source.tags, ())),
        metadata=dict(_first(metadata, source and source.metadata, {})),
        environment=dict(environment or {}),
        state=dict(_first(state, source and source.state, {})),
        timeout=_first(timeout, source and source.overrides, TimeoutOverrides()),
        parent=parent,
        source=source,
        source_sequence=source.last_sequence if source else None,
        entries=[conversation.entry(message) for message in history],
        strategy=strategy,
        client=None if client is ANY or strategy not in concurrency.NEEDS_CLIENT else client,
        slot=None if alone else concurrency.slot(strategy, client),
    )
    for name_, value in (("metadata", wanted.metadata), ("environment", wanted.environment)):
        limits.check_json(name_, value)
    limits.check_json("state", wanted.state, conf.get().MAX_STATE_BYTES)
    return _open(wanted, client=client, using=using)


def _own(source: ChatSession | None, owner: Any, using: str) -> ChatSession | None:
    """Return a source as it is now; somebody else's does not exist."""
    if source is None:
        return None
    row = ChatSession.objects.using(using).filter(pk=source.pk, owner=owner).first()
    if row is None:
        raise SessionNotFound
    return row


def _check_readable(source: ChatSession) -> None:
    """Refuse to copy what is not there any more."""
    if source.status == Status.ARCHIVED:
        raise SessionEnded("The session was archived; its conversation cannot be continued.", status=source.status)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _checked(messages: Iterable[Message]) -> list[Message]:
    names: set[str] = set()
    errors: dict[str, list[str]] = {}
    history = list(messages)
    for number, message in enumerate(history):
        limits.check_message(message)
        if message.external_id is not None and message.external_id in names:
            errors[f"messages.{number}.external_id"] = ["An earlier message has this external_id."]
        names.add(message.external_id or "")
    if errors:
        raise InvalidRequest(errors)
    return history


def _check_client(strategy: str, client: Client) -> None:
    concurrency.check_named(strategy, client)
    if client is ANY and strategy == Strategy.PER_TAB:
        raise InvalidRequest({"client": ["A session of one tab needs the tab's name."]})


def _open(wanted: Opening, *, client: Client, using: str) -> Opened:
    for _ in range(ATTEMPTS - 1):
        try:
            return _attempt(wanted, client=client, using=using)
        except IntegrityError as error:
            constraints = ("chat_sessions_slot", "chat_sessions_external_id")
            if not any(log.violated(error, constraint) for constraint in constraints):
                raise
    return _attempt(wanted, client=client, using=using)


def _attempt(wanted: Opening, *, client: Client, using: str) -> Opened:
    with log.begin(using):
        rows = places.lock(wanted, using)
        now = dialects.now(using)
        if wanted.source is not None:
            _check_readable(rows[wanted.source.pk])
        if wanted.parent is not None:
            wanted = replace(wanted, parent=places.live_parent(rows[wanted.parent.pk], now, using))
        found = _find(wanted, now, using)
        if found is not None:
            places.check_same(found, wanted)
            return Opened(come_back(found, client=client), created=False)
        places.check_room(wanted, now, using)
        return Opened(create(wanted, now, using), created=True)


def _find(wanted: Opening, now: datetime, using: str) -> ChatSession | None:
    """Find, locked, the live session that the caller names or whose place it wants; record the expiry of a dead one.

    Nobody's sessions are found by nobody: two strangers without a name are not the same person.
    """
    if wanted.owner is None:
        return None
    rows = ChatSession.objects.using(using).filter(
        owner=wanted.owner, tenant="", agent=wanted.agent, application=wanted.application, status__in=LIVE
    )
    if dialects.is_postgresql(using):
        rows = rows.select_for_update(of=("self",))
    for name in ("external_id", "slot"):
        value = getattr(wanted, name)
        session = None if value is None else rows.filter(**{name: value}).order_by().first()
        if session is not None and session.expires_at > dialects.now(using):
            return session
        if session is not None:
            record_expiry(session, now)
            cascades.expire_below(using, [session.pk], now)
    return None


def come_back(session: ChatSession, *, client: Client) -> ChatSession:
    """Note that somebody is back at a session, and who controls it now."""
    with writing.writing(session, live=False) as draft:
        lifecycle.check_live(draft.session.status, draft.session.expires_at, draft.now)
        draft.come_back()
        take_control(draft, client)
        draft.touch()
    return session


def take_control(draft: writing.Draft, client: Client) -> None:
    """Pass the control to a tab that opens or resumes, where the strategy says so; the log tells."""
    session = draft.session
    if concurrency.takes_control(session.strategy, session.client, client):
        draft.record(EventType.SESSION_SUPERSEDED, {"client": client, "previous_client": session.client})


def create(wanted: Opening, now: datetime, using: str) -> ChatSession:
    """Insert a session and its first events, and announce it; the caller has begun."""
    policy = agents.of(wanted.agent).policy(wanted.timeout)
    session = ChatSession(
        owner=wanted.owner,
        agent=wanted.agent,
        application=wanted.application,
        external_id=wanted.external_id,
        parent=wanted.parent,
        root_id=None if wanted.parent is None else wanted.parent.root_id or wanted.parent.pk,
        forked_from=wanted.source,
        forked_from_sequence=wanted.source_sequence,
        environment=wanted.environment,
        strategy=wanted.strategy,
        slot=wanted.slot,
        created_at=now,
        last_activity_at=now,
        renewed_at=now,
        expires_at=timeouts.deadline(policy, now, now),
    )
    entries = [_created(wanted), *_copied(wanted, using), *wanted.entries]
    limits.check_count(0, sum(entry.is_message for entry in entries))
    log.create(session, entries, using=using)
    writing.announce(signals.session_opened, session)
    return session


def _created(wanted: Opening) -> log.Entry:
    data = {
        "owner": None if wanted.owner is None else str(wanted.owner.pk),
        "agent": wanted.agent,
        "application": wanted.application,
        "external_id": wanted.external_id,
        "title": wanted.title,
        "tags": list(wanted.tags),
        "metadata": wanted.metadata,
        "environment": wanted.environment,
        "state": wanted.state,
        "timeout": wanted.timeout.as_dict(),
        "strategy": wanted.strategy,
        "client": wanted.client,
        "parent": wanted.parent and str(wanted.parent.uuid),
    }
    return log.Entry(type=EventType.SESSION_CREATED, data=data)


def _copied(wanted: Opening, using: str) -> list[log.Entry]:
    source, at = wanted.source, wanted.source_sequence
    if source is None or at is None:
        return []
    forked = log.Entry(type=EventType.SESSION_FORKED, data={"id": str(source.uuid), "sequence": at})
    current = source.events.using(using).conversation().filter(position__lte=at)
    return [forked, *(conversation.copy(event) for event in current)]


def fork(
    session: ChatSession,
    *,
    at: int | None = None,
    title: str | None = None,
    client: Client = ANY,
    expected_sequence: int | None = None,
) -> ChatSession:
    """Open a new session with the conversation of another as it reads up to a sequence, and the state as it was there.

    Args:
        session: the source, live or over.
        at: a sequence of its log; the last by default.
        title: the new title; the source's by default.
        client: the tab that will be in control, where the strategy has one.
        expected_sequence: refuse unless this is the source's last sequence.

    Returns:
        The new session, of the same owner, agent, application, tags, metadata and timeouts, without a parent.

    Raises:
        InvalidRequest: ``at`` never was, or the client must name itself.
        SequenceConflict: the source has moved on.
        SessionEnded: the source was archived.
    """
    concurrency.check_named(session.strategy, client)
    using = writing.alias(session)
    with log.begin(using):
        source = log.lock(session)
        _check_readable(source)
        at = source.last_sequence if at is None else at
        if not 1 <= at <= source.last_sequence:
            raise InvalidRequest({"at": [f"The log has the sequences 1 to {source.last_sequence}."]})
        writing.check_sequence(source, expected_sequence)
        wanted = Opening(
            owner=source.owner,
            agent=source.agent,
            application=source.application,
            title=source.title if title is None else title,
            tags=source.tags,
            metadata=source.metadata,
            environment={},
            state=state_at(source, at),
            timeout=source.overrides,
            source=source,
            source_sequence=at,
            strategy=source.strategy,
            client=source.client if client is ANY or source.strategy not in concurrency.NEEDS_CLIENT else client,
        )
        now = dialects.now(using)
        places.check_room(wanted, now, using)
        return create(wanted, now, using)


def state_at(session: ChatSession, at: int) -> dict[str, Any]:
    """Return a session's state as it was at a sequence."""
    if at == session.last_sequence:
        return dict(session.state)
    types = (EventType.SESSION_CREATED, EventType.STATE_CHANGED)
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session, sequence__lte=at)
    rows = events.filter(type__in=types).order_by("sequence").values_list("type", "data")
    start = lifecycle.Projection(status=LIVE[0])
    return lifecycle.fold((lifecycle.Event(type_, data) for type_, data in rows), start).state


# Thin twins for async code; the synchronous functions are the truth.
aopen = sync_to_async(open)
afork = sync_to_async(fork)
