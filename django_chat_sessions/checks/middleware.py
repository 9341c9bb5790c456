"""Checks of the middleware's place."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004
from django.utils.module_loading import import_string

from django_chat_sessions.middleware import ChatSessionMiddleware

from .configuration import TAG

_OURS = "django_chat_sessions.middleware.ChatSessionMiddleware"
_USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"


@register(TAG)
def check_middleware(**_: Any) -> list[CheckMessage]:
    """Check that the middleware is there, after the one that knows the user."""
    ours, users = _place(ChatSessionMiddleware), _place(AuthenticationMiddleware)
    if ours is None:
        hint = f"Add {_OURS!r} after {_USERS!r}, or silence this check where no page needs"
        hint += " request.chat_session and page views are not activity."
        return [Warning("ChatSessionMiddleware is missing.", hint=hint, id="chat_sessions.W001")]
    if users is None:
        text = "ChatSessionMiddleware is there without AuthenticationMiddleware."
        hint = f"Add {_USERS!r} before it, or silence this check where another middleware sets"
        hint += " request.user; without a user there is no session."
        return [Warning(text, hint=hint, id="chat_sessions.W002")]
    if ours < users:
        text = "ChatSessionMiddleware stands before AuthenticationMiddleware."
        hint = f"Move {_OURS!r} below {_USERS!r}."
        return [Error(text, hint=hint, id="chat_sessions.E010")]
    return []


def _place(wanted: type) -> int | None:
    for place, path in enumerate(settings.MIDDLEWARE):
        try:
            found = import_string(path)
        except ImportError:
            continue  # Django says so itself when it builds the chain
        if isinstance(found, type) and issubclass(found, wanted):
            return place
    return None
