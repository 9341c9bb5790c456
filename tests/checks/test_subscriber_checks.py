"""Checks of who is told of events."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks

from tests.checks.test_project_checks import ids

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("tests.operations.told.hear", None),
        ("tests.operations.told.nobody", "cannot be imported"),
        ("nowhere.hear", "cannot be imported"),
        ("hear", "cannot be imported"),
        ("tests.operations.told.uncallable", "is not callable"),
    ],
)
def test_a_subscriber_has_to_be_there(settings: Any, path: str, problem: str | None) -> None:
    settings.CHAT_SESSIONS = {"SUBSCRIBERS": {"app.*": [path], "message": [path]}}
    found = [message for message in run_checks(tags=["chat_sessions"]) if message.id == "chat_sessions.E014"]
    assert [f"{path!r} {problem}" in message.msg for message in found] == ([True] if problem else [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": SECRET}, []),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": "sixteen of bytes"}, []),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": [SECRET, "sixteen of bytes"]}, []),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": [SECRET, "fifteen bytes.."]}, ["E015"]),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": ""}, ["E003"]),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": "whsec_"}, ["E015"]),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": "whsec_AAAAAAAAAAAAAAAAAAAA"}, ["E015"]),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": "whsec_é"}, ["E015"]),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": "sixteen of bytes\ud800"}, ["E015"]),
        ({"WEBHOOK_URL": "https://example.com/x"}, ["E015"]),
        ({"WEBHOOK_URL": "https://example.com/x", "WEBHOOK_SECRET": "whsec_?"}, ["E015"]),
        ({"WEBHOOK_URL": "https://", "WEBHOOK_SECRET": SECRET}, ["E015"]),
        ({"WEBHOOK_URL": "http://[::1", "WEBHOOK_SECRET": SECRET}, ["E015"]),
        ({"WEBHOOK_URL": "http://localhost:8000/x", "WEBHOOK_SECRET": SECRET}, []),
        ({"WEBHOOK_URL": "http://127.0.0.2/x", "WEBHOOK_SECRET": SECRET}, []),
        ({"WEBHOOK_URL": "http://[::1]/x", "WEBHOOK_SECRET": SECRET}, []),
        ({"WEBHOOK_URL": "http://localhost.example.com/x", "WEBHOOK_SECRET": SECRET}, ["W014"]),
        ({"WEBHOOK_URL": "http://10.0.0.1/x", "WEBHOOK_SECRET": SECRET}, ["W014"]),
        ({"WEBHOOK_URL": "ftp://example.com/x", "WEBHOOK_SECRET": SECRET}, ["E003"]),
    ],
)
def test_a_webhook_is_signed_and_encrypted(settings: Any, given: dict[str, Any], expected: list[str]) -> None:
    settings.CHAT_SESSIONS = given
    assert ids() == expected


@pytest.mark.parametrize(
    "given",
    [
        {"WEBHOOK_URL": "http://hidden:hidden@example.com/?hidden"},
        {"WEBHOOK_URL": "http://hidden.example.com/", "WEBHOOK_SECRET": "whsec_hidden?"},
        {"WEBHOOK_URL": "hidden", "WEBHOOK_SECRET": ["hidden", 7]},
    ],
)
def test_no_check_says_an_address_or_a_secret(settings: Any, given: dict[str, Any]) -> None:
    settings.CHAT_SESSIONS = given
    found = run_checks(tags=["chat_sessions"])
    assert found
    assert not any("hidden" in f"{message.msg} {message.hint}" for message in found)
