"""Messages and application events: stored, repeated, edited, withdrawn, and seen by a model."""

from __future__ import annotations

import pytest

from django_chat_sessions.agents import Message
from django_chat_sessions.exceptions import (
    ClientConflict,
    ExternalIdConflict,
    InvalidRequest,
    MessageLimitReached,
    MessageNotFound,
    MessageTooLong,
    MetadataTooLarge,
    PermissionRefused,
    SequenceConflict,
    SessionEnded,
    SessionExpired,
)
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import messages, opening, sessions
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, texts, types

RICH = {"parts": ({"type": "text", "text": "hi"}, {"type": "file", "url": "u"}), "metadata": {"m": 1}, "token_count": 4}


def test_a_message_is_an_event_and_moves_the_session(session):
    stored = messages.append(session, Message("user", "hi", external_id="x", **RICH))
    assert stored.created
    assert stored.message == messages.find(session, 2)
    assert (stored.message.sequence, stored.message.external_id, stored.message.parts) == (2, "x", RICH["parts"])
    found = fresh(session)
    assert (found.status, found.last_sequence, found.message_count, found.token_count) == ("active", 2, 1, 4)
    assert (session.status, session.last_sequence, session.message_count) == ("active", 2, 1)
    assert found.last_activity_at == session.last_activity_at == stored.message.created_at


def test_sequences_have_no_gaps_even_where_a_write_was_refused(session, configured):
    say(session, "one")
    with pytest.raises(SequenceConflict):
        messages.append(session, Message("user", "x"), expected_sequence=1)
    messages.append(session, Message("user", "x", external_id="n"))
    messages.append(session, Message("user", "x", external_id="n"))
    messages.record(session, "app.x")
    assert list(session.events.values_list("sequence", flat=True)) == [1, 2, 3, 4]


def test_a_stale_instance_writes_all_the_same(session):
    stale = fresh(session)
    say(session, "one")
    assert say(stale, "two").sequence == 3
    assert stale.last_sequence == 3


def test_a_write_that_expects_another_sequence_is_told_the_last(session):
    say(session, "one")
    with pytest.raises(SequenceConflict) as refusal:
        messages.append(session, Message("user", "x"), expected_sequence=1)
    assert refusal.value.last_sequence == 2
    assert messages.append(session, Message("user", "x"), expected_sequence=2).created


def test_a_message_may_come_with_an_instant_of_its_own(session):
    from datetime import UTC, datetime

    then = datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert say(session, "old", created_at=then).created_at == then
    assert messages.find(session, 2).created_at == then
    assert fresh(session).last_activity_at > then


@pytest.mark.parametrize("text", ["", "a\x00b", "\ud800\udfff", "\ufdd0d800", "🎉", "\\u0000", "  \n "])
def test_text_comes_back_as_it_was_said(session, text):
    name = text or "name"
    say(session, text, metadata={text: [text]}, external_id=name, parts=({"type": text},))
    found = messages.find(session, 2)
    assert (found.content, found.metadata, found.external_id, found.parts) == (
        text, {text: [text]}, name, ({"type": text},),
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- limits


def test_a_message_may_be_as_long_as_the_settings_allow(session, configured):
    configured(MAX_MESSAGE_LENGTH=3, MAX_PARTS_BYTES=30, MAX_METADATA_BYTES=20)
    say(session, "abc")
    with pytest.raises(MessageTooLong) as refusal:
        say(session, "abcd")
    assert refusal.value.limit == 3
    with pytest.raises(MessageTooLong):
        say(session, "a", parts=({"type": "x" * 30},))
    with pytest.raises(MetadataTooLarge) as refusal:
        say(session, "a", metadata={"a": "x" * 20})
    assert refusal.value.limit == 20
    with pytest.raises(MessageTooLong):
        messages.edit(session, 2, "abcd")
    with pytest.raises(MetadataTooLarge):
        messages.record(session, "app.x", {"a": "x" * 20})


@pytest.mark.parametrize("text", ["draft\x00", "\ud800"])
def test_an_edited_text_comes_back_as_it_was_written(session, text):
    say(session, "x", metadata={text: text}, external_id=text)
    edited = messages.edit(session, 2, text)
    assert (edited.content, edited.metadata, edited.external_id) == (text, {text: text}, text)


def nested(depth: int) -> dict:
    value: dict = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "bad",
    [
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": object()},
        {"a": {1, 2}},
        {"a": b""},
        nested(3000),
        nested(700),
        nested(101),
    ],
)
def test_what_is_no_json_or_nested_beyond_reason_is_refused(session, bad):
    for attempt in (
        lambda: say(session, "x", metadata=bad),
        lambda: say(session, "x", parts=[bad]),
        lambda: messages.record(session, "app.x", bad),
        lambda: sessions.change(session, metadata=bad),
        lambda: sessions.change_state(session, bad),
        lambda: opening.open(None, state=bad),
    ):
        with pytest.raises(InvalidRequest):
            attempt()
    assert fresh(session).last_sequence == 1


