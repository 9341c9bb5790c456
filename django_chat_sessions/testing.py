"""Helpers for the tests of host projects: sessions, messages, and time that passes without sleeping."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import router
from django.db.models import F
from django.utils import timezone

from . import middleware
from .agents import Message
from .models import ChatSession, OutboxEntry, Run
from .operations import messages, opening, outbox

_INSTANTS = (
    "created_at",
    "last_activity_at",
    "renewed_at",
    "expires_at",
    "warned_at",
    "ended_at",
    "settled_at",
)
_RUN_INSTANTS = ("created_at", "started_at", "heartbeat_at", "first_token_at", "finished_at", "expires_at")


def make_session(user: Any = None, **fields: Any) -> ChatSession:
    """Open a session and return it.

    Args:
        user: the owner; None is nobody.
        fields: what ``operations.opening.open`` takes: ``agent``, ``title``, ``metadata``, ``messages``, …
    """
    return opening.open(user, **fields).session


def say(session: ChatSession, text: str, role: str = "user", **fields: Any) -> Message:
    """Store a message in a session and return it.

    Args:
        session: a live session; refreshed in place.
        text: what is said.
        role: who says it.
        fields: further fields of ``agents.Message``.
    """
    return messages.append(session, Message(role, text, **fields)).message


def age(session: ChatSession, **duration: float) -> ChatSession:
    """Let time pass for a session: its instants move back, and its runs', so that it is nearer to its deadline.

    What its log says stays: the end instant of a session that is over then differs from it.

    Args:
        session: refreshed in place, and returned.
        duration: how much, as ``timedelta`` takes it: ``age(session, minutes=10)``.
    """
    passed = timedelta(**duration)
    rows = ChatSession.objects.using(session._state.db).filter(pk=session.pk)
    rows.update(**{name: F(name) - passed for name in _INSTANTS})
    runs = Run.objects.using(session._state.db).filter(session=session)
    runs.update(**{name: F(name) - passed for name in _RUN_INSTANTS})
    middleware.touched.forget(session.uuid)
    session.refresh_from_db()
    return session


def deliver() -> int:
    """Tell subscribers of every event that waits, also of those that are to be tried again later; return how many.

    What raises waits on, and what was set aside stays so.
    """
    waiting = OutboxEntry.objects.using(router.db_for_write(OutboxEntry)).filter(set_aside_at__isnull=True)
    waiting.update(next_attempt_at=timezone.now() - timedelta(days=1))
    return outbox.deliver().count
