"""What subscribers have yet to be told."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..fields import AnyTextField
from .lengths import SUBSCRIBER_LENGTH
from .sessions import ChatSession


class OutboxEntry(models.Model):
    """An event that a subscriber has yet to be told of; written with the event, gone when that is done."""

    id = models.BigAutoField(primary_key=True)
    session = models.ForeignKey(
        ChatSession, on_delete=models.CASCADE, related_name="+", db_index=False, verbose_name=_("session")
    )
    sequence = models.BigIntegerField(_("sequence"))
    subscriber = models.CharField(_("subscriber"), max_length=SUBSCRIBER_LENGTH)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt"))
    error = AnyTextField(_("error"), blank=True, default="")
    # Tried often enough; it is kept, and the session's next events no longer wait for it.
    set_aside_at = models.DateTimeField(_("set aside"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))

    class Meta:
        """Of one session a subscriber is told in the order of the log."""

        verbose_name = _("event to be delivered")
        verbose_name_plural = _("events to be delivered")
        ordering = ("id",)
        indexes = [
            # Subscriber by subscriber, so that one that is slow holds up none of the others.
            models.Index(
                fields=["subscriber", "next_attempt_at"],
                condition=Q(set_aside_at__isnull=True),
                name="chat_sessions_outbox_due",
            ),
            models.Index(
                fields=["set_aside_at"], condition=Q(set_aside_at__isnull=False), name="chat_sessions_outbox_aside"
            ),
            # Which is the first of a session, past however many were set aside; and what goes with a session.
            models.Index(
                fields=["session", "subscriber", "set_aside_at", "sequence"], name="chat_sessions_outbox_order"
            ),
        ]

    def __str__(self) -> str:
        """Name the event and who is to be told, without its content."""
        return f"{self.sequence} for {self.subscriber}"
