"""The responder for models, against a server that speaks their protocol."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

pytest.importorskip("openai", reason="needs the extra openai")

from django_chat_sessions.adapters.openai_chat import (
    ModelFailed,
    ModelInterrupted,
    ModelRefused,
    ModelUnavailable,
    OpenAIChat,
    Tool,
    ToolFailed,
)
from django_chat_sessions.adapters.openai_chat.protocol import NO_RESULT, conversation
from django_chat_sessions.turns import CUT_SHORT, Message, Piece, RequestContext, ToolCall, ToolResult, Turn, Usage
from tests.adapters import openai_server as server
from tests.adapters.openai_server import Ending, ModelServer, Reply

KEY = "sk-of-the-tests-1234567890"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as started:
        yield started


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)


def chat(model: ModelServer, **more: Any) -> OpenAIChat:
    return OpenAIChat(**{"model": "local", "base_url": model.url, "api_key": KEY, "timeout_seconds": 5, **more})


def turn(*messages: Message | str, **more: Any) -> Turn:
    window = tuple(Message("user", said) if isinstance(said, str) else said for said in messages or ("Hello",))
    return Turn(RequestContext(), window[-1], window, more.pop("state", {}), **more)


async def collect(responder: OpenAIChat, asked: Turn, into: list[Piece]) -> None:
    async with aclosing(responder(asked)) as pieces:
        async for piece in pieces:
            into.append(piece)  # noqa: PERF401 - what was said before a failure is looked at


def answer(responder: OpenAIChat, *messages: Message | str, asked: Turn | None = None) -> list[Piece]:
    said: list[Piece] = []
    asyncio.run(collect(responder, asked or turn(*messages), said))
    return said


def fails(responder: OpenAIChat, error: type[ModelFailed]) -> tuple[list[Piece], str]:
    """Return what was said before it failed, and why it did."""
    said: list[Piece] = []
    with pytest.raises(error) as raised:
        asyncio.run(collect(responder, turn(), said))
    assert type(raised.value) is error
    return said, str(raised.value)


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece for piece in pieces if isinstance(piece, str))


def results(pieces: Sequence[Piece]) -> list[ToolResult]:
    return [piece for piece in pieces if isinstance(piece, ToolResult)]


def tool(call: Callable[..., Any], name: str = "weather", **more: Any) -> Tool:
    return Tool(name, "Says how the weather is.", CITY, call, **more)


def wire(*messages: Message | str, **more: Any) -> list[dict[str, Any]]:
    options = {key: more.pop(key) for key in ("system", "sees_images") if key in more}
    return list(conversation(turn(*messages, **more), **options))


# ------------------------------------------------------------------------------------------------------- text and usage


def test_text_comes_in_pieces_and_is_counted(model: ModelServer) -> None:
    model.will(server.said("It ", "depends", "."))
    assert answer(chat(model)) == ["It ", "depends", ".", Usage(10, 5)]


def test_text_comes_as_it_streams(model: ModelServer) -> None:
    model.will(Reply(server.said("at once", "later"), seconds_between=0.3))

    async def instants() -> list[float]:
        return [time.monotonic() async for piece in chat(model)(turn()) if isinstance(piece, str)]

    first, second = asyncio.run(instants())
    assert second - first > 0.2


def test_request_says_what_was_configured(model: ModelServer) -> None:
    answer(chat(model, system="Be brief.", temperature=0.2, options={"max_tokens": 7}), "Hello")
    (request,) = model.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "local",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "temperature": 0.2,
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_server_that_cannot_count_is_not_asked_to(model: ModelServer) -> None:
    assert answer(chat(model, counts_usage=False), "Hello") == ["Hello "]
    assert "stream_options" not in model.requests[0].body


def test_last_of_several_counts_is_the_rounds(model: ModelServer) -> None:
    counting = [server.chunk({"content": "a"}, usage=server.usage(3, n)["usage"]) for n in (1, 2)]
    model.will([*counting, server.chunk(finish_reason="stop")])
    assert answer(chat(model)) == ["a", "a", Usage(3, 2)]


def test_system_prompt_may_depend_on_the_turn(model: ModelServer) -> None:
    threads: list[str] = []

    def prompt(asked: Turn) -> str:
        threads.append(threading.current_thread().name)
        return f"State: {asked.state}"

    async def later(asked: Turn) -> str:
        return "later"

    answer(chat(model, system=prompt), asked=turn("Hello", state={"a": 1}))
    answer(chat(model, system=later))
    assert [request.body["messages"][0]["content"] for request in model.requests] == ["State: {'a': 1}", "later"]
    assert threads[0].startswith("chat-tool")


def test_refusal_is_said(model: ModelServer) -> None:
    model.will([server.chunk({"refusal": "I would rather not."}), server.chunk(finish_reason="stop")])
    assert answer(chat(model)) == ["I would rather not."]


def test_pieces_that_leave_everything_out_are_nothing(model: ModelServer) -> None:
    bare: list[dict[str, Any]] = [
        {"choices": None},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": [{"type": "thinking"}], "reasoning_content": "Hm."}}]},
    ]
    model.will([*map(json.dumps, bare), *server.said("Yes")])
    assert text(answer(chat(model))) == "Yes"


# ---------------------------------------------------------------------------------------------- what the model is shown


def test_what_comes_first_is_one_message() -> None:
    shown = wire(Message("system", "The user is Ada."), "Hello", system="Be brief.", summary="They met.")
    assert [message["role"] for message in shown] == ["system", "user"]
    assert [line for line in shown[0]["content"].split("\n") if line][::2] == [
        "Be brief.",
        "What was said before, in short:",
    ]
    assert "The user is Ada." in shown[0]["content"]
    assert shown[0]["content"].endswith("They met.")


def test_later_system_message_stays_where_it_is() -> None:
    shown = wire("Hello", Message("system", "It is late."), "Bye")
    assert [message["role"] for message in shown] == ["user", "system", "user"]


def test_answer_that_was_cut_short_is_shown_as_it_is() -> None:
    assert wire(Message("assistant", "It dep", metadata={CUT_SHORT: "cancelled"}), "Go on") == [
        {"role": "assistant", "content": "It dep"},
        {"role": "user", "content": "Go on"},
    ]


def asking(*ids: str, said: str = "") -> Message:
    return Message("assistant", said, parts=tuple(ToolCall(id_, "weather", {"city": "Åre"}).as_part() for id_ in ids))


def test_calls_and_results_are_written_as_the_protocol_has_them() -> None:
    called = {"name": "weather", "arguments": '{"city": "Åre"}'}
    assert wire("?", asking("a", said="Let me see."), ToolResult("a", "Snow").as_message()) == [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": "a", "type": "function", "function": called}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "Snow"},
    ]


def outline(shown: Sequence[dict[str, Any]]) -> list[Any]:
    return [
        [call["id"] for call in message["tool_calls"]] if "tool_calls" in message else message["content"]
        for message in shown
    ]


def test_messages_with_calls_that_follow_each_other_are_one() -> None:
    shown = wire(asking("a"), asking("b", "c"), *(ToolResult(id_, id_ * 2).as_message() for id_ in "bca"))
    assert outline(shown) == [["a", "b", "c"], "aa", "bb", "cc"]


def test_result_comes_right_behind_its_call_whoever_spoke_meanwhile() -> None:
    shown = wire(asking("a"), "Are you there?", ToolResult("a", "Snow").as_message(), Message("assistant", "Yes"))
    assert outline(shown) == [["a"], "Snow", "Are you there?", "Yes"]


def test_call_without_a_result_is_given_one() -> None:
    shown = wire(asking("a", "b"), ToolResult("a", "Snow").as_message(), "And now?")
    assert outline(shown) == [["a", "b"], "Snow", NO_RESULT, "And now?"]


def test_ids_that_come_again_get_each_their_own_result() -> None:
    first, second = (ToolResult("call_0", said).as_message() for said in ("Snow", "Rain"))
    shown = wire(asking("call_0"), first, Message("assistant", "Snow."), "And now?", asking("call_0"), second)
    assert outline(shown) == [["call_0"], "Snow", "Snow.", "And now?", ["call_0"], "Rain"]


def test_result_that_nobody_asked_for_is_not_a_tools() -> None:
    shown = wire("How many?", Message("tool", "42 rows"), ToolResult("gone", "7 rows").as_message())
    assert [message["role"] for message in shown] == ["user"] * 3
    assert "42 rows" in shown[1]["content"]
    assert "7 rows" in shown[2]["content"]


def test_images_are_shown_and_other_files_named() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "file", "url": "https://example.com/cat.png", "media_type": "image/png", "name": "cat.png"},
        {"type": "file", "url": "https://example.com/cat.pdf", "media_type": "application/pdf", "name": "cat.pdf"},
        {"type": "file", "url": "http://10.0.0.1/secret.png", "media_type": "image/png"},
        {"type": "of-the-application", "url": "x"},
    ]
    (shown,) = wire(Message("user", parts=parts))
    assert shown["content"] == [
        {"type": "text", "text": "What is this?\n[file: cat.pdf, application/pdf]\n[file: image/png]"},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
    ]
    (blind,) = wire(Message("user", parts=parts[:2]), sees_images=False)
    assert blind["content"] == "What is this?\n[file: cat.png, image/png]"


def test_messages_that_say_nothing_are_left_out() -> None:
    assert outline(wire(Message("assistant"), Message("user", parts=[{"type": "other"}]), "Hello")) == ["Hello"]


def test_text_that_utf8_cannot_write_is_sent_all_the_same(model: ModelServer) -> None:
    said = answer(chat(model), Message("user", "half \ud83d of two, and \ud83d\ude00 whole"))
    assert text(said) == "half \ufffd of two, and 😀 whole "


# ---------------------------------------------------------------------------------------------------------------- tools


def test_tools_are_called_and_their_results_told(model: ModelServer) -> None:
    model.will(server.calls(("a", "weather", '{"city": "Oslo"}'), text="Let me see."), server.said("Snow."))
    said = answer(chat(model, tools=[tool(lambda city: f"Snow in {city}")]))
    assert said == [
        "Let me see.",
        Usage(20, 7),
        ToolCall("a", "weather", {"city": "Oslo"}),
        ToolResult("a", "Snow in Oslo", "weather"),
        "Snow.",
        Usage(10, 5),
    ]
    first, second = (request.body for request in model.requests)
    function = {"name": "weather", "description": "Says how the weather is.", "parameters": CITY}
    assert first["tools"] == [{"type": "function", "function": function}]
    assert outline(second["messages"]) == ["Hello", ["a"], "Snow in Oslo"]


def test_several_rounds_are_one_answer(model: ModelServer) -> None:
    rounds = [server.calls((str(n), "weather", '{"city": "Oslo"}')) for n in range(4)]
    model.will(*rounds, server.said("Enough."))
    said = answer(chat(model, tools=[tool(lambda city: "Snow")]))
    assert [result.id for result in results(said)] == ["0", "1", "2", "3"]
    assert text(said) == "Enough."
    assert len([piece for piece in said if isinstance(piece, Usage)]) == 5
    assert {request.connection for request in model.requests} == {1}


def test_last_round_may_use_no_tools(model: ModelServer) -> None:
    asked = server.calls(("a", "weather", '{"city": "Oslo"}'))
    model.will(asked, server.said("So be it."))
    assert text(answer(chat(model, tools=[tool(lambda city: "Snow")], max_rounds=2))) == "So be it."
    assert [request.body.get("tool_choice") for request in model.requests] == [None, "none"]


def test_model_that_never_stops_asking_is_stopped(model: ModelServer) -> None:
    used: list[str] = []
    model.will(*[server.calls(("a", "weather", '{"city": "Oslo"}'))] * 3)
    said, _ = fails(chat(model, tools=[tool(used.append)], max_rounds=2), ModelFailed)
    assert len(model.requests) == 2
    assert [result.is_error for result in results(said)] == [True]  # used.append takes no city


def test_calls_at_once_are_one_message_and_wait_for_each_other(model: ModelServer) -> None:
    at_work: list[int] = []
    together: list[int] = []

    def count(city: str) -> str:
        at_work.append(1)
        together.append(len(at_work))
        time.sleep(0.05)
        at_work.pop()
        return city

    model.will(server.calls(*((str(n), "weather", json.dumps({"city": str(n)})) for n in range(3))), server.said("."))
    said = answer(chat(model, tools=[tool(count)]))
    kinds = [type(piece) for piece in said if isinstance(piece, ToolCall | ToolResult)]
    assert kinds == [ToolCall] * 3 + [ToolResult] * 3
    assert [(result.id, result.content) for result in results(said)] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert together == [1, 1, 1]
    assert outline(model.requests[1].body["messages"]) == ["Hello", ["0", "1", "2"], "0", "1", "2"]


def test_tools_that_may_work_beside_others_do(model: ModelServer) -> None:
    meeting = threading.Barrier(3, timeout=5)

    def meet(city: str) -> str:
        meeting.wait()
        return city

    model.will(server.calls(*((str(n), "weather", json.dumps({"city": str(n)})) for n in range(3))), server.said("."))
    said = answer(chat(model, tools=[tool(meet, is_concurrent=True)]))
    assert [(result.id, result.is_error) for result in results(said)] == [("0", False), ("1", False), ("2", False)]


def test_calls_that_are_all_numbered_as_the_first_stay_apart(model: ModelServer) -> None:
    asked = server.calls(("a", "weather", '{"city": "Oslo"}'), ("b", "weather", '{"city": "Rome"}'))
    for piece in asked:
        for choice in piece["choices"]:
            for delta in choice["delta"].get("tool_calls", ()):
                delta["index"] = 0
    model.will(asked, server.said("."))
    said = answer(chat(model, tools=[tool(lambda city: city)]))
    assert [result.content for result in results(said)] == ["Oslo", "Rome"]


def test_calls_without_a_name_of_their_own_get_one(model: ModelServer) -> None:
    model.will(server.calls(("", "weather", '{"city": "Oslo"}'), ("", "weather", '{"city": "Rome"}')), server.said("."))
    said = answer(chat(model, tools=[tool(lambda city: city)]))
    first, second = results(said)
    assert (first.content, second.content) == ("Oslo", "Rome")
    assert len({"", first.id, second.id}) == 3


def test_tool_may_take_the_turn_and_change_its_state(model: ModelServer) -> None:
    def note(turn: Turn, city: str) -> None:
        turn.state["city"] = city

    asked = turn("Hello")
    model.will(server.calls(("a", "weather", '{"city": "Oslo"}')), server.said("."))
    said = answer(chat(model, tools=[tool(note)]), asked=asked)
    assert asked.state == {"city": "Oslo"}
    assert results(said)[0].content == "null"


def test_asynchronous_tool_works_in_the_loop(model: ModelServer) -> None:
    async def weather(city: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"city": city, "thread": threading.current_thread().name}

    async def both() -> tuple[list[Piece], str]:
        said: list[Piece] = []
        await collect(chat(model, tools=[tool(weather)]), turn(), said)
        return said, threading.current_thread().name

    model.will(server.calls(("a", "weather", '{"city": "Åre"}')), server.said("."))
    said, own = asyncio.run(both())
    assert results(said)[0].content == f'{{"city": "Åre", "thread": "{own}"}}'


@pytest.mark.django_db(transaction=True)
def test_synchronous_tool_uses_the_database_and_keeps_no_connection(model: ModelServer, django_user_model: Any) -> None:
    from django.db import connections

    django_user_model.objects.create_user("ada")
    kept: list[Any] = []

    def find(city: str) -> int:
        kept.append(connections["default"])
        return int(django_user_model.objects.filter(username="ada").count())

    model.will(server.calls(("a", "weather", '{"city": "Oslo"}')), server.said("."))
    assert results(answer(chat(model, tools=[tool(find)])))[0].content == "1"
    assert kept[0].connection is None


def test_slow_synchronous_tool_does_not_hold_up_the_loop(model: ModelServer) -> None:
    async def ticks() -> int:
        said: list[Piece] = []
        task = asyncio.create_task(collect(chat(model, tools=[tool(lambda city: time.sleep(0.3))]), turn(), said))
        count = 0
        while not task.done():
            await asyncio.sleep(0.01)
            count += 1
        await task
        return count

    model.will(server.calls(("a", "weather", '{"city": "Oslo"}')), server.said("."))
    assert asyncio.run(ticks()) > 10


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("time", "{}", "no tool “time”"),
        ("weather", '{"city": "Os', 'not a JSON object: {"city": "Os'),
        ("weather", '["Oslo"]', "not a JSON object"),
        ("weather", '{"town": "Oslo"}', "do not fit"),
        ("weather", "", "missing a required argument: 'city'"),
    ],
)
def test_call_that_makes_no_sense_is_told_to_the_model(
    model: ModelServer, name: str, arguments: str, told: str
) -> None:
    model.will(server.calls(("a", name, arguments)), server.said("Sorry."))
    said = answer(chat(model, tools=[tool(lambda city: "Snow")]))
    (result,) = results(said)
    assert result.is_error
    assert told in result.content
    assert text(said) == "Sorry."
    messages = model.requests[1].body["messages"]
    assert messages[-1]["content"] == result.content
    json.loads(messages[-2]["tool_calls"][0]["function"]["arguments"])


def test_tool_that_fails_says_no_more_than_its_class(model: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    def broken(city: str) -> str:
        raise RuntimeError("postgres://me:secret@db")

    model.will(server.calls(("a", "weather", '{"city": "Oslo"}')), server.said("Sorry."))
    (result,) = results(answer(chat(model, tools=[tool(broken)])))
    assert (result.is_error, result.content) == (True, "The tool failed: RuntimeError.")
    assert "secret" not in json.dumps(model.requests[1].body)
    assert [record.exc_info is not None for record in caplog.records if "weather" in record.getMessage()] == [True]


def test_tool_may_say_itself_what_went_wrong(model: ModelServer) -> None:
    def picky(city: str) -> str:
        raise ToolFailed(f"There is no {city}.")

    model.will(server.calls(("a", "weather", '{"city": "Atlantis"}')), server.said("Sorry."))
    (result,) = results(answer(chat(model, tools=[tool(picky)])))
    assert (result.is_error, result.content) == (True, "There is no Atlantis.")


def test_long_result_is_cut_off(model: ModelServer) -> None:
    model.will(server.calls(("a", "weather", '{"city": "Oslo"}')), server.said("."))
    tools = [tool(lambda city: "x" * 1000)]
    (result,) = results(answer(chat(model, tools=tools, max_result_characters=100)))
    assert len(result.content) == 100
    assert result.content.endswith("x… (cut off, of 1000 characters)")


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        OpenAIChat(model="local", tools=[tool(print), tool(print)])


# ---------------------------------------------------------------------------------------------------------- summaries


def test_summary_is_what_the_model_says_of_the_messages(model: ModelServer) -> None:
    model.will(server.said("Ada asked ", "for snow. "))
    responder = chat(model, system="Be brief.", tools=[tool(lambda city: "Snow")])
    said = (Message("user", "Snow?"), asking("a"), ToolResult("a", "Yes").as_message())
    assert asyncio.run(responder.summarize(said, "Ada came.")) == "Ada asked for snow."
    body = model.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    told = body["messages"][1]["content"]
    for line in ("Ada came.", "user: Snow?", 'assistant: [calls weather {"city"', "tool: Yes"):
        assert line in told
    assert "tools" not in body


def test_empty_summary_is_a_failure(model: ModelServer) -> None:
    model.will(server.said(" "))
    with pytest.raises(ModelFailed):
        asyncio.run(chat(model).summarize([Message("user", "Hello")], None))


# --------------------------------------------------------------------------------------------------------- what fails


def test_wrong_key_is_refused_at_once_and_not_repeated_to_anybody(
    model: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model.will(server.error(401, f"Incorrect API key provided: {KEY}, also sk-other. Bearer {KEY}"))
    said, why = fails(chat(model), ModelRefused)
    assert (said, len(model.requests)) == ([], 1)
    assert why == "AuthenticationError 401: Incorrect API key provided: ***, also *** ***"
    assert KEY not in caplog.text
    assert KEY not in repr(chat(model))


def test_traceback_of_a_failure_holds_no_key(model: ModelServer) -> None:
    import traceback

    model.will(server.error(401, f"Incorrect API key provided: {KEY}"))
    with pytest.raises(ModelRefused) as raised:
        answer(chat(model))
    assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_request_that_is_wrong_is_not_repeated(model: ModelServer, status: int) -> None:
    model.will(server.error(status, "No."))
    assert fails(chat(model), ModelRefused)[1].endswith(f" {status}: No.")
    assert len(model.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_that_passes_is_not_noticed(model: ModelServer, status: int) -> None:
    model.will(server.error(status, "Later.", retry_after="0.1"), server.said("Here."))
    assert text(answer(chat(model))) == "Here."
    assert len(model.requests) == 2


def test_retry_waits_for_as_long_as_the_server_says(model: ModelServer) -> None:
    model.will(server.error(429, "Later.", retry_after="1.2"), server.said("Here."))
    answer(chat(model))
    first, second = (request.began_at for request in model.requests)
    assert 1.1 < second - first < 3


@pytest.mark.parametrize("status", [429, 500])
def test_trouble_that_stays_is_a_failure(model: ModelServer, status: int) -> None:
    model.will(*[server.error(status, "Later.", retry_after="0.05")] * 3)
    said, why = fails(chat(model, max_retries=2), ModelUnavailable)
    assert (said, len(model.requests)) == ([], 3)
    assert str(status) in why


def test_server_that_is_not_there_is_unavailable(model: ModelServer) -> None:
    nowhere = chat(model, base_url="http://127.0.0.1:9/v1", max_retries=0)
    assert "Connection error" in fails(nowhere, ModelUnavailable)[1]


def test_connection_cut_before_the_answer_is_made_again(model: ModelServer) -> None:
    model.will(Reply(ending=Ending.CUT), server.said("Here."))
    assert text(answer(chat(model))) == "Here."
    assert len(model.requests) == 2


def test_server_that_is_silent_for_too_long_is_unavailable(model: ModelServer) -> None:
    model.will(Reply(server.said("Late."), seconds_before=5))
    began = time.monotonic()
    assert "timed out" in fails(chat(model, timeout_seconds=0.3, max_retries=0), ModelUnavailable)[1]
    assert time.monotonic() - began < 2


BROKEN = {
    "cut": Reply([server.chunk({"content": "It dep"})], ending=Ending.DROP),
    "ended": Reply([server.chunk({"content": "It dep"})], ending=Ending.CLOSE),
    "unfinished": Reply([server.chunk({"content": "It dep"})], ending=Ending.DONE),
    "malformed": Reply([server.chunk({"content": "It dep"}), '{"choices": [{"del']),
    "not-an-object": Reply([server.chunk({"content": "It dep"}), '"choices"']),
    "error": Reply([server.chunk({"content": "It dep"}), json.dumps({"error": {"message": f"Out of memory {KEY}"}})]),
    "silent": Reply([server.chunk({"content": "It dep"})], ending=Ending.SILENCE),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_answer_that_breaks_off_is_kept_and_not_begun_again(model: ModelServer, reply: Reply) -> None:
    model.will(reply, server.said("It depends."))
    said, why = fails(chat(model, timeout_seconds=0.5), ModelInterrupted)
    assert said == ["It dep"]
    assert len(model.requests) == 1
    assert KEY not in why


def test_answer_that_a_filter_ends_is_a_failure(model: ModelServer) -> None:
    model.will(server.said("It dep", finish_reason="content_filter"))
    assert fails(chat(model), ModelRefused)[0] == ["It dep"]


def test_answer_after_a_failure_is_as_good_as_any(model: ModelServer) -> None:
    async def twice() -> str:
        responder, said = chat(model), list[Piece]()
        with pytest.raises(ModelInterrupted):
            await collect(responder, turn(), [])
        await collect(responder, turn(), said)
        return text(said)

    model.will(BROKEN["cut"], server.said("Fine."))
    assert asyncio.run(twice()) == "Fine."


# -------------------------------------------------------------------------------------------------------- cancellation


async def cancelled(model: ModelServer, *, after: int) -> float:
    """Cancel an answer after some pieces; return how many seconds later the server saw its client go."""
    said: list[Piece] = []
    task = asyncio.create_task(collect(chat(model), turn(), said))
    while not model.requests or len(said) < after:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return await asyncio.to_thread(model.wait_for_leave, model.requests[0]) - began


@pytest.mark.parametrize(
    ("reply", "after"),
    [
        (Reply(server.said("Never."), seconds_before=60), 0),
        (Reply([server.chunk({"content": "It dep"})], ending=Ending.SILENCE), 1),
    ],
    ids=["before the answer", "in mid-answer"],
)
def test_cancelled_answer_closes_the_connection_at_once(model: ModelServer, reply: Reply, after: int) -> None:
    model.will(reply)
    assert asyncio.run(cancelled(model, after=after)) < 1


def test_generator_that_is_closed_closes_the_connection_at_once(model: ModelServer) -> None:
    async def closed() -> float:
        pieces = chat(model)(turn())
        assert await anext(pieces) == "It dep"
        began = time.monotonic()
        await pieces.aclose()
        return await asyncio.to_thread(model.wait_for_leave, model.requests[0]) - began

    model.will(Reply([server.chunk({"content": "It dep"})], ending=Ending.SILENCE))
    assert asyncio.run(closed()) < 1


def test_cancelled_answer_waits_for_no_tool(model: ModelServer) -> None:
    released, stopped = threading.Event(), threading.Event()

    def slow(city: str) -> None:
        released.wait(10)

    async def forever(city: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    async def cancel() -> float:
        tools = [tool(slow, is_concurrent=True), tool(forever, "forever", is_concurrent=True)]
        said: list[Piece] = []
        task = asyncio.create_task(collect(chat(model, tools=tools), turn(), said))
        while len(said) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seconds = time.monotonic() - began
        await asyncio.sleep(0)
        assert stopped.is_set()
        return seconds

    model.will(server.calls(("a", "weather", '{"city": "Oslo"}'), ("b", "forever", '{"city": "Oslo"}')))
    try:
        assert asyncio.run(cancel()) < 1
    finally:
        released.set()


def test_answers_after_a_cancelled_one_are_as_good_as_any(model: ModelServer) -> None:
    async def on() -> list[Piece]:
        await cancelled(model, after=1)
        said: list[Piece] = []
        await collect(chat(model), turn(), said)
        return said

    model.will(Reply([server.chunk({"content": "It dep"})], ending=Ending.SILENCE), server.said("Fine."))
    assert text(asyncio.run(on())) == "Fine."


# ---------------------------------------------------------------------------------------------------------- connections


def test_answers_share_a_connection(model: ModelServer) -> None:
    async def several() -> None:
        for _ in range(3):
            await collect(chat(model), turn(), [])

    asyncio.run(several())
    assert (len(model.requests), model.connections) == (3, 1)


def test_answers_at_once_do_not_wait_for_each_other(model: ModelServer) -> None:
    model.will(*[Reply(server.said("Slow."), seconds_before=0.5)] * 10)

    async def at_once() -> float:
        await collect(chat(model), turn(), [])
        began = time.monotonic()
        await asyncio.gather(*(collect(chat(model), turn(), []) for _ in range(9)))
        return time.monotonic() - began

    assert asyncio.run(at_once()) < 2


def test_each_event_loop_has_connections_of_its_own(model: ModelServer) -> None:
    responder = chat(model)
    assert [text(answer(responder, "Hello")) for _ in range(3)] == ["Hello "] * 3
    assert model.connections == 3


def test_loops_that_are_over_are_forgotten(model: ModelServer) -> None:
    from django_chat_sessions.adapters.openai_chat import responder

    for _ in range(3):
        answer(chat(model))
    assert len([loop for loop in responder._clients if loop.is_closed()]) <= 1


FORK = """
import asyncio, os, sys
import django
from django.conf import settings
settings.configure()
from django_chat_sessions.adapters.openai_chat import OpenAIChat, Tool, responder
from django_chat_sessions.turns import Message, RequestContext, Turn

