"""A session's page: its conversation, its timeline, its answers, its data; and beside them the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.admin.options import IS_POPUP_VAR
from django.utils.translation import gettext_lazy as _

from . import conversation, facts
from .commands import COMMANDS, Command
from .display import badge, is_near_expiration, time_left
from .listing import instant

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.http import HttpRequest
    from django_stubs_ext import StrOrPromise

    from ..models import ChatSession

VIEW_VAR, BEFORE_VAR, AFTER_VAR = "view", "before", "after"

#: The views of a session's page, by their names in the address.
VIEWS: dict[str, StrOrPromise] = {
    "conversation": _("Conversation"),
    "timeline": _("Timeline"),
    "answers": _("Answers"),
    "data": _("Data"),
}


@dataclass(frozen=True, slots=True)
class Tab:
    """A link to one view of the page."""

    label: StrOrPromise
    href: str
    is_current: bool


def context(admin: ModelAdmin[Any], request: HttpRequest, session: ChatSession) -> dict[str, Any]:
    """Return what the template of a session's page needs."""
    now = instant(request)
    view = _view(request)
    return {
        **admin.admin_site.each_context(request),
        "title": facts.name(session),
        "subtitle": None,
        "opts": admin.opts,
        "original": session,
        "media": admin.media,
        "is_popup": IS_POPUP_VAR in request.GET,
        "has_view_permission": True,
        "preserved_filters": admin.get_preserved_filters(request),
        "badge": badge(session.status_at(now)),
        "time_left": time_left(session, now),
        "is_near_expiration": is_near_expiration(session, now),
        "groups": facts.groups(session, now),
        "commands": _commands(admin, request, session),
        "view": view,
        "tabs": [Tab(label, _link(request, view=name), name == view) for name, label in VIEWS.items()],
        "shows_events": request.user.has_perm("chat_sessions.view_sessionevent"),
        **_content(view, request, session),
    }


def _view(request: HttpRequest) -> str:
    view = request.GET.get(VIEW_VAR, "")
    return view if view in VIEWS else "conversation"


def _commands(admin: ModelAdmin[Any], request: HttpRequest, session: ChatSession) -> list[Command]:
    now = instant(request)
    permitted = (command for command in COMMANDS if command.is_permitted(admin, request))
    return [command for command in permitted if command.applies(session, now)]


def _content(view: str, request: HttpRequest, session: ChatSession) -> dict[str, Any]:
    before, after = _cursor(request, BEFORE_VAR), _cursor(request, AFTER_VAR)
    if view == "conversation":
        page = conversation.conversation(session, before=before, after=after)
        newer = page.newer and _link(request, after=page.newer)
        return {"page": page, **_walk(request, page, newer)}
    if view == "timeline":
        log = conversation.timeline(session, before=before)
        newer = log.newer and _link(request, view=view, before=log.newer)
        return {"page": log, **_walk(request, log, newer)}
    if view == "answers":
        return {"answers": facts.answers(session)}
    return {"data": facts.data(session)}


def _walk(request: HttpRequest, page: conversation.Page[Any], newer: str | int | None) -> dict[str, Any]:
    view = _view(request)
    older = page.older and _link(request, view=view, before=page.older)
    return {"older": older, "newer": newer, "latest": newer and _link(request, view=view)}


def _link(request: HttpRequest, **parameters: object) -> str:
    """Return an address of this page that keeps the list to return to, and nothing else."""
    query = request.GET.copy()
    for name in (VIEW_VAR, BEFORE_VAR, AFTER_VAR):
        query.pop(name, None)
    for name, value in parameters.items():
        query[name] = str(value)
    return f"?{query.urlencode()}"


def _cursor(request: HttpRequest, name: str) -> int | None:
    """Read a sequence from the address; what is none does not count."""
    value = request.GET.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None
