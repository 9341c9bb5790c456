"""The API's routes: ``path("api/chat/", include("django_chat_sessions.urls"))``."""

from .api.urls import app_name, urlpatterns

__all__ = ["app_name", "urlpatterns"]
