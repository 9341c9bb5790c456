"""What the clock does: coming back, heartbeats, renewal, deadlines, expiry and warnings."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_chat_sessions import dialects
from django_chat_sessions.agents import Message
from django_chat_sessions.exceptions import (
    InvalidTimeout,
    RenewalLimitReached,
    SessionEnded,
    SessionExpired,
)
from django_chat_sessions.models import ChatSession, Run
from django_chat_sessions.operations import expiry, messages, opening, recovery, runs, sessions
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, types

MINUTE = timedelta(minutes=1)


def minutes_left(session: ChatSession) -> int:
    """Return how far off the deadline is, in whole minutes."""
    return round((fresh(session).expires_at - dialects.now("default")) / MINUTE)


def touch(session: ChatSession) -> bool:
    return sessions.touch(session.pk, session.agent, using="default")


WRITES = {
    "message": lambda s: messages.append(s, Message("user", "hi")),
    "event": lambda s: messages.record(s, "app.click", {"x": 1}),
    "state": lambda s: sessions.change_state(s, {"k": s.last_sequence}),
    "edit": lambda s: messages.edit(s, 2, f"edited {s.last_sequence}"),
    "withdrawal": lambda s: messages.withdraw(s, 2),
    "resumption": sessions.resume,
    "renewal": sessions.renew,
}
ACTIVITY = {**WRITES, "heartbeat": sessions.heartbeat, "page view": touch}
NEEDS_LIFE = {
    **WRITES,
    "heartbeat": sessions.heartbeat,
    "timeout": lambda s: sessions.change_timeout(s, {"timeout_minutes": 60}),
    "end": sessions.end,
    "failure": sessions.fail,
    "child": lambda s: opening.open(s.owner, parent=s),
}


@pytest.fixture
def talk(alice):
    session = make_session(alice, agent="echo")
    say(session, "first")
    return session


# ---------------------------------------------------------------------------------------------------------- coming back


@pytest.mark.parametrize("name", WRITES)
def test_coming_back_after_idleness_is_recorded_with_how_long(talk, name):
    age(talk, minutes=6)
    WRITES[name](talk)
    event = talk.events.get(type="session.resumed")
    assert 360 <= event.data["idle_seconds"] < 370
    assert event.sequence == 3


@pytest.mark.parametrize("name", WRITES)
def test_whoever_was_not_idle_for_long_does_not_come_back(talk, name):
    age(talk, minutes=4, seconds=50)
    WRITES[name](talk)
    assert "session.resumed" not in types(talk)


def test_how_long_is_a_setting(talk, configured):
    configured(RESUME_AFTER=30)
    age(talk, seconds=40)
    say(talk, "again")
    assert types(talk)[2:] == ["session.resumed", "message"]


def test_a_session_is_resumed_until_the_next_message(talk):
    age(talk, minutes=6)
    assert sessions.resume(talk).session.status == "resumed"
    messages.record(talk, "app.click")
    assert talk.status == "resumed"
    say(talk, "again")
    assert talk.status == "active"


def test_resuming_tells_how_long_it_was_idle(talk):
    age(talk, minutes=3)
    assert 180 <= sessions.resume(talk).idle_seconds < 190
    age(talk, minutes=8)
    assert 480 <= sessions.resume(talk).idle_seconds < 490
    assert types(talk).count("session.resumed") == 1


def test_a_session_without_a_message_is_resumed_too(session):
    age(session, minutes=6)
    sessions.resume(session)
    assert fresh(session).status == "resumed"


def test_page_views_never_hide_a_coming_back(talk):
    age(talk, minutes=6)
    for _ in range(3):
        touch(talk)
        age(talk, minutes=2)
    say(talk, "back")
    assert talk.events.get(type="session.resumed").data["idle_seconds"] >= 720


def test_a_page_view_after_idleness_still_keeps_the_session(talk):
    age(talk, minutes=20)
    assert touch(talk)
    assert minutes_left(talk) == 30
    assert fresh(talk).last_activity_at == talk.last_activity_at


# ----------------------------------------------------------------------------------------------- heartbeats, page views


def test_a_heartbeat_is_no_event_and_leaves_created_as_it_is(session):
    age(session, minutes=2)
    before = session.last_activity_at
    sessions.heartbeat(session)
    found = fresh(session)
    assert (found.status, found.last_sequence, types(found)) == ("created", 1, ["session.created"])
    assert found.last_activity_at > before
    assert minutes_left(session) == 30


def test_page_views_write_at_most_once_in_an_interval(talk):
    age(talk, seconds=50)
    assert not touch(talk)
    age(talk, seconds=20)
    assert touch(talk)
    assert not touch(talk)


def test_a_page_view_of_what_is_over_writes_nothing(talk):
    age(talk, hours=1)
    assert not touch(talk)


# ------------------------------------------------------------------------------------------------------------ deadlines


@pytest.mark.parametrize("name", ACTIVITY)
def test_activity_moves_the_deadline(talk, name):
    age(talk, minutes=4)
    ACTIVITY[name](talk)
    assert minutes_left(talk) == 30
    assert fresh(talk).renewed_at > talk.created_at


@pytest.mark.parametrize("name", sorted(ACTIVITY.keys() - {"renewal"}))
@pytest.mark.parametrize("idle", [4, 6])
def test_activity_moves_no_deadline_without_automatic_renewal(alice, name, idle):
    talk = make_session(alice, agent="echo", timeout=TimeoutOverrides(auto_renew=False))
    say(talk, "first")
    age(talk, minutes=idle)
    before = fresh(talk)
    ACTIVITY[name](talk)
    after = fresh(talk)
    assert (after.expires_at, after.renewed_at) == (before.expires_at, before.renewed_at)


@pytest.mark.parametrize("name", sorted(ACTIVITY.keys() - {"renewal"}))
def test_activity_moves_no_deadline_back(talk, name, configured):
    configured(TIMEOUT_MINUTES=10)
    before = talk.expires_at
    age(talk, minutes=4)
    moved = talk.expires_at
    ACTIVITY[name](talk)
    assert fresh(talk).expires_at == moved < before


@pytest.mark.parametrize("name", ACTIVITY)
def test_activity_moves_no_deadline_past_the_maximum_duration(alice, name):
    talk = make_session(alice, agent="echo", timeout=TimeoutOverrides(timeout_minutes=30, max_duration_minutes=40))
    say(talk, "first")
    age(talk, minutes=20)
    say(talk, "second")
    assert minutes_left(talk) == 20
    if name == "renewal":
        with pytest.raises(RenewalLimitReached):
            sessions.renew(talk)
    else:
        ACTIVITY[name](talk)
    assert fresh(talk).expires_at == talk.created_at + timedelta(minutes=40)


def test_what_changes_in_the_settings_applies_from_the_next_activity(talk, configured):
    configured(TIMEOUT_MINUTES=60)
    assert minutes_left(talk) == 30
    say(talk, "next")
    assert minutes_left(talk) == 60


def test_what_changes_in_the_agent_applies_from_the_next_activity(talk, agent):
    agent("echo", timeouts=TimeoutOverrides(mode="lenient"))
    assert minutes_left(talk) == 30
    sessions.heartbeat(talk)
    assert minutes_left(talk) == 240


def test_the_sessions_own_timeouts_beat_the_agents_and_those_the_settings(alice, agent, configured):
    configured(TIMEOUT_MINUTES=50)
    agent("slow", timeouts=TimeoutOverrides(timeout_minutes=100))
    assert minutes_left(make_session(alice, agent="slow")) == 100
    assert minutes_left(make_session(alice, agent="silent")) == 50
    session = make_session(alice, agent="slow", timeout=TimeoutOverrides(timeout_minutes=7))
    assert minutes_left(say(session, "x") and session) == 7


# -------------------------------------------------------------------------------------------------------------- renewal


def test_a_requested_renewal_moves_the_deadline_also_without_automatic_renewal(alice):
    session = make_session(alice, agent="silent", timeout=TimeoutOverrides(auto_renew=False))
    age(session, minutes=4)
    sessions.renew(session)
    assert minutes_left(session) == 30
    assert (session.renewal_count, fresh(session).renewal_count) == (1, 1)
    assert last(session).type == "session.renewed"


def test_only_requested_renewals_are_counted(talk):
    say(talk, "x")
    sessions.heartbeat(talk)
    assert fresh(talk).renewal_count == 0


def test_a_renewal_that_cannot_move_anything_is_refused_and_leaves_no_trace(alice):
    session = make_session(alice, timeout=TimeoutOverrides(timeout_minutes=30, max_duration_minutes=30))
    age(session, minutes=10)
    before = fresh(session)
    with pytest.raises(RenewalLimitReached) as refusal:
        sessions.renew(session)
    assert refusal.value.max_duration_minutes == 30
    assert fresh(session).__dict__ | {"_state": 0} == before.__dict__ | {"_state": 0}


def test_a_renewal_reaches_as_far_as_the_maximum_and_no_further(alice):
    session = make_session(alice, timeout=TimeoutOverrides(timeout_minutes=30, max_duration_minutes=40))
    age(session, minutes=20)
    sessions.renew(session)
    assert session.expires_at == session.created_at + timedelta(minutes=40)
    with pytest.raises(RenewalLimitReached):
        sessions.renew(session)


# ------------------------------------------------------------------------------------------------- changing the timeout


def test_a_changed_timeout_counts_from_the_last_renewal(talk):
    age(talk, minutes=4)
    sessions.change_timeout(talk, {"timeout_minutes": 10})
    assert fresh(talk).expires_at == talk.renewed_at + timedelta(minutes=10)
    assert last(talk).data["timeout"] == {"timeout_minutes": 10}


def test_a_change_keeps_what_it_does_not_name_and_null_inherits(talk):
    sessions.change_timeout(talk, {"mode": "lenient", "timeout_minutes": 60})
    sessions.change_timeout(talk, {"auto_renew": False})
    assert talk.overrides == TimeoutOverrides("lenient", 60, None, None, False)
    sessions.change_timeout(talk, {"timeout_minutes": None})
    assert (talk.policy.timeout_minutes, talk.policy.mode) == (240, "lenient")
    sessions.change_timeout(talk, {"mode": None, "auto_renew": None})
    assert fresh(talk).overrides == TimeoutOverrides()
    assert minutes_left(talk) == 30


@pytest.mark.parametrize(
    "changes",
    [{"timeout_minutes": 4}, {"timeout_minutes": 1441}, {"max_duration_minutes": 29}, {"max_duration_minutes": 10_081},
     {"warning_threshold_minutes": 30}, {"timeout_minutes": 60, "max_duration_minutes": 59}],
)  # fmt: skip
def test_a_change_out_of_bounds_is_refused_and_changes_nothing(talk, changes):
    before = fresh(talk)
    with pytest.raises(InvalidTimeout) as refusal:
        sessions.change_timeout(talk, changes)
    assert refusal.value.min_minutes <= refusal.value.max_minutes
    after = fresh(talk)
    assert (after.overrides, after.expires_at, after.last_sequence) == (
        before.overrides, before.expires_at, before.last_sequence,
    )  # fmt: skip


def test_a_shorter_timeout_may_be_over_already(talk):
    age(talk, minutes=20)
    sessions.change_timeout(talk, {"timeout_minutes": 10})
    assert fresh(talk).status_at(dialects.now("default")) == "expired"


def test_a_timeout_on_a_running_answer_does_not_cut_it_off(alice, agent):
    def change(turn):
        age(found, minutes=20)
        sessions.change_timeout(fresh(found), {"timeout_minutes": 5})
        seen.append(fresh(found))
        return "done"

    seen: list[ChatSession] = []
    agent("patient", change, time_limit_seconds=3600)
    found = make_session(alice, agent="patient")
    runs.ask(found, Message("user", "q"))
    assert seen[0].expires_at == Run.objects.get().expires_at


def test_starting_an_answer_moves_the_deadline_past_every_formula(alice, agent):
    def look(turn):
        seen.append(minutes_left(session))
        return "done"

    seen: list[int] = []
    agent("patient", look, time_limit_seconds=7200)
    own = TimeoutOverrides(timeout_minutes=30, max_duration_minutes=30, auto_renew=False)
    session = make_session(alice, agent="patient", timeout=own)
    runs.ask(session, Message("user", "q"))
    assert seen == [120]


# --------------------------------------------------------------------------------------------------------------- expiry


@pytest.mark.parametrize("name", NEEDS_LIFE)
@pytest.mark.parametrize("is_swept", [False, True], ids=["before any sweep", "after the sweep"])
def test_an_expired_session_refuses_whatever_needs_life(talk, name, is_swept):
    age(talk, minutes=31)
    if is_swept:
        expiry.expire()
    before = fresh(talk)
    with pytest.raises(SessionExpired) as refusal:
        NEEDS_LIFE[name](fresh(talk))
    assert refusal.value.expires_at == before.expires_at
    assert fresh(talk).last_sequence == before.last_sequence


def test_an_expired_session_asks_no_agent(talk):
    age(talk, minutes=31)
    with pytest.raises(SessionExpired):
        runs.ask(talk, Message("user", "q"))
    assert not Run.objects.exists()


@pytest.mark.parametrize("name", NEEDS_LIFE)
@pytest.mark.parametrize("how", [sessions.end, sessions.fail])
def test_a_session_that_was_ended_refuses_whatever_needs_life(talk, name, how):
    how(talk)
    before = talk.last_sequence
    with pytest.raises(SessionEnded) as refusal:
        NEEDS_LIFE[name](talk)
    assert refusal.value.status == fresh(talk).status
    assert fresh(talk).last_sequence == before


def test_what_is_over_can_still_be_described_held_and_read(talk):
    age(talk, minutes=31)
    sessions.change(talk, title="Old", tags=["x"], metadata={"a": 1})
    assert (talk.title, talk.tags, talk.metadata) == ("Old", ["x"], {"a": 1})
    assert messages.find(talk, 2).content == "first"
    assert fresh(talk).status_at(dialects.now("default")) == "expired"


def test_filters_and_counts_say_expired_before_any_sweep(talk):
    now = dialects.now("default")
    everything = ChatSession.objects.all()
    assert everything.in_status("active", now).count() == everything.live(now).count() == 1
    assert everything.in_status("expired", now).count() == everything.due_for_expiry(now).count() == 0
    age(talk, minutes=31)
    assert everything.in_status("active", now).count() == everything.live(now).count() == 0
    assert everything.in_status("expired", now).count() == everything.due_for_expiry(now).count() == 1
    expiry.expire()
    assert everything.in_status("expired", now).count() == 1
    assert everything.due_for_expiry(now).count() == 0


def test_the_sweep_records_an_expiry_once_and_at_its_instant(talk):
    age(talk, minutes=31)
    assert expiry.expire().count == 1
    assert expiry.expire().count == 0
    found = fresh(talk)
    assert types(talk)[-1] == "session.expired"
    assert (found.status, found.end_reason, found.ended_at) == ("expired", "idle_timeout", found.expires_at)


def test_the_maximum_duration_is_a_reason_of_its_own(alice):
    session = make_session(alice, timeout=TimeoutOverrides(timeout_minutes=30, max_duration_minutes=30))
    age(session, minutes=31)
    expiry.expire()
    assert fresh(session).end_reason == "max_duration"


def test_a_sweep_takes_only_what_is_due(talk, alice):
    age(talk, minutes=31)
    make_session(alice)
    ended = make_session(alice)
    sessions.end(ended)
    assert expiry.expire().count == 1
    assert fresh(ended).status == "ended"


def test_a_sweep_works_in_batches_and_no_more_than_its_limit(alice, configured):
    configured(SWEEP_BATCH=2)
    for _ in range(5):
        age(make_session(alice), hours=1)
    assert expiry.expire(limit=1) == expiry.Swept("expire", 1, 1)
    assert expiry.expire() == expiry.Swept("expire", 4, 3)
    assert not ChatSession.objects.exclude(status="expired").exists()


def test_a_sweep_takes_sessions_of_different_lengths_together(alice):
    """One UPDATE writes them all, so the columns of one must not leak into another."""
    sessions_ = [make_session(alice, agent="silent", title=f"T{n}", metadata={"n": n}) for n in range(3)]
    for number, session in enumerate(sessions_):
        for _ in range(number):
            say(session, "x")
        age(session, hours=number + 1)
    expiry.expire()
    found = [fresh(session) for session in sessions_]
    assert [s.last_sequence for s in found] == [2, 3, 4]
    assert [s.title for s in found] == ["T0", "T1", "T2"]
    assert len({s.ended_at for s in found}) == 3


@pytest.mark.parametrize("how", ["sweep", "opening"])
def test_expiring_says_that_a_running_answer_was_given_up(alice, die, how):
    session = make_session(alice, agent="single")
    die(session)
    age(session, hours=1)
    expiry.expire() if how == "sweep" else opening.open(alice, agent="single")
    assert types(session)[-2:] == ["run.failed", "session.expired"]
    assert Run.objects.get().status == "failed"


# ------------------------------------------------------------------------------------------------------------- warnings


def test_a_warning_comes_once_a_deadline(talk):
    age(talk, minutes=24)
    assert expiry.warn().count == 0
    age(talk, minutes=2)
    assert expiry.warn().count == 1
    assert expiry.warn().count == 0
    assert types(talk)[-1] == "session.expiring"
    assert last(talk).data["expires_at"].endswith("Z")
    sessions.heartbeat(talk)
    assert expiry.warn().count == 0
    age(talk, minutes=26)
    assert expiry.warn().count == 1
    assert types(talk).count("session.expiring") == 2


def test_a_warning_is_no_activity(talk):
    age(talk, minutes=26)
    expiry.warn()
    found = fresh(talk)
    assert (found.expires_at, found.last_activity_at, found.status) == (
        talk.expires_at, talk.last_activity_at, "active",
    )  # fmt: skip


def test_a_changed_timeout_is_warned_of_anew(talk):
    age(talk, minutes=26)
    expiry.warn()
    sessions.change_timeout(talk, {"timeout_minutes": 29})
    assert expiry.warn().count == 1


@pytest.mark.parametrize("name", ["it's 100% {sure}", "plain", 'a"b', "back\\slash"])
def test_each_session_is_warned_by_its_own_agents_threshold(alice, agent, name):
    agent(name, timeouts=TimeoutOverrides(timeout_minutes=60, warning_threshold_minutes=40))
    early, late = make_session(alice, agent=name), make_session(alice, agent="silent")
    own = make_session(alice, agent=name, timeout=TimeoutOverrides(warning_threshold_minutes=10))
    for session in (early, late, own):
        age(session, minutes=22)
    assert expiry.warn().count == 1
    assert types(early)[-1] == "session.expiring"


def test_what_is_expired_or_over_is_not_warned_of(alice):
    age(make_session(alice), hours=1)
    ended = age(make_session(alice), minutes=26)
    sessions.end(ended)
    assert expiry.warn().count == 0


# ------------------------------------------------------------------------------------------------------------- recovery


@pytest.fixture
def lost(alice, die):
    """Return sessions whose process died while it answered, an hour ago."""
    found = [make_session(alice, agent="echo", timeout=TimeoutOverrides(mode="lenient")) for _ in range(2)]
    for session in found:
        die(session)
        age(session, hours=1)
    return found


def test_recovery_gives_up_answers_whose_process_is_lost(lost):
    assert recovery.recover().count == 2
    assert recovery.recover().count == 0
    assert types(lost[0])[-1] == "run.failed"
    assert set(Run.objects.values_list("status", flat=True)) == {"failed"}


def test_recovery_goes_on_where_a_session_is_deleted_meanwhile(lost, monkeypatch):
    def abandon(draft, run, error):
        ChatSession.objects.exclude(pk=draft.session.pk).delete()
        return original(draft, run, error)

    original = recovery.abandon
    monkeypatch.setattr(recovery, "abandon", abandon)
    assert recovery.recover().count == 1
    assert ChatSession.objects.count() == 1


def test_recovery_leaves_answers_that_still_have_time(alice, die):
    die(make_session(alice, agent="echo"))
    assert recovery.recover().count == 0
    assert Run.objects.get().status == "running"
