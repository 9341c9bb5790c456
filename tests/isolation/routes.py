"""Every route and action of the API, from its URLconf, and how each is called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from django_chat_sessions.api.urls import urlpatterns

#: The public id of the run that a route is about.
HER_RUN = "5a3c1f0e-8d0b-4c62-9f27-6d1f0c3b7a10"


@dataclass(frozen=True)
class Route:
    """One method of one route."""

    name: str
    method: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.name}"

    @property
    def is_about_a_session(self) -> bool:
        return "session" in self.arguments

    def path(self, session: str = "", sequence: str = "2", run: str = "") -> str:
        given = {"session": session, "sequence": sequence, "run": run or HER_RUN, "agent": "echo"}
        return reverse(f"chat_sessions:{self.name}", kwargs={name: given[name] for name in self.arguments})

    def call(self, api: Any, session: str = "", body: Any = None, **headers: str) -> Any:
        send = getattr(api, self.method)
        body = BODIES.get((self.name, self.method)) if body is None else body
        arguments = {} if self.method == "get" else {"data": body or {}, "format": "json"}
        return send(self.path(session), headers=headers, **arguments)


#: A body that each of these takes; the others take none, or an empty one.
BODIES: dict[tuple[str, str], Any] = {
    ("session-list", "post"): {"title": "mine"},
    ("session-detail", "patch"): {"title": "changed"},
    ("session-resume", "post"): {"max_messages": 1},
    ("session-heartbeat", "post"): {},
    ("session-renew", "post"): {},
    ("session-timeout", "patch"): {"timeout_minutes": 60},
    ("session-end", "post"): {"reason": "done"},
    ("session-fork", "post"): {"at": 2},
    ("session-state", "patch"): {"key": "value"},
    ("message-list", "post"): {"content": "hello", "delivery": "store"},
    ("message-detail", "patch"): {"content": "changed"},
    ("run-list", "post"): {"delivery": "background"},
    ("run-cancel", "post"): {},
    ("event-list", "post"): {"type": "app.clicked"},
    ("agent-query", "post"): {"content": "hello"},
}

#: Routes that are about no session of somebody's, and who may ask.
OPEN_TO = {
    "session-list": "owner",
    "agent-query": "anybody who is somebody",
    "health": "anybody",
    "metrics": "staff",
    "nowhere": "nobody",
}


def routes() -> Iterator[Route]:
    for pattern in urlpatterns:
        if pattern.name == "nowhere":
            continue
        arguments = tuple(pattern.pattern.regex.groupindex)
        for method in pattern.callback.actions:
            if method != "head":
                yield Route(pattern.name, method, arguments)


ROUTES = list(routes())
OF_A_SESSION = [route for route in ROUTES if route.is_about_a_session]
