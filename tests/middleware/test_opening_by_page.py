"""The setting CREATE_SESSIONS: a page that asks for a session gets one."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_chat_sessions import agents
from django_chat_sessions.agents import Agent
from django_chat_sessions.models import ChatSession
from django_chat_sessions.testing import age, make_session

pytestmark = pytest.mark.django_db


def page(request):
    session = request.chat_session
    assert session is request.chat_session
    return JsonResponse({"session": session and str(session.uuid)})


async def apage(request):
    session = await request.achat_session()
    assert session is request.chat_session
    return JsonResponse({"session": session and str(session.uuid)})


def plain(request):
    return HttpResponse()


urlpatterns = [path("page", page), path("apage", apage), path("plain", plain)]


def capture(request) -> dict[str, Any]:
    return {"source": "page", "path": request.path}


def broken(request) -> dict[str, Any]:
    raise ZeroDivisionError


@pytest.fixture(autouse=True)
def _site(settings):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django_chat_sessions.middleware.ChatSessionMiddleware",
    ]
    settings.CHAT_SESSIONS = {"CREATE_SESSIONS": True, "CAPTURE": capture}


@pytest.fixture
def client(alice):
    client = Client()
    client.force_login(alice)
    return client


def test_a_page_that_asks_gets_a_new_session_and_a_cookie(client, alice):
    response = client.get("/page")
    session = ChatSession.objects.get()
    assert response.json() == {"session": str(session.uuid)}
    assert session.owner == alice
    assert session.environment == {"source": "page", "path": "/page"}
    cookie = response.cookies["chat_session"]
    assert cookie.value == str(session.uuid)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert not cookie["secure"]
    assert cookie["max-age"] == 720 * 60


def test_the_cookie_is_secure_where_the_page_is(client):
    assert client.get("/page", secure=True).cookies["chat_session"]["secure"]


def test_async_code_opens_too_and_the_next_page_finds_it(alice):
    client = AsyncClient()
    client.force_login(alice)
    get = async_to_sync(client.get)
    first, second = get("/apage"), get("/apage")
    assert first.json() == second.json() == {"session": str(ChatSession.objects.get().uuid)}
    assert "chat_session" in first.cookies
    assert "chat_session" not in second.cookies


def test_a_page_that_does_not_ask_opens_nothing(client):
    assert "chat_session" not in client.get("/plain").cookies
    assert not ChatSession.objects.exists()


def test_nobody_gets_none():
    assert Client().get("/page").json() == {"session": None}
    assert not ChatSession.objects.exists()


def test_one_that_is_over_is_followed_by_a_new_one(client, alice):
    old = age(make_session(alice), days=1)
    client.cookies["chat_session"] = str(old.uuid)
    response = client.get("/page")
    new = ChatSession.objects.exclude(pk=old.pk).get()
    assert response.json() == {"session": str(new.uuid)}
    assert response.cookies["chat_session"].value == str(new.uuid)


def test_somebody_elses_is_followed_by_ones_own(client, bob):
    foreign = make_session(bob)
    response = client.get("/page", headers={"X-Chat-Session": str(foreign.uuid)})
    assert response.json() == {"session": str(ChatSession.objects.exclude(pk=foreign.pk).get().uuid)}


def test_the_tab_that_opens_is_in_control(client, settings):
    settings.CHAT_SESSIONS |= {"DEFAULT_AGENT": "tabbed"}
    agents.register(Agent("tabbed", strategy="per_tab"))
    try:
        client.get("/page", headers={"X-Chat-Client": "tab-1"})
    finally:
        agents.unregister("tabbed")
    assert ChatSession.objects.get().client == "tab-1"


@pytest.mark.parametrize(
    "setting",
    [
        {"MAX_LIVE_SESSIONS": 0},
        {"DEFAULT_AGENT": "nobody"},
        {"DEFAULT_STRATEGY": "per_tab"},
        {"CAPTURE": broken},
        {"CAPTURE": "no.such.hook"},
    ],
)
def test_what_cannot_be_opened_does_not_fail_the_page(client, settings, setting, caplog):
    settings.CHAT_SESSIONS |= setting
    response = client.get("/page")
    assert response.status_code == 200
    assert response.json() == {"session": None}
    assert "chat_session" not in response.cookies
    assert "No chat session could be opened" in caplog.text