@pytest.mark.parametrize("role", ["", "wizard", "User", "u" * 100])
def test_a_role_that_nobody_knows_is_refused(session, role):
    with pytest.raises(InvalidRequest) as refusal:
        say(session, "x", role=role)
    assert list(refusal.value.errors) == ["role"]


@pytest.mark.parametrize("count", [-1, 2**31, True, "7"])
def test_a_token_count_that_is_none_is_refused(session, count):
    with pytest.raises(InvalidRequest) as refusal:
        say(session, "x", token_count=count)
    assert list(refusal.value.errors) == ["token_count"]


def test_a_session_is_as_long_as_the_settings_allow(session, configured):
    configured(MAX_MESSAGES=2)
    say(session, "one")
    say(session, "two", external_id="x")
    with pytest.raises(MessageLimitReached) as refusal:
        say(session, "three")
    assert refusal.value.limit == 2
    assert not messages.append(session, Message("user", "two", external_id="x")).created
    messages.record(session, "app.x")
    messages.withdraw(session, 2)
    say(session, "three")


# -------------------------------------------------------------------------------------------------------------- repeats


def test_a_repeat_finds_the_first_and_writes_nothing(session):
    given = Message("user", "hi", external_id="x", **RICH)
    first = messages.append(session, given)
    again = messages.append(session, given)
    assert (first.created, again.created) == (True, False)
    assert first.message == again.message
    assert fresh(session).last_sequence == 2


def test_the_same_name_in_another_session_is_no_repeat(session, alice):
    say(session, "hi", external_id="x")
    assert messages.append(make_session(alice), Message("user", "hi", external_id="x")).created


@pytest.mark.parametrize("how", ["ended", "failed", "expired", "idle", "full"])
def test_a_repeat_is_found_also_when_nothing_more_can_be_written(session, how, configured):
    given = Message("user", "hi", external_id="x")
    messages.append(session, given)
    match how:
        case "ended":
            sessions.end(session)
        case "failed":
            sessions.fail(session)
        case "expired" | "idle":
            age(session, minutes=31 if how == "expired" else 7)
        case "full":
            configured(MAX_MESSAGES=1)
    before = fresh(session).last_sequence
    assert messages.append(session, given) == messages.Appended(messages.find(session, 2), created=False)
    assert fresh(session).last_sequence == before
    with pytest.raises(ExternalIdConflict):
        messages.append(session, Message("user", "other", external_id="x"))


@pytest.mark.parametrize(
    "other",
    [{"content": "HI"}, {"role": "system"}, {"metadata": {"m": True}}, {"metadata": {}}, {"parts": ()},
     {"parts": RICH["parts"][::-1]}],
)  # fmt: skip
def test_the_same_name_with_another_payload_is_a_conflict(session, other):
    given = {"role": "user", "content": "hi", "external_id": "x", **RICH}
    messages.append(session, Message(**given))
    with pytest.raises(ExternalIdConflict):
        messages.append(session, Message(**{**given, **other}))
    assert fresh(session).last_sequence == 2


@pytest.mark.parametrize("number", [1e23, 1e300, 1.0, 0.1, -0.0, 10**30, 1e-320])
def test_a_number_is_the_same_when_it_is_repeated(session, number):
    given = Message("user", "hi", external_id="x", metadata={"n": number})
    messages.append(session, given)
    assert not messages.append(session, given).created


def test_a_repeat_of_what_was_edited_finds_it_as_it_reads(session):
    given = Message("user", "draft", external_id="x")
    messages.append(session, given)
    messages.edit(session, 2, "final")
    again = messages.append(session, given)
    assert (again.created, again.message.content, again.message.sequence) == (False, "final", 2)
    with pytest.raises(ExternalIdConflict):
        messages.append(session, Message("user", "final", external_id="x"))


def test_a_repeat_of_what_was_withdrawn_is_a_conflict(session):
    given = Message("user", "hi", external_id="x")
    messages.append(session, given)
    messages.withdraw(session, 2)
    with pytest.raises(ExternalIdConflict):
        messages.append(session, given)
    assert texts(session) == []


