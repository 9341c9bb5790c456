"""The admin of the log's events and of the agents' answers: to read, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from ..models import Run, SessionEvent
from . import display, facts, filters, listing, searching

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(_ModelAdmin):
    """Rows that belong to a session: listed newest first, found by the session's public id, changed by nobody."""

    list_per_page = 50
    list_max_show_all = 0
    list_select_related = ("session",)
    sortable_by = ()
    actions = None
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = listing.BoundedPaginator
    search_fields = ("session__uuid",)
    search_help_text = _("Public id of a session")

    class Media:
        css = {"all": ["chat_sessions/admin.css"]}

    @admin.display(description=_("session"))
    def of_session(self, row: Any) -> SafeString:
        """Link to the session's page."""
        href = facts.session_url(row.session)
        return format_html('<a href="{}">{}</a>', href, display.visible(row.session))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[listing.BoundedChangeList]:
        """Use the list that costs the same however long the table is."""
        return listing.BoundedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find by the session's public id."""
        return searching.of_session(queryset, search_term), False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Allow only what the filters ask."""
        return lookup in {getattr(spec, "parameter_name", None) for spec in self.list_filter}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: operations write these."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: what was logged stays."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let them go with their session or their user by whoever may delete sessions; alone they never go."""
        user: Any = request.user
        return obj is not None and user.has_perm("chat_sessions.delete_chatsession")

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Refuse."""
        raise PermissionDenied

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one row without a button to delete it."""
        context = {"show_delete": False, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)


@admin.register(SessionEvent)
class SessionEventAdmin(ReadOnlyAdmin):
    """Events, by session and type."""

    list_display = ("sequence", "what", "of_session", "role", "created_at")
    list_filter = (filters.EventTypeFilter,)
    fields = (
        "of_session", "sequence", "what", "type", "role", "created_at", "place", "superseded_by", "token_count",
        "named", "text", "json",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description=_("event"))
    def what(self, event: SessionEvent) -> str:
        """Show the type in words."""
        return display.event_label(event.type)

    @admin.display(description=_("position"))
    def place(self, event: SessionEvent) -> int | None:
        """Show where it stands in the conversation."""
        return event.position

    @admin.display(description=_("external id"))
    def named(self, event: SessionEvent) -> str | None:
        """Show the sender's own name for it."""
        return event.external_id and display.visible(event.external_id)

    @admin.display(description=_("content"))
    def text(self, event: SessionEvent) -> SafeString:
        """Show what was said."""
        return format_html('<div class="chat-text" dir="auto">{}</div>', display.visible(event.content))

    @admin.display(description=_("data"))
    def json(self, event: SessionEvent) -> SafeString:
        """Show the rest."""
        return format_html('<pre class="chat-json">{}</pre>', display.pretty(event.data))

    def get_queryset(self, request: HttpRequest) -> QuerySet[SessionEvent]:
        """Leave what the list doesn't show, a megabyte perhaps, in the database until it is asked for."""
        rows = super().get_queryset(request).defer("content", "data")
        return rows.defer(*(f"session__{field}" for field in facts.HEAVY))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Order one session's by their sequence, which an index serves; all by the order of writing."""
        return ("-sequence",) if request.GET.get("q", "").strip() else ("-pk",)


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Answers of agents, by session and status."""

    list_display = (
        "uuid", "of_session", "status", "input_sequence", "output_sequence", "created_at", "finished_at",
    )  # fmt: skip
    list_filter = (filters.RunStatusFilter,)
    fields = (
        "uuid", "of_session", "status", "what_failed", "input_sequence", "output_sequence", "is_repeat", "attempt",
        "worker", "created_at", "started_at", "heartbeat_at", "first_token_at", "finished_at", "expires_at",
        "input_tokens", "output_tokens", "cost",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description=_("error"))
    def what_failed(self, run: Run) -> str:
        """Show why there is no answer."""
        return display.visible(run.error)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        """Leave the sessions' JSON in the database."""
        rows = super().get_queryset(request)
        return rows.defer(*(f"session__{field}" for field in facts.HEAVY))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Order by the order of writing."""
        return ("-pk",)
