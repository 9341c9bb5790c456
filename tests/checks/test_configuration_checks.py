"""Checks of the settings."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.checks import run_checks

from django_chat_sessions import conf
from django_chat_sessions.checks import configuration
from django_chat_sessions.conf import Settings


def ids(**options) -> list[str]:
    return [message.id.removeprefix("chat_sessions.") for message in run_checks(tags=["chat_sessions"], **options)]


def first():
    return run_checks(tags=["chat_sessions"])[0]


@pytest.fixture(autouse=True)
def _nothing_set(settings):
    settings.CHAT_SESSIONS = {}


def test_the_suites_own_project_is_sound():
    assert ids() == []


def test_every_setting_is_checked():
    assert set(configuration.RULES) == conf.KEYS


def test_every_default_passes():
    defaults = Settings()
    assert {rule(getattr(defaults, key)) for key, rule in configuration.RULES.items()} == {None}


@pytest.mark.parametrize("key", sorted(conf.KEYS))
def test_no_setting_takes_just_anything(settings, key):
    settings.CHAT_SESSIONS = {key: object()}
    assert ids() == ["E003"]
    assert key in first().msg
    assert first().hint


@pytest.mark.parametrize("key", ["REDIS_URL", "WEBHOOK_URL", "WEBHOOK_SECRET"])
def test_a_secret_is_not_shown_where_it_is_wrong(settings, key):
    settings.CHAT_SESSIONS = {key: {"hunter2": "hunter2"}}
    assert ids() == ["E003"]
    assert "hunter2" not in str(first()) + repr(conf.get())


@pytest.mark.parametrize("value", [[], "standard", ("TIMEOUT_MODE", "standard"), 1])
def test_settings_that_are_no_dict_are_refused(settings, value):
    settings.CHAT_SESSIONS = value
    assert "E001" in ids()


def test_no_settings_are_fine(settings):
    settings.CHAT_SESSIONS = None
    assert ids() == []
    del settings.CHAT_SESSIONS
    assert ids() == []


@pytest.mark.parametrize(("wrong", "meant"), [("TIMEOUT_MINUTE", "TIMEOUT_MINUTES"), ("timeout_mode", "TIMEOUT_MODE")])
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(settings, wrong, meant):
    settings.CHAT_SESSIONS = {wrong: 30}
    assert ids() == ["E002"]
    assert first().hint == f"Did you mean {meant}?"


def test_a_key_like_no_other_is_answered_with_all(settings):
    settings.CHAT_SESSIONS = {"ZZZ": 1, 7: 2}
    assert ids() == ["E002", "E002"]
    assert "TIMEOUT_MINUTES" in first().hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TIMEOUT_MINUTES", 0),
        ("TIMEOUT_MINUTES", True),
        ("TIMEOUT_MINUTES", 30.0),
        ("TIMEOUT_MINUTES", "30"),
        ("TIMEOUT_MODE", "relaxed"),
        ("TIMEOUT_MODE", None),
        ("DEFAULT_STRATEGY", "shared"),
        ("DEFAULT_AGENT", "x" * 65),
        ("DEFAULT_AGENT", None),
        ("AUTO_RENEW", 1),
        ("RESUME_AFTER", 0),
        ("RESUME_AFTER", timedelta(0)),
        ("RESUME_AFTER", "5 minutes"),
        ("TOUCH_INTERVAL", -1),
        ("TOUCH_INTERVAL", float("nan")),
        ("TOUCH_INTERVAL", float("inf")),
        ("TOUCH_INTERVAL", True),
        ("SWEEP_BATCH", 0),
        ("SWEEP_BATCH", 40_000),
        ("MAX_MESSAGES", 0),
        ("MAX_DEPTH", None),
        ("COOKIE_NAME", ""),
        ("COOKIE_NAME", "chat session"),
        ("COOKIE_NAME", "chat;session"),
        ("CREATE_SESSIONS", "yes"),
        ("CAPTURE", 7),
        ("WARNING_THRESHOLD_MINUTES", -1),
        ("WARNING_THRESHOLD_MINUTES", []),
        ("WARNING_THRESHOLD_MINUTES", [5, "1"]),
        ("WARNING_THRESHOLD_MINUTES", [5, None]),
        ("EXPIRE_CHILDREN", None),
        ("PURGE_CHILDREN", 1),
        ("CASCADE_BOUND", 0),
        ("SWEEP_EVENTS", 0),
        ("SWEEP_SECONDS", 0.5),
        ("KEEP_CHUNKS", -1),
        ("KEEP_CHUNKS", None),
        ("CLEANUP", "never"),
        ("CLEANUP", None),
        ("RETENTION", None),
        ("RETENTION", 30),
        ("RETENTION", {"active": 3}),
        ("RETENTION", {"ended": -1}),
        ("RETENTION", {"ended": True}),
        ("RETENTION", {"ended": float("nan")}),
        ("RETENTION", {"ended": timedelta(days=40_000)}),
        ("RETENTION", {"action": "burn"}),
        ("APPLICATION_RETENTION", {"billing": 30}),
        ("APPLICATION_RETENTION", {"billing": {"ended": "30"}}),
        ("APPLICATION_RETENTION", {30: {"ended": 30}}),
    ],
)
def test_impossible_values_are_refused(settings, key, value):
    settings.CHAT_SESSIONS = {key: value}
    assert ids() == ["E003"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TIMEOUT_MINUTES", 60),
        ("TIMEOUT_MODE", "persistent"),
        ("RESUME_AFTER", 0.5),
        ("RESUME_AFTER", timedelta(hours=1)),
        ("TOUCH_INTERVAL", 0),
        ("MAX_MESSAGES", None),
        ("WARNING_THRESHOLD_MINUTES", 0),
        ("COOKIE_NAME", "__Host-chat"),
        ("CAPTURE", dict),
        ("CAPTURE", "builtins.dict"),
        ("WARNING_THRESHOLD_MINUTES", [15, 5, 1]),
        ("WARNING_THRESHOLD_MINUTES", (5,)),
        ("KEEP_CHUNKS", 0),
        ("KEEP_CHUNKS", timedelta(days=1)),
        ("CLEANUP", "lazy"),
        ("RETENTION", {}),
        ("RETENTION", {"expired": 0, "ended": 0.5, "failed": None, "archived": timedelta(days=1), "action": "delete"}),
        ("APPLICATION_RETENTION", {"": {}, "it's 100%": {"ended": None}}),
    ],
)
def test_possible_values_pass(settings, key, value):
    settings.CHAT_SESSIONS = {key: value}
    assert ids() == []


@pytest.mark.parametrize(
    "timeouts",
    [
        {"TIMEOUT_MINUTES": 4},
        {"TIMEOUT_MINUTES": 1441},
        {"TIMEOUT_MINUTES": 60, "MAX_DURATION_MINUTES": 30},
        {"TIMEOUT_MINUTES": 60, "WARNING_THRESHOLD_MINUTES": 60},
        {"MAX_DURATION_MINUTES": 20_000},
        {"TIMEOUT_MODE": "aggressive", "MIN_TIMEOUT_MINUTES": 10},
        {"MIN_TIMEOUT_MINUTES": 60, "MAX_TIMEOUT_MINUTES": 50, "TIMEOUT_MINUTES": 55},
    ],
)
def test_global_timeouts_that_contradict_are_refused(settings, timeouts):
    settings.CHAT_SESSIONS = timeouts
    assert set(ids()) == {"E004"}
    assert "MIN_TIMEOUT_MINUTES" in first().hint


@pytest.mark.parametrize("path", ["no.such.module.hook", "builtins.no_such", "builtins", "builtins.__name__"])
def test_a_capture_hook_that_is_not_there_is_refused(settings, path):
    settings.CHAT_SESSIONS = {"CAPTURE": path}
    assert ids() == ["E005"]


def test_local_times_are_refused(settings):
    settings.USE_TZ = False
    assert ids() == ["E009"]


def test_every_id_is_documented():
    import re
    from pathlib import Path

    from django_chat_sessions import checks

    sources = "".join(path.read_text() for path in Path(checks.__file__).parent.glob("*.py"))
    raised = set(re.findall(r'id="(chat_sessions\.[EW]\d{3})"', sources))
    assert raised == set(re.findall(r"``(chat_sessions\.[EW]\d{3})``", checks.__doc__))