# --------------------------------------------------------------------------------------------------- application events


def test_an_application_records_events_of_its_own(session):
    assert messages.record(session, "app.cart.added", {"sku": "7"}) == 2
    event = last(session)
    assert (event.type, event.data, event.position, event.role) == ("app.cart.added", {"sku": "7"}, None, "")
    assert fresh(session).status == "created"


@pytest.mark.parametrize(
    "name",
    ["", "app", "app.", "message", "session.ended", "App.x", "app.a b", "app.\x00", "app.x\n", "app." + "x" * 61],
)
def test_the_servers_own_events_are_not_the_applications_to_write(session, name):
    with pytest.raises(InvalidRequest) as refusal:
        messages.record(session, name)
    assert list(refusal.value.errors) == ["type"]


# -------------------------------------------------------------------------------------------------------------- editing


def test_an_edited_message_keeps_its_place_and_everything_but_its_text(session):
    first = say(session, "draft", external_id="x", **{**RICH, "parts": RICH["parts"][1:]})
    say(session, "reply", role="assistant")
    edited = messages.edit(session, 2, "final")
    assert texts(session) == ["final", "reply"]
    assert (edited.sequence, edited.external_id, edited.metadata, edited.parts, edited.created_at) == (
        2, "x", first.metadata, first.parts, first.created_at,
    )  # fmt: skip
    assert edited.edited_at > first.created_at
    assert fresh(session).message_count == 2
    assert types(session)[-1] == "message.edited"


def test_a_text_part_becomes_the_new_text(session):
    say(session, "hi", parts=RICH["parts"])
    assert messages.edit(session, 2, "ho").parts == ({"type": "text", "text": "ho"}, {"type": "file", "url": "u"})


def test_an_edited_message_can_be_edited_again(session):
    first = say(session, "one", external_id="x")
    messages.edit(session, 2, "two")
    again = messages.edit(session, 2, "three")
    assert (again.content, again.sequence, again.external_id, again.created_at) == ("three", 2, "x", first.created_at)
    pointers = session.events.filter(position=2).order_by("sequence").values_list("sequence", "superseded_by")
    assert list(pointers) == [(2, 3), (3, 4), (4, None)]
    with pytest.raises(MessageNotFound):
        messages.edit(session, 3, "by the number of the edit")


def test_an_edit_that_changes_nothing_is_no_event(session):
    say(session, "same")
    assert messages.edit(session, 2, "same").edited_at is None
    assert fresh(session).last_sequence == 2


@pytest.mark.parametrize("sequence", [0, -1, 1, 3, 99, 2**63, 10**40])
def test_what_is_no_message_is_not_found(session, sequence):
    say(session, "x")
    for attempt in (
        lambda: messages.find(session, sequence),
        lambda: messages.edit(session, sequence, "y"),
        lambda: messages.withdraw(session, sequence),
    ):
        with pytest.raises(MessageNotFound):
            attempt()


def test_a_message_of_another_session_is_not_found(session, alice):
    other = make_session(alice)
    say(other, "theirs")
    for attempt in (messages.find, messages.withdraw):
        with pytest.raises(MessageNotFound):
            attempt(session, 2)


def test_one_may_be_kept_to_what_the_user_said(session):
    say(session, "answer", role="assistant")
    for attempt in (
        lambda: messages.edit(session, 2, "x", own_only=True),
        lambda: messages.withdraw(session, 2, own_only=True),
    ):
        with pytest.raises(PermissionRefused):
            attempt()
    messages.edit(session, 2, "by the server")


# ---------------------------------------------------------------------------------------------------------- withdrawing


def test_a_withdrawn_message_leaves_a_tombstone_and_loses_every_version(session):
    say(session, "secret one", metadata={"secret": 1}, parts=({"type": "secret"},), token_count=3)
    messages.edit(session, 2, "secret two")
    messages.withdraw(session, 2)
    assert texts(session) == []
    assert types(session) == ["session.created", "message", "message.edited", "message.deleted"]
    assert "secret" not in str(list(session.events.values("content", "data")))
    assert last(session).data == {"sequence": 2}
    found = fresh(session)
    assert (found.message_count, found.last_sequence, found.token_count) == (0, 4, 3)


def test_a_withdrawal_touches_no_other_message(session):
    say(session, "one")
    say(session, "two", metadata={"m": 1})
    messages.withdraw(session, 2)
    assert messages.find(session, 3).metadata == {"m": 1}
    assert texts(session) == ["two"]


