"""The examples do what the pages say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import RequestFactory

from django_chat_sessions import agents, signals
from django_chat_sessions.agents import Agent, Message
from django_chat_sessions.checks import databases
from django_chat_sessions.operations import expiry, messages, runs
from django_chat_sessions.testing import age, make_session, say
from tests.docs import pages


def run(page: str, containing: str) -> dict[str, Any]:
    """Execute a page's block and return its names."""
    found = [block for block in pages.blocks("python", page=pages.DOCS / page) if containing in block.code]
    assert len(found) == 1
    names: dict[str, Any] = {}
    exec(compile(found[0].code, str(found[0]), "exec"), names)
    return names


@pytest.fixture
def agents_as_they_were() -> Iterator[None]:
    before = agents.registered()
    yield
    for name in agents.registered():
        agents.unregister(name)
    for agent in before.values():
        agents.register(agent)


@pytest.mark.django_db
@pytest.mark.usefixtures("agents_as_they_were")
@pytest.mark.parametrize("name", ["plain", "in_pieces", "several", "from_elsewhere", "as_it_comes"])
def test_responders_respond(alice: Any, name: str) -> None:
    agents.register(Agent("example", run("agents.md", "def as_it_comes")[name]))
    session = make_session(alice, agent="example")
    runs.ask(session, Message("user", "good morning"))
    said = list(messages.everything(session))[1:]
    assert [message.role for message in said] == (["tool", "assistant"] if name == "several" else ["assistant"])
    assert all(message.content for message in said)


@pytest.mark.usefixtures("agents_as_they_were")
def test_agents_of_the_examples_register() -> None:
    run("agents.md", '"advisor"')
    advisor = agents.find("advisor")
    assert (advisor.policy().warning_threshold_minutes, advisor.policy().later_warnings) == (15, (5, 1))
    assert advisor.keeps().ended == timedelta(days=30)
    run("quickstart.md", "def greet")
    assert agents.find("greeter").can_respond


@pytest.mark.django_db
@pytest.mark.usefixtures("agents_as_they_were")
def test_tests_of_the_examples_pass(django_user_model: Any) -> None:
    run("quickstart.md", "def greet")
    run("testing.md", "def test_an_hour_later")["test_an_hour_later_it_is_over"](django_user_model)
    django_user_model.objects.all().delete()
    run("testing.md", "def test_it_counts")["test_it_counts"](django_user_model)


@pytest.mark.django_db
def test_operations_of_the_examples_work(alice: Any) -> None:
    opening = run("operations.md", "def start")
    ticket = SimpleNamespace(pk=7, subject="Review Q4 budget")
    session = opening["start"](alice, ticket)
    assert opening["start"](alice, ticket) == session
    assert session.title == ticket.subject

    talking = run("operations.md", "def converse")
    assert talking["note"](session, "a", "One moment") == talking["note"](session, "a", "One moment")
    assert talking["converse"](session, "Create a task: Review Q4 budget") == "✓ Created"
    assert opening["try_differently"](session, 2).forked_from == session

    questions = run("operations.md", "def busiest")
    assert session in questions["busiest"](alice)
    assert questions["expired"](alice) == 0

    run("operations.md", "def close_ticket")["close_ticket"](session)
    assert (session.end_reason, session.tags) == ("ticket closed", ["closed"])
    assert session.state["ticket"] == {"status": "closed"}
    assert talking["note"](session, "b", "Too late") is None


@pytest.mark.django_db(transaction=True)
def test_transcript_of_the_examples_works(alice: Any) -> None:
    session = make_session(alice)
    say(session, "Hello")
    assert async_to_sync(run("operations.md", "def converse")["transcript"])(session) == ["user: Hello"]


@pytest.mark.django_db
def test_receiver_of_the_examples_tells_the_owner(
    alice: Any, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    alice.email = "alice@example.com"
    alice.save()
    age(make_session(alice), minutes=27)
    receiver = run("operations.md", "def tell_the_owner")["tell_the_owner"]
    try:
        with django_capture_on_commit_callbacks(execute=True):
            assert expiry.warn().count == 1
    finally:
        signals.session_expiring.disconnect(receiver)
    assert [mail.to for mail in mailoutbox] == [["alice@example.com"]]


def test_capture_of_the_examples_returns_a_dict(rf: RequestFactory) -> None:
    assert run("settings.md", "def capture")["capture"](rf.get("/"))["version"]


def _problems(block: str, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Return what the checks have against the settings of a database that a page recommends."""
    recommended = run("deployment.md", block)["DATABASES"]["default"]
    for name in ("NAME", "OPTIONS"):
        monkeypatch.setitem(connection.settings_dict, name, recommended[name])
    return [found.id for found in (*databases.check_sqlite(), *databases.check_postgresql())]


@pytest.mark.sqlite
def test_recommended_settings_of_sqlite_satisfy_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _problems("db.backends.sqlite3", monkeypatch) == []


@pytest.mark.postgres
def test_recommended_settings_of_postgresql_satisfy_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _problems("db.backends.postgresql", monkeypatch) == []
