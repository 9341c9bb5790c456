"""The router and the middleware where there is no replica, and what is none of their business."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import MiddlewareNotUsed
from django.db import OperationalError, connection, router

from django_chat_sessions import replicas
from django_chat_sessions.models import ChatSession
from django_chat_sessions.replicas import Floor, Position
from django_chat_sessions.routers import ReplicaMiddleware, ReplicaRouter
from django_chat_sessions.testing import make_session

ROUTER = "django_chat_sessions.routers.ReplicaRouter"
MIDDLEWARE = "django_chat_sessions.routers.ReplicaMiddleware"


@pytest.fixture
def installed(settings: Any) -> None:
    settings.DATABASE_ROUTERS = [ROUTER]
    settings.MIDDLEWARE = [MIDDLEWARE, *settings.MIDDLEWARE]


@pytest.mark.django_db
@pytest.mark.usefixtures("installed")
def test_without_a_replica_everything_is_as_without_the_router(
    alice: Any, api_of: Any, django_assert_num_queries: Any
) -> None:
    session = make_session(alice)
    with django_assert_num_queries(1):
        assert api_of(alice).get(f"/api/chat/sessions/{session.uuid}").status_code == 200
    answer = api_of(alice).post(f"/api/chat/sessions/{session.uuid}/messages", {"content": "Hi", "delivery": "store"})
    assert answer.status_code == 201


@pytest.mark.usefixtures("installed")
def test_other_apps_are_routed_as_before() -> None:
    routing = ReplicaRouter()
    assert routing.db_for_read(get_user_model()) is None
    assert routing.db_for_write(get_user_model()) is None
    assert routing.allow_relation(get_user_model()(), get_user_model()()) is None
    assert router.db_for_read(ChatSession) == "default"


def test_middleware_without_the_router_is_left_out() -> None:
    with pytest.raises(MiddlewareNotUsed):
        ReplicaMiddleware(lambda request: None)


@pytest.mark.parametrize("text", ["0/0", "0/16B3748", "16/B374D848", "FFFFFFFF/FFFFFFFF"])
def test_positions_are_read_and_written_as_postgresql_does(text: str) -> None:
    assert str(Position.parse(text)) == text


@pytest.mark.postgres
@pytest.mark.django_db
def test_positions_are_ordered_as_postgresql_orders_them() -> None:
    texts = ["0/FFFFFFFF", "1/0", "1/A0", "A/0", "10/0"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT array_agg(t ORDER BY t::pg_lsn) FROM unnest(%s::text[]) t", [texts[::-1]])
        assert sorted(texts, key=Position.parse) == cursor.fetchone()[0] == texts


def test_how_far_a_replica_may_be_behind_does_not_grow_while_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, place = [0.0], [100]
    monkeypatch.setattr(replicas, "monotonic", lambda: clock[0])
    monkeypatch.setattr(replicas, "position_of", lambda alias: Position(place[0]))
    floor = Floor("default", 10.0)

    def at(seconds: float, position: int) -> int | None:
        clock[0], place[0] = seconds, position
        return floor.get()

    assert at(0, 100) == 100
    assert at(6, 200) == 100
    assert at(9, 300) == 100
    assert at(12, 400) == 200
    assert at(3612, 900) == 900


def test_while_the_primary_is_away_its_last_place_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(replicas, "monotonic", lambda: clock[0])
    monkeypatch.setattr(replicas, "position_of", lambda alias: Position(100))
    floor = Floor("default", 10.0)
    assert floor.get() == 100

    def away(alias: str) -> Position:
        raise OperationalError

    monkeypatch.setattr(replicas, "position_of", away)
    clock[0] = 3600
    assert floor.get() == 100
    assert Floor("default", 10.0).get() is None
