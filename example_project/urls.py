"""What the example serves."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import URLPattern, URLResolver, include, path, re_path

from .assistants import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.ChatPage.as_view(), name="chat"),
    path("accounts/login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    re_path(r"^api/token/?$", views.ObtainToken.as_view(), name="token"),
    path("api/chat/", include("django_chat_sessions.urls")),
]

if "drf_spectacular" in settings.INSTALLED_APPS:
    from drf_spectacular.views import SpectacularAPIView

    urlpatterns.append(path("api/schema/", SpectacularAPIView.as_view(), name="schema"))

if "drf_spectacular_sidecar" in settings.INSTALLED_APPS:
    from drf_spectacular.views import SpectacularSwaggerView

    documentation = SpectacularSwaggerView.as_view(url_name="schema")
    urlpatterns.append(path("api/docs/", documentation, name="docs"))
