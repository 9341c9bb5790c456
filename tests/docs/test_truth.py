"""The documentation says what the code says: settings, routes, errors, words, checks and functions."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.dispatch import Signal
from django.utils import timezone

from django_chat_sessions import checks, choices, conf, schedule, signals, testing
from django_chat_sessions.agents import Agent, Message, RequestContext, Turn
from django_chat_sessions.api import errors, representation
from django_chat_sessions.api.base import NowhereViewSet
from django_chat_sessions.api.queries import ListQuery
from django_chat_sessions.api.serializers import ChangeBody, OpenBody, RunBody
from django_chat_sessions.api.urls import urlpatterns
from django_chat_sessions.management.commands.chat_sessions import Command
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import figures
from django_chat_sessions.rules import lifecycle, timeouts
from example_project import environment
from tests.docs import pages

API = pages.DOCS / "api.md"
LIFECYCLE = pages.DOCS / "lifecycle.md"
SETTINGS = pages.DOCS / "settings.md"
DEPLOYMENT = pages.DOCS / "deployment.md"
OPERATIONS = pages.DOCS / "operations.md"
AGENTS = pages.DOCS / "agents.md"


def named(page: Path, *, after: str = "") -> list[str]:
    """Return what the first cells of tables name."""
    return [name for row in pages.rows(page, after=after) for name in pages.code(row[0])]


# ------------------------------------------------------------------------------------------------------------ settings


def _default(cell: str) -> Any:
    return eval(pages.code(cell)[0], {"timedelta": timedelta})


def _defaults(page: Path, column: int) -> dict[str, Any]:
    rows = [row for row in pages.rows(page) if pages.code(row[0]) and pages.code(row[0])[0] in conf.KEYS]
    return {pages.code(row[0])[0]: _default(row[column]) for row in rows}


def test_every_setting_is_documented_with_its_default() -> None:
    defaults = {field.name: getattr(conf.Settings(), field.name) for field in fields(conf.Settings)}
    assert _defaults(SETTINGS, 2) == defaults


def test_settings_of_the_readme_have_their_defaults() -> None:
    told = _defaults(pages.README, 1)
    defaults = {field.name: getattr(conf.Settings(), field.name) for field in fields(conf.Settings)}
    assert told
    assert told == {name: defaults[name] for name in told}


def test_variables_of_the_example_are_documented() -> None:
    table = {pages.code(row[0])[0]: row[1] for row in pages.rows(SETTINGS, after="## The example's environment")}
    for variable, key in environment.SESSION_VARIABLES.items():
        assert pages.code(table[variable]) == [key]
    source = (pages.ROOT / "example_project/settings.py").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', source))
    assert read <= set(named(SETTINGS, after="## The example's environment"))


# ----------------------------------------------------------------------------------------------------------- HTTP API


def _routes() -> dict[str, set[str]]:
    """Return each route that is one, with its methods."""
    views = {str(route.pattern): route.callback for route in urlpatterns}
    real = {path: view for path, view in views.items() if not issubclass(view.cls, NowhereViewSet)}  # type: ignore[attr-defined]
    return {re.sub(r"<(\w+)>", r"{\1}", path): _methods(view) for path, view in real.items()}


def _methods(view: Any) -> set[str]:
    return {method.upper() for method in view.actions} - {"HEAD"}


def test_every_route_is_documented_with_its_methods() -> None:
    rows = pages.rows(API, after="## All routes")
    documented = {pages.code(row[0])[0]: set(row[1].split(", ")) for row in rows}
    assert documented == _routes()


def test_routes_in_the_text_exist() -> None:
    text = pages.prose(API)
    calls = re.findall(r"`(GET|POST|PATCH|DELETE) (sessions[^`?]*)(?:\?[^`]*)?`", text)
    assert calls
    routes = _routes()
    assert [call for call in calls if call[0] not in routes.get(call[1], ())] == []


def test_every_error_is_documented_with_its_status() -> None:
    rows = pages.rows(API, after="## Errors")
    documented = {(int(row[0]), *pages.code(row[1])) for row in rows}
    assert documented == {*errors.TABLE.values(), *errors.FRAMEWORK.items()}


def test_what_errors_tell_is_documented() -> None:
    told = {name for row in pages.rows(API, after="## Errors") for name in pages.code(row[3])}
    assert set(errors.TOLD) <= told


def _example(after: str) -> dict[str, Any]:
    return json.loads(pages.blocks("json", page=API, after=after)[0].code)


def test_example_of_a_session_has_every_field() -> None:
    now = timezone.now()
    session = ChatSession(created_at=now, last_activity_at=now, renewed_at=now, expires_at=now)
    real = representation.session_object(session, now)
    assert list(_example("\n## A session\n")) == list(real)
    assert list(_example("\n## A session\n")["timeout"]) == list(real["timeout"])


def test_example_of_a_message_has_every_field() -> None:
    assert list(_example("\n## Messages\n")) == list(representation.message_object(Message("user")))


def test_example_of_a_run_has_every_field() -> None:
    run = Run(input_sequence=1, created_at=timezone.now())
    assert list(_example("\n## Runs\n")) == list(representation.run_object(run))
    assert set(named(API, after="## Runs")) >= set(representation.run_object(run)) - {"id"}


def test_every_field_of_asking_again_is_documented() -> None:
    documented = {pages.code(row[0])[0]: row[1] for row in pages.rows(API, after="### Asking again")}
    assert set(documented) == set(RunBody().fields)
    assert set(RunBody().fields["delivery"].choices) <= set(pages.code(documented["delivery"]))


def test_examples_of_figures_have_every_field() -> None:
    assert list(_example("\n### Summary\n")) == [field.name for field in fields(figures.Summary)]
    metrics = _example("\n## Health and metrics\n")
    assert list(metrics) == [field.name for field in fields(figures.Metrics)]
    assert set(metrics["sessions"]) == set(choices.Status.values)


def test_every_field_of_opening_is_documented() -> None:
    documented = set(named(API, after="### Opening"))
    assert documented == set(OpenBody().fields)
    assert set(ChangeBody().fields) <= documented


def test_every_filter_of_the_list_is_documented() -> None:
    section = pages.prose(API).split("### Listing")[1].split("###")[0]
    beyond = {"limit", "cursor"}  # of every list
    assert all(f"`{name}" in section for name in set(ListQuery().fields) - beyond)


def test_every_delivery_is_documented() -> None:
    assert set(choices.Delivery.values) <= set(named(API, after="### Posting a message"))


# ---------------------------------------------------------------------------------------------------------- lifecycle


def test_every_event_type_is_documented() -> None:
    documented = named(LIFECYCLE, after="### Event types")
    assert documented == [*choices.EventType.values, f"{choices.APP_PREFIX}…"]


def test_every_status_is_documented_with_its_transitions() -> None:
    rows = pages.rows(LIFECYCLE, after="## States")
    documented = {pages.code(row[0])[0]: set(row[2].split(", ")) - {""} for row in rows}
    targets = {str(status): {str(target) for target in to} for status, to in lifecycle.TRANSITIONS.items()}
    assert {name: {word.split(";")[0] for word in to} for name, to in documented.items()} == {
        **targets,
        "archived": documented["archived"],
    }


def test_every_mode_is_documented_with_its_minutes() -> None:
    rows = {pages.code(row[0])[0]: row[1:] for row in pages.rows(LIFECYCLE, after="### Three tiers")}
    assert set(rows) == set(choices.TimeoutMode.values)
    for name, mode in timeouts.MODES.items():
        given = (mode.timeout_minutes, mode.warning_threshold_minutes, mode.max_duration_minutes)
        assert tuple(map(_minutes, rows[str(name)])) == given


def _minutes(text: str) -> int | None:
    if text == "inherited":
        return None
    number, unit = text.split()
    return int(number) * {"minute": 1, "hour": 60, "day": 1440}[unit.rstrip("s")]


def test_every_strategy_is_documented() -> None:
    assert set(named(LIFECYCLE, after="## Several tabs, several devices")) == set(choices.Strategy.values)


@pytest.mark.parametrize("words", [choices.Role, choices.EndReason])
def test_every_word_is_in_the_lifecycle(words: Any) -> None:
    text = pages.prose(LIFECYCLE)
    assert [word for word in words.values if f"`{word}`" not in text] == []


def test_every_status_of_a_run_is_documented() -> None:
    section = pages.prose(API).split("\n## Runs")[1].split("\n### ")[0]
    assert all(f"`{status}`" in section for status in choices.RunStatus.values)


# ------------------------------------------------------------------------------------------------- agents, operations


@pytest.mark.parametrize(("kind", "heading"), [(Agent, "## Agent"), (Turn, "## Turn")])
def test_every_field_of_agents_is_documented(kind: Any, heading: str) -> None:
    assert set(named(AGENTS, after=heading)) == {field.name for field in fields(kind)}


@pytest.mark.parametrize("kind", [Message, RequestContext])
def test_every_field_of_what_a_turn_holds_is_documented(kind: Any) -> None:
    section = pages.prose(AGENTS).split("## Turn")[1].split("\n## ")[0]
    assert all(f"`{field.name}`" in section for field in fields(kind))


def _twins() -> Iterator[tuple[str, str]]:
    """Yield each operation that has an async twin."""
    directory = pages.ROOT / "django_chat_sessions/operations"
    for path in sorted(directory.glob("[a-z]*.py")):
        module = import_module(f"django_chat_sessions.operations.{path.stem}")
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and hasattr(module, f"a{name}"):
                yield f"{path.stem}.{name}", f"a{name}"


def test_every_operation_is_documented_with_its_twin() -> None:
    rows = [row for row in pages.rows(OPERATIONS) if len(row) == 3 and "." in row[0]]
    documented = {pages.code(row[0])[0].partition("(")[0]: pages.code(row[1]) for row in rows}
    assert {name: [twin] for name, twin in _twins()} == {name: twin for name, twin in documented.items() if twin}
    for name in documented:
        module, _, function = name.partition(".")
        assert callable(getattr(import_module(f"django_chat_sessions.operations.{module}"), function))


def test_arguments_of_operations_exist() -> None:
    for row in pages.rows(OPERATIONS):
        call = re.fullmatch(r"`(\w+)\.(\w+)\((.*)\)`", row[0])
        if call is None:
            continue
        function = getattr(import_module(f"django_chat_sessions.operations.{call[1]}"), call[2])
        given = {name.strip(" =") for name in call[3].split(",")} - {"", "…"}
        assert given <= set(inspect.signature(function).parameters), row[0]


def test_every_signal_is_documented() -> None:
    sent = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(named(OPERATIONS, after="## Signals")) == sent


def test_every_helper_for_tests_is_documented() -> None:
    helpers = {
        name
        for name, value in vars(testing).items()
        if inspect.isfunction(value) and value.__module__ == testing.__name__ and not name.startswith("_")
    }
    documented = {name.partition("(")[0] for name in named(pages.DOCS / "testing.md", after="## Your project")}
    assert documented == helpers


# --------------------------------------------------------------------------------------------------- running the thing


def test_every_system_check_is_documented() -> None:
    directory = Path(str(checks.__file__)).parent
    sources = (path.read_text() for path in directory.glob("*.py") if path.name != "__init__.py")
    reported = {found for source in sources for found in re.findall(r"chat_sessions\.[EWIC]\d{3}", source)}
    assert named(DEPLOYMENT, after="## System checks") == sorted(reported)


def test_every_task_is_documented() -> None:
    assert set(named(DEPLOYMENT, after="## Sweeping")) == set(schedule.TASKS.values())


def test_every_command_is_documented() -> None:
    text = DEPLOYMENT.read_text()
    parser = Command().create_parser("manage.py", "chat_sessions")
    commands = next(action.choices for action in parser._actions if action.dest == "subcommand")
    for name, command in dict(commands or {}).items():
        assert f"chat_sessions {name}" in text
        options = {option for action in command._actions for option in action.option_strings if option.startswith("--")}
        own = options - set(parser._option_string_actions) - {"--help"}
        assert [option for option in own if option not in text] == [], name


def test_every_permission_is_documented() -> None:
    documented = set(named(pages.DOCS / "admin.md", after="## Permissions"))
    assert {codename for codename, _ in ChatSession._meta.permissions} <= documented
