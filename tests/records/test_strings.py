"""Every JSON string comes back from every column, keys included."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_chat_sessions import fields
from django_chat_sessions.agents import Message
from django_chat_sessions.models import ChatSession, SessionEvent
from django_chat_sessions.operations import messages, opening, sessions, verification
from django_chat_sessions.testing import make_session

#: All code points, lone surrogates included, with those more often that databases can't store.
characters = st.characters(codec=None, categories=None, exclude_categories=()) | st.sampled_from(
    '\x00\ud800\udbff\udc00\udfff\ufdd0\ufdd1\ufffe\uffff\\"u0dfabc\n\t 🎉'
)
texts = st.text(characters, max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, values, max_size=3)
NASTY = "\x00\ud800\ufdd0d800\ufddd\\u0000\\ufdd0🎉\udfff"


def plain(value: object) -> object:
    """Return JSON without what distinguishes 1 from 1.0, which databases do not keep."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


# ----------------------------------------------------------------------------------------------------------- the escape


@given(texts)
@example(NASTY)
def test_what_is_hidden_is_shown_again_and_can_be_stored_anywhere(text):
    hidden = fields.hide(text)
    assert fields.unhide(hidden) == text
    assert "\x00" not in hidden
    hidden.encode("utf-8")


@given(texts, texts)
def test_different_texts_are_hidden_differently(left, right):
    assert (fields.hide(left) == fields.hide(right)) is (left == right)


@given(values)
@example({NASTY: [NASTY]})
def test_dumped_json_can_be_stored_and_is_loaded_again(value):
    text = fields.dump(value)
    text.encode("utf-8")
    assert "\\u0000" not in text.replace("\\\\", "")
    assert fields.load(text) == value
    assert fields.load(text.encode()) == value


@given(values)
@example({NASTY: [NASTY]})
def test_json_that_a_database_made_of_hidden_values_is_revealed_by_one_substitution(value):
    """A parser joins surrogates that stand in a pair, as every JSON parser must; so does what is compared."""
    revealed = json.loads(fields.reveal(fields.dump(value)))
    assert revealed == json.loads(json.dumps(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": float("-inf")}])
def test_a_number_that_is_not_finite_is_no_json(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        fields.dump(value)


# ---------------------------------------------------------------------------------------------------------- the columns


@settings(max_examples=60)
@given(texts, objects)
@example(NASTY, {NASTY: {NASTY: [NASTY]}})
@example("", {"": ""})
def test_every_string_comes_back_from_every_column(django_db_setup, alice, text, value):
    session = make_session(
        alice, agent="silent", title=text, metadata=value, state=value, environment=value, tags=[text],
        application=text, external_id=text,
    )  # fmt: skip
    message = Message("user", text, metadata=value, parts=({"type": text, "value": value},), external_id=text)
    messages.append(session, message)
    messages.record(session, "app.x", value)
    sessions.end(session, reason=text)
    row = ChatSession.objects.get(pk=session.pk)
    assert (row.title, row.tags, row.application, row.external_id, row.end_reason) == (text, [text], text, text, text)
    for column in (row.metadata, row.state, row.environment):
        assert plain(column) == plain(value)
    event = SessionEvent.objects.get(session=row, sequence=2)
    assert (event.content, event.external_id) == (text, text)
    assert plain(event.data.get("metadata", {})) == plain(value)
    assert plain(event.data["parts"]) == plain([{"type": text, "value": value}])
    assert plain(SessionEvent.objects.get(session=row, sequence=3).data) == plain(value)
    assert verification.verify(row) == []
    row.delete()


@settings(max_examples=40)
@given(texts, texts)
@example("\x00", "\ufdd00000")
@example("\ufdd0", "\ufdd0fdd0")
def test_names_are_told_apart_whatever_is_in_them(django_db_setup, alice, left, right):
    first = make_session(alice, agent="silent", external_id=left)
    second = opening.open(alice, agent="silent", external_id=right)
    assert second.created is (left != right)
    assert ChatSession.objects.get(external_id=left) == first
    for session in (first, second.session):
        ChatSession.objects.filter(pk=session.pk).delete()


@settings(max_examples=40)
@given(objects, objects)
def test_a_state_change_of_any_json_is_what_the_merge_patch_says(django_db_setup, alice, before, patch):
    from django_chat_sessions.rules.merge import merge

    session = make_session(alice, agent="silent", state=before)
    sessions.change_state(session, patch)
    row = ChatSession.objects.get(pk=session.pk)
    assert plain(row.state) == plain(merge(before, patch))
    assert verification.verify(row) == []
    row.delete()
