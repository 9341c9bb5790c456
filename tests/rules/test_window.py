"""Which messages a model gets to see."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from django_chat_sessions.agents import Message
from django_chat_sessions.rules.tokens import estimate
from django_chat_sessions.rules.window import fit, oldest


def talk(*roles: str) -> list[Message]:
    return [Message(role, str(number), token_count=10) for number, role in enumerate(roles)]


def texts(messages: list[Message]) -> str:
    return "".join(message.content for message in messages)


def test_without_a_budget_everything_is_seen():
    assert texts(fit(talk("user", "assistant", "user"), max_messages=None, max_tokens=None)) == "012"


def test_the_latest_fit():
    assert texts(fit(talk(*["user"] * 5), max_messages=2, max_tokens=None)) == "34"
    assert texts(fit(talk(*["user"] * 5), max_messages=None, max_tokens=30)) == "234"
    assert texts(fit(talk(*["user"] * 5), max_messages=None, max_tokens=39)) == "234"


def test_the_narrower_of_two_budgets_counts():
    assert texts(fit(talk(*["user"] * 5), max_messages=4, max_tokens=20)) == "34"
    assert texts(fit(talk(*["user"] * 5), max_messages=1, max_tokens=40)) == "4"


def test_system_messages_are_kept_where_they_stood_and_pay_first():
    messages = talk("system", "user", "assistant", "system", "user", "assistant")
    assert texts(fit(messages, max_messages=3, max_tokens=None)) == "035"
    assert texts(fit(messages, max_messages=None, max_tokens=40)) == "0345"


def test_system_messages_are_kept_even_where_they_alone_break_the_budget():
    messages = talk("system", "system", "user")
    assert texts(fit(messages, max_messages=1, max_tokens=5)) == "01"


def test_a_message_too_large_ends_the_window_so_that_it_has_no_gap():
    messages = [
        Message("user", "a", token_count=1),
        Message("user", "b", token_count=100),
        Message("user", "c", token_count=1),
    ]
    assert texts(fit(messages, max_messages=None, max_tokens=10)) == "c"


def test_no_budget_at_all_shows_nothing():
    assert fit(talk("user"), max_messages=0, max_tokens=None) == []
    assert fit(talk("user"), max_messages=None, max_tokens=0) == []
    assert fit([], max_messages=5, max_tokens=5) == []


def test_somebody_elses_counting_is_used():
    chosen = fit(talk(*["user"] * 3), max_messages=None, max_tokens=2, count=lambda message: 1)
    assert texts(chosen) == "12"


def test_the_question_is_kept_whatever_it_takes_and_pays_first():
    messages = talk("system", "user", "assistant", "user", "assistant")
    kept = {"keep": lambda message: message.content == "1"}
    assert texts(fit(messages, max_messages=3, max_tokens=None, **kept)) == "014"
    assert texts(fit(messages, max_messages=None, max_tokens=5, **kept)) == "01"


# --------------------------------------------------------------------------------------------------------- tool calls


def calls(*names: str, text: str = "") -> Message:
    parts = tuple({"type": "tool_call", "id": name, "name": "search", "arguments": {}} for name in names)
    return Message("assistant", text, parts=parts, token_count=10)


def result(*names: str) -> Message:
    parts = tuple({"type": "tool_result", "id": name, "name": "search", "is_error": False} for name in names)
    return Message("tool", "".join(names).upper(), parts=parts, token_count=10)


USER = Message("user", "?", token_count=10)
ANSWER = Message("assistant", "!", token_count=10)


def all_of(*messages: Message) -> list[Message]:
    return fit(messages, max_messages=None, max_tokens=None)


def test_a_call_and_its_results_are_seen_together_or_not_at_all():
    messages = [USER, calls("a", "b"), result("a"), result("b"), ANSWER]
    assert fit(messages, max_messages=4, max_tokens=None) == messages[1:]
    assert fit(messages, max_messages=3, max_tokens=None) == [ANSWER]
    assert fit(messages, max_messages=None, max_tokens=39) == [ANSWER]
    assert fit(messages, max_messages=None, max_tokens=40) == messages[1:]


def test_what_was_said_between_a_call_and_its_result_belongs_to_them():
    messages = [calls("a"), USER, result("a"), ANSWER]
    assert fit(messages, max_messages=3, max_tokens=None) == [ANSWER]
    assert all_of(*messages) == messages


def test_results_may_come_in_any_order_and_several_at_once():
    messages = [calls("a", "b", "c"), result("c"), result("b", "a"), ANSWER]
    assert all_of(*messages) == messages
    assert fit(messages, max_messages=3, max_tokens=None) == [ANSWER]


def test_a_result_without_its_call_is_not_shown():
    assert all_of(result("a"), USER) == [USER]
    assert all_of(calls("a"), result("a"), result("a"), USER) == [calls("a"), result("a"), USER]
    assert all_of(calls("a"), result("a", "x"), USER) == [USER]


def test_a_call_that_nobody_answered_is_shown_only_as_the_last_word():
    assert all_of(USER, calls("a")) == [USER, calls("a")]
    assert all_of(USER, calls("a", "b"), result("a")) == [USER, calls("a", "b"), result("a")]
    assert all_of(calls("a"), USER) == [USER]


def test_what_was_said_with_a_call_that_nobody_answered_is_shown():
    shown, asked = all_of(calls("a", text="One moment."), USER)
    assert (shown.content, shown.parts, asked) == ("One moment.", (), USER)
    assert all_of(calls("a", "b"), result("b"), USER) == [calls("b"), result("b"), USER]


def test_names_of_calls_may_be_used_again():
    messages = [calls("a"), result("a"), USER, calls("a"), result("a"), ANSWER]
    assert all_of(*messages) == messages
    assert fit(messages, max_messages=4, max_tokens=None) == messages[2:]
    assert all_of(calls("a"), USER, calls("a"), result("a"), ANSWER) == [USER, calls("a"), result("a"), ANSWER]


def test_a_tool_that_nobody_called_by_name_says_what_it_says():
    messages = [Message("tool", "42 rows"), ANSWER]
    assert all_of(*messages) == messages


def test_system_messages_within_a_call_stay_where_they_stood():
    messages = [calls("a"), Message("system", "s"), result("a"), ANSWER]
    assert all_of(*messages) == messages
    assert fit(messages, max_messages=2, max_tokens=None) == [messages[1], ANSWER]


# --------------------------------------------------------------------------------------------------------- the oldest


def test_the_oldest_that_fit_are_at_least_something():
    messages = [USER, calls("a"), result("a"), ANSWER]
    assert oldest(messages, max_messages=2, max_tokens=None) == [USER]
    assert oldest(messages, max_messages=3, max_tokens=None) == messages[:3]
    assert oldest(messages, max_messages=None, max_tokens=35) == messages[:3]
    assert oldest(messages, max_messages=9, max_tokens=None) == messages
    assert oldest(messages[1:], max_messages=1, max_tokens=1) == messages[1:3]
    assert oldest([], max_messages=1, max_tokens=1) == []


# --------------------------------------------------------------------------------------------------------- properties

names = st.sets(st.sampled_from("abc"), min_size=1, max_size=2).map(sorted)
spoken = st.builds(
    Message,
    st.sampled_from(["user", "assistant", "system", "tool"]),
    st.text(max_size=9),
    token_count=st.none() | st.integers(0, 20),
)
conversations = st.lists(
    spoken | names.map(lambda ids: calls(*ids)) | names.map(lambda ids: result(*ids)), max_size=14
).map(lambda messages: [replace(message, sequence=number) for number, message in enumerate(messages)])
limits = st.none() | st.integers(0, 14), st.none() | st.integers(0, 120)


def others(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message.role != "system"]


def ids(message: Message, kind: str) -> set[str]:
    return {part["id"] for part in message.parts if part["type"] == kind}


@given(conversations, *limits)
def test_a_window_is_all_system_messages_and_the_latest_others_without_a_gap(given_, most, tokens):
    chosen = fit(given_, max_messages=most, max_tokens=tokens)
    whole = others(fit(given_, max_messages=None, max_tokens=None))
    assert [m for m in chosen if m.role == "system"] == [m for m in given_ if m.role == "system"]
    assert others(chosen) == whole[len(whole) - len(others(chosen)) :]
    assert [m.sequence for m in chosen] == sorted(m.sequence for m in chosen)
    if others(chosen):
        assert most is None or len(chosen) <= most
        assert tokens is None or sum(map(estimate, chosen)) <= tokens


@given(conversations, *limits)
def test_a_window_has_no_half_of_a_call(given_, most, tokens):
    """But in its last unit, which is the question here."""
    chosen = others(fit([*given_, replace(USER, sequence=99)], max_messages=most, max_tokens=tokens))
    waiting: set[str] = set()
    for message in chosen:
        results = ids(message, "tool_result")
        assert results <= waiting
        waiting = (waiting - results) | ids(message, "tool_call")
    assert not waiting


@given(conversations, *limits)
def test_a_window_of_a_window_is_the_same(given_, most, tokens):
    chosen = fit(given_, max_messages=most, max_tokens=tokens)
    assert fit(chosen, max_messages=most, max_tokens=tokens) == chosen


@given(conversations, *limits)
def test_without_tools_everything_is_seen_and_the_window_is_as_wide_as_it_may_be(given_, most, tokens):
    plain = [message for message in given_ if not message.parts]
    assert fit(plain, max_messages=None, max_tokens=None) == plain
    chosen = fit(plain, max_messages=most, max_tokens=tokens)
    if len(chosen) < len(plain):
        next_ = others(plain)[-len(others(chosen)) - 1]
        over = most is not None and len(chosen) >= most
        assert over or (tokens is not None and sum(map(estimate, chosen)) + estimate(next_) > tokens)


@given(conversations, *limits, st.integers(0, 13))
def test_what_is_to_be_kept_is_kept_and_the_budget_with_it_where_that_is_possible(given_, most, tokens, which):
    keep = {"keep": lambda message: message.sequence == which}
    chosen = fit(given_, max_messages=most, max_tokens=tokens, **keep)
    whole = fit(given_, max_messages=None, max_tokens=None)
    assert (which in {m.sequence for m in chosen}) == (which in {m.sequence for m in whole})
    least = fit(given_, max_messages=0, max_tokens=0, **keep)
    if len(chosen) > len(least):
        assert most is None or len(chosen) <= most
        assert tokens is None or sum(map(estimate, chosen)) <= tokens


@given(conversations, *limits)
def test_the_oldest_that_fit_are_a_beginning(given_, most, tokens):
    plain = others(given_)
    first = oldest(plain, max_messages=most, max_tokens=tokens)
    assert first == plain[: len(first)]
    assert bool(first) == bool(plain)
