"""Tokens as tiktoken counts them, or estimated where it can't."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from django_chat_sessions import conf
from django_chat_sessions.adapters.tiktoken import Counter, count_tokens
from django_chat_sessions.agents import Message
from django_chat_sessions.rules.tokens import estimate

HELLO = Message("user", "hello hello")


@pytest.fixture
def encoding(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make an encoding of tiktoken's own that needs no download, and return its name."""
    tiktoken = pytest.importorskip("tiktoken")
    pieces = [bytes([number]) for number in range(256)] + [b"he", b"ll", b"hell", b"hello", b" hello"]
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    made = tiktoken.Encoding(
        "greeting", pat_str=r" ?\w+|\s+|[^\w\s]+", mergeable_ranks=ranks, special_tokens={"<|x|>": 999}
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "greeting", made)
    return "greeting"


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """Let tiktoken's downloads go to somebody who takes the call and says nothing."""
    pytest.importorskip("tiktoken").registry.ENCODINGS.pop("o200k_base", None)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_tokens_are_those_of_the_encoding(encoding, caplog):
    count = Counter(encoding)
    assert count(HELLO) == 2
    assert count(Message("user", "hey")) == 2
    assert count(Message("user", "")) == 1
    assert warnings(caplog) == []


def test_a_messages_own_count_counts(encoding):
    assert Counter(encoding)(Message("user", "hello", token_count=7)) == 7


def test_a_call_counts_with_its_arguments(encoding):
    call = {"type": "tool_call", "id": "a", "name": "search", "arguments": {"query": "hello " * 50}}
    assert Counter(encoding)(Message("assistant", "", parts=(call,))) > 50


@pytest.mark.parametrize("text", ["<|x|>", "\ud800", "\x00", "a" * 40_000])
def test_any_text_can_be_counted(encoding, text):
    assert Counter(encoding)(Message("user", text)) >= 1


def test_without_tiktoken_tokens_are_estimated_with_one_warning(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    count = Counter()
    assert [count(HELLO), count(HELLO)] == [estimate(HELLO)] * 2
    assert len(warnings(caplog)) == 1


def test_an_encoding_that_nobody_knows_is_estimated(encoding, caplog):
    assert Counter("klingon")(HELLO) == estimate(HELLO)
    assert "klingon" in warnings(caplog)[0]


def test_a_download_that_fails_is_estimated(silence, caplog):
    silence.close()
    count = Counter(seconds=30)
    assert [count(HELLO), count(HELLO)] == [estimate(HELLO)] * 2
    assert len(warnings(caplog)) == 1


def test_a_download_that_hangs_holds_nobody_up(silence, caplog):
    count = Counter(seconds=0.2)
    before = monotonic()
    assert [count(HELLO) for _ in range(20)] == [estimate(HELLO)] * 20
    assert monotonic() - before < 5
    assert len(warnings(caplog)) == 1


def test_a_forked_child_loads_for_itself(encoding, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    count = Counter(encoding)
    assert count(HELLO) == estimate(HELLO) == 3
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules["tiktoken"].registry.ENCODINGS, encoding, _made(encoding))
    child = os.fork()
    if child == 0:
        told = 99
        try:
            told = count(HELLO)
        finally:
            os._exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def _made(name: str):
    import tiktoken

    ranks = {bytes([number]): number for number in range(256)} | {b"hello": 256, b" hello": 257}
    return tiktoken.Encoding(name, pat_str=r" ?\w+", mergeable_ranks=ranks, special_tokens={})


def test_the_setting_names_it_by_its_path(settings):
    settings.CHAT_SESSIONS = {"TOKEN_COUNTER": "django_chat_sessions.adapters.tiktoken.count_tokens"}
    assert conf.get().token_counter is count_tokens
    assert count_tokens.encoding == "o200k_base"
