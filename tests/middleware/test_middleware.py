"""The middleware through real requests, by the sync and the async client."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.contrib.auth import get_user_model, login, logout
from django.core.exceptions import SynchronousOnlyOperation
from django.db import OperationalError, connection
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import include, path

from django_chat_sessions import middleware
from django_chat_sessions.choices import EventType
from django_chat_sessions.middleware import ChatRequest, ChatSessionMiddleware
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import sessions
from django_chat_sessions.testing import age, make_session, say

pytestmark = pytest.mark.django_db

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_chat_sessions.middleware.ChatSessionMiddleware",
]


def told(session: ChatSession | None) -> JsonResponse:
    return JsonResponse({"session": None if session is None else str(session.uuid)})


def plain(request):
    return HttpResponse("nothing to see")


async def aplain(request):
    return HttpResponse("nothing to see")


def page(request: ChatRequest):
    return told(request.chat_session)


async def apage(request: ChatRequest):
    session = await request.achat_session()
    assert session is request.chat_session or session == request.chat_session
    return told(session)


def _described(context) -> JsonResponse:
    instant = context.instant.isoformat()
    return JsonResponse(
        {"user": str(context.user), "session": context.session, "metadata": context.metadata, "at": instant}
    )


def context(request: ChatRequest):
    return _described(request.chat_context)


async def acontext(request: ChatRequest):
    return _described(await request.achat_context())


def leaving(request: ChatRequest):
    before = request.chat_session
    logout(request)
    assert before is not None
    return told(request.chat_session)


def entering(request: ChatRequest):
    assert request.chat_session is None
    login(request, get_user_model().objects.get(username="alice"), "django.contrib.auth.backends.ModelBackend")
    return told(request.chat_session)


async def careless(request: ChatRequest):
    return told(request.chat_session)


urlpatterns = [
    path("plain", plain),
    path("aplain", aplain),
    path("page", page),
    path("apage", apage),
    path("context", context),
    path("acontext", acontext),
    path("leaving", leaving),
    path("entering", entering),
    path("careless", careless),
    path("api/", include(([path("page", page), path("apage", apage)], "chat_sessions"))),
    path("renamed/", include(([path("page", page)], "chat_sessions"), namespace="elsewhere")),
]


@dataclass
class Browser:
    """A client of either kind, with views of its kind."""

    client: Any
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, name: str, **extra: Any) -> HttpResponse:
        folder, _, view = name.rpartition("/")
        url = f"/{folder}/{self.prefix}{view}" if folder else f"/{self.prefix}{view}"
        get = async_to_sync(self.client.get) if self.prefix else self.client.get
        return get(url, headers=self.headers, **extra)

    def seen(self, name: str = "page", **extra: Any) -> str | None:
        response = self.get(name, **extra)
        assert response.status_code == 200
        return response.json()["session"]

    def name(self, session: Any, by: str = "cookie") -> None:
        public_id = str(getattr(session, "uuid", session))
        if by == "cookie":
            self.client.cookies["chat_session"] = public_id
        else:
            self.headers["X-Chat-Session"] = public_id


@pytest.fixture(autouse=True)
def _site(settings):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = MIDDLEWARE


@pytest.fixture(params=["sync", "async"])
def anybody(request) -> Browser:
    return Browser(Client()) if request.param == "sync" else Browser(AsyncClient(), "a")


@pytest.fixture
def browser(anybody, alice) -> Browser:
    anybody.client.force_login(alice)
    return anybody


def queries(browser: Browser, name: str) -> list[str]:
    """Return what a page costs beyond knowing its user."""
    with CaptureQueriesContext(connection) as captured:
        assert browser.get(name).status_code == 200
    return [query["sql"] for query in captured if "django_session" not in query["sql"] and "user" not in query["sql"]]


# -- which session


@pytest.mark.parametrize("by", ["header", "cookie"])
def test_the_session_that_a_page_names_is_there(browser, alice, by):
    session = make_session(alice)
    browser.name(session, by)
    assert browser.seen() == str(session.uuid)


def test_the_header_wins_over_the_cookie(browser, alice):
    by_header, by_cookie = make_session(alice), make_session(alice)
    browser.name(by_header, "header")
    browser.name(by_cookie, "cookie")
    assert browser.seen() == str(by_header.uuid)


@pytest.mark.parametrize("by", ["header", "cookie"])
def test_somebody_elses_session_is_not_there_and_not_kept_alive(browser, bob, by):
    session = age(make_session(bob), minutes=4)
    browser.name(session, by)
    assert browser.seen() is None
    before = session.last_activity_at, session.expires_at
    session.refresh_from_db()
    assert (session.last_activity_at, session.expires_at) == before


def test_a_foreign_header_does_not_fall_back_to_the_cookie(browser, alice, bob):
    browser.name(make_session(bob), "header")
    browser.name(make_session(alice), "cookie")
    assert browser.seen() is None


@pytest.mark.parametrize("text", ["", "x", "1", "a" * 4000, "../etc", "é", "2f0c9b0e-5d0f-4a53-9b7e-6c1c7f3f6f10"])
@pytest.mark.parametrize("by", ["header", "cookie"])
def test_what_is_no_id_of_a_session_names_none(browser, text, by):
    if by == "header" and not text.isascii():
        pytest.skip("a header is ASCII")
    browser.name(text, by)
    assert browser.seen() is None


def test_nobody_has_no_session(anybody, alice):
    session = make_session(alice)
    anybody.name(session)
    assert anybody.seen() is None


def test_a_session_that_is_over_is_still_there_to_read(browser, alice):
    session = age(make_session(alice), days=1)
    browser.name(session)
    assert browser.seen() == str(session.uuid)


def test_leaving_hides_the_session_within_the_same_request(alice):
    client = Client()
    client.force_login(alice)
    client.cookies["chat_session"] = str(make_session(alice).uuid)
    assert client.get("/leaving").json() == {"session": None}


def test_entering_shows_it_within_the_same_request(alice):
    client, session = Client(), make_session(alice)
    client.cookies["chat_session"] = str(session.uuid)
    assert client.get("/entering").json() == {"session": str(session.uuid)}


def test_without_authentication_there_is_no_session_and_no_error(anybody, alice, settings):
    settings.MIDDLEWARE = MIDDLEWARE[-1:]
    settings.CHAT_SESSIONS = {"CREATE_SESSIONS": True}
    anybody.name(make_session(alice))
    assert anybody.seen() is None


def test_a_careless_async_view_is_told(alice):
    client = AsyncClient()
    client.force_login(alice)
    client.cookies["chat_session"] = str(make_session(alice).uuid)
    with pytest.raises(SynchronousOnlyOperation):
        async_to_sync(client.get)("/careless")


def test_a_database_that_fails_does_not_fail_the_page(browser, alice, monkeypatch, caplog):
    browser.name(make_session(alice))

    def broken(*args, **kwargs):
        raise OperationalError("gone")

    monkeypatch.setattr(sessions, "touch", broken)
    assert browser.get("plain").status_code == 200
    assert "could not be noted" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_session_that_cannot_be_read_does_not_fail_the_page(browser, alice, monkeypatch, caplog):
    browser.name(make_session(alice))

    def broken(*args, **kwargs):
        raise OperationalError("gone")

    monkeypatch.setattr("django_chat_sessions.querysets.ChatSessionQuerySet.named", broken)
    assert browser.seen() is None
    assert "could not be read" in caplog.text


# -- caches


def test_an_answer_that_depends_on_the_session_says_so(browser):
    vary = browser.get("page").headers["Vary"]
    assert "Cookie" in vary
    assert "X-Chat-Session" in vary


def test_an_answer_that_does_not_says_nothing(browser):
    assert "X-Chat-Session" not in browser.get("plain").headers.get("Vary", "")


# -- the context of a responder


def test_the_context_tells_who_asked_and_from_where(browser, alice):
    session = make_session(alice)
    browser.name(session)
    browser.headers |= {"X-Chat-Client": "tab-1", "User-Agent": "Firefox"}
    told = browser.get("context").json()
    assert told.pop("at")
    assert told == {
        "user": "alice",
        "session": str(session.uuid),
        "metadata": {"client": "tab-1", "user_agent": "Firefox", "path": f"/{browser.prefix}context"},
    }


def test_the_context_of_a_nameless_page_has_no_session(anybody):
    assert anybody.get("context").json()["session"] is None


# -- activity


def test_a_page_view_is_activity_and_moves_the_deadline(browser, alice):
    session = age(make_session(alice), minutes=4)
    before = session.last_activity_at, session.expires_at
    browser.name(session)
    browser.get("plain")
    session.refresh_from_db()
    assert session.last_activity_at > before[0]
    assert session.expires_at > before[1]


def test_the_page_sees_the_deadline_that_its_view_moved(browser, alice):
    session = age(make_session(alice), minutes=4)
    browser.name(session)
    statements = queries(browser, "page")
    assert [sql.partition(" ")[0] for sql in statements] == ["SELECT", "UPDATE", "SELECT"]


def test_a_page_view_hides_no_coming_back(browser, alice):
    session = make_session(alice)
    say(session, "hello")
    age(session, minutes=10)
    browser.name(session)
    before = session.expires_at
    browser.get("plain")
    session.refresh_from_db()
    assert session.expires_at > before
    say(session, "I am back")
    types = list(session.events.order_by("sequence").values_list("type", flat=True))
    assert types[-2:] == [EventType.SESSION_RESUMED, EventType.MESSAGE]


def test_a_page_view_does_not_wake_what_is_over(browser, alice):
    session = age(make_session(alice), days=1)
    browser.name(session)
    before = session.expires_at
    browser.get("plain")
    session.refresh_from_db()
    assert session.expires_at == before


@pytest.mark.parametrize("mount", ["api/page", "renamed/page"])
def test_reading_over_the_api_is_not_activity(alice, mount):
    browser = Browser(Client())
    browser.client.force_login(alice)
    session = age(make_session(alice), minutes=4)
    browser.name(session)
    before = session.last_activity_at
    assert browser.seen(mount) == str(session.uuid)
    session.refresh_from_db()
    assert session.last_activity_at == before


def test_reading_over_the_api_in_async_code_is_not_activity(alice):
    browser = Browser(AsyncClient(), "a")
    browser.client.force_login(alice)
    session = age(make_session(alice), minutes=4)
    browser.name(session)
    before = session.last_activity_at
    assert browser.seen("api/page") == str(session.uuid)
    session.refresh_from_db()
    assert session.last_activity_at == before


# -- what it costs


def test_a_page_that_names_no_session_costs_no_query(browser, django_assert_num_queries):
    with django_assert_num_queries(0):
        browser.get("plain")
    with django_assert_num_queries(0):
        assert browser.seen() is None


def test_a_page_view_within_the_interval_costs_no_query(browser, alice, django_assert_num_queries):
    browser.name(age(make_session(alice), minutes=4))
    first = queries(browser, "plain")
    assert [sql.partition(" ")[0] for sql in first] == ["SELECT", "UPDATE"]
    with django_assert_num_queries(0):
        browser.get("plain")
    assert [sql.partition(" ")[0] for sql in queries(browser, "page")] == ["SELECT"]


def test_another_process_within_the_interval_changes_nothing(browser, alice):
    session = age(make_session(alice), minutes=4)
    browser.name(session)
    browser.get("plain")
    session.refresh_from_db()
    before = session.last_activity_at
    middleware.touched.forget(session.uuid)
    browser.get("plain")
    session.refresh_from_db()
    assert session.last_activity_at == before


def test_a_foreign_name_is_looked_up_once_in_the_interval(browser, bob):
    browser.name(make_session(bob))
    assert len(queries(browser, "plain")) == 1
    assert queries(browser, "plain") == []


def test_a_shorter_interval_counts_at_once(browser, alice, settings):
    settings.CHAT_SESSIONS = {"TOUCH_INTERVAL": 0}
    session = make_session(alice)
    browser.name(session)
    for _ in range(2):
        before = session.last_activity_at
        browser.get("plain")
        session.refresh_from_db()
        assert session.last_activity_at > before


def test_memory_is_bounded_and_forgets_the_oldest():
    from datetime import timedelta

    recent = middleware.Recent(size=2)
    for key in ("a", "b", "a", "c"):
        recent.note(key)
    minute = timedelta(minutes=1)
    assert [recent.has(key, within=minute) for key in "abc"] == [True, False, True]
    assert not recent.has("c", within=timedelta(0))


def test_async_requests_that_need_no_database_change_no_thread(monkeypatch):
    async def view(request):
        return told(await request.achat_session())

    def hop(*args, **kwargs):
        raise AssertionError("a thread hop")

    monkeypatch.setattr(middleware, "sync_to_async", hop)
    handler = ChatSessionMiddleware(view)
    assert iscoroutinefunction(handler)
    assert iscoroutinefunction(handler.process_view)

    async def request():
        request = RequestFactory().get("/")
        await handler.process_view(request, view, (), {})
        return await handler(request)

    assert asyncio.run(request()).status_code == 200


class SyncOnly:
    """A host's old middleware."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)


