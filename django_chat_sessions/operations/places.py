"""What stands against an opening: who is above it, whether there is room, and whether it is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections

from .. import conf, dialects, log
from ..exceptions import InvalidRequest, SessionLimitReached, SessionNotFound
from ..models import ChatSession
from ..rules import lifecycle
from ..rules.timeouts import TimeoutOverrides


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is asked of a new session."""

    owner: Any
    agent: str
    application: str = ""
    external_id: str | None = None
    title: str = ""
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any]
    environment: Mapping[str, Any]
    state: Mapping[str, Any]
    timeout: TimeoutOverrides
    parent: ChatSession | None = None
    source: ChatSession | None = None
    source_sequence: int | None = None
    entries: Sequence[log.Entry] = ()
    strategy: str
    client: str | None = None
    slot: str | None = None


def lock(wanted: Opening, using: str) -> dict[int, ChatSession]:
    """Lock the sessions that the new one will point at, by their keys.

    From the oldest to the youngest, as ending and deleting a tree lock it too: the foreign key to the root takes a
    lock on it when the transaction commits, and would wait for somebody who waits for the parent.

    Raises:
        SessionNotFound: one is gone, or somebody else's.
    """
    above = [session for session in (wanted.parent, wanted.source) if session is not None]
    keys = {session.pk for session in above}
    keys |= {wanted.parent.root_id} if wanted.parent is not None and wanted.parent.root_id else set()
    if not keys:
        return {}
    rows = ChatSession.objects.using(using).filter(pk__in=keys, owner=wanted.owner).order_by("pk")
    if dialects.is_postgresql(using):
        rows = rows.select_for_update(of=("self",))
    found = {row.pk: row for row in rows}
    if any(session.pk not in found for session in above):
        raise SessionNotFound
    return found


def live_parent(parent: ChatSession, now: datetime, using: str) -> ChatSession:
    """Return a parent under which a session can be opened.

    Raises:
        SessionExpired, SessionEnded: it is over.
        InvalidRequest: the tree would be too deep.
    """
    lifecycle.check_live(parent.status, parent.expires_at, now)
    depth, above = 2, parent.parent_id
    while above is not None:
        depth += 1
        above = ChatSession.objects.using(using).values_list("parent_id", flat=True).get(pk=above)
    if depth > conf.get().MAX_DEPTH:
        raise InvalidRequest({"parent": [f"Sessions may be nested {conf.get().MAX_DEPTH} deep."]})
    return parent


def check_same(found: ChatSession, wanted: Opening) -> None:
    """Refuse to give another session for one that had to be new; the same request again is given what it made."""
    asked = (wanted.parent and wanted.parent.pk, wanted.source and wanted.source.pk)
    if any(asked) and asked != (found.parent_id, found.forked_from_id):
        raise InvalidRequest({"external_id": ["Another live session has this external_id."]})


def check_room(wanted: Opening, now: datetime, using: str) -> None:
    """Refuse one live session too many of an owner; two that open at once are counted one after the other.

    Raises:
        SessionLimitReached: with the limit.
    """
    limit = conf.get().MAX_LIVE_SESSIONS
    if limit is None or wanted.owner is None:
        return
    if dialects.is_postgresql(using):
        with connections[using].cursor() as cursor:
            key = f"chat_sessions.owner:{wanted.owner.pk}"
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
    if ChatSession.objects.using(using).filter(owner=wanted.owner).live(now).count() >= limit:
        raise SessionLimitReached(f"You have {limit} live sessions, as many as the settings allow.", limit=limit)
