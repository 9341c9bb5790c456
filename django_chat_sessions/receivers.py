"""What happens to sessions when their user goes."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models.signals import pre_delete

from .models import ChatSession
from .operations import privacy


def keep_held(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    """Before a user is deleted, record in their held sessions that these have no owner any more."""
    for session in ChatSession.objects.using(using).filter(owner_id=instance.pk, is_held=True).order_by("pk"):
        privacy.disown(session)


pre_delete.connect(keep_held, sender=settings.AUTH_USER_MODEL, dispatch_uid="django_chat_sessions.keep_held")
