"""Opening: new sessions, those that a strategy or a name finds, children and continuations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from django_chat_sessions.agents import Message
from django_chat_sessions.exceptions import (
    AgentNotFound,
    ClientConflict,
    InvalidRequest,
    InvalidTimeout,
    MessageLimitReached,
    MessageTooLong,
    MetadataTooLarge,
    SessionEnded,
    SessionExpired,
    SessionLimitReached,
    SessionNotFound,
)
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import context, messages, opening, sessions
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, texts, types


def test_a_new_session_is_created_and_its_log_begins_with_that(alice):
    opened = opening.open(alice, agent="silent", title="Budget", tags=["q4"], metadata={"m": 1}, state={"s": 1})
    found = fresh(opened.session)
    assert opened.created
    assert (found.status, found.owner, found.agent, found.last_sequence) == ("created", alice, "silent", 1)
    assert (found.title, found.tags, found.metadata, found.state) == ("Budget", ["q4"], {"m": 1}, {"s": 1})
    assert (found.parent, found.root, found.forked_from) == (None, None, None)
    assert types(found) == ["session.created"]


def test_public_ids_are_random_uuids(alice):
    ids = {make_session(alice).uuid for _ in range(20)}
    assert len(ids) == 20
    assert {UUID(str(public)).version for public in ids} == {4}


def test_a_session_that_names_no_agent_has_that_of_the_settings(alice, configured):
    configured(DEFAULT_AGENT="count")
    assert make_session(alice).agent == "count"
    configured(DEFAULT_AGENT="")
    assert make_session(alice).agent == ""


def test_an_agent_that_is_not_registered_is_refused(alice):
    with pytest.raises(AgentNotFound):
        opening.open(alice, agent="nobody")
    assert not ChatSession.objects.exists()


def test_the_deadline_follows_from_the_opening(alice):
    session = make_session(alice, timeout=TimeoutOverrides(timeout_minutes=10))
    assert session.expires_at == session.created_at + timedelta(minutes=10)
    assert session.created_at == session.renewed_at == session.last_activity_at


def test_timeouts_out_of_bounds_are_refused_and_nothing_is_opened(alice):
    with pytest.raises(InvalidTimeout) as refusal:
        opening.open(alice, timeout=TimeoutOverrides(timeout_minutes=4))
    assert (refusal.value.min_minutes, refusal.value.max_minutes) == (5, 1440)
    assert not ChatSession.objects.exists()


def test_an_idle_timeout_beyond_ones_own_maximum_is_refused(alice):
    with pytest.raises(InvalidTimeout):
        opening.open(alice, timeout=TimeoutOverrides(timeout_minutes=60, max_duration_minutes=30))


# ----------------------------------------------------------------------------------------------------------- strategies


def test_multiple_opens_a_new_session_each_time(alice):
    first, second = (opening.open(alice, agent="silent") for _ in range(2))
    assert first.created
    assert second.created
    assert first.session.pk != second.session.pk


@pytest.mark.parametrize("name", ["single", "active_tab_wins"])
def test_one_session_is_shared_by_all_tabs(alice, name):
    first = opening.open(alice, agent=name, client="A")
    second = opening.open(alice, agent=name, client="B")
    assert (first.created, second.created) == (True, False)
    assert first.session.pk == second.session.pk


def test_one_session_a_tab(alice):
    first, again = (opening.open(alice, agent="per_tab", client="A") for _ in range(2))
    other = opening.open(alice, agent="per_tab", client="B")
    assert (first.created, again.created, other.created) == (True, False, True)
    assert first.session.pk == again.session.pk != other.session.pk


@pytest.mark.parametrize("name", ["per_tab", "active_tab_wins"])
@pytest.mark.parametrize("client", [None, ""])
def test_a_nameless_tab_is_refused_where_the_strategy_needs_a_name(alice, name, client):
    with pytest.raises(InvalidRequest) as refusal:
        opening.open(alice, agent=name, client=client)
    assert list(refusal.value.errors) == ["client"]


def test_the_server_cannot_open_a_session_of_one_tab(alice):
    with pytest.raises(InvalidRequest):
        opening.open(alice, agent="per_tab")


def test_places_belong_to_an_owner_an_agent_and_an_application(alice, bob, agent):
    agent("another", strategy="single")
    session = make_session(alice, agent="single")
    assert opening.open(bob, agent="single").created
    assert opening.open(alice, agent="another").created
    assert opening.open(alice, agent="single", application="shop").created
    assert opening.open(alice, agent="single").session.pk == session.pk


def test_people_without_a_name_share_nothing():
    first = opening.open(None, agent="single", external_id="x")
    second = opening.open(None, agent="single", external_id="x")
    assert first.session.pk != second.session.pk


def test_the_newcomer_takes_control_and_the_log_says_so(alice):
    session = make_session(alice, agent="active_tab_wins", client="A")
    again = opening.open(alice, agent="active_tab_wins", client="B").session
    assert again.client == "B"
    assert types(session) == ["session.created", "session.superseded"]
    assert last(session).data == {"client": "B", "previous_client": "A"}


def test_whoever_lost_control_writes_no_more_until_it_resumes(alice):
    session = make_session(alice, agent="active_tab_wins", client="A")
    opening.open(alice, agent="active_tab_wins", client="B")
    with pytest.raises(ClientConflict):
        messages.append(session, Message("user", "hi"), client="A")
    sessions.resume(session, client="A")
    assert messages.append(session, Message("user", "hi"), client="A").created


def test_opening_again_by_the_tab_in_control_is_no_event(alice):
    session = make_session(alice, agent="active_tab_wins", client="A")
    opening.open(alice, agent="active_tab_wins", client="A")
    assert types(session) == ["session.created"]


def test_a_session_that_is_found_stays_what_it_was_but_for_its_clock(alice):
    session = age(make_session(alice, agent="single", title="First"), minutes=2)
    found = opening.open(alice, agent="single", title="Second", state={"x": 1}, tags=["t"]).session
    assert (found.title, found.state, found.tags, found.last_sequence) == ("First", {}, [], 1)
    assert found.last_activity_at > session.last_activity_at


@pytest.mark.parametrize("over", ["ended", "failed", "expired", "expired unswept"])
@pytest.mark.parametrize("name", ["single", "per_tab", "active_tab_wins"])
def test_the_place_of_a_session_that_is_over_is_free(alice, name, over):
    session = make_session(alice, agent=name, client="A")
    make_over(session, over)
    opened = opening.open(alice, agent=name, client="A")
    assert opened.created
    assert opened.session.pk != session.pk
    assert fresh(session).status == over.partition(" ")[0]


def make_over(session: ChatSession, how: str) -> None:
    if how == "ended":
        sessions.end(session)
    elif how == "failed":
        sessions.fail(session)
    else:
        age(session, hours=1)
        if how == "expired":
            from django_chat_sessions.operations import expiry

            expiry.expire()


def test_an_expiry_that_stands_in_the_way_is_recorded_at_its_deadline(alice):
    session = age(make_session(alice, agent="single"), hours=1)
    opening.open(alice, agent="single")
    found = fresh(session)
    assert types(session) == ["session.created", "session.expired"]
    assert (found.status, found.end_reason, found.ended_at) == ("expired", "idle_timeout", found.expires_at)


# --------------------------------------------------------------------------------------------------------- external ids


def test_the_external_id_of_a_live_session_finds_it(alice):
    session = make_session(alice, agent="silent", external_id="ticket 7")
    found = opening.open(alice, agent="silent", external_id="ticket 7")
    assert not found.created
    assert found.session.pk == session.pk


def test_an_external_id_is_of_one_owner_agent_and_application(alice, bob):
    make_session(alice, agent="silent", external_id="x")
    assert opening.open(bob, agent="silent", external_id="x").created
    assert opening.open(alice, agent="echo", external_id="x").created
    assert opening.open(alice, agent="silent", application="shop", external_id="x").created


@pytest.mark.parametrize("over", ["ended", "failed", "expired", "expired unswept"])
def test_the_external_id_of_a_session_that_is_over_opens_a_new_one(alice, over):
    session = make_session(alice, agent="silent", external_id="x")
    make_over(session, over)
    opened = opening.open(alice, agent="silent", external_id="x")
    assert opened.created
    assert opened.session.pk != session.pk


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", "\ufdd0", ""])
def test_any_string_is_an_external_id(alice, name):
    session = make_session(alice, agent="silent", external_id=name)
    assert opening.open(alice, agent="silent", external_id=name).session.pk == session.pk


# ---------------------------------------------------------------------------------------------------------- coming back


def test_opening_a_session_after_idleness_records_the_coming_back(alice):
    session = age(make_session(alice, agent="single"), minutes=7)
    opening.open(alice, agent="single")
    assert types(session) == ["session.created", "session.resumed"]
    assert 420 <= last(session).data["idle_seconds"] < 430
    assert fresh(session).status == "resumed"


# ---------------------------------------------------------------------------------------------------- trees of sessions


def test_a_child_knows_its_parent_and_the_top(alice):
    top = make_session(alice)
    child = make_session(alice, parent=top)
    grandchild = make_session(alice, parent=child)
    assert (child.parent_id, child.root_id) == (top.pk, top.pk)
    assert (grandchild.parent_id, grandchild.root_id) == (child.pk, top.pk)


@pytest.mark.parametrize("name", ["single", "active_tab_wins", "per_tab"])
def test_a_child_is_always_a_new_session_and_takes_nobodys_place(alice, name):
    top = make_session(alice, agent=name, client="A")
    child = opening.open(alice, agent=name, parent=top, client="A")
    assert child.created
    assert opening.open(alice, agent=name, client="A").session.pk == top.pk


@pytest.mark.parametrize(("over", "error"), [("ended", SessionEnded), ("expired unswept", SessionExpired)])
def test_a_parent_that_is_over_takes_no_children(alice, over, error):
    top = make_session(alice)
    make_over(top, over)
    with pytest.raises(error):
        opening.open(alice, parent=top)
    assert ChatSession.objects.count() == 1


def test_a_parent_of_somebody_else_does_not_exist(alice, bob):
    theirs = make_session(bob)
    with pytest.raises(SessionNotFound):
        opening.open(alice, parent=theirs)
    with pytest.raises(SessionNotFound):
        opening.open(alice, continue_from=theirs)


def test_a_tree_is_as_deep_as_the_settings_allow(alice, configured):
    configured(MAX_DEPTH=3)
    deepest = make_session(alice, parent=make_session(alice, parent=make_session(alice)))
    with pytest.raises(InvalidRequest) as refusal:
        opening.open(alice, parent=deepest)
    assert list(refusal.value.errors) == ["parent"]


def test_a_child_reads_its_parents_state_under_its_own_as_both_are_now(alice):
    top = make_session(alice, state={"city": "Bonn", "deep": {"a": 1, "b": 1}})
    child = make_session(alice, parent=top, state={"deep": {"b": 2}})
    grandchild = make_session(alice, parent=child, state={"own": True})
    expected = {"city": "Bonn", "deep": {"a": 1, "b": 2}, "own": True}
    assert context.inherited_state(grandchild) == expected
    assert context.window(grandchild).state == expected
    sessions.change_state(top, {"city": "Graz", "deep": {"b": 9}})
    assert context.inherited_state(grandchild) == {**expected, "city": "Graz"}
    assert fresh(grandchild).state == {"own": True}


# -------------------------------------------------------------------------------------------------------- continuations


def test_a_continuation_takes_over_the_conversation_and_what_describes_it(alice):
    source = make_session(
        alice, agent="echo", title="T", tags=["a"], metadata={"m": 1}, state={"s": 1}, application="x"
    )
    say(source, "one")
    say(source, "two", role="assistant")
    sessions.end(source)
    opened = opening.open(alice, continue_from=source)
    new = fresh(opened.session)
    assert opened.created
    assert (new.agent, new.application, new.title, new.tags, new.metadata, new.state) == (
        "echo", "x", "T", ["a"], {"m": 1}, {"s": 1},
    )  # fmt: skip
    assert (new.parent, new.forked_from, new.forked_from_sequence) == (None, source, source.last_sequence)
    assert texts(new) == ["one", "two"]
    assert types(new) == ["session.created", "session.forked", "message", "message"]


def test_a_continuation_can_say_everything_anew(alice):
    source = make_session(alice, agent="echo", title="T", state={"s": 1})
    new = make_session(alice, continue_from=source, agent="silent", title="", state={}, tags=[], metadata={})
    assert (new.agent, new.title, new.state) == ("silent", "", {})


@pytest.mark.parametrize("over", ["ended", "failed", "expired", "expired unswept"])
def test_an_expired_conversation_can_be_continued(alice, over):
    source = make_session(alice, agent="single", state={"s": 1})
    say(source, "hello")
    make_over(source, over)
    assert texts(make_session(alice, continue_from=fresh(source))) == ["hello"]


def test_a_continuation_reads_its_source_as_it_is_and_not_as_the_caller_last_saw_it(alice):
    stale = make_session(alice, agent="silent")
    say(fresh(stale), "meanwhile")
    sessions.change_state(fresh(stale), {"s": 1})
    new = make_session(alice, continue_from=stale)
    assert (texts(new), new.state, new.forked_from_sequence) == (["meanwhile"], {"s": 1}, 3)


# ------------------------------------------------------------------------------------------------- histories and limits


def test_a_session_begins_with_the_history_that_it_is_given(alice):
    session = make_session(alice, agent="silent", messages=[Message("user", "q"), Message("assistant", "a")])
    assert (session.status, session.message_count, session.last_sequence) == ("active", 2, 3)
    assert texts(session) == ["q", "a"]


def test_a_history_keeps_its_instants(alice):
    then = datetime(2020, 1, 2, tzinfo=UTC)
    session = make_session(alice, messages=[Message("user", "q", created_at=then)])
    assert messages.find(session, 2).created_at == then


def test_two_messages_of_a_history_with_one_name_are_refused(alice):
    with pytest.raises(InvalidRequest):
        opening.open(alice, messages=[Message("user", "a", external_id="x"), Message("user", "b", external_id="x")])


def test_a_history_is_held_to_the_limits(alice, configured):
    configured(MAX_MESSAGES=2, MAX_MESSAGE_LENGTH=3)
    with pytest.raises(MessageLimitReached):
        opening.open(alice, messages=[Message("user", "a")] * 3)
    with pytest.raises(MessageTooLong):
        opening.open(alice, messages=[Message("user", "abcd")])
    assert not ChatSession.objects.exists()


def test_a_continuation_with_a_history_is_held_to_the_limit_as_a_whole(alice, configured):
    configured(MAX_MESSAGES=2)
    source = make_session(alice, messages=[Message("user", "a"), Message("user", "b")])
    assert make_session(alice, continue_from=source).message_count == 2
    with pytest.raises(MessageLimitReached):
        opening.open(alice, continue_from=source, messages=[Message("user", "c")])


@pytest.mark.parametrize("name", ["metadata", "environment"])
def test_too_much_json_is_refused(alice, name, configured):
    configured(MAX_METADATA_BYTES=50, MAX_STATE_BYTES=50)
    with pytest.raises(MetadataTooLarge) as refusal:
        opening.open(alice, **{name: {"a": "x" * 50}})
    assert (refusal.value.field, refusal.value.limit) == (name, 50)


def test_as_many_live_sessions_as_the_settings_allow(alice, bob, configured):
    configured(MAX_LIVE_SESSIONS=2)
    first, second = make_session(alice), make_session(alice)
    with pytest.raises(SessionLimitReached) as refusal:
        opening.open(alice)
    assert refusal.value.limit == 2
    for attempt in (lambda: opening.fork(first), lambda: opening.open(alice, parent=first)):
        with pytest.raises(SessionLimitReached):
            attempt()
    assert opening.open(bob).created
    sessions.end(first)
    assert opening.open(alice).created
    age(second, hours=1)
    assert opening.open(alice).created


def test_finding_a_session_needs_no_room(alice, configured):
    configured(MAX_LIVE_SESSIONS=1)
    session = make_session(alice, agent="single")
    assert opening.open(alice, agent="single").session.pk == session.pk


# ---------------------------------------------------------------------------------------------------------------- forks


def test_a_fork_is_the_conversation_and_the_state_as_they_were_at_a_sequence(alice):
    source = make_session(alice, agent="echo", title="T", state={"n": 0})
    say(source, "one")
    sessions.change_state(source, {"n": 1, "gone": {"deep": 1}})
    say(source, "two")
    sessions.change_state(source, {"n": 2, "gone": None})
    at_three = opening.fork(source, at=3)
    assert (texts(at_three), at_three.state) == (["one"], {"n": 1, "gone": {"deep": 1}})
    at_one = opening.fork(source, at=1)
    assert (texts(at_one), at_one.state, at_one.status) == ([], {"n": 0}, "created")
    whole = opening.fork(source)
    assert (texts(whole), whole.state, whole.title, whole.status) == (["one", "two"], {"n": 2}, "T", "active")


def test_a_fork_says_where_it_came_from_and_has_no_parent(alice):
    source = make_session(alice, parent=make_session(alice))
    new = opening.fork(source, title="New")
    event = new.events.get(type="session.forked")
    assert (new.parent, new.root, new.forked_from, new.forked_from_sequence) == (None, None, source, 1)
    assert event.data == {"id": str(source.uuid), "sequence": 1}
    assert new.title == "New"
    assert types(source) == ["session.created"]


def test_a_fork_is_renumbered_and_keeps_the_instants(alice):
    source = make_session(alice, agent="silent")
    say(source, "zero")
    messages.record(source, "app.noise")
    then = say(source, "one", token_count=5, metadata={"m": 1}, parts=({"type": "x"},))
    messages.withdraw(source, 2)
    new = opening.fork(source)
    copied = messages.find(new, 3)
    assert copied.created_at == then.created_at
    assert (copied.content, copied.token_count, copied.metadata, copied.parts) == ("one", 5, {"m": 1}, ({"type": "x"},))
    assert new.token_count == 5
    assert new.last_sequence == 3


def test_a_fork_has_neither_run_references_nor_external_ids(alice):
    from django_chat_sessions.operations import runs

    source = make_session(alice, agent="echo")
    runs.ask(source, Message("user", "q", external_id="x"))
    new = opening.fork(source)
    assert [(m.external_id, m.run) for m in messages.everything(new)] == [(None, None)] * 2
    assert not new.runs.exists()


def test_what_was_edited_is_forked_as_it_reads_and_what_was_withdrawn_never(alice):
    source = make_session(alice, agent="silent")
    say(source, "secret")
    say(source, "draft")
    messages.edit(source, 3, "final")
    messages.withdraw(source, 2)
    for at in range(3, source.last_sequence + 1):
        new = opening.fork(source, at=at)
        assert texts(new) == ["final"]
        assert not new.events.filter(content__contains="secret").exists()


@pytest.mark.parametrize("at", [0, -1, 3, 10**30])
def test_a_sequence_that_never_was_cannot_be_forked_at(alice, at):
    source = make_session(alice, agent="silent")
    say(source, "one")
    with pytest.raises(InvalidRequest) as refusal:
        opening.fork(source, at=at)
    assert list(refusal.value.errors) == ["at"]


@pytest.mark.parametrize("over", ["ended", "failed", "expired", "expired unswept"])
def test_what_is_over_can_be_forked(alice, over):
    source = make_session(alice)
    make_over(source, over)
    assert opening.fork(source).status == "created"


@pytest.mark.parametrize("name", ["single", "per_tab", "active_tab_wins"])
def test_a_fork_takes_nobodys_place(alice, name):
    source = make_session(alice, agent=name, client="A")
    new = opening.fork(source, client="B")
    assert new.pk != source.pk
    assert new.client == (None if name == "single" else "B")
    assert opening.open(alice, agent=name, client="A").session.pk == source.pk


def test_a_fork_of_what_the_server_opened_is_controlled_by_the_tab_that_forks(alice):
    source = make_session(alice, agent="active_tab_wins")
    new = opening.fork(source, client="B")
    assert messages.append(new, Message("user", "hi"), client="B").created


def test_a_fork_of_a_fork_goes_on(alice):
    source = make_session(alice, state={"a": 1})
    say(source, "one")
    middle = opening.fork(source)
    say(middle, "two")
    sessions.change_state(middle, {"a": None, "b": 2})
    new = opening.fork(middle, at=middle.last_sequence - 1)
    assert (texts(new), new.state) == (["one", "two"], {"a": 1})


def test_a_source_that_is_deleted_leaves_its_forks(alice):
    source = make_session(alice)
    new = opening.fork(source)
    sessions.delete(source)
    assert fresh(new).forked_from is None
