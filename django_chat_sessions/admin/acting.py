"""How staff acts on sessions: buttons on a session's page that ask first, and actions of the list."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, Sum
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..models import ChatSession
from . import facts
from .commands import COMMANDS, DELETE, END, RENEW, Command, Outcome, ReasonForm, carry_out, to_write
from .display import visible
from .listing import instant

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    _ModelAdmin = admin.ModelAdmin[ChatSession]
else:
    _ModelAdmin = object

#: Sessions that one action takes (Django accepts a thousand fields a form), and refusals that it explains.
ACTION_LIMIT = 500
EXPLAINED = 10


class CommandsMixin(_ModelAdmin):
    """Commands as pages under a session's address, and as actions of the list."""

    # -- One session: a page that asks, and a POST that does it --------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Add an address for each command; that of deleting is Django's own."""
        own = [
            path(
                f"<path:object_id>/{command.name}/",
                self.admin_site.admin_view(partial(self.command_view, command=command)),
                name=f"chat_sessions_chatsession_{command.name}",
            )
            for command in COMMANDS
            if command is not DELETE
        ]
        return own + super().get_urls()

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask, then delete; outside of the transaction that Django would open around it."""
        return self.command_view(request, object_id, command=DELETE)

    def command_view(self, request: HttpRequest, object_id: str, *, command: Command) -> HttpResponse:
        """Ask whether to do something to a session, and do it when that is confirmed."""
        if not command.is_permitted(self, request):
            raise PermissionDenied
        session = self.get_object(request, unquote(object_id))
        if session is None:
            return self.missing(request, object_id)
        form = ReasonForm(request.POST or None) if command.asks_reason else None
        if request.method == "POST" and (form is None or form.is_valid()):
            return self._do(request, command, session, form.cleaned_data["reason"] if form else "")
        return self._ask(request, command, [session], form=form, original=session)

    def _do(self, request: HttpRequest, command: Command, session: ChatSession, reason: str) -> HttpResponse:
        page = facts.session_url(session)
        if command.name in {"hold", "release"} and not command.applies(session, instant(request)):
            self.message_user(request, _("Nothing to do: it is so already."), messages.WARNING)
            return HttpResponseRedirect(page)
        outcome = carry_out(command, to_write([session.pk]), admin=self, request=request, reason=reason)
        for _session, why in outcome.refused:
            self.message_user(request, why, messages.ERROR)
        if not outcome.done:
            return HttpResponseRedirect(page)
        self.message_user(request, str(command.done), messages.SUCCESS)
        return HttpResponseRedirect(self._list_url() if command.removes else page)

    def _ask(self, request: HttpRequest, command: Command, chosen: list[ChatSession], **more: Any) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": command.label,
            "subtitle": None,
            "opts": self.opts,
            "media": self.media,
            "command": command,
            "chosen": [(session, facts.name(session)) for session in chosen],
            "impact": _impact(chosen) if command.removes else "",
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "back": facts.session_url(chosen[0]) if "original" in more else self._list_url(),
            **more,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/chat_sessions/chatsession/confirm.html", context)

    def missing(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Say that there is no such session, and return to the list."""
        said = _("There is no session %(id)s. Perhaps it was deleted?")
        self.message_user(request, said % {"id": visible(unquote(object_id))}, messages.WARNING)
        return HttpResponseRedirect(self._list_url())

    def _list_url(self) -> str:
        return reverse("admin:chat_sessions_chatsession_changelist")

    # -- What is selected in the list ----------------------------------------------------------------------------

    @admin.action(permissions=["change"], description=gettext_lazy("End selected sessions"))
    def end_selected(self, request: HttpRequest, queryset: QuerySet[ChatSession]) -> None:
        """End them, each for itself."""
        self._do_selected(request, END, queryset)

    @admin.action(permissions=["change"], description=gettext_lazy("Renew selected sessions"))
    def renew_selected(self, request: HttpRequest, queryset: QuerySet[ChatSession]) -> None:
        """Renew them, each for itself."""
        self._do_selected(request, RENEW, queryset)

    @admin.action(permissions=["delete"], description=gettext_lazy("Delete selected sessions"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[ChatSession]) -> HttpResponse | None:
        """Ask, then delete them, each for itself."""
        if "post" not in request.POST:
            chosen = self._selected(request, queryset)
            return self._ask(request, DELETE, chosen, action="delete_selected") if chosen else None
        self._do_selected(request, DELETE, queryset)
        return None

    def _do_selected(self, request: HttpRequest, command: Command, queryset: QuerySet[ChatSession]) -> None:
        chosen = self._selected(request, queryset)
        self._report(request, command, carry_out(command, chosen, admin=self, request=request))

    def _selected(self, request: HttpRequest, queryset: QuerySet[ChatSession]) -> list[ChatSession]:
        keys = list(queryset.values_list("pk", flat=True)[: ACTION_LIMIT + 1])
        if len(keys) > ACTION_LIMIT:
            said = _("An action takes %(limit)d sessions at the most. Nothing was done.")
            self.message_user(request, said % {"limit": ACTION_LIMIT}, messages.ERROR)
            return []
        return to_write(keys)

    def _report(self, request: HttpRequest, command: Command, outcome: Outcome) -> None:
        if outcome.done:
            said = command.counted % {"number": len(outcome.done)}
            self.message_user(request, said, messages.SUCCESS)
        for session, why in outcome.refused[:EXPLAINED]:
            name = f"{facts.name(session)} ({visible(session)})"
            self.message_user(request, f"{name}: {why}", messages.ERROR)
        others = len(outcome.refused) - EXPLAINED
        if others > 0:
            said = ngettext("… and %(number)d more refused.", "… and %(number)d more refused.", others)
            self.message_user(request, said % {"number": others}, messages.ERROR)


def _impact(chosen: list[ChatSession]) -> str:
    """Say how much goes with the sessions that are to be deleted."""
    rows = ChatSession.objects.filter(pk__in=[session.pk for session in chosen])
    if len(chosen) == 1:
        rows = ChatSession.objects.tree(chosen[0])
    held = Count("pk", filter=Q(is_held=True))
    totals = rows.order_by().aggregate(sessions=Count("pk"), messages=Sum("message_count"), held=held)
    if totals["held"]:
        return _("%(held)d of %(sessions)d sessions are under legal hold and cannot be deleted.") % totals
    return _("Sessions: %(sessions)d. Messages: %(messages)d.") % totals
