"""What tests read of a session's log, and the proof that all of them are sound."""

from __future__ import annotations

from typing import Any

from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import messages, verification


def types(session: ChatSession) -> list[str]:
    """Return the types of a session's events, in order."""
    return list(session.events.order_by("sequence").values_list("type", flat=True))


def last(session: ChatSession) -> Any:
    """Return a session's last event."""
    return session.events.order_by("sequence").last()


def texts(session: ChatSession) -> list[str]:
    """Return the conversation's texts as they read now."""
    return [message.content for message in messages.everything(session)]


def fresh(session: ChatSession) -> ChatSession:
    """Return the session as it is in the database."""
    return ChatSession.objects.get(pk=session.pk)


def differences() -> list[verification.Difference]:
    """Return where any session's row is not what its log says."""
    return [found for session in ChatSession.objects.order_by("pk") for found in verification.verify(session)]
