"""The routes for operators: whether it works, and its figures."""

from __future__ import annotations

from dataclasses import asdict

from django.db import Error, connections, router
from django.utils import timezone
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from ..log import iso
from ..models import ChatSession
from ..operations import figures
from . import errors
from .base import ChatViewSet
from .permissions import MayViewMetrics


class HealthViewSet(ChatViewSet):
    """Whether the sessions can be read and written. Nobody needs to be somebody, and nobody's data is told."""

    authentication_classes = []
    throttle_classes = []

    def get_permissions(self) -> list[AllowAny]:
        """Let everybody ask."""
        return [AllowAny()]

    def retrieve(self, request: Request) -> Response:
        """Answer whether the database does."""
        instant = iso(timezone.now())
        try:
            with connections[router.db_for_write(ChatSession)].cursor() as cursor:
                cursor.execute("SELECT 1 FROM chat_sessions_chatsession WHERE id = 0")
        except Error:
            told = {"timestamp": instant, "database": "unavailable"}
            return errors.problem(503, "database_unavailable", "The database does not answer.", told)
        return Response({"status": "healthy", "timestamp": instant, "database": "ok"})


class MetricsViewSet(ChatViewSet):
    """Figures of all sessions, for staff."""

    permission_classes = [MayViewMetrics]

    def retrieve(self, request: Request) -> Response:
        """Return the figures."""
        return Response(asdict(figures.measure(using=self.using)))
