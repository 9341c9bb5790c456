"""What a model may have done."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from django.db import close_old_connections, connections

from ...turns import Turn


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that the model may have done.

    Attributes:
        name: what the model calls it; letters, digits, ``_`` and ``-``.
        description: tells the model what it does and when to use it.
        parameters: the JSON schema of its arguments, an object.
        call: takes the arguments by their names, and first the turn, if its first parameter is called ``turn``.
            Returns text, or anything that JSON can write. A synchronous one works in a thread, so that it may use
            the database; an asynchronous one must not block.
        is_concurrent: whether it may work beside others that the model asks for at once; if not, it has its turn.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[..., Any]
    is_concurrent: bool = False

    def as_wire(self) -> dict[str, Any]:
        """Return how the protocol describes it."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": about}

    def bind(self, turn: Turn, arguments: Mapping[str, Any]) -> partial[Any]:
        """Return the call with its arguments.

        Raises:
            TypeError: they are not the tool's.
        """
        signature = inspect.signature(self.call)
        first = (turn,) if next(iter(signature.parameters), "") == "turn" else ()
        signature.bind(*first, **arguments)
        return partial(self.call, *first, **arguments)


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the tools' own: in the loop's, slow ones would keep others from looking up addresses."""
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="chat-tool")


if hasattr(os, "register_at_fork"):
    # A forked process has no threads but its first.
    os.register_at_fork(after_in_child=_threads.cache_clear)


async def call(work: partial[Any]) -> Any:
    """Return what a function says; one that is not asynchronous works in a thread.

    Whoever is cancelled here does not wait for the thread: what it does cannot be stopped, only be ignored.
    """
    if inspect.iscoroutinefunction(work.func):
        return await work()
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    answer = await loop.run_in_executor(_threads(), context.run, _work, work)
    return await answer if inspect.isawaitable(answer) else answer


def _work(work: Callable[[], Any]) -> Any:
    """Call it with connections that work, and keep none: nobody knows when this thread is used again."""
    close_old_connections()
    try:
        return work()
    finally:
        connections.close_all()
