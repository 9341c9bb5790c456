"""The log."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..choices import MESSAGE_TYPES, EventType, Role
from ..exceptions import LogIsAppendOnly
from ..fields import AnyJSONField, AnyTextField
from ..querysets import SessionEventQuerySet, seal
from .lengths import NAME_LENGTH
from .sessions import ChatSession


class SessionEvent(models.Model):
    """One line of a session's log. Append-only: written by ``log``, never changed or deleted."""

    id = models.BigAutoField(primary_key=True)
    session = models.ForeignKey(
        ChatSession, on_delete=models.CASCADE, related_name="events", db_index=False, verbose_name=_("session")
    )
    sequence = models.BigIntegerField(_("sequence"))
    type = models.CharField(_("type"), max_length=NAME_LENGTH)
    role = models.CharField(_("role"), max_length=16, blank=True, default="", choices=Role)
    content = AnyTextField(_("content"), blank=True, default="")
    data = AnyJSONField(_("data"), default=dict, blank=True)
    external_id = AnyTextField(_("external id"), null=True, blank=True)
    position = models.BigIntegerField(_("position"), null=True, blank=True)
    superseded_by = models.BigIntegerField(_("superseded by"), null=True, blank=True)
    token_count = models.IntegerField(_("tokens"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))

    objects = SessionEventQuerySet.as_manager()

    class Meta:
        """The sequence is the order of everything; never an instant."""

        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ("session", "sequence")
        indexes = [
            models.Index(
                fields=["session", "position"],
                condition=Q(role=Role.SYSTEM, superseded_by__isnull=True, type__in=MESSAGE_TYPES),
                name="chat_sessions_system",
            ),
            models.Index(
                fields=["session", "sequence"],
                condition=Q(type=EventType.CONTEXT_COMPACTED),
                name="chat_sessions_compacted",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["session", "sequence"], name="chat_sessions_sequence"),
            models.UniqueConstraint(
                fields=["session", "position"],
                condition=Q(superseded_by__isnull=True, type__in=MESSAGE_TYPES),
                name="chat_sessions_position",
            ),
            models.UniqueConstraint(
                fields=["session", "external_id"],
                condition=Q(external_id__isnull=False),
                name="chat_sessions_event_external_id",
            ),
        ]

    def __str__(self) -> str:
        """Name the event without its content."""
        return f"{self.sequence} {self.type}"

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: the log is written by ``log``."""
        raise LogIsAppendOnly

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: events go with their session or not at all."""
        raise LogIsAppendOnly

    @property
    def label(self) -> str:
        """The type in words."""
        return str(EventType(self.type).label) if self.type in EventType.values else self.type


seal(SessionEvent.objects)
