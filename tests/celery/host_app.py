"""The Celery app of a host project, as Celery's documentation has it."""

import os
import time
from typing import Any

from celery import Celery
from django.dispatch import receiver

from django_chat_sessions.signals import session_expired

app = Celery("host")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@receiver(session_expired)
def take_time(**_: Any) -> None:
    """Let each session that expires cost as many seconds as a test likes."""
    time.sleep(float(os.environ.get("TEST_SLOWLY", "0")))
