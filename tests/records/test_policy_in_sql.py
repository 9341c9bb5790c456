"""The timeouts in SQL are the timeouts in Python, whatever the tiers say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_chat_sessions import agents, conf, dialects
from django_chat_sessions.agents import Agent, Message
from django_chat_sessions.choices import TimeoutMode
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import expiry, messages
from django_chat_sessions.rules import timeouts
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import age, make_session

NAME = "it's {100}% drawn"
minutes = st.none() | st.integers(1, 10_080)
tiers = st.builds(
    TimeoutOverrides,
    st.none() | st.sampled_from(TimeoutMode.values),
    minutes,
    minutes,
    st.none() | st.integers(0, 2000),
    st.none() | st.booleans(),
)
#: A long idle timeout of an agent raised the inherited maximum, and a short one halved the inherited warning, also
#: for sessions that had an idle timeout of their own.
RAISED = (
    TimeoutOverrides(max_duration_minutes=60),
    TimeoutOverrides(timeout_minutes=240),
    TimeoutOverrides(timeout_minutes=30),
)
HALVED = (TimeoutOverrides(), TimeoutOverrides(timeout_minutes=5), TimeoutOverrides(timeout_minutes=60))


@pytest.fixture
def drawn(alice, settings):
    """Return a function that draws up a session under three tiers."""
    session = make_session(alice, agent="silent")

    def drawn(globally: TimeoutOverrides, agent: TimeoutOverrides, own: TimeoutOverrides) -> ChatSession:
        says = {"TIMEOUT_MODE": globally.mode, **{k.upper(): v for k, v in globally.as_dict().items() if k != "mode"}}
        settings.CHAT_SESSIONS = {name: value for name, value in says.items() if value is not None}
        agents.register(Agent(NAME, timeouts=agent))
        columns = {
            "timeout_mode": own.mode, "timeout_minutes": own.timeout_minutes, "auto_renew": own.auto_renew,
            "max_duration_minutes": own.max_duration_minutes,
            "warning_threshold_minutes": own.warning_threshold_minutes,
        }  # fmt: skip
        ChatSession.objects.filter(pk=session.pk).update(agent=NAME, **columns)
        session.refresh_from_db()
        return session

    yield drawn
    agents.unregister(NAME)


@settings(max_examples=150)
@given(tiers, tiers, tiers)
@example(*RAISED)
@example(*HALVED)
def test_what_is_in_force_is_the_same_in_sql(drawn, globally, agent, own):
    session = drawn(globally, agent, own)
    bases = {name: known.inherited for name, known in agents.registered().items()}
    for sql in (
        dialects.PolicySQL.over(bases, Agent("").inherited),
        dialects.PolicySQL.over({}, agents.of(NAME).inherited),
    ):
        names = f"{sql.idle}, {sql.maximum}, {sql.warning}, {sql.renews}"
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {names} FROM chat_sessions_chatsession s WHERE s.id = %(id)s", {"id": session.pk})
            idle, maximum, warning, renews = cursor.fetchone()
        expected = timeouts.merge(conf.get().timeouts, agent, own)
        assert session.policy == expected
        assert (idle, maximum, warning, bool(renews)) == (
            expected.timeout_minutes, expected.max_duration_minutes, expected.warning_threshold_minutes,
            expected.auto_renew,
        )  # fmt: skip


@settings(max_examples=60)
@given(tiers, tiers, tiers)
@example(*RAISED)
@example(*HALVED)
def test_a_message_moves_the_deadline_as_the_rules_say(drawn, globally, agent, own):
    session = drawn(globally, agent, own)
    now = dialects.now("default")
    start = now - timedelta(minutes=1)
    rows = ChatSession.objects.filter(pk=session.pk)
    rows.update(created_at=start, last_activity_at=start, renewed_at=start, expires_at=now + timedelta(minutes=1))
    session.refresh_from_db()
    before = session.expires_at
    messages.append(session, Message("user", "x"))
    policy = session.policy
    expected = timeouts.deadline(policy, session.created_at, session.last_activity_at)
    wanted = max(before, expected) if policy.auto_renew else before
    # PostgreSQL reads its clock once a column.
    assert abs(session.expires_at - wanted) < timedelta(milliseconds=1)
    assert (session.renewed_at > start) is policy.auto_renew
    assert ChatSession.objects.get(pk=session.pk).expires_at == session.expires_at


@settings(max_examples=40)
@given(tiers, tiers, tiers, st.integers(1, 300))
@example(*HALVED, 3)
def test_a_warning_comes_when_the_rules_say(drawn, globally, agent, own, left):
    session = drawn(globally, agent, own)
    horizon = conf.get().MAX_TIMEOUT_MINUTES
    threshold = session.policy.warning_threshold_minutes
    expires_at = dialects.now("default") + timedelta(minutes=left)
    ChatSession.objects.filter(pk=session.pk).update(expires_at=expires_at, warned_at=None)
    assert expiry.warn().count == (1 if left <= min(threshold, horizon) else 0)


def test_sql_gives_back_instants_as_django_stores_them(alice):
    """An instant that falls on a whole second is compared as text on SQLite."""
    session = make_session(alice, agent="silent")
    whole = datetime.now(UTC).replace(microsecond=0)
    fields = ("created_at", "last_activity_at", "renewed_at")
    ChatSession.objects.filter(pk=session.pk).update(**dict.fromkeys(fields, whole))
    session.refresh_from_db()
    messages.append(session, Message("user", "x"))
    age(session, minutes=1)
    assert ChatSession.objects.live(dialects.now("default")).get() == session
