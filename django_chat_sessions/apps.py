"""The app."""

from importlib.util import find_spec

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChatSessionsConfig(AppConfig):
    """Registers checks, the user's deletion and the agents."""

    name = "django_chat_sessions"
    label = "chat_sessions"
    verbose_name = _("chat sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Find the agents when all apps are there, and describe the API where somebody wants it described."""
        from . import agents, checks, receivers  # noqa: F401, PLC0415 - when the models are there

        agents.autodiscover()
        if find_spec("drf_spectacular"):
            from .api import openapi  # noqa: F401, PLC0415 - it describes itself to an extra
