"""A server is told to stop; an answer is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from django_chat_sessions.models import ChatSession, Run, SessionEvent
from tests.recovery.conftest import QUICK, TERM, Sweep, Talk, eventually, settings
from tests.streams.conftest import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

GRACE = QUICK["GRACE_SECONDS"]


class Waiter:
    """Asks, and waits for the answer in a thread."""

    def __init__(self, server: Server, agent: str, content: str) -> None:
        self.session = ChatSession.objects.get(uuid=server.open(agent))
        self._path, self._body = f"sessions/{self.session.uuid}/messages", {"content": content, "delivery": "wait"}
        self._server = server
        self.response: httpx.Response | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        self.response = self._server.call("POST", self._path, json=self._body)

    def told(self, status: int = 201) -> dict[str, Any]:
        self._thread.join(20)
        assert self.response is not None, "no answer"
        assert self.response.status_code == status, self.response.text
        return dict(self.response.json())


def refuses(server: Server) -> bool:
    try:
        server.call("GET", "agents")
    except httpx.TransportError:
        return True
    return False


def test_a_server_that_is_told_to_stop_finishes_what_it_can_and_hands_over_the_rest(
    start_servers: Callable[..., list[Server]], sweeping: Callable[..., Sweep]
) -> None:
    stopping, other = start_servers(2)
    long_once = [Talk.begin(stopping, f"{kind}_once", "one stay two") for kind in ("script", "script_async")]
    long_thrice = [Talk.begin(stopping, f"{kind}_thrice", "one stay two") for kind in ("script", "script_async")]
    quick, slow = (
        Waiter(stopping, "script_once", "slow slow slow done"),
        Waiter(stopping, "script_async_once", "a stay"),
    )
    again = Waiter(stopping, "script_thrice", "one stay two")
    idle = stopping.stream(f"sessions/{stopping.open('echo')}/stream")
    idle.wait_open()
    talks = [*long_once, *long_thrice]
    eventually(lambda: all(talk.said for talk in talks) and Run.objects.filter(status="running").count() == 6, "words")
    quick = Waiter(stopping, "script_once", "slow slow slow slow slow done")
    short = Talk.begin(stopping, "script_once", "one slow slow slow slow slow two")
    talks.append(short)
    eventually(lambda: Run.objects.filter(status="running").count() == 8, "the last two to begin")
    told_at = time.monotonic()
    stopping.signal(TERM)
    for reader in [idle, *(talk.reader for talk in talks)]:
        reader.wait_closed(3)
    eventually(lambda: refuses(stopping), "it to take no more requests", 1)
    stopping.process.wait(GRACE + 6)
    assert time.monotonic() - told_at >= GRACE
    assert (short.status(), short.run.attempt) == ("succeeded", 1)
    for talk in long_once:
        assert (talk.status(), talk.run.error) == ("failed", "ProcessStopped")
        kept = SessionEvent.objects.get(session=talk.session, sequence=talk.run.output_sequence)
        assert (kept.content, kept.data["metadata"]) == ("one ", {"cut_short": "failed"})
    for talk in long_thrice:
        assert (talk.status(), talk.run.attempt) == ("queued", 2)
    assert quick.told()["reply"]["content"] == "done "
    assert slow.told(502)["run"]["error"] == "ProcessStopped"
    assert again.told()["run"]["status"] == "queued"
    # Nobody has to wait until what was handed over looks lost; and who sweeps once gives the answers before it goes.
    once = sweeping()
    assert once.process.wait(40) == 0
    for talk in talks:
        talk.come_back(other)
        talk.wait_read()
        talk.assert_read_once_and_in_order()
    for talk in long_thrice:
        assert (talk.status(), talk.run.attempt) == ("succeeded", 2)
        assert talk.conversation() == [("user", "one stay two"), ("assistant", "one two ")]
    for talk in talks:
        talk.assert_usable()


#: Agents, and what they leave behind where they are stopped.
STOPPED = {
    "script_once": "finally",
    "script_async_once": "cancelled",
    "waiting": "told",
    "computing": "finally",
    "stubborn": "interrupted",
}

#: A second, and what a busy machine needs.
SECOND = 2.0


def test_cancelling_stops_the_agents_work_in_another_process_and_questions_wait_for_their_turn(
    start_servers: Callable[..., list[Server]], traces: Callable[[Run], list[str]]
) -> None:
    working, other = start_servers(2, **settings(RUN_CONCURRENCY=len(STOPPED)))
    talks = {agent: Talk.begin(working, agent, "one stay two") for agent in STOPPED}
    for agent, talk in talks.items():
        eventually(lambda talk=talk: traces(talk.run), f"{agent} to begin")
    eventually(lambda: all(talk.said for agent, talk in talks.items() if agent.startswith("script")), "some words")
    # All hands are busy now.
    waiting = [Talk.begin(working, "script_once", f"slow {number}") for number in range(8)]
    time.sleep(0.5)
    assert {talk.status() for talk in waiting} == {"queued"}
    for agent, talk in talks.items():
        response = other.call("POST", f"sessions/{talk.session.uuid}/runs/{talk.run.uuid}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "cancelled")
        eventually(lambda talk=talk, end=STOPPED[agent]: end in traces(talk.run), f"{agent} to stop", SECOND)
    for talk in waiting:
        assert talk.wait_over() == "succeeded"
    begun = [Run.objects.get(pk=talk.run.pk).started_at for talk in waiting]
    # In order, but for those that began together.
    assert all(earlier < later for earlier, later in zip(begun, begun[len(STOPPED) :], strict=False))
    for agent, talk in talks.items():
        said = [("assistant", "one ")] if agent.startswith("script") else []
        assert talk.conversation() == [("user", "one stay two"), *said]
        assert talk.types()[-1] == "run.cancelled"
        talk.assert_sound()


def test_an_answer_that_is_out_of_time_is_stopped(
    start_servers: Callable[..., list[Server]], traces: Callable[[Run], list[str]]
) -> None:
    (server,) = start_servers(1)
    talk = Talk.begin(server, "hasty_script", "one stay two")
    assert talk.wait_over(5) == "failed"
    assert talk.run.error == "OutOfTime"
    eventually(lambda: "finally" in traces(talk.run), "the agent to stop", SECOND)
    assert talk.conversation()[1:] == [("assistant", "one ")]
