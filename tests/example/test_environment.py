"""What the example's settings read from the environment."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_chat_sessions import conf
from example_project import environment


def test_operators_names_become_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for minutes, name in enumerate(environment.SESSION_VARIABLES, start=1):
        monkeypatch.setenv(name, str(minutes))
    assert environment.session_settings() == {
        "TIMEOUT_MINUTES": 1,
        "MIN_TIMEOUT_MINUTES": 2,
        "MAX_TIMEOUT_MINUTES": 3,
        "MAX_DURATION_MINUTES": 4,
        "WARNING_THRESHOLD_MINUTES": 5,
    }
    assert set(environment.SESSION_VARIABLES.values()) <= conf.KEYS


def test_what_is_not_set_is_left_to_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.SESSION_VARIABLES:
        monkeypatch.setenv(name, "")
    assert environment.session_settings() == {}


def test_a_number_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_DEFAULT_TIMEOUT_MINUTES", "half an hour")
    with pytest.raises(ImproperlyConfigured, match=r"SESSION_DEFAULT_TIMEOUT_MINUTES .* 'half an hour'"):
        environment.session_settings()


@pytest.mark.parametrize(("given", "expected"), [("", True), ("0", False), ("off", False), ("YES", True), ("1", True)])
def test_flags(monkeypatch: pytest.MonkeyPatch, given: str, expected: bool) -> None:
    monkeypatch.setenv("DEMO_THROTTLING", given)
    assert environment.flag("DEMO_THROTTLING", default=True) is expected


def test_a_flag_that_says_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_THROTTLING", "perhaps")
    with pytest.raises(ImproperlyConfigured, match="DEMO_THROTTLING"):
        environment.flag("DEMO_THROTTLING", default=True)


def test_sqlite_writes_first_and_lets_readers_go_on() -> None:
    config = environment.database("sqlite:////tmp/db.sqlite3", pool_size=5)
    assert config["NAME"] == "/tmp/db.sqlite3"
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in config["OPTIONS"]["init_command"]


def test_postgresql_pools_and_prepares() -> None:
    config = environment.database("postgres://me:secret@db:5433/chat?sslmode=require", pool_size=5)
    assert (config["HOST"], config["PORT"], config["NAME"]) == ("db", 5433, "chat")
    assert config["OPTIONS"]["pool"]["max_size"] == 5
    assert config["OPTIONS"]["sslmode"] == "require"
    assert config["OPTIONS"]["prepare_threshold"] == 1
