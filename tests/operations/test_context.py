"""What a model sees of a conversation."""

from __future__ import annotations

import pytest

from django_chat_sessions.agents import Message
from django_chat_sessions.operations import context, messages
from django_chat_sessions.testing import say

CALL = {"type": "tool_call", "id": "a", "name": "search", "arguments": {}}
RESULT = {"type": "tool_result", "id": "a", "name": "search", "is_error": False}


def texts(window: context.Window) -> list[str]:
    return [message.content for message in window.messages]


def count_characters(message: Message) -> int:
    return len(message.content)


def test_a_window_is_what_fits_with_system_messages_kept(session):
    say(session, "rules", role="system", token_count=1)
    for number in range(5):
        say(session, str(number), token_count=10)
    window = context.window(session, max_messages=3)
    assert (texts(window), window.truncated) == (["rules", "3", "4"], True)
    window = context.window(session, max_tokens=31)
    assert texts(window) == ["rules", "2", "3", "4"]
    window = context.window(session)
    assert (len(window.messages), window.truncated, window.summary) == (6, False, None)


def test_a_window_is_as_wide_as_the_settings_say(session, configured):
    configured(WINDOW_MESSAGES=2)
    for number in range(3):
        say(session, str(number), token_count=10)
    assert texts(context.window(session)) == ["1", "2"]
    configured(WINDOW_TOKENS=19)
    assert texts(context.window(session)) == ["2"]


def test_a_window_is_as_wide_as_the_agent_says_whatever_the_settings_do(session, configured, agent):
    configured(WINDOW_MESSAGES=2, WINDOW_TOKENS=10)
    agent("silent", window_messages=3, window_tokens=25)
    for number in range(4):
        say(session, str(number), token_count=10)
    assert texts(context.window(session)) == ["2", "3"]
    assert texts(context.window(session, max_tokens=100)) == ["1", "2", "3"]


@pytest.mark.parametrize("counter", [count_characters, f"{__name__}.count_characters"])
def test_tokens_are_counted_as_the_settings_say(session, configured, counter):
    configured(TOKEN_COUNTER=counter)
    for text in ("aaaa", "bb", "c"):
        say(session, text)
    assert texts(context.window(session, max_tokens=6)) == ["bb", "c"]
    assert texts(context.window(session, max_tokens=7)) == ["aaaa", "bb", "c"]


def test_a_window_shows_messages_as_they_read_now_and_where_they_stood(session):
    for text in ("a", "b", "c"):
        say(session, text)
    messages.edit(session, 2, "A")
    messages.withdraw(session, 3)
    window = context.window(session)
    assert (texts(window), window.truncated) == (["A", "c"], False)


def test_a_call_is_not_torn_from_its_result_by_how_far_back_is_read(session):
    say(session, "q")
    say(session, "", role="assistant", parts=[CALL])
    say(session, "found", role="tool", parts=[RESULT])
    say(session, "so", role="assistant")
    assert texts(context.window(session, max_messages=3)) == ["", "found", "so"]
    assert texts(context.window(session, max_messages=2)) == ["so"]


def test_what_is_larger_than_the_window_is_not_shown_unless_it_is_the_question(session):
    say(session, "rules", role="system", token_count=1)
    asked = say(session, "long", token_count=100)
    assert texts(context.window(session, max_tokens=50)) == ["rules"]
    assert texts(context.window(session, max_tokens=50, question=asked.sequence)) == ["rules", "long"]


def test_the_question_is_shown_however_much_was_said_since(session):
    asked = say(session, "question")
    for number in range(5):
        say(session, str(number))
    assert texts(context.window(session, max_messages=3)) == ["2", "3", "4"]
    assert texts(context.window(session, max_messages=3, question=asked.sequence)) == ["question", "3", "4"]


def test_an_earlier_question_is_answered_as_the_conversation_was_then(session):
    for number in range(5):
        say(session, str(number))
    say(session, "rules", role="system")
    assert texts(context.window(session, max_messages=3, up_to=4)) == ["1", "2", "rules"]


def test_a_window_asks_as_often_however_long_the_conversation_is(session, django_assert_num_queries):
    say(session, "hello")
    with django_assert_num_queries(2):
        context.window(session)
    for _ in range(2):
        for number in range(60):
            say(session, str(number))
        with django_assert_num_queries(3):
            context.window(session)
