from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.urls import reverse
from django.views.generic import TemplateView
from rest_framework.authtoken.views import ObtainAuthToken
from rest_framework.views import APIView

from django_chat_sessions import agents


class ChatPage(LoginRequiredMixin, TemplateView):
    """The page; everything else it gets from the API."""

    template_name = "assistants/chat.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        config = {
            "api": reverse("chat") + "api/chat/",
            "username": self.request.user.get_username(),
        }
        return super().get_context_data(agents=_agents(), config=config, **kwargs)


def _agents() -> list[dict[str, str]]:
    """Say who can be talked to, whoever is there by default first."""
    default = settings.CHAT_SESSIONS["DEFAULT_AGENT"]
    listed = sorted(agents.registered().values(), key=lambda a: (a.name != default, a.name))
    return [{"name": a.name, "description": a.description, "strategy": a.strategy_in_force} for a in listed]


class ObtainToken(ObtainAuthToken):
    """Name and password for a token; 400 where they are wrong."""

    # Whoever asks for a token is nobody yet: a browser's session cookie would bring its CSRF check along, and an
    # outdated token a 401.
    authentication_classes = ()
    throttle_classes = APIView.throttle_classes
