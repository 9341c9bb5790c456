"""How many tokens a message is taken for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from django_chat_sessions.agents import Message
from django_chat_sessions.rules.tokens import estimate


def test_a_message_without_a_count_is_estimated_and_never_free():
    assert estimate(Message("user", "", token_count=7)) == 7
    assert estimate(Message("user", "", token_count=0)) == 0
    assert estimate(Message("user", "")) == 1
    assert estimate(Message("user", "abcd")) == 1
    assert estimate(Message("user", "abcde")) == 2


def test_scripts_with_more_tokens_a_character_are_estimated_higher():
    assert estimate(Message("user", "こんにちは世界")) == 6
    assert estimate(Message("user", "hello, ")) == 2


def test_a_call_counts_with_its_arguments_and_a_text_part_once():
    call = {"type": "tool_call", "id": "a", "name": "search", "arguments": {"query": "x" * 400}}
    assert estimate(Message("assistant", "", parts=(call,))) > 100
    text = {"type": "text", "text": "abcd"}
    assert estimate(Message("user", "abcd", parts=(text,))) == 1


@given(st.text(st.characters(codec=None)), st.lists(st.dictionaries(st.text(), st.text(st.characters(codec=None)))))
def test_anything_that_can_be_stored_can_be_counted(text, parts):
    assert estimate(Message("user", text, parts=parts)) >= 1
