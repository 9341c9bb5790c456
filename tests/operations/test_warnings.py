"""Warnings ahead of the deadline: several thresholds, each once a deadline, and never all at once."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from django.db import connection
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_chat_sessions import agents, batches, dialects, log
from django_chat_sessions.agents import Agent
from django_chat_sessions.choices import TimeoutMode
from django_chat_sessions.exceptions import InvalidRequest
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import expiry, sessions, warnings
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, types

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
NAME = "it's {100}% drawn"


def warned(session: ChatSession) -> list[int]:
    """Return the thresholds that somebody was warned of, in order."""
    events = session.events.filter(type="session.expiring").order_by("sequence")
    return [event.data["threshold_minutes"] for event in events]


def left(session: ChatSession, minutes: float) -> None:
    """Bring a session to so many minutes before its deadline; whoever was warned, was before that."""
    now = dialects.now("default")
    found = fresh(session)
    age(session, seconds=((found.expires_at - now) - minutes * MINUTE).total_seconds())


@pytest.fixture
def several(alice, configured):
    """Return a session of which somebody is to be warned three times."""
    configured(WARNING_THRESHOLD_MINUTES=[15, 5, 1])
    return make_session(alice, agent="silent")


# ---------------------------------------------------------------------------------------------------------- each once


def test_each_threshold_is_warned_of_once(several):
    for minutes, expected in ((16, []), (15, [15]), (14, [15]), (5, [15, 5]), (2, [15, 5]), (1, [15, 5, 1])):
        left(several, minutes)
        for _ in range(2):
            expiry.warn()
        assert warned(several) == expected, minutes
    assert several.events.filter(type="session.expiring").count() == 3


@pytest.mark.parametrize(("minutes", "nearest"), [(14, 15), (4, 5), (0.5, 1)])
def test_after_a_time_without_sweeps_one_warning_says_the_nearest(several, minutes, nearest):
    left(several, minutes)
    assert [expiry.warn().count for _ in range(3)] == [1, 0, 0]
    assert warned(several) == [nearest]


def test_a_warning_says_the_deadline_of_which_it_warns(several):
    left(several, 4)
    expiry.warn()
    event = several.events.get(type="session.expiring")
    assert event.data == {"expires_at": log.iso(fresh(several).expires_at), "threshold_minutes": 5}


def test_a_deadline_that_moves_on_is_warned_of_anew_at_every_threshold(several):
    left(several, 4)
    expiry.warn()
    say(several, "still here")
    for minutes in (15, 5, 1):
        left(several, minutes)
        expiry.warn()
    assert warned(several) == [5, 15, 5, 1]


def test_the_largest_is_what_near_expiration_means(several):
    assert several.policy.warning_threshold_minutes == 15
    assert several.policy.later_warnings == (5, 1)


def test_the_order_in_which_they_are_given_does_not_matter(alice, configured):
    configured(WARNING_THRESHOLD_MINUTES=(1, 15, 5, 5))
    session = make_session(alice, agent="silent")
    for minutes in (14, 4, 0.5):
        left(session, minutes)
        expiry.warn()
    assert warned(session) == [15, 5, 1]


def test_what_changes_in_the_settings_is_warned_of_from_then_on(several, configured):
    left(several, 14)
    expiry.warn()
    configured(WARNING_THRESHOLD_MINUTES=[15, 10])
    left(several, 9)
    expiry.warn()
    assert warned(several) == [15, 10]


# ------------------------------------------------------------------------------------------------------------ whose say


def test_an_agents_list_replaces_the_settings(alice, agent, configured):
    configured(WARNING_THRESHOLD_MINUTES=[15, 5])
    agent("own", timeouts=TimeoutOverrides(warning_threshold_minutes=[10, 2]))
    session = make_session(alice, agent="own")
    for minutes in (14, 9, 4, 1.5):
        left(session, minutes)
        expiry.warn()
    assert warned(session) == [10, 2]


def test_a_sessions_own_threshold_is_its_only_one(alice, configured):
    configured(WARNING_THRESHOLD_MINUTES=[15, 5, 1])
    session = make_session(alice, agent="silent", timeout=TimeoutOverrides(warning_threshold_minutes=8))
    for minutes in (14, 7, 4, 0.5):
        left(session, minutes)
        expiry.warn()
    assert warned(session) == [8]


def test_a_session_cannot_have_several_thresholds_of_its_own(session, alice):
    several = TimeoutOverrides(warning_threshold_minutes=[15, 5])
    with pytest.raises(InvalidRequest):
        make_session(alice, agent="silent", timeout=several)
    with pytest.raises(InvalidRequest):
        sessions.change_timeout(session, {"warning_threshold_minutes": [15, 5]})
    assert types(session) == ["session.created"]


def test_a_sessions_own_mode_brings_its_own_threshold(alice, configured):
    configured(WARNING_THRESHOLD_MINUTES=[15, 5, 1])
    session = make_session(alice, agent="silent", timeout=TimeoutOverrides(mode="lenient"))
    for minutes in (60, 14, 4, 0.5):
        left(session, minutes)
        expiry.warn()
    assert warned(session) == [15]


def test_a_short_idle_timeout_of_its_own_halves_the_first_and_keeps_what_is_below(alice, configured):
    configured(WARNING_THRESHOLD_MINUTES=[15, 5, 1])
    session = make_session(alice, agent="silent", timeout=TimeoutOverrides(timeout_minutes=10))
    assert (session.policy.warning_threshold_minutes, session.policy.later_warnings) == (5, (1,))
    for minutes in (9, 4.5, 0.5):
        left(session, minutes)
        expiry.warn()
    assert warned(session) == [5, 1]


def test_an_agents_mode_replaces_the_settings_list(alice, agent, configured):
    configured(WARNING_THRESHOLD_MINUTES=[15, 5, 1])
    agent("hurried", timeouts=TimeoutOverrides(mode="aggressive"))
    session = make_session(alice, agent="hurried")
    for minutes in (4, 0.5):
        left(session, minutes)
        expiry.warn()
    assert warned(session) == [1]


def test_sessions_of_one_agent_are_warned_each_as_it_says_itself(alice, configured):
    configured(WARNING_THRESHOLD_MINUTES=[15, 5])
    own = (None, 20, 3)
    found = [
        make_session(alice, agent="silent", timeout=TimeoutOverrides(warning_threshold_minutes=minutes))
        for minutes in own
    ]
    for session in found:
        left(session, 4)
    assert expiry.warn().count == 2
    assert [warned(session) for session in found] == [[5], [20], []]


def test_an_agent_that_is_no_longer_registered_is_warned_of_by_the_settings(alice, agent):
    agent("gone", timeouts=TimeoutOverrides(warning_threshold_minutes=1))
    session = make_session(alice, agent="gone")
    agents.unregister("gone")
    left(session, 4)
    assert expiry.warn().count == 1


# --------------------------------------------------------------------------------------------------------- told, limits


def test_every_warning_is_announced(several, heard, django_capture_on_commit_callbacks):
    for minutes in (14, 4):
        left(several, minutes)
        with django_capture_on_commit_callbacks(execute=True):
            expiry.warn()
    said = [given for name, given in heard if name == "session_expiring"]
    assert [given["session"].pk for given in said] == [several.pk] * 2


def test_warnings_keep_to_a_limit_and_the_next_sweep_goes_on(alice, configured):
    configured(SWEEP_BATCH=2)
    found = [make_session(alice, agent="silent") for _ in range(5)]
    for session in found:
        left(session, 4)
    assert expiry.warn(limit=3).count == 3
    assert expiry.warn().count == 2
    assert all(types(session) == ["session.created", "session.expiring"] for session in found)


@pytest.mark.parametrize("whole", [True, False])
def test_a_warning_names_a_deadline_of_whole_seconds_as_the_api_does(several, whole):
    at = (dialects.now("default") + 3 * MINUTE).replace(microsecond=0 if whole else 120)
    ChatSession.objects.filter(pk=several.pk).update(expires_at=at)
    expiry.warn()
    assert several.events.get(type="session.expiring").data["expires_at"] == log.iso(at)


# ------------------------------------------------------------------------------------------------------- as rules say

modes = st.none() | st.sampled_from(TimeoutMode.values)
idle = st.none() | st.integers(1, 300)
threshold = st.none() | st.integers(0, 120)
thresholds = threshold | st.lists(st.integers(0, 120), min_size=1, max_size=4)
outer = st.builds(TimeoutOverrides, modes, idle, st.none(), thresholds, st.none())
inner = st.builds(TimeoutOverrides, modes, idle, st.none(), threshold, st.none())
#: Seconds to the deadline, and how long before that somebody was warned last.
seconds = st.integers(0, 125).map(lambda minutes: minutes * 60) | st.integers(1, 7500)
nobody = TimeoutOverrides()


def expected(session: ChatSession, now: datetime) -> int | None:
    """Return the threshold of which somebody is to be warned, as the rules have it."""
    policy = session.policy
    if session.expires_at <= now:
        return None
    every = (policy.warning_threshold_minutes, *policy.later_warnings)
    reached = min((minutes for minutes in every if session.expires_at <= now + minutes * MINUTE), default=None)
    if reached is None or session.warned_at is None:
        return reached
    return reached if session.warned_at < session.expires_at - reached * MINUTE else None


@pytest.fixture
def drawn(alice, settings):
    session = make_session(alice, agent="silent")

    def drawn(globally: TimeoutOverrides, agent: TimeoutOverrides, own: TimeoutOverrides, **columns) -> ChatSession:
        says = {"TIMEOUT_MODE": globally.mode, **{k.upper(): v for k, v in globally.as_dict().items() if k != "mode"}}
        settings.CHAT_SESSIONS = {name: value for name, value in says.items() if value is not None}
        agents.register(Agent(NAME, timeouts=agent))
        ChatSession.objects.filter(pk=session.pk).update(
            agent=NAME,
            timeout_mode=own.mode,
            timeout_minutes=own.timeout_minutes,
            warning_threshold_minutes=own.warning_threshold_minutes,
            **columns,
        )
        session.refresh_from_db()
        return session

    yield drawn
    agents.unregister(NAME)


@settings(max_examples=200)
@given(outer, outer, inner, seconds, st.none() | seconds)
@example(TimeoutOverrides(warning_threshold_minutes=[15, 5, 1]), nobody, nobody, 30, None)
@example(TimeoutOverrides(warning_threshold_minutes=[15, 5, 1]), nobody, nobody, 30, 200)
@example(TimeoutOverrides(warning_threshold_minutes=[15, 5, 1]), nobody, TimeoutOverrides(timeout_minutes=10), 55, 240)
def test_sql_says_of_whom_to_warn_as_the_rules_do(drawn, spoilt, globally, agent, own, left, before):
    now = dialects.now("default")
    expires_at = now + timedelta(seconds=left)
    last = None if before is None else expires_at - timedelta(seconds=max(before, left))
    session = drawn(globally, agent, own, expires_at=expires_at, warned_at=last)
    found = [
        example.session for due in warnings.due("default", NAME, now) for example in batches.sample("default", due, 9)
    ]
    wanted = expected(session, now)
    assert found == ([] if wanted is None else [session.uuid])
    if wanted is not None:
        with connection.cursor() as cursor:
            event = warnings.event("default", NAME, now)
            sql = f"SELECT {event.data} FROM chat_sessions_chatsession s WHERE s.id = %(id)s"
            cursor.execute(sql, {"id": session.pk, "now": dialects.instant(connection, now)})
            data = cursor.fetchone()[0]
        said = json.loads(data) if isinstance(data, str) else data
        assert said == {"expires_at": log.iso(expires_at), "threshold_minutes": wanted}


def test_a_changed_timeout_warns_anew_at_the_thresholds_still_ahead(several):
    left(several, 4)
    expiry.warn()
    sessions.change_timeout(several, {"auto_renew": False})
    expiry.warn()
    expiry.warn()
    assert warned(several) == [5, 5]
