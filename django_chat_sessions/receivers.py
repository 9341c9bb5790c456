"""What follows from what happens elsewhere: a user goes, the outbox fills."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db.models.signals import pre_delete

from .log import outbox_filled
from .models import ChatSession, OutboxEntry
from .operations import outbox, privacy


def keep_held(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    """Before a user is deleted, record in their held sessions that these have no owner any more."""
    for session in ChatSession.objects.using(using).filter(owner_id=instance.pk, is_held=True).order_by("pk"):
        privacy.disown(session)


# A proxy of the user model sends its own name. To listen to every model's would cost all of them their fast deletion.
for _model in apps.get_models():
    if _model._meta.concrete_model is get_user_model():
        pre_delete.connect(
            keep_held, sender=_model, dispatch_uid=f"django_chat_sessions.keep_held.{_model._meta.label}"
        )


def have_delivered(sender: Any, using: str, **kwargs: Any) -> None:
    """Have a worker tell subscribers, where the project has workers."""
    outbox.nudge(using)


outbox_filled.connect(have_delivered, sender=OutboxEntry, dispatch_uid="django_chat_sessions.have_delivered")