chat = OpenAIChat(model="local", base_url=sys.argv[1], tools=[Tool("now", "", {}, lambda: "noon")])
loop = asyncio.new_event_loop()

async def answer():
    question = Message("user", "Hello")
    async for piece in chat(Turn(RequestContext(), question, (question,), {})):
        pass

loop.run_until_complete(answer())
pid = os.fork()
assert pid or not responder._clients, "These are the parent's."
loop = asyncio.new_event_loop() if not pid else loop
loop.run_until_complete(asyncio.wait_for(answer(), 10))
if not pid:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_process_makes_connections_and_threads_of_its_own(model: ModelServer) -> None:
    asked, then = server.calls(("a", "now", "{}")), server.said("Noon.")
    model.will(asked, then, *[Reply(said, seconds_before=0.3) for said in (asked, asked, then, then)])
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-W", "ignore", "-c", FORK, model.url]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert model.connections == 2
    assert len(model.requests) == 6


def test_making_a_client_does_not_hold_up_the_loop(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_chat_sessions.adapters.openai_chat import responder

    connect = responder._connect

    def slowly(*identity: Any) -> Any:
        time.sleep(0.5)
        return connect(*identity)

    async def longest() -> float:
        task = asyncio.create_task(collect(chat(model), turn(), []))
        worst, last = 0.0, time.monotonic()
        while not task.done():
            await asyncio.sleep(0.01)
            worst, last = max(worst, time.monotonic() - last), time.monotonic()
        await task
        return worst

    monkeypatch.setattr(responder, "_connect", slowly)
    assert asyncio.run(longest()) < 0.4


# -------------------------------------------------------------------------------------------------------- configuration


def test_server_and_key_come_from_the_environment(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    responder = OpenAIChat(model="local")
    assert not responder.is_configured()
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    assert responder.is_configured()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    answer(responder)
    assert model.requests[0].headers["authorization"] == "Bearer sk-from-the-environment"


def test_key_of_the_environment_is_for_its_own_server_only(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    answer(OpenAIChat(model="local", base_url=model.url))
    assert "environment" not in model.requests[0].headers["authorization"]


def test_model_without_key_and_server_asks_nobody() -> None:
    with pytest.raises(ImproperlyConfigured):
        answer(OpenAIChat(model="local"))


def test_function_that_returns_something_to_await_is_a_tool(model: ModelServer) -> None:
    def later(city: str) -> Any:
        return asyncio.sleep(0, result=city)

    model.will(server.calls(("a", "weather", '{"city": "Oslo"}')), server.said("."))
    said = answer(chat(model, tools=[tool(later)]))
    assert results(said)[0].content == "Oslo"
