from __future__ import annotations

import pytest

from django_chat_sessions.schedule import BEAT_SCHEDULE


@pytest.fixture(autouse=True)
def _scheduled(settings):
    """Let the tasks be scheduled, with django-celery-beat or without, for all tests but those of the schedule."""
    settings.CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE
