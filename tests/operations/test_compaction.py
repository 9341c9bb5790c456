"""What no longer fits the window is summarized, beside the log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import connection, connections

from django_chat_sessions.agents import Message
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import compaction, context, messages, opening, runs, sessions
from django_chat_sessions.testing import make_session, say
from tests.operations.reading import last, types

Hook = Callable[[Sequence[Message], str | None], Any]


def joined(said: Sequence[Message], so_far: str | None) -> str:
    """Say everything again."""
    return (so_far or "") + "".join(message.content for message in said)


def talk(session: ChatSession, texts: str, **fields: Any) -> None:
    for text in texts:
        say(session, text, **fields)


def seen(session: ChatSession, **budget: Any) -> tuple[str | None, str]:
    """Return the summary and the texts of the window."""
    window = context.window(session, **budget)
    return window.summary, "".join(message.content for message in window.messages)


@pytest.fixture
def small(agent):
    """Return a function that lets sessions have a window of eight messages, or another, and a hook."""

    def small(hook: Hook | None = joined, **fields: Any) -> None:
        agent("silent", **{"window_messages": 8, "summarize": hook, **fields})

    small()
    return small


@pytest.mark.usefixtures("small")
def test_what_fits_is_not_summarized(session):
    talk(session, "abcdefgh")
    assert compaction.compact(session) is None
    assert types(session).count("context.compacted") == 0


@pytest.mark.usefixtures("small")
def test_what_no_longer_fits_is_summarized_and_the_window_goes_on_from_there(session):
    talk(session, "abcdefghi", token_count=3)
    assert seen(session) == (None, "bcdefghi")
    made = compaction.compact(session)
    assert made == context.Compaction("abc", up_to=4, messages=3, tokens=9, sequence=11)
    assert last(session).data == {"summary": "abc", "up_to": 4, "messages": 3, "tokens": 9}
    assert seen(session) == ("abc", "defghi")
    assert context.window(session).truncated is True
    assert [message.content for message in messages.everything(session)] == list("abcdefghi")


@pytest.mark.usefixtures("small")
def test_it_is_done_once_in_a_while_and_builds_on_what_was_done(session):
    talk(session, "abcdefghi")
    assert compaction.compact(session).summary == "abc"
    talk(session, "jk")
    assert compaction.compact(session) is None
    assert seen(session) == ("abc", "defghijk")
    talk(session, "l")
    made = compaction.compact(session)
    assert (made.summary, made.messages) == ("abcdef", 6)
    assert seen(session) == ("abcdef", "ghijkl")


@pytest.mark.usefixtures("small")
def test_a_long_conversation_is_summarized_a_window_at_a_time(session, small):
    sizes: list[int] = []

    def hook(said: Sequence[Message], so_far: str | None) -> str:
        sizes.append(len(said))
        return joined(said, so_far)

    small(hook)
    talk(session, "abcdefghijklmnopqrstuvwxyz")
    assert compaction.compact(session).summary == "abcdefghijklmnopqrst"
    assert sizes == [8, 8, 4]
    assert seen(session) == ("abcdefghijklmnopqrst", "uvwxyz")


@pytest.mark.usefixtures("small")
def test_a_very_long_one_takes_several_calls(session, monkeypatch):
    monkeypatch.setattr(compaction, "ROUNDS", 1)
    talk(session, "abcdefghijklmnopqrstuvwxyz")
    assert [compaction.compact(session).messages for _ in range(3)] == [8, 16, 20]
    assert compaction.compact(session) is None


def test_tokens_count_as_messages_do(session, small):
    small(window_messages=None, window_tokens=80)
    talk(session, "abcdefgh", token_count=10)
    assert compaction.compact(session) is None
    talk(session, "i", token_count=10)
    assert compaction.compact(session).summary == "abcde"
    assert seen(session) == ("abcde", "fghi")
    talk(session, "jkl", token_count=10)
    assert compaction.compact(session) is None
    assert seen(session) == ("abcde", "fghijkl")


def test_a_summary_counts_in_the_window(session, small):
    small(lambda said, so_far: "x" * 80, window_messages=None, window_tokens=80)
    talk(session, "abcdefghi", token_count=10)
    assert compaction.compact(session).tokens == 50
    assert seen(session) == ("x" * 80, "fghi")
    assert seen(session, max_tokens=59) == ("x" * 80, "ghi")
    assert seen(session, max_tokens=29) == (None, "hi")


def test_a_question_larger_than_the_window_comes_without_a_summary(session, small):
    small(window_messages=None, window_tokens=80)
    talk(session, "abcdefghi", token_count=10)
    compaction.compact(session)
    asked = say(session, "z", token_count=80)
    assert seen(session, question=asked.sequence) == (None, "z")


@pytest.mark.usefixtures("small")
def test_a_window_that_shows_everything_needs_no_summary(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    assert seen(session, max_messages=9) == (None, "abcdefghi")
    assert context.window(session, max_messages=9).truncated is False
    assert seen(session, max_messages=2) == ("abc", "hi")


@pytest.mark.usefixtures("small")
def test_system_messages_are_never_summarized(session):
    talk(session, "S", role="system")
    talk(session, "abcdefgh")
    made = compaction.compact(session)
    assert made.summary == "abc"
    assert seen(session) == ("abc", "Sdefgh")


@pytest.mark.usefixtures("small")
def test_a_call_is_summarized_with_its_results(session):
    call = {"type": "tool_call", "id": "1", "name": "n", "arguments": {}}
    result = {"type": "tool_result", "id": "1", "name": "n", "is_error": False}
    talk(session, "ab")
    say(session, "C", role="assistant", parts=[call])
    say(session, "R", role="tool", parts=[result])
    talk(session, "efghi")
    assert compaction.compact(session).summary == "abCR"
    assert seen(session) == ("abCR", "efghi")


@pytest.mark.usefixtures("small")
def test_an_answer_to_an_earlier_question_has_no_summary_of_what_came_after(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    assert seen(session, up_to=3) == (None, "ab")
    assert seen(session, up_to=6) == (None, "abcde")
    assert seen(session, up_to=6, max_messages=3) == ("abc", "de")


def test_the_settings_hook_serves_agents_without_one(session, small, configured):
    small(None)
    talk(session, "abcdefghi")
    assert compaction.compact(session) is None
    configured(SUMMARIZE=f"{__name__}.joined")
    assert compaction.compact(session).summary == "abc"


def test_a_hook_may_be_asynchronous(session, small):
    async def hook(said: Sequence[Message], so_far: str | None) -> str:
        await asyncio.sleep(0)
        return joined(said, so_far)

    small(hook)
    talk(session, "abcdefghi")
    assert compaction.compact(session).summary == "abc"


def test_an_asynchronous_hook_has_the_time_of_an_answer(session, small, caplog):
    small(lambda said, so_far: asyncio.sleep(60), time_limit_seconds=0.05)
    talk(session, "abcdefghi")
    assert compaction.compact(session) is None
    assert "was not compacted" in caplog.text


def fail(said: Sequence[Message], so_far: str | None) -> str:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    "hook", [fail, lambda *_: None, lambda *_: " ", lambda *_: "x" * 100], ids=["raises", "None", "blank", "long"]
)
def test_a_hook_that_fails_costs_nothing_and_is_asked_again(session, small, configured, caplog, hook):
    configured(MAX_MESSAGE_LENGTH=99)
    small(hook)
    talk(session, "abcdefghi")
    assert compaction.compact(session) is None
    assert "was not compacted" in caplog.text
    assert seen(session) == (None, "bcdefghi")
    assert types(session).count("context.compacted") == 0
    small()
    assert compaction.compact(session).summary == "abc"


def test_a_summary_that_leaves_the_window_no_room_is_refused(session, small, caplog):
    small(lambda said, so_far: "x" * 100, window_messages=None, window_tokens=80)
    talk(session, "abcdefghi", token_count=10)
    assert compaction.compact(session) is None
    assert "a quarter of the window" in caplog.text


def meanwhile(small: Callable[..., None], change: Callable[[], object]) -> None:
    """Let something happen while the hook is thinking."""

    def hook(said: Sequence[Message], so_far: str | None) -> str:
        small()
        change()
        return joined(said, so_far)

    small(hook)


@pytest.mark.parametrize("change", ["edit", "withdraw"])
def test_a_summary_of_what_was_changed_meanwhile_is_dropped(session, small, change):
    talk(session, "abcdefghi")
    meanwhile(small, lambda: messages.edit(session, 3, "B") if change == "edit" else messages.withdraw(session, 3))
    assert compaction.compact(session) is None
    assert types(session).count("context.compacted") == 0
    assert compaction.compact(session) is None if change == "withdraw" else compaction.compact(session)


def test_what_is_changed_beyond_it_does_not_matter(session, small):
    talk(session, "abcdefghi")
    meanwhile(small, lambda: messages.edit(session, 5, "D"))
    assert compaction.compact(session).summary == "abc"
    assert seen(session) == ("abc", "Defghi")


def test_of_two_at_once_the_first_counts(session, small):
    talk(session, "abcdefghi")
    made: list[context.Compaction | None] = []
    meanwhile(small, lambda: made.append(compaction.compact(ChatSession.objects.get(pk=session.pk))))
    assert compaction.compact(session) is None
    assert made[0].summary == "abc"
    assert types(session).count("context.compacted") == 1


def test_a_session_that_ends_meanwhile_is_left_alone(session, small):
    talk(session, "abcdefghi")
    meanwhile(small, lambda: sessions.end(session))
    assert compaction.compact(session) is None
    assert types(session)[-1] == "session.ended"


def test_a_session_that_is_deleted_meanwhile_is_left_alone(session, small):
    talk(session, "abcdefghi")
    meanwhile(small, lambda: sessions.delete(session))
    assert compaction.compact(ChatSession.objects.get(pk=session.pk)) is None


# ------------------------------------------------------------------------------------------------ what is changed later


def contents(session: ChatSession) -> str:
    """Return all that the summaries of a session say, in force or not."""
    return "".join(event.data.get("summary", "") for event in session.events.filter(type="context.compacted"))


@pytest.mark.usefixtures("small")
def test_withdrawing_a_message_erases_each_summary_of_it(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    talk(session, "jkl")
    compaction.compact(session)
    messages.withdraw(session, 3)
    assert contents(session) == ""
    assert seen(session) == (None, "efghijkl")
    assert compaction.compact(session).summary == "acdef"
    assert seen(session) == ("acdef", "ghijkl")


@pytest.mark.usefixtures("small")
def test_withdrawing_what_only_a_later_summary_covers_leaves_the_earlier(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    talk(session, "jkl")
    compaction.compact(session)
    messages.withdraw(session, 6)
    assert contents(session) == "abc"
    assert seen(session) == ("abc", "dfghijkl")


@pytest.mark.usefixtures("small")
def test_withdrawing_what_is_not_summarized_leaves_the_summary(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    messages.withdraw(session, 5)
    assert contents(session) == "abc"
    assert seen(session, max_messages=7) == ("abc", "efghi")


@pytest.mark.usefixtures("small")
def test_editing_a_message_sets_its_summary_aside_until_it_is_made_anew(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    messages.edit(session, 3, "B")
    assert seen(session) == (None, "Bcdefghi"[:8])
    assert contents(session) == "abc"
    assert compaction.compact(session).summary == "aBc"


@pytest.mark.usefixtures("small")
def test_withdrawing_what_was_edited_erases_the_summary_of_how_it_read(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    messages.edit(session, 3, "B")
    messages.withdraw(session, 3)
    assert contents(session) == ""


@pytest.mark.parametrize("was_answered", [True, False])
def test_answering_anew_sets_the_summary_of_the_old_answer_aside(alice, agent, was_answered):
    answers = iter(["A" if was_answered else "", *"BCDEZ"])
    agent("fickle", lambda turn: next(answers) or None, window_messages=8, summarize=joined)
    session = make_session(alice, agent="fickle")
    first = runs.ask(session, Message("user", "a")).message
    for text in "bcde":
        runs.ask(session, Message("user", text))
    assert compaction.compact(session).summary == ("aAbB" if was_answered else "abB")
    runs.ask_again(session, input_sequence=first.sequence)
    assert context.latest(session) is None
    assert compaction.compact(session).summary == "aZbB"


@pytest.mark.usefixtures("small")
def test_a_fork_is_summarized_by_itself(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    made = opening.fork(session)
    assert seen(made) == (None, "bcdefghi")
    assert compaction.compact(made).summary == "abc"


# ------------------------------------------------------------------------------------------------------- the database


@pytest.mark.usefixtures("small")
def test_no_transaction_is_open_while_the_hook_thinks(transactional_db, django_user_model, small):
    session = make_session(django_user_model.objects.create_user("carol"), agent="silent")
    talk(session, "abcdefghi")
    open_: list[object] = []

    def hook(said: Sequence[Message], so_far: str | None) -> str:
        open_.extend([connection.in_atomic_block, connection.connection])
        return joined(said, so_far)

    small(hook)
    assert compaction.compact(session).summary == "abc"
    assert open_[0] is False
    if connection.vendor == "postgresql":
        assert open_[1] is None


def test_of_two_threads_the_first_counts(transactional_db, django_user_model, small):
    session = make_session(django_user_model.objects.create_user("carol"), agent="silent")
    talk(session, "abcdefghi")
    together = threading.Barrier(2, timeout=30)

    def hook(said: Sequence[Message], so_far: str | None) -> str:
        together.wait()
        return joined(said, so_far)

    small(hook)
    made: list[context.Compaction | None] = []

    def work() -> None:
        made.append(compaction.compact(ChatSession.objects.get(pk=session.pk)))
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one is None for one in made) == [False, True]
    assert types(session).count("context.compacted") == 1


@pytest.mark.postgres
@pytest.mark.usefixtures("small")
def test_the_summary_is_found_by_an_index_of_its_own_whatever_the_parameters(session):
    talk(session, "abcdefghi")
    compaction.compact(session)
    sql, parameters = context.compactions(session).query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE latest(bigint) AS {sql.replace('%s', '$1')}")
        cursor.execute(f"EXPLAIN EXECUTE latest({parameters[0]})")
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("DEALLOCATE latest")
    assert len(parameters) == 1
    assert "chat_sessions_compacted" in plan
