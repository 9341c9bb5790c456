"""The filters beside the lists. None of them asks the table which values there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from .. import agents
from ..choices import EventType, RunStatus, Status
from ..models import NAME_LENGTH, ChatSession
from .display import visible
from .listing import instant, newest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.admin import ModelAdmin
    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.http import HttpRequest

#: The filter's word for all statuses in which a session takes messages.
ANY_LIVE = "live"


class StatusFilter(SimpleListFilter):
    """The status as a reader sees it at this instant, swept or not."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Offer every status, and all live ones together."""
        return [(ANY_LIVE, _("live (any)")), *Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the sessions that read so."""
        value = self.value()
        if value is None:
            return queryset
        if value == ANY_LIVE:
            return queryset.live(instant(request))  # type: ignore[attr-defined,no-any-return]
        if value not in Status.values:
            raise IncorrectLookupParameters
        return queryset.in_status(value, instant(request))  # type: ignore[attr-defined,no-any-return]


class AgentFilter(SimpleListFilter):
    """The agents that are registered, and whichever else the address names."""

    title = _("agent")
    parameter_name = "agent"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Offer them by name."""
        names = {name for name in (*agents.registered(), self.value()) if name}
        return [(name, visible(name)) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the sessions of that agent."""
        return queryset.filter(agent=self.value()) if self.value() else queryset


class ApplicationFilter(SimpleListFilter):
    """The application, typed in: only the table knows which there are, and it is too long to ask."""

    title = _("application")
    parameter_name = "application"
    template = "admin/chat_sessions/text_filter.html"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Offer a field; a filter without a choice would not be shown."""
        return [("", "")]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Give the template what it needs: the field, and the other parameters to keep."""
        kept = {k: v for k, v in changelist.filter_params.items() if k != self.parameter_name}
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "max_length": NAME_LENGTH,
            "kept": [(name, value) for name, values in kept.items() for value in values],
            "clear": changelist.get_query_string(remove=[self.parameter_name]),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the sessions of that application."""
        return queryset.filter(application=self.value()) if self.value() else queryset


class RelatedFilter(SimpleListFilter):
    """One row that these belong to. It comes with a link and is shown only while it is in force."""

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Name the row in force."""
        value = self.value()
        if value is None:
            return []
        row = self._related()._base_manager.filter(pk=self._key(value)).first()
        return [(value, visible(self.name(row) if row else value))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return what belongs to it."""
        value = self.value()
        return queryset if value is None else queryset.filter(**{self._field: self._key(value)})

    def name(self, row: Any) -> str:
        """Return the row's name."""
        return str(row)

    @property
    def _field(self) -> str:
        return str(self.parameter_name)

    def _related(self) -> Any:
        return ChatSession._meta.get_field(self._field).related_model

    def _key(self, value: str) -> Any:
        try:
            return self._related()._meta.pk.to_python(value)
        except ValidationError as error:
            raise IncorrectLookupParameters from error


class OwnerFilter(RelatedFilter):
    """One user's sessions."""

    title = _("owner")
    parameter_name = "owner"

    def name(self, row: Any) -> str:
        """Return the user's name."""
        return str(row.get_username())


class ParentFilter(RelatedFilter):
    """The sessions directly under one."""

    title = _("parent")
    parameter_name = "parent"


class EventTypeFilter(SimpleListFilter):
    """The type of events; without a session, among the newest of all."""

    title = _("type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Offer the library's types, and whichever else the address names."""
        own = [] if self.value() in {None, *EventType.values} else [(str(self.value()),) * 2]
        return [*EventType.choices, *((value, visible(label)) for value, label in own)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the events of that type."""
        return _by_column(self, request, queryset, "type")


class RunStatusFilter(SimpleListFilter):
    """Where runs stand; without a session, among the newest of all."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Offer every status."""
        return list(RunStatus.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the runs that stand there."""
        return _by_column(self, request, queryset, "status")


def _by_column(spec: SimpleListFilter, request: HttpRequest, rows: QuerySet[Any], column: str) -> QuerySet[Any]:
    if spec.value() is None:
        return rows
    found = rows.filter(**{column: spec.value()})
    return found if request.GET.get("q", "").strip() else newest(found)
