"""What the end of a session does below it: at once up to a bound, batch by batch beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_chat_sessions import dialects, log
from django_chat_sessions.choices import LIVE
from django_chat_sessions.exceptions import SessionNotLive
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import cascades, expiry, opening, recovery, sessions
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, types

pytestmark = pytest.mark.django_db

CLOSINGS = [sessions.end, sessions.fail]


@pytest.fixture
def below(alice) -> Callable[..., ChatSession]:
    """Return a function that opens a session below another."""
    return lambda parent: make_session(alice, agent="silent", parent=parent)


@pytest.fixture
def deep(session, below) -> list[ChatSession]:
    """Return five sessions, each below the one before."""
    chain = [session]
    for _ in range(4):
        chain.append(below(chain[-1]))
    return chain


def statuses(found: Iterable[ChatSession]) -> list[str]:
    return [fresh(session).status for session in found]


def marked() -> set[ChatSession]:
    return set(ChatSession.objects.filter(is_cascading=True))


# --------------------------------------------------------------------------------------------------------- how far down


@pytest.mark.parametrize("close", CLOSINGS)
def test_the_end_reaches_what_is_below_a_child_that_is_over_already(deep, close):
    top, child, grandchild, *_ = deep
    ChatSession.objects.filter(pk=child.pk).update(expires_at=dialects.now("default"))
    expiry.expire()
    assert fresh(child).status == "expired"
    assert fresh(grandchild).status == "created"
    close(top)
    assert statuses(deep[2:]) == ["ended"] * 3
    assert fresh(child).end_reason == "idle_timeout"
    assert marked() == set()


def test_the_end_leaves_what_is_beside_and_above(deep, below):
    beside = below(deep[0])
    sessions.end(deep[1])
    assert statuses([deep[0], beside]) == ["created", "created"]
    assert statuses(deep[1:]) == ["ended"] * 4


def test_the_end_records_the_expiry_of_what_had_expired_before(deep):
    age(deep[2], hours=1)
    sessions.end(deep[0])
    assert [fresh(session).end_reason for session in deep[1:]] == [
        "parent_ended", "idle_timeout", "parent_ended", "parent_ended",
    ]  # fmt: skip


def test_cascaded_ends_are_announced_each_with_its_reason(deep, heard, django_capture_on_commit_callbacks):
    age(deep[4], hours=1)
    with django_capture_on_commit_callbacks(execute=True):
        sessions.end(deep[0], reason="enough")
    ended = {given["session"].pk: given["reason"] for name, given in heard if name == "session_ended"}
    assert ended == {deep[0].pk: "enough", **{session.pk: "parent_ended" for session in deep[1:4]}}
    assert [given["session"].pk for name, given in heard if name == "session_expired"] == [deep[4].pk]


def test_many_children_take_no_more_statements_than_few(alice, below):
    counted = []
    for children in (2, 20):
        top = make_session(alice, agent="silent")
        for _ in range(children):
            below(top)
        with CaptureQueriesContext(connection) as queries:
            sessions.end(top)
        counted.append(len(queries))
    assert counted[0] == counted[1]


# ----------------------------------------------------------------------------------------------- many at once as one


def test_an_end_recorded_with_others_says_what_one_by_itself_says(alice, session, below):
    children = [below(session) for _ in range(3)]
    for number, child in enumerate(children):
        for _ in range(number):
            say(child, "x", token_count=3)
        sessions.change_state(child, {"n": number, "odd": "\x00\ud800 '%s' {}", "deep": {"a": [1, 2.5, None, True]}})
        sessions.renew(child)
    alone = children.pop()
    sessions.end(alone, reason="parent_ended")
    sessions.end(session)
    for child in [*children, alone]:
        found, event = fresh(child), last(child)
        assert (found.status, found.end_reason) == ("ended", "parent_ended")
        assert (found.settled_at, found.ended_at, event.created_at) == (found.ended_at, *[found.ended_at] * 2)
        assert set(event.data) == {"reason", "ended_at", "state", "figures"}
        assert event.data["ended_at"] == log.iso(found.ended_at)
        assert event.data["state"] == found.state
        figures = event.data["figures"]
        lasted = (found.ended_at - found.created_at).total_seconds()
        assert figures.pop("duration_seconds") == pytest.approx(lasted, abs=0.0006)
        assert figures == {
            "message_count": found.message_count, "token_count": found.token_count, "renewal_count": 1,
        }  # fmt: skip
        assert {name: type(value) for name, value in event.data["figures"].items()} == dict.fromkeys(figures, int)


def test_an_answer_that_a_cascaded_session_owes_is_cancelled(alice, session, die):
    child = make_session(alice, agent="echo", parent=session)
    die(child)
    sessions.end(session)
    assert types(child)[-2:] == ["run.cancelled", "session.ended"]
    assert fresh(child).status == "ended"


# ------------------------------------------------------------------------------------------------------------ the bound


@pytest.mark.parametrize("close", CLOSINGS)
@pytest.mark.parametrize("bound", [1, 3])
def test_what_is_beyond_the_bound_ends_with_the_next_recovery(session, below, configured, close, bound):
    configured(CASCADE_BOUND=bound)
    children = [below(session) for _ in range(4)]
    grandchildren = [below(child) for child in children]
    close(session)
    assert statuses([*children, *grandchildren]).count("ended") == bound
    assert marked() == {session}
    assert recovery.recover().count == 8 - bound
    assert statuses([*children, *grandchildren]) == ["ended"] * 8
    assert {fresh(child).end_reason for child in children} == {"parent_ended"}
    assert marked() == set()
    assert recovery.recover().count == 0


def test_exactly_as_many_as_the_bound_leave_no_mark(session, below, configured):
    configured(CASCADE_BOUND=2)
    children = [below(session), below(session)]
    sessions.end(session)
    assert statuses(children) == ["ended", "ended"]
    assert marked() == set()


def test_a_mark_says_what_recovery_would_do(session, below, configured):
    from django_chat_sessions.operations import sweeps

    configured(CASCADE_BOUND=1)
    for _ in range(3):
        below(session)
    sessions.end(session)
    assert sweeps.preview("recover").sample[0].session == session.uuid


def test_a_crash_in_recovery_leaves_the_mark(session, below, configured, monkeypatch):
    configured(CASCADE_BOUND=1)
    children = [below(session) for _ in range(3)]
    sessions.end(session)

    def crash(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(cascades.endings, "record_ends", crash)
        assert recovery.recover().count == 0
    assert marked() == {session}
    assert recovery.recover().count == 2
    assert statuses(children) == ["ended"] * 3


def test_beneath_what_waits_for_its_end_nothing_is_opened_below_the_top(session, below, configured):
    configured(CASCADE_BOUND=1)
    for _ in range(2):
        below(session)
    sessions.end(session)
    with pytest.raises(SessionNotLive):
        below(session)


# ------------------------------------------------------------------------------------------------------- by its expiry


def test_an_expiry_leaves_children_where_the_setting_is_as_it_is(deep):
    age(deep[0], hours=1)
    expiry.expire()
    assert statuses(deep) == ["expired", *["created"] * 4]


def test_an_expiry_ends_what_is_below_where_the_setting_says_so(deep, configured):
    configured(EXPIRE_CHILDREN=True)
    age(deep[0], hours=1)
    assert expiry.expire().count == 1
    assert statuses(deep) == ["expired", *["ended"] * 4]
    assert fresh(deep[1]).end_reason == "parent_ended"


def test_a_whole_tree_that_expired_is_expired_and_not_ended(deep, configured):
    configured(EXPIRE_CHILDREN=True)
    for session in deep:
        age(session, hours=1)
    assert expiry.expire().count == 5
    assert statuses(deep) == ["expired"] * 5


def test_of_many_expired_trees_the_rest_ends_with_the_next_recovery(alice, below, configured):
    configured(EXPIRE_CHILDREN=True, CASCADE_BOUND=2)
    tops = [make_session(alice, agent="silent") for _ in range(3)]
    children = [below(top) for top in tops]
    for top in tops:
        age(top, hours=1)
    expiry.expire()
    assert statuses(children).count("ended") == 2
    assert len(marked()) == 1
    assert recovery.recover().count == 1
    assert statuses(children) == ["ended"] * 3
    assert marked() == set()


def test_an_expiry_that_an_opening_records_ends_what_is_below_too(alice, configured):
    configured(EXPIRE_CHILDREN=True)
    top = make_session(alice, agent="single")
    child = make_session(alice, agent="silent", parent=top)
    age(top, hours=1)
    opening.open(alice, agent="single")
    assert statuses([top, child]) == ["expired", "ended"]


def test_nothing_is_left_alive_below_what_is_over(session, below, configured):
    """A tree as wide as deep, some of it over for other reasons, some of it expired and not recorded."""
    configured(CASCADE_BOUND=4, EXPIRE_CHILDREN=True)
    level, everything = [session], [session]
    for _ in range(3):
        level = [below(parent) for parent in level for _ in range(3)]
        everything += level
    configured(END_CHILDREN=False)
    sessions.end(everything[1])
    sessions.fail(everything[8])
    configured(END_CHILDREN=True)
    age(everything[3], minutes=31)
    age(everything[20], minutes=31)
    sessions.end(session)
    while recovery.recover().count:
        continue
    assert not ChatSession.objects.filter(status__in=LIVE).exists()
    assert marked() == set()
    assert fresh(everything[3]).end_reason == fresh(everything[20]).end_reason == "idle_timeout"
    assert fresh(everything[1]).ended_at < fresh(session).ended_at + timedelta(seconds=1)
