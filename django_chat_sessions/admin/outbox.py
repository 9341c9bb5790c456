"""The admin of the outbox: what subscribers have yet to be told, and what they were told in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import router
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import log
from ..models import OutboxEntry
from ..operations import outbox
from . import display, facts, listing
from .acting import ACTION_LIMIT
from .logs import ReadOnlyAdmin

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.db.models import QuerySet
    from django.http import HttpRequest

#: The filter's words.
WAITING, SET_ASIDE = "waiting", "set_aside"


class PlaceFilter(admin.SimpleListFilter):
    """Whether an event waits, or was set aside."""

    title = _("place")
    parameter_name = "place"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Offer both."""
        return [(WAITING, _("waiting")), (SET_ASIDE, _("set aside"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the entries that stand there."""
        if self.value() is None:
            return queryset
        if self.value() not in {WAITING, SET_ASIDE}:
            raise IncorrectLookupParameters
        found = queryset.filter(set_aside_at__isnull=self.value() == WAITING)
        return found if request.GET.get("q", "").strip() else listing.newest(found)


@admin.register(OutboxEntry)
class OutboxEntryAdmin(ReadOnlyAdmin):
    """Events that wait for their subscriber or were set aside; they can be told again, and dropped."""

    list_display = (
        "who", "of_session", "sequence", "attempts", "next_attempt_at", "set_aside_at", "what_failed", "created_at",
    )  # fmt: skip
    list_filter = (PlaceFilter,)
    fields = list_display
    readonly_fields = fields
    actions = ("deliver_again", "drop")  # type: ignore[assignment]  # the others have none

    @admin.display(description=_("subscriber"))
    def who(self, entry: OutboxEntry) -> str:
        """Show who is to be told."""
        return display.visible(entry.subscriber)

    @admin.display(description=_("error"))
    def what_failed(self, entry: OutboxEntry) -> str:
        """Show the kind of the last error, and where it was."""
        return display.visible(entry.error)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxEntry]:
        """Leave the sessions' JSON in the database."""
        rows = super().get_queryset(request)
        return rows.defer(*(f"session__{field}" for field in facts.HEAVY))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Order by the order of writing."""
        return ("-pk",)

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may have events told again."""
        return request.user.has_perm("chat_sessions.change_outboxentry")

    def has_drop_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may keep events from being told."""
        return request.user.has_perm("chat_sessions.delete_outboxentry")

    @admin.action(permissions=["redeliver"], description=_("Deliver again"))
    def deliver_again(self, request: HttpRequest, queryset: QuerySet[OutboxEntry]) -> None:
        """Have them told as soon as possible."""
        chosen = self._chosen(request, queryset)
        with log.begin(self._using):
            done = set(outbox.redeliver(list(chosen), using=self._using))
            for key in done:
                self.log_change(request, chosen[key], gettext("Delivered again."))
        self._report(request, len(done), ngettext("%d event is due now.", "%d events are due now.", len(done)))
        if len(done) < len(chosen):
            said = gettext("Others are to be told within a minute anyway.")
            self.message_user(request, said, messages.INFO)

    @admin.action(permissions=["drop"], description=_("Drop"))
    def drop(self, request: HttpRequest, queryset: QuerySet[OutboxEntry]) -> None:
        """Never tell their subscribers of them."""
        chosen = self._chosen(request, queryset)
        with log.begin(self._using):
            if chosen:
                self.log_deletions(request, list(chosen.values()))  # type: ignore[arg-type]  # of rows, as Django says
            done = outbox.drop(list(chosen), using=self._using)
        self._report(request, len(done), ngettext("%d event was dropped.", "%d events were dropped.", len(done)))

    @property
    def _using(self) -> str:
        return router.db_for_write(OutboxEntry)

    def _chosen(self, request: HttpRequest, queryset: QuerySet[OutboxEntry]) -> dict[Any, OutboxEntry]:
        keys = list(queryset.values_list("pk", flat=True)[: ACTION_LIMIT + 1])
        if len(keys) > ACTION_LIMIT:
            said = gettext("An action takes %(limit)d events at the most. Nothing was done.")
            self.message_user(request, said % {"limit": ACTION_LIMIT}, messages.ERROR)
            return {}
        return OutboxEntry.objects.using(self._using).in_bulk(keys)

    def _report(self, request: HttpRequest, number: int, said: str) -> None:
        if number:
            self.message_user(request, said % number, messages.SUCCESS)
