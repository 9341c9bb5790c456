"""Which status may follow which, and what a log says of its session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from django_chat_sessions.choices import LIVE, EventType, Status
from django_chat_sessions.exceptions import IllegalTransition, SessionEnded, SessionExpired
from django_chat_sessions.rules import lifecycle
from django_chat_sessions.rules.lifecycle import Event, Projection, fold, move

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = "2026-03-01T12:00:00.000000Z"

#: The table of the lifecycle, written out a second time.
FOLLOWS = {
    "created": {"active", "resumed", "expired", "ended", "failed"},
    "active": {"resumed", "expired", "ended", "failed"},
    "resumed": {"active", "expired", "ended", "failed"},
    "expired": {"archived"},
    "ended": {"archived"},
    "failed": {"archived"},
    "archived": {"expired", "ended", "failed"},  # restored
}
CREATED = Event(EventType.SESSION_CREATED, {"owner": "7", "title": "T", "state": {"a": 1}})
MESSAGE = Event(EventType.MESSAGE, {}, 3)


@pytest.mark.parametrize("target", Status.values)
@pytest.mark.parametrize("current", Status.values)
def test_each_transition_is_in_the_table_or_raises(current, target):
    if target == current or target in FOLLOWS[current]:
        assert move(current, target) == target
    else:
        with pytest.raises(IllegalTransition) as refusal:
            move(current, target)
        assert (refusal.value.status, refusal.value.target) == (current, target)
        assert current in str(refusal.value)


def test_nothing_that_is_over_comes_back_to_life():
    over = set(Status) - set(LIVE)
    assert not any(set(lifecycle.TRANSITIONS[status]) & set(LIVE) for status in over)


@pytest.mark.parametrize("status", Status.values)
def test_a_live_session_reads_as_expired_from_its_deadline_on_and_others_stay_what_they_are(status):
    before = lifecycle.status_at(status, NOON, NOON - timedelta(microseconds=1))
    at = lifecycle.status_at(status, NOON, NOON)
    assert before == status
    assert at == ("expired" if status in LIVE else status)


@pytest.mark.parametrize("status", ["ended", "failed", "archived"])
def test_what_is_over_is_refused_as_ended_with_its_status(status):
    with pytest.raises(SessionEnded) as refusal:
        lifecycle.check_live(status, NOON, NOON - timedelta(1))
    assert refusal.value.status == status


@pytest.mark.parametrize("status", ["created", "active", "resumed", "expired"])
def test_what_is_past_its_deadline_is_refused_as_expired_with_the_deadline(status):
    with pytest.raises(SessionExpired) as refusal:
        lifecycle.check_live(status, NOON, NOON)
    assert refusal.value.expires_at == NOON


@pytest.mark.parametrize("status", LIVE)
def test_what_is_live_is_not_refused(status):
    lifecycle.check_live(status, NOON, NOON - timedelta(microseconds=1))


# ---------------------------------------------------------------------------------------------------------- the folding


def test_an_opening_says_everything_that_it_began_with():
    data = {
        "owner": "7", "client": "tab", "title": "T", "tags": ["x"], "metadata": {"m": 1}, "state": {"s": 1},
        "timeout": {"mode": "lenient"}, "agent": "echo",
    }  # fmt: skip
    assert fold([Event(EventType.SESSION_CREATED, data)]) == Projection(
        status="created", owner="7", client="tab", title="T", tags=["x"], metadata={"m": 1}, state={"s": 1},
        timeout={"mode": "lenient"}, last_sequence=1,
    )  # fmt: skip


def test_every_event_counts_and_brings_its_tokens():
    found = fold([CREATED, MESSAGE, Event("app.anything", {}, 5), Event(EventType.CONTEXT_COMPACTED, {})])
    assert (found.last_sequence, found.message_count, found.token_count) == (4, 1, 8)


@pytest.mark.parametrize(
    ("type_", "data", "changed"),
    [
        (EventType.MESSAGE, {}, {"status": "active", "message_count": 1}),
        (EventType.MESSAGE_EDITED, {}, {}),
        (EventType.MESSAGE_DELETED, {}, {"message_count": -1}),
        (EventType.SESSION_RESUMED, {}, {"status": "resumed"}),
        (EventType.SESSION_RENEWED, {}, {"renewal_count": 1}),
        (EventType.SESSION_TIMEOUT_CHANGED, {"timeout": {"timeout_minutes": 9}}, {"timeout": {"timeout_minutes": 9}}),
        (EventType.SESSION_EXPIRING, {}, {}),
        (EventType.SESSION_CHANGED, {"title": "N", "tags": ["t"]}, {"title": "N", "tags": ["t"]}),
        (EventType.SESSION_CHANGED, {"metadata": {"m": 2}}, {"metadata": {"m": 2}}),
        (EventType.SESSION_CHANGED, {"owner": None}, {"owner": None}),
        (EventType.SESSION_SUPERSEDED, {"client": "B"}, {"client": "B"}),
        (EventType.SESSION_CLAIMED, {"owner": "8"}, {"owner": "8"}),
        (EventType.SESSION_HELD, {}, {"is_held": True}),
        (EventType.STATE_CHANGED, {"patch": {"a": None, "b": 2}}, {"state": {"b": 2}}),
        (EventType.RUN_STARTED, {}, {}),
        (EventType.RUN_FAILED, {}, {}),
        *(
            (type_, {"reason": "why", "ended_at": END}, {"status": status, "ended_at": END, "end_reason": "why"})
            for type_, status in (
                (EventType.SESSION_ENDED, "ended"),
                (EventType.SESSION_EXPIRED, "expired"),
                (EventType.SESSION_FAILED, "failed"),
            )
        ),
    ],
)
def test_each_event_changes_what_it_says_and_nothing_else(type_, data, changed):
    before = fold([CREATED])
    after = fold([Event(type_, data)], before)
    names = Projection.__dataclass_fields__
    different = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
    assert different == {**changed, "last_sequence": 2}


def test_a_release_undoes_a_hold():
    held = fold([CREATED, Event(EventType.SESSION_HELD, {})])
    assert held.is_held
    assert not fold([Event(EventType.SESSION_RELEASED, {})], held).is_held


def test_folding_in_two_goes_is_folding_in_one():
    events = [CREATED, MESSAGE, Event(EventType.STATE_CHANGED, {"patch": {"b": {"c": 1}}}), MESSAGE]
    assert fold(events[2:], fold(events[:2])) == fold(events)


def test_folding_changes_neither_the_start_nor_the_events():
    start, patch = fold([CREATED]), {"patch": {"a": {"deep": 1}}}
    fold([Event(EventType.STATE_CHANGED, patch)], start)
    assert start.state == {"a": 1}
    assert patch == {"patch": {"a": {"deep": 1}}}


@pytest.mark.parametrize("type_", [EventType.MESSAGE, EventType.SESSION_RESUMED, EventType.SESSION_EXPIRED])
def test_an_illegal_event_in_a_log_raises(type_):
    ended = Event(EventType.SESSION_ENDED, {"ended_at": END})
    with pytest.raises(IllegalTransition):
        fold([CREATED, ended, Event(type_, {"ended_at": END})])


def test_what_is_over_is_archived_and_nothing_after_that():
    ended = Event(EventType.SESSION_ENDED, {"ended_at": END})
    archived = Event(EventType.SESSION_ARCHIVED, {})
    assert fold([CREATED, ended, archived]).status == "archived"
    with pytest.raises(IllegalTransition):
        fold([CREATED, archived])
