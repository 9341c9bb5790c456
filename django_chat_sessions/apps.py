"""The app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChatSessionsConfig(AppConfig):
    """Registers checks, the user's deletion and the agents."""

    name = "django_chat_sessions"
    label = "chat_sessions"
    verbose_name = _("chat sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Find the agents when all apps are there."""
        from . import agents, checks, receivers  # noqa: F401, PLC0415 - when the models are there

        agents.autodiscover()
