"""The API, and the bare view that it is measured against: no authentication, no isolation, no validation."""

from __future__ import annotations

import json
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from rest_framework.permissions import IsAuthenticated
from rest_framework.views import APIView

from . import floor


def messages(request: HttpRequest, session: Any) -> HttpResponse:
    """Store a message, or return the last 50: one statement each."""
    with connection.cursor() as cursor:
        if request.method == "POST":
            cursor.execute(floor.APPEND_PUBLIC, [session, json.loads(request.body)["content"]])
            sequence, instant = cursor.fetchone()
            return JsonResponse({"sequence": sequence, "created_at": instant}, status=201)
        cursor.execute(floor.LAST_50_PUBLIC, [session])
        page, more, first, last = cursor.fetchone()
    cursors = f'{{"before": {first}, "after": {last}}}'
    body = f'{{"messages": {page}, "has_more": {str(more).lower()}, "cursors": {cursors}}}'
    return HttpResponse(body, content_type="application/json")


class Authenticated(APIView):
    """The bare view for those with a token, to tell what that alone costs: it is the host's choice, not ours."""

    permission_classes = [IsAuthenticated]

    def get(self, request: Any, session: Any) -> HttpResponse:
        """Answer as the bare view does."""
        return messages(request._request, session)

    post = get


urlpatterns = [
    path("token/<uuid:session>/messages", Authenticated.as_view()),
    path("bare/<uuid:session>/messages", messages),
    path("api/chat/", include("django_chat_sessions.urls")),
]
