"""The admin of sessions: a list to search, a page to read, and the few things that staff may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import DateTimeField, Value
from django.http import HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..exceptions import SessionNotFound
from ..models import ChatSession
from ..operations import cleaning
from . import display, facts, filters, listing, pages, searching
from .acting import CommandsMixin

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    _ModelAdmin = admin.ModelAdmin[ChatSession]
else:
    _ModelAdmin = admin.ModelAdmin

_RELATIVES = ("parent", "root", "forked_from")
_NOT_OF_RELATIVES = [f"{relative}__{field}" for relative in _RELATIVES for field in facts.HEAVY]

#: What the addresses of the list may filter by, besides the filters with a class of their own.
_LOOKUPS = frozenset(
    {"strategy__exact", "is_held__exact", "created_at__gte", "created_at__lt"}
    | {spec.parameter_name for spec in (filters.StatusFilter, filters.AgentFilter, filters.ApplicationFilter)}
    | {filters.OwnerFilter.parameter_name, filters.ParentFilter.parameter_name}
)


@admin.register(ChatSession)
class ChatSessionAdmin(CommandsMixin, _ModelAdmin):
    """Sessions: list, search, read, end, renew, hold and delete. No field is edited."""

    list_display = (
        "conversation", "status_now", "owner_name", "agent", "created", "last_activity", "expires",
        "message_count", "token_count",
    )  # fmt: skip
    list_display_links = ("conversation",)
    list_filter = (
        filters.StatusFilter,
        filters.AgentFilter,
        filters.ApplicationFilter,
        filters.OwnerFilter,
        filters.ParentFilter,
        "strategy",
        "is_held",
        "created_at",
    )
    list_select_related = ("owner",)
    list_per_page = 50
    list_max_show_all = 0
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = listing.BoundedPaginator
    search_fields = ("title",)
    search_help_text = gettext_lazy("Public id, owner's name, or words of the title")
    actions = ("end_selected", "renew_selected", "delete_selected")

    class Media:
        css = {"all": ["chat_sessions/admin.css"]}

    # -- The list ------------------------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("conversation"))
    def conversation(self, session: ChatSession) -> SafeString:
        """Show the title and the public id."""
        template = '<span class="chat-title" dir="auto">{}</span> <small class="chat-id" title="{}">{}…</small>'
        return format_html(template, facts.name(session), session.uuid, str(session.uuid)[:8])

    @admin.display(description=gettext_lazy("status"))
    def status_now(self, session: ChatSession) -> SafeString:
        """Show the status as a reader sees it, and a legal hold."""
        status = display.badge(session.status_at(session.as_of))  # type: ignore[attr-defined]
        return format_html("{} {}", status, display.hold_badge()) if session.is_held else status

    @admin.display(description=gettext_lazy("owner"))
    def owner_name(self, session: ChatSession) -> SafeString | None:
        """Show the owner, with a link to all of theirs."""
        if session.owner is None:
            return None
        href = facts.list_url(owner=session.owner_id)
        return format_html('<a href="{}">{}</a>', href, display.visible(session.owner.get_username()))

    @admin.display(description=gettext_lazy("created"))
    def created(self, session: ChatSession) -> SafeString:
        """Show when it was opened."""
        return display.when(session.created_at)

    @admin.display(description=gettext_lazy("last activity"))
    def last_activity(self, session: ChatSession) -> SafeString:
        """Show when somebody last did something."""
        return display.when(session.last_activity_at)

    @admin.display(description=gettext_lazy("expires"))
    def expires(self, session: ChatSession) -> SafeString | None:
        """Show how long is left, or since when there is nothing left."""
        now = session.as_of  # type: ignore[attr-defined]
        near = "chat-near" if display.is_near_expiration(session, now) else ""
        left = display.time_left(session, now)
        template = '<time class="{}" datetime="{}" title="{}">{}</time>'
        at = session.expires_at
        return format_html(template, near, at.isoformat(), at.isoformat(), left) if left else None

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[listing.BoundedChangeList]:
        """Use the list that costs the same however long the table is."""
        return listing.BoundedChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChatSession]:
        """Return the rows of the list, each with the instant at which it is told."""
        as_of = Value(listing.instant(request), output_field=DateTimeField())
        return super().get_queryset(request).defer(*facts.HEAVY).annotate(as_of=as_of)

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Order one user's by their latest activity, which an index serves; all by their opening."""
        return ("-last_activity_at", "-uuid") if "owner" in request.GET else ("-pk",)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Allow only what the filters ask; anything else is a question that no index answers."""
        return lookup in _LOOKUPS

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ChatSession], search_term: str
    ) -> tuple[QuerySet[ChatSession], bool]:
        """Find by public id, owner or title."""
        return searching.sessions(queryset, search_term), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list."""
        return super().changelist_view(request, {"title": _("Chat sessions"), **(extra_context or {})})

    # -- One session ---------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: sessions are opened by their users."""
        return False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> ChatSession | None:
        """Find a session by its key or by its public id."""
        uuid = searching.public_id(object_id)
        rows = ChatSession.objects.select_related("owner", *_RELATIVES).defer(*_NOT_OF_RELATIVES)
        if uuid is not None:
            return rows.filter(uuid=uuid).first()
        return rows.filter(pk=int(object_id)).first() if object_id.isdecimal() else None

    def _present(self, request: HttpRequest, object_id: str) -> ChatSession | None:
        """Find a session that is there once it has been cleaned up (``CLEANUP``)."""
        session = self.get_object(request, unquote(object_id))
        try:
            return session and cleaning.on_access(session)
        except SessionNotFound:
            return None

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a session; there is nothing to submit."""
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        session = self._present(request, object_id)
        if session is None:
            return self.missing(request, object_id)
        context = pages.context(self, request, session) | (extra_context or {})
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/chat_sessions/chatsession/page.html", context)
