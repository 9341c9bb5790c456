"""Logs in files."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .lengths import NAME_LENGTH
from .sessions import ChatSession


class Archive(models.Model):
    """A file in a storage with the log of a session whose content was removed.

    The row is there before the file and after it, so that no file is ever without one: what a crash leaves is found.
    """

    id = models.BigAutoField(primary_key=True)
    # None: the session is gone, or restored, and the file is to go.
    session = models.OneToOneField(
        ChatSession, on_delete=models.SET_NULL, null=True, related_name="archive", verbose_name=_("session")
    )
    storage = models.CharField(_("storage"), max_length=NAME_LENGTH)
    name = models.CharField(_("file"), max_length=255, unique=True)
    sha256 = models.CharField(_("checksum (SHA-256)"), max_length=64, blank=True, default="")
    size = models.BigIntegerField(_("bytes"), null=True, blank=True)
    events = models.BigIntegerField(_("events"), null=True, blank=True)
    # Until then the process that writes the file, or removes it, is the only one to.
    leased_until = models.DateTimeField(_("leased until"))
    created_at = models.DateTimeField(_("created"))
    written_at = models.DateTimeField(_("written"), null=True, blank=True)

    class Meta:
        """Files to be removed are found by the sessions that they no longer have."""

        verbose_name = _("archive")
        verbose_name_plural = _("archives")
        ordering = ("id",)
        indexes = [
            models.Index(fields=["leased_until"], condition=Q(session__isnull=True), name="chat_sessions_archive_gone"),
        ]

    def __str__(self) -> str:
        """Name the file."""
        return self.name
