"""The answers of agents."""

from __future__ import annotations

from uuid import uuid4

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from ..choices import ALIVE, RunStatus
from ..fields import AnyJSONField, AnyTextField
from .sessions import ChatSession


class Run(models.Model):
    """One answer of an agent. It belongs to no connection."""

    id = models.BigAutoField(primary_key=True)
    uuid = models.UUIDField(_("public id"), default=uuid4, unique=True, editable=False)
    session = models.ForeignKey(
        ChatSession, on_delete=models.CASCADE, related_name="runs", db_index=False, verbose_name=_("session")
    )
    status = models.CharField(_("status"), max_length=16, choices=RunStatus, default=RunStatus.QUEUED)
    error = AnyTextField(_("error"), blank=True, default="")
    input_sequence = models.BigIntegerField(_("question"))
    output_sequence = models.BigIntegerField(_("answer"), null=True, blank=True)
    is_repeat = models.BooleanField(_("answers again"), default=False)
    # What a process writes for a run holds only while this is the attempt that it began.
    attempt = models.PositiveSmallIntegerField(_("attempt"), default=1)
    worker = models.CharField(_("process"), max_length=255, blank=True, default="")
    context = AnyJSONField(_("request"), default=dict, blank=True)
    # The event since which what it says is in no message yet: run.started, or its last message.
    spoken_sequence = models.BigIntegerField(_("spoken"), null=True, blank=True)
    heartbeat_at = models.DateTimeField(_("last sign of life"))
    created_at = models.DateTimeField(_("created"))
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    first_token_at = models.DateTimeField(_("first token"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    expires_at = models.DateTimeField(_("must finish by"))
    input_tokens = models.IntegerField(_("input tokens"), null=True, blank=True)
    output_tokens = models.IntegerField(_("output tokens"), null=True, blank=True)
    cost = models.DecimalField(_("cost"), max_digits=16, decimal_places=6, null=True, blank=True)

    class Meta:
        """At most one run of a session is alive: a constraint, not a hope."""

        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ("-id",)
        indexes = [
            models.Index(F("session"), F("id").desc(), name="chat_sessions_runs"),
            models.Index(fields=["heartbeat_at"], condition=Q(status__in=ALIVE), name="chat_sessions_runs_alive"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["session"], condition=Q(status__in=ALIVE), name="chat_sessions_one_run_alive"
            ),
        ]

    def __str__(self) -> str:
        """Name the run without its content."""
        return f"run {self.uuid}"


class RunChunk(models.Model):
    """Some text that a run said, as soon as it said it; the message that it becomes part of comes later."""

    id = models.BigAutoField(primary_key=True)
    session = models.ForeignKey(ChatSession, on_delete=models.CASCADE, related_name="+", db_index=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="chunks", db_index=False)
    # The session's last sequence when it was said: it comes after that event, and before the next.
    sequence = models.BigIntegerField(_("sequence"))
    # Counts 0, 1, 2 … over the whole run, whatever the attempt.
    index = models.IntegerField(_("index"))
    text = AnyTextField(_("text"))
    created_at = models.DateTimeField(_("created"))

    class Meta:
        """Sequence and index are the order, in which they come to readers."""

        verbose_name = _("chunk")
        verbose_name_plural = _("chunks")
        ordering = ("session", "sequence", "index")
        constraints = [
            models.UniqueConstraint(fields=["session", "sequence", "index"], name="chat_sessions_chunk_place"),
            models.UniqueConstraint(fields=["run", "index"], name="chat_sessions_chunk"),
        ]

    def __str__(self) -> str:
        """Name the chunk without its content."""
        return f"{self.sequence}.{self.index}"
