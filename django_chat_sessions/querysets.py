"""Questions to the records."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from .choices import LIVE, MESSAGE_TYPES, Status
from .exceptions import LegalHold, LogIsAppendOnly, SessionNotFound

if TYPE_CHECKING:
    from .models import ChatSession, SessionEvent


class ChatSessionQuerySet(models.QuerySet["ChatSession"]):
    """Questions to the sessions."""

    def visible_to(self, user: Any) -> ChatSessionQuerySet:
        """Return the sessions that a caller may know of: their own. The only way in for a request."""
        if user is None or not getattr(user, "is_authenticated", False):
            return self.none()
        return self.filter(owner_id=user.pk)

    def named(self, public_id: object) -> ChatSession:
        """Return the session of that public id, among these.

        Raises:
            SessionNotFound: there is none here; malformed ids are ids that were never given out.
        """
        try:
            uuid = self.model._meta.get_field("uuid").to_python(public_id)
            return self.get(uuid=uuid)
        except (self.model.DoesNotExist, ValueError, TypeError, ValidationError) as error:
            raise SessionNotFound from error

    def delete(self) -> tuple[int, dict[str, int]]:
        """Remove them with all that is theirs, as the ORM does.

        Raises:
            LegalHold: one of them is held; nothing went.
        """
        if self.filter(is_held=True).exists():
            raise LegalHold
        return super().delete()

    # As of the method that it extends: not for managers, nor for templates.
    delete.queryset_only = delete.alters_data = True  # type: ignore[attr-defined]

    def live(self, now: datetime) -> ChatSessionQuerySet:
        """Return those that take messages at ``now``."""
        return self.filter(status__in=LIVE, expires_at__gt=now)

    def due_for_expiry(self, now: datetime) -> ChatSessionQuerySet:
        """Return those whose deadline has passed and whose expiry nobody has recorded."""
        return self.filter(status__in=LIVE, expires_at__lte=now)

    def in_status(self, status: str, now: datetime) -> ChatSessionQuerySet:
        """Return those that read as ``status`` at ``now``, swept or not."""
        if status == Status.EXPIRED:
            return self.filter(Q(status=status) | Q(status__in=LIVE, expires_at__lte=now))
        if status in LIVE:
            return self.filter(status=status, expires_at__gt=now)
        return self.filter(status=status)

    def tree(self, session: ChatSession) -> ChatSessionQuerySet:
        """Return a session and all its descendants."""
        ids = [session.pk]
        level = [session.pk]
        while level:
            level = list(self.filter(parent_id__in=level).values_list("pk", flat=True))
            ids += level
        return self.filter(pk__in=ids)


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise LogIsAppendOnly("Events are written by django_chat_sessions.log alone, and never changed or deleted.")


# Managers leave these out of what they take over from a queryset (django.db.models.manager).
_refuse.queryset_only = False  # type: ignore[attr-defined]


class SessionEventQuerySet(models.QuerySet["SessionEvent"]):
    """Questions to the logs; every route that writes is closed."""

    create = bulk_create = bulk_update = update = update_or_create = get_or_create = delete = _refuse
    acreate = abulk_create = abulk_update = aupdate = aupdate_or_create = aget_or_create = adelete = _refuse
    _raw_delete = _update = _insert = _refuse

    def after(self, sequence: int) -> SessionEventQuerySet:
        """Return what was logged after a sequence, in order."""
        return self.filter(sequence__gt=sequence).order_by("sequence")

    def current(self) -> SessionEventQuerySet:
        """Return the messages as they read now: without what was replaced or withdrawn."""
        return self.filter(type__in=MESSAGE_TYPES, superseded_by__isnull=True)

    def conversation(self) -> SessionEventQuerySet:
        """Return the current messages in the order of the conversation."""
        return self.current().order_by("position")


def seal(manager: models.Manager[SessionEvent]) -> None:
    """Close what Django itself defines in the managers that it derives from this one, such as ``session.events``.

    Their ``add`` and ``set`` would move events to another session, past the queryset.
    """
    type(manager).__init_subclass__ = classmethod(_close)  # type: ignore[assignment]


def _close(derived: type) -> None:
    for name in ("add", "aadd", "set", "aset"):
        if name in vars(derived):
            setattr(derived, name, _refuse)
