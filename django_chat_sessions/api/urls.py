"""The routes, each with and without a trailing slash: a POST can't be redirected."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import router, transaction
from django.urls import URLPattern
from django.urls.resolvers import RegexPattern

from ..models import ChatSession
from .agents import NoAgentViewSet, QueryViewSet
from .base import ChatViewSet, NowhereViewSet
from .messages import EventViewSet, MessageViewSet
from .operators import HealthViewSet, MetricsViewSet
from .runs import RunViewSet
from .sessions import ExportViewSet, SessionViewSet
from .streams import StreamViewSet

app_name = "chat_sessions"

SESSION = "sessions/(?P<session>[^/]+)"


class OptionalSlash(RegexPattern):
    """A path with and without a trailing slash, which is described (in OpenAPI, say) as the one without."""

    def __init__(self, path: str, *, name: str) -> None:
        """Take the path as a regular expression without its ends."""
        self.described = re.sub(r"\(\?P(<\w+>)[^)]*\)", r"\1", path)
        super().__init__(rf"^{path}/?\Z", name=name, is_endpoint=True)

    def __str__(self) -> str:
        """Describe the path."""
        return self.described


def _view(kind: type[ChatViewSet], actions: dict[str, Any]) -> Callable[..., Any]:
    """Return a view outside ``ATOMIC_REQUESTS``: an append is one statement and commits itself."""
    view = kind.as_view(actions)
    return transaction.non_atomic_requests(using=router.db_for_write(ChatSession))(view)


def _route(path: str, name: str, kind: type[ChatViewSet], **actions: str) -> URLPattern:
    return URLPattern(OptionalSlash(path, name=name), _view(kind, actions), name=name)


_EVERY = dict.fromkeys(("get", "post", "put", "patch", "delete"), "refuse")

urlpatterns = [
    _route("sessions", "session-list", SessionViewSet, get="list", post="create"),
    _route("sessions/health", "health", HealthViewSet, get="retrieve"),
    _route("sessions/metrics", "metrics", MetricsViewSet, get="retrieve"),
    _route(SESSION, "session-detail", SessionViewSet, get="retrieve", patch="partial_update", delete="destroy"),
    _route(f"{SESSION}/resume", "session-resume", SessionViewSet, post="resume"),
    _route(f"{SESSION}/heartbeat", "session-heartbeat", SessionViewSet, post="heartbeat"),
    _route(f"{SESSION}/renew", "session-renew", SessionViewSet, post="renew"),
    _route(f"{SESSION}/timeout", "session-timeout", SessionViewSet, patch="timeout"),
    _route(f"{SESSION}/end", "session-end", SessionViewSet, post="end"),
    _route(f"{SESSION}/fork", "session-fork", SessionViewSet, post="fork"),
    _route(f"{SESSION}/children", "session-children", SessionViewSet, get="children"),
    _route(f"{SESSION}/summary", "session-summary", SessionViewSet, get="summary"),
    _route(f"{SESSION}/state", "session-state", SessionViewSet, get="state", patch="change_state"),
    _route(f"{SESSION}/context", "session-context", SessionViewSet, get="window"),
    _route(f"{SESSION}/export", "session-export", ExportViewSet, get="retrieve"),
    _route(f"{SESSION}/messages", "message-list", MessageViewSet, get="list", post="create"),
    _route(
        f"{SESSION}/messages/(?P<sequence>[^/]+)",
        "message-detail",
        MessageViewSet,
        get="retrieve",
        patch="partial_update",
        delete="destroy",
    ),
    _route(f"{SESSION}/runs", "run-list", RunViewSet, get="list", post="create"),
    _route(f"{SESSION}/runs/(?P<run>[^/]+)", "run-detail", RunViewSet, get="retrieve"),
    _route(f"{SESSION}/runs/(?P<run>[^/]+)/cancel", "run-cancel", RunViewSet, post="cancel"),
    _route(f"{SESSION}/stream", "session-stream", StreamViewSet, get="retrieve"),
    _route(f"{SESSION}/events", "event-list", EventViewSet, get="list", post="create"),
    _route("agents/(?P<agent>[^/]+)/query", "agent-query", QueryViewSet, post="create"),
    _route(r"sessions/[\s\S]*", "nowhere", NowhereViewSet, **_EVERY),
    _route(r"agents/[\s\S]*", "nowhere", NoAgentViewSet, **_EVERY),
]
