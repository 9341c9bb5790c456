"""What people wrote, made fit for a page."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from django.utils.formats import date_format, time_format
from django.utils.html import format_html
from django.utils.timesince import timesince, timeuntil
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _

from ..choices import EndReason, EventType, Status

if TYPE_CHECKING:
    from datetime import datetime

    from django.utils.safestring import SafeString

    from ..models import ChatSession

#: What UTF-8 can't say (lone surrogates), what HTML forbids (U+0000), and what a reader wouldn't see.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

#: Characters of a one-line summary.
SUMMARY_LENGTH = 160


def visible(text: object) -> str:
    r"""Return text that any page can hold: what can't be shown stands as ``\u`` and its four digits."""
    return _UNSHOWABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def summary(text: str, length: int = SUMMARY_LENGTH) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text[: 4 * length].split())
    return visible(line if len(line) <= length else line[: length - 1] + "…")


def pretty(value: Any) -> str:
    """Return a JSON value indented for reading."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:  # the indenting encoder may give up where the one that stored it did not
        return _("This is nested too deeply to be shown.")
    return visible(text)


def badge(status: str) -> SafeString:
    """Return a status as a coloured word."""
    return format_html('<span class="chat-badge chat-badge--{}">{}</span>', status, Status(status).label)


def hold_badge() -> SafeString:
    """Return the mark of a legal hold."""
    return format_html('<span class="chat-badge chat-badge--held">{}</span>', _("legal hold"))


def when(at: datetime) -> SafeString:
    """Return an instant as a date and, on a line of its own, a time."""
    local = localtime(at) if is_aware(at) else at
    template = '<time class="chat-when" datetime="{}">{} <small>{}</small></time>'
    return format_html(template, at.isoformat(), date_format(local), time_format(local))


def time_left(session: ChatSession, now: datetime) -> str:
    """Return in words how long a session has before it expires, or how long ago it did."""
    status = session.status_at(now)
    if status == Status.EXPIRED:
        return _("%(time)s ago") % {"time": timesince(session.expires_at, now)}
    if not session.is_live_at(now):
        return ""
    if (session.expires_at - now).total_seconds() < 60:
        return _("less than a minute left")
    return _("%(time)s left") % {"time": timeuntil(session.expires_at, now)}


def is_near_expiration(session: ChatSession, now: datetime) -> bool:
    """Tell whether a live session is within its warning threshold."""
    left = (session.expires_at - now).total_seconds()
    return session.is_live_at(now) and left <= session.policy.warning_threshold_minutes * 60


def event_label(type_: str) -> str:
    """Return an event's type in words; an application's own stands as it is."""
    return str(EventType(type_).label) if type_ in EventType.values else visible(type_)


def end_reason(reason: str) -> str:
    """Return why a session is over, the library's own reasons in words."""
    return str(EndReason(reason).label) if reason in EndReason.values else visible(reason)
