"""The page about subscribers says what they get, and its examples work."""

from __future__ import annotations

import sys
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

from django_chat_sessions.notices import Notice
from django_chat_sessions.operations import webhook
from django_chat_sessions.testing import make_session
from tests.docs import pages
from tests.docs.test_examples import run

PAGE = pages.DOCS / "subscribers.md"


def test_every_attribute_of_a_notice_is_documented() -> None:
    named = [name for row in pages.rows(PAGE) for name in pages.code(row[0])]
    assert [name for name in named if name in {field.name for field in fields(Notice)}] == [
        field.name for field in fields(Notice)
    ]


@pytest.mark.django_db
def test_the_reminder_of_the_example_is_sent(
    django_user_model: Any, settings: Any, mailoutbox: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = ModuleType("accounts.chat")
    chat.remind = run("subscribers.md", "def remind")["remind"]  # type: ignore[attr-defined]
    for name, module in (("accounts", ModuleType("accounts")), ("accounts.chat", chat)):
        monkeypatch.setitem(sys.modules, name, module)
    test = run("subscribers.md", "def test_the_owner_is_reminded")["test_the_owner_is_reminded"]
    test(django_user_model, settings, mailoutbox)


@pytest.mark.django_db
def test_the_example_verifies_what_is_posted(alice: Any) -> None:
    session = make_session(alice)
    body = webhook.body(Notice(session, 1, "session.created", session.created_at, {}))
    headers = {"webhook-id": "a", "webhook-timestamp": "1"}
    headers["webhook-signature"] = webhook.signature([b"old", b"new"], "a", "1", body)
    is_genuine = run("subscribers.md", "def is_genuine")["is_genuine"]
    assert is_genuine(headers, body, b"old")
    assert is_genuine(headers, body, b"new")
    assert not is_genuine(headers, body, b"other")
    assert not is_genuine(headers, body + b"x", b"new")
