"""A real streaming replica: what it answers, and what the primary does because the replica lags, is away, or unsure."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.core.cache.backends.base import BaseCache
from django.db import InternalError, connections, router
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory

from django_chat_sessions import replicas, routers
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import sessions
from django_chat_sessions.testing import say
from tests import databases
from tests.replicas.standby import Standby

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.usefixtures("running_standby"),
    pytest.mark.django_db(transaction=True, databases=["default", "replica"]),
]

AnsweredBy = Callable[[Callable[[], Any]], tuple[str, Any]]

READS = (
    "", "/messages", "/messages/2", "/events", "/runs", "/children", "/summary", "/state", "/context", "/export",
    "/export?as=jsonl", "/export?as=markdown",
)  # fmt: skip


# ------------------------------------------------------------------------------------------------- what it answers


@pytest.mark.parametrize("path", READS)
def test_what_only_reads_is_answered_by_the_replica(call: Any, answered_by: AnsweredBy, path: str) -> None:
    alice = call("alice")
    by, answer = answered_by(lambda: alice.get(path))
    assert (by, answer.status_code) == ("replica", 200)


def test_lists_and_figures_are_answered_by_the_replica(
    call: Any, answered_by: AnsweredBy, django_user_model: Any
) -> None:
    alice = call("alice")
    by, answer = answered_by(lambda: alice.api.get("/api/chat/sessions"))
    assert (by, [each["id"] for each in answer.json()["results"]]) == ("replica", [str(alice.session.uuid)])
    django_user_model.objects.filter(pk=alice.user.pk).update(is_staff=True, is_superuser=True)
    alice.api.force_authenticate(django_user_model.objects.get(pk=alice.user.pk))
    by, answer = answered_by(lambda: alice.api.get("/api/chat/sessions/metrics"))
    assert (by, answer.json()["messages"]) == ("replica", 2)


@pytest.mark.parametrize(("path", "status"), [("/events?wait=0.1", 200), ("/stream", 406)])
def test_who_waits_for_what_is_about_to_be_written_stays_on_the_primary(
    call: Any, answered_by: AnsweredBy, path: str, status: int
) -> None:
    alice = call("alice")
    by, answer = answered_by(lambda: alice.get(path))
    assert (by, answer.status_code) == ("primary", status)


def test_strangers_find_nothing_on_the_replica_either(call: Any, answered_by: AnsweredBy) -> None:
    alice, bob = call("alice"), call("bob")
    by, answer = answered_by(lambda: bob.api.get(alice.path))
    assert (by, answer.status_code, answer.json()["code"]) == ("replica", 404, "session_not_found")


# ------------------------------------------------------------------------------------------------- reading one's writes


def test_who_wrote_reads_it_at_once_though_the_replica_lags(
    standby: Standby, call: Any, answered_by: AnsweredBy
) -> None:
    alice, bob = call("alice"), call("bob")
    with standby.paused():
        alice.write("Just now")
        by, said = answered_by(alice.said)
        assert (by, said[-1]) == ("primary", "Just now")
        assert answered_by(bob.said)[0] == "replica"
    by, said = answered_by(alice.said)
    assert (by, said[-1]) == ("replica", "Just now")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/heartbeat", {}), ("/renew", {}), ("/end", {"reason": "done"}), ("/resume", {})],
)
def test_what_writes_no_message_is_read_at_once_too(
    standby: Standby, call: Any, answered_by: AnsweredBy, path: str, body: dict[str, Any]
) -> None:
    alice = call("alice")
    with standby.paused():
        answer = alice.api.post(f"{alice.path}{path}", body)
        assert answer.status_code == 200
        by, found = answered_by(alice.get)
    told = answer.json().get("session") or answer.json()
    assert (by, found.json()["expires_at"], found.json()["status"]) == ("primary", told["expires_at"], told["status"])


def test_what_was_deleted_is_gone_at_once(standby: Standby, call: Any) -> None:
    alice = call("alice")
    with standby.paused():
        assert alice.api.delete(alice.path).status_code == 204
        assert alice.get().status_code == 404
        assert alice.api.get("/api/chat/sessions").json()["results"] == []


def test_another_process_knows_who_wrote(
    standby: Standby, call: Any, answered_by: AnsweredBy, subprocess_environment: dict[str, str], shared_cache: Any
) -> None:
    alice = call("alice")
    replica = databases.url_of(connections.settings["replica"])
    program = (
        "import sys, django; django.setup()\n"
        "from django_chat_sessions.models import ChatSession\n"
        "from django_chat_sessions.testing import say\n"
        "say(ChatSession.objects.get(uuid=sys.argv[1]), 'Said elsewhere', role='assistant')\n"
    )
    environment = subprocess_environment | {
        "DJANGO_SETTINGS_MODULE": "tests.replicas.settings",
        "REPLICA_URL": replica,
        "NOTES": shared_cache._dir,
    }
    with standby.paused():
        assert answered_by(alice.said)[0] == "replica"
        subprocess.run([sys.executable, "-c", program, str(alice.session.uuid)], env=environment, check=True)
        by, said = answered_by(alice.said)
    assert (by, said[-1]) == ("primary", "Said elsewhere")


def test_what_is_written_outside_of_a_request_is_read_at_once_too(
    standby: Standby, call: Any, answered_by: AnsweredBy
) -> None:
    alice = call("alice")
    with standby.paused():
        # As an agent does, in a thread of its own.
        say(alice.session, "While nobody asked", role="assistant")
        by, said = answered_by(alice.said)
    assert (by, said[-1]) == ("primary", "While nobody asked")


def test_within_a_request_that_wrote_the_primary_is_read(standby: Standby, call: Any) -> None:
    alice = call("alice")
    seen = []

    def view(request: Any) -> HttpResponse:
        seen.append(router.db_for_read(ChatSession, reader=alice.user))
        found = ChatSession.objects.using(seen[0]).get(pk=alice.session.pk)
        assert router.db_for_write(ChatSession, instance=found) == "default"
        seen.append(router.db_for_read(ChatSession, reader=alice.user))
        seen.append(router.db_for_read(ChatSession, instance=found))
        return HttpResponse()

    request = RequestFactory().get("/")
    request.user = alice.user
    with standby.paused():
        # Something that is in no replica, so that a note is one.
        ChatSession.objects.filter(pk=alice.session.pk).update(title="Moved on")
        routers.ReplicaMiddleware(view)(request)
        by = router.db_for_read(ChatSession, reader=alice.user)
    assert seen == ["replica", "default", "default"]
    assert by == "default"


def test_requests_of_pages_note_what_they_wrote(standby: Standby, call: Any, answered_by: AnsweredBy) -> None:
    alice = call("alice")

    def view(request: Any) -> HttpResponse:
        sessions.heartbeat(ChatSession.objects.get(pk=alice.session.pk))
        return HttpResponse()

    request = RequestFactory().get("/")
    request.user = alice.user
    with standby.paused():
        routers.ReplicaMiddleware(view)(request)
        assert answered_by(alice.get)[0] == "primary"


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_sync_and_async_requests_note_and_read(
    standby: Standby, call: Any, answered_by: AnsweredBy, client: Any
) -> None:
    from rest_framework.authtoken.models import Token

    alice = call("alice")
    header = {"Authorization": f"Token {Token.objects.create(user=alice.user).key}"}
    caller = client()
    get, post = (caller.get, caller.post) if client is Client else map(async_to_sync, (caller.get, caller.post))
    with standby.paused():
        assert answered_by(lambda: get(alice.path, headers=header))[0] == "replica"
        body = {"content": "Over there", "delivery": "store"}
        answer = post(f"{alice.path}/messages", body, content_type="application/json", headers=header)
        assert answer.status_code == 201
        assert answered_by(lambda: get(alice.path, headers=header))[0] == "primary"


# ------------------------------------------------------------------------------------------------- doubts


def test_of_whom_nothing_is_known_the_primary_answers_once(
    call: Any, answered_by: AnsweredBy, standby: Standby, shared_cache: Any
) -> None:
    alice = call("alice")
    shared_cache.clear()
    assert answered_by(alice.get)[0] == "primary"
    standby.caught_up()
    assert answered_by(alice.get)[0] == "replica"


def test_a_replica_that_is_away_is_not_missed(
    standby: Standby, call: Any, answered_by: AnsweredBy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "AWAY_SECONDS", 3600.0)
    alice = call("alice")
    standby.stop()
    try:
        by, answer = answered_by(alice.get)
        assert (by, answer.status_code) == ("primary", 200)
    finally:
        standby.start()
    assert answered_by(alice.get)[0] == "primary", "it is not asked again at once"
    router.routers[0].known._away_until.clear()
    assert answered_by(alice.get)[0] == "replica"


def test_what_a_replica_fails_to_answer_the_primary_does(standby: Standby, call: Any, answered_by: AnsweredBy) -> None:
    alice = call("alice")
    connections["replica"].ensure_connection()
    backend = connections["replica"].connection.info.backend_pid

    def kill(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "chat_sessions_chatsession" in sql:
            standby.ask(f"SELECT pg_terminate_backend({backend}, 5000)")
        return execute(sql, params, many, context)

    with connections["replica"].execute_wrapper(kill):
        by, answer = answered_by(alice.get)
    assert (by, answer.status_code) == ("primary and replica", 200)
    assert answer.json()["id"] == str(alice.session.uuid)


def test_what_is_not_there_on_the_primary_either_is_not_found(standby: Standby, call: Any) -> None:
    alice = call("alice")

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "chat_sessions_chatsession" in sql:
            sql, params = "SELECT 1 / 0", None
        return execute(sql, params, many, context)

    with connections["replica"].execute_wrapper(fail):
        answer = alice.api.get(f"/api/chat/sessions/{uuid4()}")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


def test_a_replica_that_lags_for_too_long_answers_nobody(
    standby: Standby, call: Any, answered_by: AnsweredBy, settings: Any
) -> None:
    alice = call("alice")
    settings.DATABASE_ROUTERS = ["tests.replicas.test_streaming_replica.Impatient"]
    # The server writes on its own account, too, now and then, and so it lags for a moment.
    until = time.monotonic() + 20
    while answered_by(alice.get)[0] != "replica":
        assert time.monotonic() < until
        standby.caught_up()
    with standby.paused():
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_logical_emit_message(false, 'somebody', 'writes', true)")
        alice.get()
        assert answered_by(alice.get)[0] == "primary"


class Impatient(routers.ReplicaRouter):
    max_lag_seconds = 0.0


def test_a_server_that_is_no_replica_is_not_trusted(call: Any, answered_by: AnsweredBy, settings: Any) -> None:
    alice = call("alice")
    connections["replica"].close()
    # As after a failover, when the name leads to the new primary.
    connections["replica"].settings_dict = connections["default"].settings_dict
    assert answered_by(alice.get)[0] == "primary"


def test_a_cache_that_other_processes_do_not_see_is_not_trusted(
    call: Any, answered_by: AnsweredBy, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    alice = call("alice")
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    for _ in range(2):
        assert answered_by(alice.get)[0] == "primary"
    assert caplog.text.count("Replicas are not used") == 1


class Broken(BaseCache):
    """A cache whose server is away."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def get(self, *_: Any, **__: Any) -> Any:
        raise ConnectionError

    set = delete = get


