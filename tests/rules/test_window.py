"""Which messages a model gets to see."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from django_chat_sessions.agents import Message
from django_chat_sessions.rules.window import estimate_tokens, fit


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


def test_a_message_without_a_count_is_estimated_and_never_free():
    assert estimate_tokens(Message("user", "", token_count=7)) == 7
    assert estimate_tokens(Message("user", "")) == 1
    assert estimate_tokens(Message("user", "abcd")) == 1
    assert estimate_tokens(Message("user", "abcde")) == 2


def test_somebody_elses_counting_is_used():
    chosen = fit(talk(*["user"] * 3), max_messages=None, max_tokens=2, count=lambda message: 1)
    assert texts(chosen) == "12"


messages = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant", "system", "tool"]),
        st.text(max_size=9),
        token_count=st.none() | st.integers(0, 20),
    ),
    max_size=12,
)


@given(messages, st.none() | st.integers(0, 12), st.none() | st.integers(0, 60))
def test_a_window_is_all_system_messages_and_the_latest_others_without_a_gap(given_, most, tokens):
    chosen = fit(given_, max_messages=most, max_tokens=tokens)
    others = [message for message in chosen if message.role != "system"]
    every_other = [message for message in given_ if message.role != "system"]
    assert [m for m in chosen if m.role == "system"] == [m for m in given_ if m.role == "system"]
    assert others == every_other[len(every_other) - len(others) :]
    if others:
        assert most is None or len(chosen) <= most
        assert tokens is None or sum(map(estimate_tokens, chosen)) <= tokens
