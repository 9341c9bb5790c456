"""The admin of archives: which logs are in files, and which files are still to go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from ..models import Archive
from . import facts
from .logs import ReadOnlyAdmin

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest


@admin.register(Archive)
class ArchiveAdmin(ReadOnlyAdmin):
    """Archives, by session. The files themselves are in their storage alone."""

    list_display = ("name", "whose", "storage", "size", "events", "written_at")
    fields = (
        "name", "whose", "storage", "size", "sha256", "events", "created_at", "written_at", "leased_until",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description=_("session"))
    def whose(self, archive: Archive) -> str:
        """Link to the session's page; without one the file is to go."""
        return str(_("none: to be removed")) if archive.session is None else self.of_session(archive)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Leave the sessions' JSON in the database."""
        return super().get_queryset(request).defer(*(f"session__{field}" for field in facts.HEAVY))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Order by the order of writing."""
        return ("-pk",)
