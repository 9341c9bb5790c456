"""The API keeps to its own description, whatever schemathesis thinks of; and the description is complete."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from typing import Any
from uuid import UUID

import pytest

# ruff: noqa: E402 - without what it needs this module is skipped
pytest.importorskip("drf_spectacular")
schemathesis = pytest.importorskip("schemathesis")

from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.test import override_settings
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import spectacular_settings
from hypothesis import HealthCheck, Phase, settings
from rest_framework.authtoken.models import Token
from schemathesis import checks as they
from schemathesis.specs.openapi import checks as ours

from django_chat_sessions.agents import Message
from django_chat_sessions.api import errors
from django_chat_sessions.api.openapi.calls import CALLS
from django_chat_sessions.api.urls import urlpatterns
from django_chat_sessions.models import Run
from django_chat_sessions.operations import runs, sessions
from django_chat_sessions.testing import make_session, say

MOUNT = "/api/chat"

#: None that fails on purpose: what it answers is a server error, and means to be one.
AGENTS = ("echo", "silent", "count", "active_tab_wins")

#: Examples of each operation besides those that cover its parameters one by one.
EXAMPLES = 15

CHECKS = [
    they.not_a_server_error,
    ours.status_code_conformance,
    ours.content_type_conformance,
    ours.response_schema_conformance,
    ours.response_headers_conformance,
    ours.negative_data_rejection,
]


def described() -> dict[str, Any]:
    return SchemaGenerator().get_schema(request=None, public=True)


schema = schemathesis.openapi.from_dict(described()).include(path_regex=f"^{MOUNT}/")
schema.app = get_wsgi_application()


@pytest.fixture
def connected():
    """Keep the test's transaction: between requests a handler closes connections that are in one."""
    around = (request_started, request_finished)
    for signal in around:
        signal.disconnect(close_old_connections)
    yield
    for signal in around:
        signal.connect(close_old_connections)


@pytest.fixture
def world(alice, connected):
    """Give out what calls can be about: sessions in several conditions, each with a conversation."""
    made = []
    for agent in AGENTS:
        session = make_session(alice, agent=agent, title="Review", client="tab")
        for number in range(3):
            say(session, f"message {number}")
        if agent == "echo":
            runs.ask(session, Message("user", "question"))
            runs.start(session, Message("user", "further question"))
        made.append(session)
    sessions.end(made[1])
    token = Token.objects.create(user=alice).key
    return [str(session.uuid) for session in made], {"Authorization": f"Token {token}"}


def point_at_something_real(case: Any, ids: list[str], turn: int) -> None:
    """Let a well-formed call be about what there is, each time about something else; and let none wait for long."""
    path, query, body = case.path_parameters or {}, case.query or {}, case.body
    for place, names in ((path, ["session"]), (body, ["parent", "continue_from"])):
        for name in names if isinstance(place, dict) else ():
            if is_id(place.get(name)):
                place[name] = ids[turn % len(ids)]
    point_at_a_run(path, ids[0], turn)
    if str(path.get("sequence", "")).isdecimal():
        path["sequence"] = turn % 6 + 1
    if isinstance(query.get("wait"), int | float) and 0 < query["wait"] <= 30:
        query["wait"] = 0.01
    if isinstance(body, dict) and isinstance(body.get("agent"), str) and len(body["agent"]) <= 64:
        body["agent"] = AGENTS[turn % len(AGENTS)]
    if turn % 3:
        case.headers.pop("If-Match", None)


def point_at_a_run(path: dict[str, Any], session: str, turn: int) -> None:
    """Let a well-formed call about a run be about one that there is, finished or queued, mostly in its own session."""
    if is_id(path.get("run")) and is_id(path.get("session")):
        path["run"] = str(Run.objects.all()[turn % 2].uuid)
        path["session"] = session if turn % 4 else path["session"]


def is_id(value: Any) -> bool:
    try:
        return bool(UUID(value))
    except (ValueError, TypeError, AttributeError):
        return False


turns = count()


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_call_answers_as_described(case, world):
    ids, headers = world
    point_at_something_real(case, ids, next(turns))
    case.call_and_validate(headers=headers, checks=CHECKS)


# ------------------------------------------------------------------------------------------------------- completeness


def routes() -> list[tuple[str, str]]:
    """Return each view and action that a URL leads to."""
    return [
        (pattern.callback.cls.__name__, action)
        for pattern in urlpatterns
        for method, action in pattern.callback.actions.items()
        if pattern.name != "nowhere" and method != "head"
    ]


def test_every_route_is_described_and_nothing_else():
    assert set(CALLS) == set(routes())
    assert len(routes()) == sum(len(item) for path, item in described()["paths"].items() if path.startswith(MOUNT))


def test_paths_are_described_without_their_optional_slash():
    paths = [path for path in described()["paths"] if path.startswith(MOUNT)]
    assert f"{MOUNT}/sessions/{{session}}/messages/{{sequence}}" in paths
    assert not [path for path in paths if path.endswith("/") or set(path) & set("\\?^$()[]*")]


def test_each_operation_has_an_id_of_its_own():
    ids = [call.id for call in CALLS.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_description_is_valid_and_made_without_a_warning(version, tmp_path, monkeypatch):
    monkeypatch.setattr(spectacular_settings, "OAS_VERSION", version)
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yml"))
    assert "ChatSession" in (tmp_path / "schema.yml").read_text()


def test_bounds_in_the_description_are_those_in_force():
    with override_settings(CHAT_SESSIONS={"MIN_TIMEOUT_MINUTES": 7, "MAX_MESSAGE_LENGTH": 11}):
        components = described()["components"]["schemas"]
    assert components["ChatTimeoutBody"]["properties"]["timeout_minutes"]["minimum"] == 7
    assert components["ChatMessageBody"]["properties"]["content"]["maxLength"] == 11


def test_every_error_that_the_server_knows_is_named():
    told = described()["components"]["schemas"]["ChatProblem"]["properties"]["code"]["description"]
    assert all(code in told for _, code in errors.TABLE.values())


def test_app_does_without_drf_spectacular():
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "drf_spectacular":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "drf_spectacular" else find_spec(name, *rest)
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "django_chat_sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, USE_TZ=True,
)
import django
django.setup()
import django_chat_sessions.urls
assert not [name for name in sys.modules if name.startswith("drf_spectacular")]
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
