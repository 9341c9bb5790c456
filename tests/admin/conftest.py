"""Staff, and sessions for them to look after."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from django_chat_sessions.agents import Message
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import messages, opening

SESSIONS = "/admin/chat_sessions/chatsession/"
EVENTS = "/admin/chat_sessions/sessionevent/"
RUNS = "/admin/chat_sessions/run/"


def staff(name: str, *permissions: str) -> Client:
    """Return a browser in which a member of staff with these permissions is logged in."""
    user = User.objects.create_user(name, password="demo", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def reader(db: None) -> Client:
    return staff("reader", "view_chatsession", "view_sessionevent", "view_run")


@pytest.fixture
def support(db: None) -> Client:
    return staff("support", "view_chatsession", "change_chatsession")


@pytest.fixture
def boss(admin_client: Client) -> Client:
    return admin_client


@pytest.fixture
def talk(alice: User) -> Callable[..., ChatSession]:
    """Return a function that opens a session, by default Alice's, in which things were said."""

    def talk(*said: str, **options: Any) -> ChatSession:
        session = opening.open(**{"owner": alice, "agent": "echo", **options}).session
        for text in said:
            messages.append(session, Message("user", text))
        return session

    return talk


def overdue(session: ChatSession) -> ChatSession:
    """Let a session's deadline have passed a minute ago, without anybody having recorded it."""
    ChatSession.objects.filter(pk=session.pk).update(expires_at=timezone.now() - timedelta(minutes=1))
    session.refresh_from_db()
    return session


def page(session: ChatSession, view: str = "change") -> str:
    """Return the address of one of a session's pages."""
    return f"{SESSIONS}{session.pk}/{view}/"


def keys(response: Any) -> list[int]:
    """Return which rows a list shows, in order."""
    return [row.pk for row in response.context["cl"].result_list]


def said(response: Any) -> list[str]:
    """Return the messages that staff is shown."""
    return [str(message) for message in response.context["messages"]]
