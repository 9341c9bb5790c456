"""The records: sessions, their logs, and the answers of agents."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID, uuid4

from django.conf import settings
from django.core.validators import MaxLengthValidator
from django.db import connections, models
from django.db.models import F, Q
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from . import agents
from .choices import ALIVE, LIVE, MESSAGE_TYPES, EventType, Role, RunStatus, Status, Strategy, TimeoutMode
from .exceptions import LegalHold, LogIsAppendOnly
from .fields import AnyJSONField, AnyTextField
from .querysets import ChatSessionQuerySet, SessionEventQuerySet, seal
from .rules import lifecycle, timeouts

NAME_LENGTH = 64
TITLE_LENGTH = 200
EXTERNAL_ID_LENGTH = 200
REASON_LENGTH = 200


def unless_held(collector: Any, field: Any, sub_objs: Any, using: str) -> None:
    """Delete the rows below, but leave those under legal hold, without what they pointed at (``on_delete``).

    Sessions are locked before anything of theirs goes, as by everybody: an answer may be being written in one.
    """
    if connections[using].in_atomic_block and connections[using].features.has_select_for_update:
        list(sub_objs.select_for_update(of=("self",)).order_by("pk").values_list("pk"))
    held = sub_objs.filter(is_held=True)
    models.SET_NULL(collector, field, held, using)
    models.CASCADE(collector, field, sub_objs.filter(is_held=False), using)


class ChatSession(models.Model):
    """A conversation that lasts: a projection of its log."""

    id = models.BigAutoField(primary_key=True)
    uuid = models.UUIDField(_("public id"), default=uuid4, unique=True, editable=False)
    external_id = AnyTextField(_("external id"), null=True, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=unless_held,
        null=True,
        blank=True,
        related_name="chat_sessions",
        db_index=False,
        verbose_name=_("owner"),
    )
    agent = models.CharField(_("agent"), max_length=NAME_LENGTH, blank=True, default="")
    application = AnyTextField(_("application"), blank=True, default="", validators=[MaxLengthValidator(NAME_LENGTH)])
    tenant = models.CharField(_("tenant"), max_length=NAME_LENGTH, blank=True, default="", editable=False)
    parent = models.ForeignKey(
        "self",
        on_delete=unless_held,
        null=True,
        blank=True,
        related_name="children",
        db_index=False,
        verbose_name=_("parent"),
    )
    root = models.ForeignKey(
        "self",
        on_delete=unless_held,
        null=True,
        blank=True,
        related_name="descendants",
        db_index=False,
        verbose_name=_("root"),
    )
    forked_from = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="forks",
        db_index=False,
        verbose_name=_("forked from"),
    )
    forked_from_sequence = models.BigIntegerField(_("forked at"), null=True, blank=True)
    title = AnyTextField(_("title"), blank=True, default="", validators=[MaxLengthValidator(TITLE_LENGTH)])
    tags = AnyJSONField(_("tags"), default=list, blank=True)
    status = models.CharField(_("status"), max_length=16, choices=Status, default=Status.CREATED)
    metadata = AnyJSONField(_("metadata"), default=dict, blank=True)
    environment = AnyJSONField(_("environment"), default=dict, blank=True)
    state = AnyJSONField(_("state"), default=dict, blank=True)

    timeout_mode = models.CharField(_("timeout mode"), max_length=16, choices=TimeoutMode, null=True, blank=True)  # noqa: DJ001
    timeout_minutes = models.PositiveIntegerField(_("idle timeout"), null=True, blank=True)
    max_duration_minutes = models.PositiveIntegerField(_("maximum duration"), null=True, blank=True)
    warning_threshold_minutes = models.PositiveIntegerField(_("warning threshold"), null=True, blank=True)
    auto_renew = models.BooleanField(_("renewed by activity"), null=True, blank=True)

    created_at = models.DateTimeField(_("created"))
    last_activity_at = models.DateTimeField(_("last activity"))
    renewed_at = models.DateTimeField(_("renewed"))
    expires_at = models.DateTimeField(_("expires"))
    warned_at = models.DateTimeField(_("warned"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    end_reason = AnyTextField(_("end reason"), blank=True, default="")

    strategy = models.CharField(_("strategy"), max_length=16, choices=Strategy, default=Strategy.MULTIPLE)
    client = AnyTextField(_("client in control"), null=True, blank=True)
    slot = AnyTextField(_("place"), null=True, blank=True, editable=False)

    last_sequence = models.BigIntegerField(_("last sequence"), default=0)
    message_count = models.IntegerField(_("messages"), default=0)
    token_count = models.BigIntegerField(_("tokens"), default=0)
    renewal_count = models.IntegerField(_("renewals"), default=0)
    is_held = models.BooleanField(_("legal hold"), default=False)

    objects = ChatSessionQuerySet.as_manager()

    class Meta:
        """Every index on a column that a message moves costs each message: only the list's and the deadline's are."""

        verbose_name = _("chat session")
        verbose_name_plural = _("chat sessions")
        ordering = ("-last_activity_at", "-id")
        permissions = [
            ("view_all_sessions", _("Can read everybody's sessions over the API")),
            ("view_metrics", _("Can read the metrics")),
            ("write_any_role", _("Can write messages in any role")),
        ]
        indexes = [
            models.Index(F("owner"), F("last_activity_at").desc(), F("uuid").desc(), name="chat_sessions_latest"),
            models.Index(fields=["expires_at"], condition=Q(status__in=LIVE), name="chat_sessions_deadline"),
            models.Index(fields=["status", "ended_at"], condition=~Q(status__in=LIVE), name="chat_sessions_retention"),
            models.Index(fields=["parent"], condition=Q(parent__isnull=False), name="chat_sessions_parent"),
            models.Index(fields=["root"], condition=Q(root__isnull=False), name="chat_sessions_root"),
            models.Index(
                fields=["forked_from"], condition=Q(forked_from__isnull=False), name="chat_sessions_forked_from"
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "tenant", "agent", "application", "external_id"],
                condition=Q(status__in=LIVE, external_id__isnull=False),
                name="chat_sessions_external_id",
            ),
            models.UniqueConstraint(
                fields=["owner", "tenant", "agent", "application", "slot"],
                condition=Q(status__in=LIVE, slot__isnull=False),
                name="chat_sessions_slot",
            ),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="chat_sessions_status"),
            models.CheckConstraint(
                condition=Q(last_sequence__gte=0, message_count__gte=0), name="chat_sessions_counters"
            ),
        ]

    def __str__(self) -> str:
        """Name the session without its content."""
        return f"{self.agent or 'session'} {self.uuid}"

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:  # noqa: FBT001, FBT002
        """Remove it with all that is its, as the ORM does.

        Raises:
            LegalHold: it is held.
        """
        alias = using or self._state.db
        if type(self)._base_manager.using(alias).filter(pk=self.pk, is_held=True).exists():
            raise LegalHold
        return super().delete(using=using, keep_parents=keep_parents)

    @cached_property
    def parent_uuid(self) -> UUID | None:
        """The parent's public id."""
        return None if self.parent is None else self.parent.uuid

    @cached_property
    def root_uuid(self) -> UUID:
        """The public id of the session at the top; a top's is its own."""
        return self.root.uuid if self.root else self.uuid

    @cached_property
    def source_uuid(self) -> UUID | None:
        """The public id of the session that it was forked from, while that is there."""
        return None if self.forked_from is None else self.forked_from.uuid

    @property
    def overrides(self) -> timeouts.TimeoutOverrides:
        """The timeouts that the session sets itself."""
        return timeouts.TimeoutOverrides(
            self.timeout_mode,
            self.timeout_minutes,
            self.max_duration_minutes,
            self.warning_threshold_minutes,
            self.auto_renew,
        )

    @property
    def policy(self) -> timeouts.TimeoutPolicy:
        """The timeouts in force."""
        return agents.of(self.agent).policy(self.overrides)

    def status_at(self, now: datetime) -> str:
        """Return the status that a reader sees at ``now``."""
        return lifecycle.status_at(self.status, self.expires_at, now)

    def is_live_at(self, now: datetime) -> bool:
        """Tell whether it takes messages at ``now``."""
        return self.status_at(now) in LIVE


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
