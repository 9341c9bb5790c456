"""A host project's URLs; those of the page are in ``example_project.urls``."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("api/chat/", include("django_chat_sessions.urls")),
    path("admin/", admin.site.urls),
]

if "drf_spectacular" in settings.INSTALLED_APPS:
    from drf_spectacular.views import SpectacularAPIView

    urlpatterns.append(path("api/schema/", SpectacularAPIView.as_view(), name="schema"))
