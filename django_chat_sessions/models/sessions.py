"""Sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.core.validators import MaxLengthValidator
from django.db import connections, models
from django.db.models import F, Q
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from .. import agents
from ..choices import LIVE, Status, Strategy, TimeoutMode
from ..exceptions import LegalHold
from ..fields import AnyJSONField, AnyTextField
from ..querysets import ChatSessionQuerySet
from ..rules import lifecycle, timeouts
from .lengths import NAME_LENGTH, TITLE_LENGTH

#: Sessions whose warnings may come at other times than those of their agent's other sessions.
OWN_WARNING = (
    Q(timeout_mode__isnull=False) | Q(timeout_minutes__isnull=False) | Q(warning_threshold_minutes__isnull=False)
)


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
    # Retention counts from it: when the session got the status in which it is over.
    settled_at = models.DateTimeField(_("over since"), null=True, blank=True, editable=False)
    # Its end has yet to reach some of its live descendants; recovery goes on with that.
    is_cascading = models.BooleanField(_("ends its children"), default=False, editable=False)

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
            models.Index(fields=["agent", "expires_at"], condition=Q(status__in=LIVE), name="chat_sessions_deadline"),
            models.Index(
                fields=["agent", "timeout_mode", "warning_threshold_minutes", "expires_at"],
                condition=Q(status__in=LIVE) & OWN_WARNING,
                name="chat_sessions_own_warning",
            ),
            models.Index(
                fields=["status", "application", "agent", "settled_at"],
                condition=Q(settled_at__isnull=False, is_held=False),
                name="chat_sessions_retention",
            ),
            models.Index(
                fields=["settled_at"],
                condition=Q(settled_at__isnull=False, is_held=True),
                name="chat_sessions_held",
            ),
            models.Index(fields=["id"], condition=Q(is_cascading=True), name="chat_sessions_cascading"),
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
