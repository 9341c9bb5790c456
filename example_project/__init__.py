"""An example of a project that uses django-chat-sessions; ``make demo`` runs it."""

from .celery import app as celery_app

__all__ = ["celery_app"]
