"""The database is away in mid-answer; many answers are given, and a server is killed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connection, connections, transaction

from django_chat_sessions.models import ChatSession, Run, SessionEvent
from django_chat_sessions.operations import verification
from tests.recovery.conftest import Sweep, Talk, eventually
from tests.streams.conftest import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@contextmanager
def away() -> Iterator[None]:
    """Let nobody at the test's database, and throw out who is there."""
    import psycopg

    name = connection.settings_dict["NAME"]
    connections.close_all()
    parameters = connection.get_connection_params() | {"dbname": "postgres"}
    for unknown in ("cursor_factory", "context", "prepare_threshold", "server_side_binding"):
        parameters.pop(unknown, None)
    with psycopg.connect(autocommit=True, **parameters) as outside:
        outside.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            outside.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            outside.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


SLOW = " ".join(["slow"] * 10)


@pytest.mark.postgres
def test_answers_go_on_when_the_database_comes_back(start_servers: Callable[..., list[Server]]) -> None:
    (server,) = start_servers(1)
    contents = [f"a slow b {SLOW} c d", f"a call {SLOW} result b", f"a state {SLOW} event b", "slow slow slow a"]
    talks = [Talk.begin(server, f"{kind}_once", content) for kind in ("script", "script_async") for content in contents]
    eventually(lambda: sum(bool(talk.said) for talk in talks) >= 6, "some words")
    with away():
        time.sleep(1.2)
    for talk in talks:
        assert talk.wait_over() == "succeeded", talk.run.error
        talk.come_back(server)
        talk.wait_read()
        talk.assert_read_once_and_in_order()
        assert talk.run.attempt == 1
    for talk in talks:
        talk.assert_usable()


@pytest.mark.postgres
def test_a_session_that_somebody_holds_does_not_make_the_other_answers_look_lost(
    start_servers: Callable[..., list[Server]], sweeping: Callable[..., Sweep]
) -> None:
    (server,) = start_servers(1)
    sweeping("--loop", "--interval", "0.2").wait_until_up()
    held = Talk.begin(server, "script_once", f"a slow b call {SLOW} c slow d")
    others = [Talk.begin(server, "script_async_once", f"a {SLOW} b {SLOW} c") for _ in range(3)]
    eventually(lambda: held.said and all(talk.said for talk in others), "some words")
    with transaction.atomic():
        ChatSession.objects.select_for_update().get(pk=held.session.pk)
        time.sleep(5)
    for talk in [held, *others]:
        assert talk.wait_over() == "succeeded", talk.run.error
        assert talk.run.attempt == 1
        talk.assert_sound()


def test_each_of_a_hundred_questions_has_one_answer_though_a_server_is_killed(
    start_servers: Callable[..., list[Server]], sweeping: Callable[..., Sweep]
) -> None:
    sweeping("--loop", "--interval", "0.3").wait_until_up()
    servers = start_servers(2)

    def ask(number: int) -> None:
        server = servers[number % 2]
        session = server.open("script_thrice" if number % 4 < 2 else "script_async_thrice")
        # Those that are killed are sure to be in the middle.
        stay = "stay" if number > 80 and number % 2 else "slow"
        body = {"content": f"this is {stay} {number}", "delivery": "background"}
        response = server.call("POST", f"sessions/{session}/messages", json=body)
        assert response.status_code == 202, response.text

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(100)]
        eventually(lambda: sum(future.done() for future in asking) == 100, "all questions", 60)
        for future in asking:
            future.result()
        # Odd numbers above 80 stay where they are, on the second server.
        doomed = Run.objects.filter(status="running", worker__contains=f":{servers[1].process.pid}:")
        eventually(lambda: Run.objects.filter(status="succeeded").count() == 90, "most answers", 60)
        eventually(lambda: doomed.count() == 10, "the others under way", 60)
        servers[1].kill()
    eventually(lambda: Run.objects.filter(status="succeeded").count() == 100, "all answers", 60)
    assert Run.objects.filter(attempt=2).count() == 10
    for session in ChatSession.objects.all():
        question, *answers = SessionEvent.objects.filter(session=session).conversation()
        assert [answer.content for answer in answers] == [re.sub("slow |stay ", "", question.content) + " "]
        assert verification.verify(session) == []
