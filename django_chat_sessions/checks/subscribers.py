"""Checks of who is told of events. None of them says an address or a secret."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from django_chat_sessions import conf
from django_chat_sessions.operations import webhook

from .configuration import TAG, is_sound, wrong_path


@register(TAG)
def check_subscribers(**_: Any) -> list[CheckMessage]:
    """Check that each subscriber is there."""
    if not is_sound():
        return []
    paths = dict.fromkeys(path for paths in conf.get().SUBSCRIBERS.values() for path in paths)
    return [problem for path in paths for problem in _check_subscriber(path)]


def _check_subscriber(path: str) -> list[CheckMessage]:
    problem = wrong_path(path)
    if problem is None:
        return []
    hint = "Give the dotted path of a callable that takes a Notice. What was recorded for it meanwhile is set aside in"
    hint += " the end, and can be delivered again in the admin."
    return [Error(f"The subscriber {path!r} {problem}.", hint=hint, id="chat_sessions.E014")]


@register(TAG)
def check_webhook(**_: Any) -> list[CheckMessage]:
    """Check that there is where to post to, and that what is posted can be signed."""
    if not is_sound() or not conf.get().WEBHOOK_URL:
        return []
    try:
        webhook.parsed(conf.get().WEBHOOK_URL or "")
        if any(len(key) < webhook.KEY_BYTES for key in webhook.secrets(conf.get().WEBHOOK_SECRET)):
            raise webhook.WebhookFailed(f"with a secret of less than {webhook.KEY_BYTES} bytes")
    except webhook.WebhookFailed as error:
        hint = "Set WEBHOOK_URL to an address, and WEBHOOK_SECRET to text, or to base64 behind 'whsec_', that the other"
        hint += " side knows too; at least 24 random bytes."
        return [Error(f"The webhook is there {error}.", hint=hint, id="chat_sessions.E015")]
    return []


@register(TAG)
def check_webhook_address(**_: Any) -> list[CheckMessage]:
    """Check that what the webhook posts can be read by nobody on its way."""
    if not is_sound() or check_webhook():
        return []
    url = urlsplit(conf.get().WEBHOOK_URL or "")
    if url.scheme != "http" or _is_local(url.hostname or ""):
        return []
    hint = "Use https://: what is posted is signed, not encrypted."
    return [Warning("WEBHOOK_URL begins with http://.", hint=hint, id="chat_sessions.W014")]


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