class Replacing(SyncOnly):
    """A host's middleware that goes on with a request of its own."""

    def __call__(self, request):
        other = RequestFactory().get(request.path)
        other.COOKIES, other.user = request.COOKIES, request.user
        return self.get_response(other)


@pytest.mark.parametrize("place", [0, 2, 3])
def test_it_stands_between_middlewares_of_either_kind(browser, alice, settings, place):
    settings.MIDDLEWARE = [*MIDDLEWARE[:place], f"{__name__}.SyncOnly", *MIDDLEWARE[place:]]
    session = age(make_session(alice), minutes=4)
    browser.name(session)
    before = session.last_activity_at
    assert browser.seen() == str(session.uuid)
    session.refresh_from_db()
    assert session.last_activity_at > before


def test_a_request_that_another_middleware_made_is_left_alone(alice, settings):
    settings.MIDDLEWARE = [*MIDDLEWARE, f"{__name__}.Replacing"]
    client = Client()
    client.force_login(alice)
    client.cookies["chat_session"] = str(make_session(alice).uuid)
    assert client.get("/plain").status_code == 200


def test_twice_in_the_chain_is_harmless(browser, alice, settings):
    settings.MIDDLEWARE = [*MIDDLEWARE, MIDDLEWARE[-1]]
    session = make_session(alice)
    browser.name(session)
    assert browser.seen() == str(session.uuid)