def test_what_was_withdrawn_is_not_found_any_more(session):
    say(session, "x")
    messages.withdraw(session, 2)
    for attempt in (
        lambda: messages.find(session, 2),
        lambda: messages.edit(session, 2, "y"),
        lambda: messages.withdraw(session, 2),
    ):
        with pytest.raises(MessageNotFound):
            attempt()
    assert fresh(session).message_count == 0


@pytest.mark.parametrize(("over", "error"), [("ended", SessionEnded), ("expired", SessionExpired)])
def test_messages_of_what_is_over_stay(session, over, error):
    say(session, "x")
    sessions.end(session) if over == "ended" else age(session, hours=1)
    for attempt in (lambda: messages.edit(session, 2, "y"), lambda: messages.withdraw(session, 2)):
        with pytest.raises(error):
            attempt()
    assert texts(session) == ["x"]


@pytest.mark.parametrize("name", ["per_tab", "active_tab_wins"])
def test_only_the_tab_in_control_writes(alice, name):
    session = make_session(alice, agent=name, client="A")
    messages.append(session, Message("user", "x"), client="A")
    for attempt in (
        lambda who: messages.append(session, Message("user", "y"), client=who),
        lambda who: messages.record(session, "app.x", client=who),
        lambda who: messages.edit(session, 2, "y", client=who),
        lambda who: messages.withdraw(session, 2, client=who),
        lambda who: sessions.change_state(session, {"a": 1}, client=who),
        lambda who: sessions.heartbeat(session, client=who),
        lambda who: sessions.renew(session, client=who),
        lambda who: sessions.change_timeout(session, {"timeout_minutes": 9}, client=who),
        lambda who: sessions.end(session, client=who),
    ):
        with pytest.raises(ClientConflict):
            attempt("B")
        for nameless in (None, ""):
            with pytest.raises(InvalidRequest):
                attempt(nameless)
    assert fresh(session).last_sequence == 2


@pytest.mark.parametrize("client", ["a\x00b", "\ud800", "\ufdd0", "ä ö"])
def test_any_string_is_a_clients_name(alice, client):
    session = make_session(alice, agent="per_tab", client=client)
    assert messages.append(session, Message("user", "x"), client=client).created
    sessions.heartbeat(session, client=client)
    assert opening.open(alice, agent="per_tab", client=client).session.pk == session.pk
    with pytest.raises(ClientConflict):
        messages.append(session, Message("user", "x"), client=client + "x")


# ---------------------------------------------------------------------------------------------------------------- state


def test_a_state_change_is_a_merge_patch_and_an_event(session):
    sessions.change_state(session, {"a": {"b": 1, "c": 2}})
    sessions.change_state(session, {"a": {"b": None}, "d": [None]})
    assert fresh(session).state == session.state == {"a": {"c": 2}, "d": [None]}
    assert types(session)[1:] == ["state.changed"] * 2
    assert last(session).data == {"patch": {"a": {"b": None}, "d": [None]}}


def test_what_changes_nothing_in_the_state_is_no_event(session):
    sessions.change_state(session, {"a": 1})
    for patch in ({}, {"a": 1}, {"never": None}, {"a": 1.0}):
        sessions.change_state(session, patch)
    assert fresh(session).last_sequence == 2


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (True, 1), ([1], [True]), ("", None), (0, "")])
def test_true_is_not_one(session, before, after):
    sessions.change_state(session, {"x": before})
    sessions.change_state(session, {"x": after})
    assert repr(fresh(session).state) == repr({} if after is None else {"x": after})
    assert fresh(session).last_sequence == 3
    sessions.change(session, metadata={"x": before})
    sessions.change(session, metadata={"x": after})
    assert repr(fresh(session).metadata) == repr({"x": after})


def test_a_state_is_as_large_as_the_settings_allow(session, configured):
    configured(MAX_STATE_BYTES=30)
    sessions.change_state(session, {"a": "x" * 15})
    with pytest.raises(MetadataTooLarge) as refusal:
        sessions.change_state(session, {"b": "x" * 15})
    assert (refusal.value.field, refusal.value.limit) == ("state", 30)
    assert fresh(session).state == {"a": "x" * 15}


def test_describing_replaces_each_given_field(session):
    sessions.change(session, title="T", tags=["a"], metadata={"m": 1})
    sessions.change(session, metadata={}, tags=[])
    assert (fresh(session).title, session.tags, session.metadata) == ("T", [], {})
    assert last(session).data == {"tags": [], "metadata": {}}
    sessions.change(session, title="T")
    sessions.change(session)
    assert ChatSession.objects.get().last_sequence == 3
