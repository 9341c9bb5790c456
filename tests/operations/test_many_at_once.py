"""What a sweep records of many sessions in one statement is what is recorded of one by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_chat_sessions import agents, dialects, log
from django_chat_sessions.agents import Agent
from django_chat_sessions.choices import TimeoutMode
from django_chat_sessions.models import ChatSession, OutboxEntry, Run
from django_chat_sessions.operations import endings, expiry, sessions
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, types

pytestmark = pytest.mark.django_db

NAME = "it's {100}% drawn"

minutes = st.none() | st.integers(1, 2000)
tiers = st.builds(TimeoutOverrides, st.none() | st.sampled_from(TimeoutMode.values), minutes, minutes, st.none())
#: Of the deadline after the opening.
lengths = st.integers(1, 2100).map(lambda number: timedelta(minutes=number)) | st.timedeltas(
    timedelta(seconds=1), timedelta(days=2)
)


def told(session: ChatSession) -> dict[str, Any]:
    """Return what an expiry leaves: the row, but for who it is, and the event."""
    found, event = fresh(session), last(session)
    names = ("status", "ended_at", "settled_at", "end_reason", "last_sequence", "expires_at", "is_held", "state")
    columns = {name: getattr(found, name) for name in names}
    said = {name: getattr(event, name) for name in ("type", "data", "role", "content", "external_id", "position")}
    return {**columns, **said, "sequence": event.sequence}


@pytest.fixture
def pair(alice, settings):
    """Return a function that draws up two sessions that are the same in all that matters to their expiry."""
    found = [make_session(alice, agent="silent") for _ in range(2)]

    def pair(globally: TimeoutOverrides, agent: TimeoutOverrides, own: TimeoutOverrides, lasts: timedelta) -> Any:
        says = {"TIMEOUT_MODE": globally.mode, **{k.upper(): v for k, v in globally.as_dict().items() if k != "mode"}}
        settings.CHAT_SESSIONS = {name: value for name, value in says.items() if value is not None}
        agents.register(Agent(NAME, timeouts=agent))
        expires_at = dialects.now("default") - timedelta(minutes=1)
        if lasts.microseconds == 0:
            expires_at = expires_at.replace(microsecond=0)
        created_at = expires_at - lasts
        ChatSession.objects.filter(pk__in=[session.pk for session in found]).update(
            agent=NAME, timeout_mode=own.mode, timeout_minutes=own.timeout_minutes,
            max_duration_minutes=own.max_duration_minutes, created_at=created_at, renewed_at=created_at,
            last_activity_at=created_at, expires_at=expires_at, status="created", ended_at=None, settled_at=None,
            end_reason="",
        )  # fmt: skip
        return [fresh(session) for session in found]

    yield pair
    agents.unregister(NAME)


@settings(max_examples=100)
@given(tiers, tiers, tiers, lengths)
@example(TimeoutOverrides(), TimeoutOverrides(), TimeoutOverrides(), timedelta(minutes=720))
@example(TimeoutOverrides(), TimeoutOverrides(), TimeoutOverrides(), timedelta(minutes=720, microseconds=-1))
@example(TimeoutOverrides(), TimeoutOverrides(timeout_minutes=900), TimeoutOverrides(), timedelta(minutes=900))
def test_an_expiry_among_many_is_recorded_as_one_by_itself(pair, spoilt, globally, agent, own, lasts):
    alone, among = pair(globally, agent, own, lasts)
    now = dialects.now("default")
    with transaction.atomic():
        endings.record_expiry(alone, now)
        endings.record_expiries("default", NAME, [among.pk], now)
    assert told(among) == told(alone)
    assert told(among)["data"]["ended_at"] == log.iso(alone.expires_at)


def test_of_many_each_is_recorded_as_it_is(alice):
    found = []
    for number in range(4):
        session = make_session(alice, agent="silent", state={"n": number, "odd": "\x00\ud800"}, title=f"T{number}")
        for _ in range(number):
            say(session, "x", token_count=2)
        found.append(age(session, hours=number + 1))
    before = [fresh(session) for session in found]
    assert expiry.expire().count == 4
    for number, (session, was) in enumerate(zip(found, before, strict=True)):
        now = fresh(session)
        assert (now.last_sequence, now.state, now.title) == (was.last_sequence + 1, was.state, was.title)
        assert (now.message_count, now.token_count) == (number, 2 * number)
        assert (now.expires_at, now.last_activity_at, now.renewed_at) == (
            was.expires_at, was.last_activity_at, was.renewed_at,
        )  # fmt: skip
        assert now.settled_at == now.ended_at == was.expires_at
        assert last(session).created_at >= was.expires_at


def test_those_that_owe_an_answer_expire_with_the_others(alice, die):
    owing, others = [make_session(alice, agent="echo") for _ in range(2)], make_session(alice, agent="echo")
    for session in owing:
        die(session)
    for session in (*owing, others):
        age(session, hours=1)
    assert expiry.expire().count == 3
    assert [types(session)[-2:] for session in owing] == [["run.failed", "session.expired"]] * 2
    assert types(others) == ["session.created", "session.expired"]
    assert set(Run.objects.values_list("status", "error")) == {("failed", "SessionExpired")}


def test_every_expiry_is_announced_once(alice, die, heard, django_capture_on_commit_callbacks):
    found = [make_session(alice, agent="echo") for _ in range(3)]
    die(found[1])
    for session in found:
        age(session, hours=1)
    with django_capture_on_commit_callbacks(execute=True):
        expiry.expire()
    said = [given["session"] for name, given in heard if name == "session_expired"]
    assert sorted(session.pk for session in said) == [session.pk for session in found]
    assert {session.status for session in said} == {"expired"}


def test_every_expiry_waits_for_its_subscribers(alice, die, configured):
    configured(SUBSCRIBERS={"session.*": ["a.b", "c.d"], "session.expired": ["a.b"]})
    found = [make_session(alice, agent="echo") for _ in range(2)]
    die(found[1])
    for session in found:
        age(session, hours=1)
    OutboxEntry.objects.all().delete()
    expiry.expire()
    waiting = set(OutboxEntry.objects.values_list("session", "sequence", "subscriber"))
    assert waiting == {
        (session.pk, fresh(session).last_sequence, subscriber) for session in found for subscriber in ("a.b", "c.d")
    }


@pytest.mark.parametrize("microsecond", [0, 1, 500_000, 999_999])
def test_a_deadline_of_whole_seconds_is_told_as_the_log_tells_it(alice, microsecond):
    session = make_session(alice, agent="silent")
    at = (dialects.now("default") - timedelta(minutes=1)).replace(microsecond=microsecond)
    earlier = at - timedelta(hours=1)
    ChatSession.objects.filter(pk=session.pk).update(
        created_at=earlier, last_activity_at=earlier, renewed_at=earlier, expires_at=at
    )
    assert expiry.expire().count == 1
    found = fresh(session)
    assert (found.ended_at, found.settled_at) == (at, at)
    assert last(session).data["ended_at"] == log.iso(at)


def test_nothing_is_expired_early(alice):
    session = make_session(alice, agent="silent")
    soon = dialects.now("default") + timedelta(seconds=20)
    ChatSession.objects.filter(pk=session.pk).update(expires_at=soon)
    assert expiry.expire().count == 0
    assert expiry.due_for_expiry("default", soon - timedelta(microseconds=1)) == []
    assert [due.parameters["agent"] for due in expiry.due_for_expiry("default", soon)] == ["silent"]


@pytest.mark.parametrize(("microseconds", "number"), [(-1, 0), (0, 1), (1, 1)])
def test_a_deadline_has_passed_at_its_very_instant(alice, microseconds, number):
    from django_chat_sessions import batches

    session = make_session(alice, agent="silent")
    now = fresh(session).expires_at + timedelta(microseconds=microseconds)
    found = [one for due in expiry.due_for_expiry("default", now) for one in batches.sample("default", due, 9)]
    assert len(found) == number
    assert (fresh(session).status_at(now) == "expired") is bool(number)


def test_an_expired_session_that_was_ended_meanwhile_stays_ended(alice):
    session = make_session(alice, agent="silent")
    sessions.end(session)
    age(session, days=1)
    ChatSession.objects.filter(pk=session.pk).update(ended_at=session.ended_at + timedelta(days=1))
    assert expiry.expire().count == 0
    assert fresh(session).status == "ended"
