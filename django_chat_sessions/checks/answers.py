"""Checks of who gives the answers, and of how streams learn of them."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004
from django.db import router

from django_chat_sessions import conf, notifications
from django_chat_sessions.models import ChatSession

from .configuration import TAG, is_sound

#: Heartbeats that may be lost before a process is taken to be.
BEATS = 3


@register(TAG)
def check_runner(**_: Any) -> list[CheckMessage]:
    """Check that who is to give the answers can be had."""
    if not is_sound() or conf.get().RUNNER != "celery" or find_spec("celery"):
        return []
    hint = 'Install Celery (the extra "celery"), or set RUNNER to "server".'
    return [Error('RUNNER is "celery", and Celery is not installed.', hint=hint, id="chat_sessions.E012")]


@register(TAG)
def check_heartbeats(**_: Any) -> list[CheckMessage]:
    """Check that a process that is alive is not taken to be lost."""
    if not is_sound():
        return []
    settings = conf.get()
    least = timedelta(seconds=settings.HEARTBEAT_SECONDS * BEATS)
    if settings.stale_after >= least:
        return []
    text = f"STALE_AFTER, {settings.stale_after}, is less than {BEATS} heartbeats."
    hint = f"Set it to {least} or more, or HEARTBEAT_SECONDS to less: answers are taken from processes that are alive."
    return [Warning(text, hint=hint, id="chat_sessions.W010")]


@register(TAG)
def check_listener(**_: Any) -> list[CheckMessage]:
    """Check that streams can learn of news in the way that the settings ask for."""
    if not is_sound():
        return []
    problem = notifications.problem(router.db_for_write(ChatSession))
    if problem is None:
        return []
    hint = "Until then streams look for news by themselves, every POLL_SECONDS."
    return [Warning(problem, hint=hint, id="chat_sessions.W011")]


@register(TAG, deploy=True)
def check_server(**_: Any) -> list[CheckMessage]:
    """Check, as far as the settings tell, that the server can stream."""
    if getattr(django_settings, "ASGI_APPLICATION", None):
        return []
    hint = "Serve the project by ASGI (uvicorn, hypercorn, daphne) and set ASGI_APPLICATION. Under WSGI a stream is"
    hint += " refused with 406, and clients wait for events with GET events?wait= instead; silence this check then."
    return [Warning("ASGI_APPLICATION is not set; streams need it.", hint=hint, id="chat_sessions.W012")]