def test_without_the_cache_the_primary_answers(call: Any, answered_by: AnsweredBy, settings: Any) -> None:
    alice = call("alice")
    settings.CACHES = {"default": {"BACKEND": "tests.replicas.test_streaming_replica.Broken"}}
    alice.write("All the same")
    by, said = answered_by(alice.said)
    assert (by, said[-1]) == ("primary", "All the same")


def test_within_a_transaction_of_the_caller_the_primary_is_read(call: Any, answered_by: AnsweredBy) -> None:
    from django.db import transaction

    alice = call("alice")
    with transaction.atomic():
        alice.write("Not committed yet")
        by, said = answered_by(alice.said)
    assert (by, said[-1]) == ("primary", "Not committed yet")


def test_while_the_primary_is_away_the_replica_answers_and_nothing_fails_for_a_note(
    call: Any, answered_by: AnsweredBy, caplog: pytest.LogCaptureFixture
) -> None:
    alice = call("alice")
    primary = connections["default"]
    there = primary.settings_dict
    primary.close()
    primary.settings_dict = there | {"OPTIONS": there["OPTIONS"] | {"host": "/nowhere"}}
    try:
        by, answer = answered_by(alice.get)
        refused = alice.api.post(f"{alice.path}/messages", {"content": "Hello?", "delivery": "store"})
    finally:
        primary.settings_dict = there
    assert (by, answer.status_code) == ("replica", 200)
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert "It cannot be noted who wrote" in caplog.text
    # Nobody knows what came of that.
    assert answered_by(alice.get)[0] == "primary"


# ------------------------------------------------------------------------------------------------- nothing writes there


def test_a_replica_takes_no_writes(standby: Standby, call: Any) -> None:
    alice = call("alice")
    with connections["replica"].cursor() as cursor, pytest.raises(InternalError, match="read-only"):
        cursor.execute("UPDATE chat_sessions_chatsession SET title = 'x'")
    found = ChatSession.objects.using("replica").get(pk=alice.session.pk)
    found.title = "Saved where it can be"
    found.save(update_fields=["title"])
    assert ChatSession.objects.using("default").get(pk=found.pk).title == "Saved where it can be"


def test_what_comes_from_the_replica_may_be_related_to_what_comes_from_the_primary(call: Any) -> None:
    alice = call("alice")
    found = ChatSession.objects.using("replica").get(pk=alice.session.pk)
    found.owner = alice.user
    found.parent = alice.session
    assert router.db_for_read(ChatSession, instance=found) == "replica"
    assert router.db_for_write(ChatSession, instance=found) == "default"


def test_a_replica_is_never_migrated(standby: Standby) -> None:
    assert not router.allow_migrate("replica", "chat_sessions")
    assert not router.allow_migrate("replica", "auth")
    assert router.allow_migrate("default", "chat_sessions")
