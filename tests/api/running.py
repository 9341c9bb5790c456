"""Asking, and seeing what came of it, as the tests of runs do."""

from __future__ import annotations

import time
from typing import Any

from django_chat_sessions.testing import age

from .conftest import Caller, row

Json = dict[str, Any]


def ask(api: Caller, session: Json, text: str = "hello", **fields: Any) -> Json:
    """Ask a question, and return the whole answer."""
    response = api.post(f"sessions/{session['id']}/messages", {"content": text, **fields})
    assert response.status_code in {201, 202}, response.content
    return dict(response.json())


def again(api: Caller, session: Json, body: Any = None, **headers: str) -> Any:
    """Have a question answered again."""
    return api.post(f"sessions/{session['id']}/runs", body, **headers)


def cancel(api: Caller, session: Json, run: Json, body: Any = None, **headers: str) -> Any:
    return api.post(f"sessions/{session['id']}/runs/{run['id']}/cancel", body, **headers)


def listed(api: Caller, session: Json, query: str = "") -> Json:
    """Return a page of a session's runs."""
    return api.reads(f"sessions/{session['id']}/runs{query}")


def events(api: Caller, session: Json, after: int = 0) -> list[Json]:
    return api.reads(f"sessions/{session['id']}/events?after={after}&limit=100")["events"]


def types(api: Caller, session: Json, after: int = 0) -> list[str]:
    return [event["type"] for event in events(api, session, after)]


def texts(api: Caller, session: Json) -> list[str]:
    return [message["content"] for message in api.reads(f"sessions/{session['id']}/messages")["messages"]]


def over(api: Caller, session: Json, end: str) -> None:
    """Let a session be ``ended``, or ``expired`` without a sweep."""
    if end == "ended":
        assert api.post(f"sessions/{session['id']}/end").status_code == 200
    else:
        age(row(session), days=1)


def wait_until_stored(api: Caller, session: Json, seconds: float = 10) -> None:
    """Wait until something that the agent says is stored, which is a moment after it is said."""
    until = time.monotonic() + seconds
    while listed(api, session)["results"][0]["first_token_at"] is None:
        assert time.monotonic() < until
        time.sleep(0.01)
