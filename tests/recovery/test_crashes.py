"""A server is killed, or held, while it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from django_chat_sessions.choices import EventType
from django_chat_sessions.models import Run, SessionEvent
from tests.recovery.conftest import GO, KILL, STALE, STOP, Sweep, Talk, eventually
from tests.streams.conftest import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

#: Where the agent is when its server dies: what it is asked, what it has said by then, and how many messages.
MOMENTS = {
    "before the first word": ("stay one two", "", 0),
    "after some words": ("one two slow three stay four", "one two three ", 0),
    "when a tool is called": ("looking call stay result so there", "looking ", 1),
    "when a tool has answered": ("looking call result stay so there", "looking ", 2),
    "when all is said": ("one slow two slow state event stay", "one two ", 0),
}


def whole(content: str) -> str:
    """Return what the answer's last message says."""
    words = content.rpartition("result")[2].split()
    return "".join(f"{word} " for word in words if word not in {"stay", "slow", "state", "event"})


def is_reached(talk: Talk, moment: str) -> bool:
    _, said, messages = MOMENTS[moment]
    stored = talk.session.events.filter(type=EventType.MESSAGE).exclude(role="user").count()
    return talk.status() == "running" and talk.said == said and stored == messages


def test_an_answer_whose_server_is_killed_is_kept_or_begun_anew(
    start_servers: Callable[..., list[Server]], sweeping: Callable[..., Sweep]
) -> None:
    sweep = sweeping("--loop", "--interval", "0.3")
    first, second = start_servers(2)
    kinds = ("script", "script_async")
    once = [(m, Talk.begin(first, f"{kind}_once", MOMENTS[m][0])) for kind in kinds for m in MOMENTS]
    thrice = [(m, Talk.begin(first, f"{kind}_thrice", MOMENTS[m][0])) for kind in kinds for m in MOMENTS]
    sweep.wait_until_up()
    for moment, talk in [*once, *thrice]:
        eventually(lambda talk=talk, moment=moment: is_reached(talk, moment), f"it to be {moment}")
    first.kill()
    for _, talk in [*once, *thrice]:
        talk.come_back(second)
    for moment, talk in once:
        assert_given_up(talk, *MOMENTS[moment])
    for moment, talk in thrice:
        assert_begun_anew(talk, *MOMENTS[moment])


def assert_given_up(talk: Talk, content: str, said: str, messages: int) -> None:
    assert talk.wait_over(STALE + 8) == "failed"
    talk.wait_read()
    assert (talk.run.error, talk.run.attempt) == ("ProcessLost", 1)
    assert talk.types()[-1] == "run.failed"
    talk.assert_read_once_and_in_order()
    texts = talk.conversation()
    assert texts[0] == ("user", content)
    if messages:
        assert texts[1:] == [("assistant", said), ("tool", "found")][:messages]
        assert talk.run.output_sequence is not None
    elif said:
        assert texts[1:] == [("assistant", said)]
        kept = SessionEvent.objects.get(session=talk.session, sequence=talk.run.output_sequence)
        assert kept.data["metadata"] == {"cut_short": "failed"}
    else:
        assert texts[1:] == []
        assert talk.run.output_sequence is None
    talk.assert_usable()


def assert_begun_anew(talk: Talk, content: str, said: str, messages: int) -> None:
    assert talk.wait_over(STALE + 8) == "succeeded"
    talk.wait_read()
    assert (talk.run.error, talk.run.attempt) == ("", 2)
    talk.assert_read_once_and_in_order()
    starts = [frame.data["data"] for frame in talk.frames if frame.type == "run.started"]
    assert [start["attempt"] for start in starts] == [1, 2]
    assert len(starts[1].get("supersedes", ())) == (messages or bool(said))
    texts = [("user", content)]
    if messages:
        texts += [("assistant", "looking "), ("tool", "found")]
    assert talk.conversation() == [*texts, ("assistant", whole(content))]
    talk.assert_usable()


def test_after_the_last_attempt_an_answer_is_given_up(
    start_servers: Callable[..., list[Server]], sweeping: Callable[..., Sweep]
) -> None:
    for sweep in [sweeping("--loop", "--interval", "0.3") for _ in range(3)]:
        sweep.wait_until_up()
    reading, giving = start_servers(2)
    talk = Talk.begin(giving, "script_thrice", "one stay! two")
    for attempt in (1, 2, 3):
        talk.reader.wait_for(lambda frames, n=attempt: sum(frame.type == "message.delta" for frame in frames) == n)
        assert (talk.status(), talk.run.attempt) == ("running", attempt)
        os.kill(talk.giver(), KILL)
        talk.come_back(reading)
    assert talk.wait_over() == "failed"
    talk.wait_read()
    assert (talk.run.error, talk.run.attempt) == ("ProcessLost", 3)
    assert talk.conversation() == [("user", "one stay! two"), ("assistant", "one ")]
    talk.assert_read_once_and_in_order()
    talk.assert_usable()


def test_a_server_that_was_held_writes_nothing_more(
    start_servers: Callable[..., list[Server]], sweeping: Callable[..., Sweep]
) -> None:
    """Held in mid-answer, until another process has begun it anew, and then let go."""
    sweeps = [sweeping("--loop", "--interval", "0.2") for _ in range(2)]
    for sweep in sweeps:
        sweep.wait_until_up()
    held, other = start_servers(2)
    contents = [
        "one two slow slow slow slow slow slow slow slow three",
        "call slow slow slow slow slow slow result event so",
    ]
    talks = [Talk.begin(held, f"{kind}_thrice", content) for kind in ("script", "script_async") for content in contents]
    eventually(lambda: all(talk.said or talk.session.events.count() > 3 for talk in talks), "some words")
    held.signal(STOP)
    try:
        for talk in talks:
            talk.come_back(other)
        eventually(lambda: all(Run.objects.get(pk=talk.run.pk).attempt == 2 for talk in talks), "the second attempts")
    finally:
        held.signal(GO)
    for talk in talks:
        assert talk.wait_over() == "succeeded"
    # Time enough for the one that was held to say the rest.
    time.sleep(2)
    for talk in talks:
        talk.wait_read()
        assert talk.run.attempt == 2
        assert [text for role, text in talk.conversation() if role == "assistant"][-1] in {"one two three ", "so "}
        assert talk.types().count("app.progress") == ("event" in talk.run.session.events.get(sequence=2).content)
        assert talk.types().count("run.started") == 2
        talk.assert_read_once_and_in_order()
        talk.assert_usable()
    assert all(sweep.process.poll() is None for sweep in sweeps)
