"""Holding a session, and giving it to its owner."""

from __future__ import annotations

from asgiref.sync import sync_to_async

from ..choices import EventType
from ..models import ChatSession
from . import writing


def hold(session: ChatSession, *, reason: str = "") -> ChatSession:
    """Place a session under legal hold: nothing deletes it until it is released. A second hold changes nothing."""
    with writing.writing(session, live=False) as draft:
        if not draft.session.is_held:
            draft.record(EventType.SESSION_HELD, {"reason": reason})
    return session


def release(session: ChatSession, *, reason: str = "") -> ChatSession:
    """Release a session from legal hold."""
    with writing.writing(session, live=False) as draft:
        if draft.session.is_held:
            draft.record(EventType.SESSION_RELEASED, {"reason": reason})
    return session


def disown(session: ChatSession) -> ChatSession:
    """Take the owner from a held session, because the user is being deleted; the log says so."""
    with writing.writing(session, live=False) as draft:
        draft.record(EventType.SESSION_CHANGED, {"owner": None})
        draft.columns["parent_id"] = None
        draft.columns["root_id"] = None
    return session


# Thin twins for async code; the synchronous functions are the truth.
ahold = sync_to_async(hold)
arelease = sync_to_async(release)
