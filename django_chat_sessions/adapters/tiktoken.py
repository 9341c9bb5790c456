"""Tokens as OpenAI's models count them, for the setting ``TOKEN_COUNTER``: needs tiktoken (the extra ``tiktoken``).

tiktoken fetches a vocabulary when it is first used, unless it is in ``TIKTOKEN_CACHE_DIR``. Nothing waits for that for
long: without tiktoken, or without its vocabulary, tokens are estimated, and a warning says so once.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib import import_module
from typing import Any

from ..rules.tokens import Countable, estimate, texts

logger = logging.getLogger("django_chat_sessions")


class Counter:
    """Counts the tokens of messages by one of tiktoken's encodings."""

    def __init__(self, encoding: str = "o200k_base", *, seconds: float = 2) -> None:
        """Name an encoding; it is loaded when something is counted.

        Args:
            encoding: as ``tiktoken.get_encoding`` knows it.
            seconds: how long the first count may wait for it.
        """
        self.encoding = encoding
        self.seconds = seconds
        self._found: Any = None
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def __call__(self, message: Countable) -> int:
        """Return the message's own token count, or what the encoding says; at least 1."""
        if message.token_count is not None:
            return message.token_count
        encoding = self._found or self._load()
        if encoding is None:
            return estimate(message)
        return max(1, sum(len(encoding.encode_ordinary(text)) for text in texts(message)))

    def _reset(self) -> None:
        """Begin anew: a forked child has none of its parent's threads."""
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_warned = False

    def _load(self) -> Any:
        """Return the encoding as soon as it is there; only the first count waits, and not for long."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._fetch, name="chat-sessions-tiktoken", daemon=True)
                self._thread.start()
                if not self._ready.wait(self.seconds):
                    self._warn("it is not loaded yet")
        return self._found

    def _fetch(self) -> None:
        try:
            self._found = import_module("tiktoken").get_encoding(self.encoding)
        except Exception as error:  # noqa: BLE001 - whatever a download may raise
            self._warn(f"{type(error).__name__}: {error}")
        finally:
            self._ready.set()

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("Tokens are estimated, without tiktoken's encoding %s: %s", self.encoding, reason)


#: The encoding of today's models of OpenAI.
count_tokens = Counter()
