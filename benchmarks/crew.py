"""Writers in processes of their own, which wait for what to do. Nothing here is imported before Django is set up."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from . import floor
from .measure import Call

TEXT = "Could you move the budget review to Thursday, and tell everybody who is invited? Thank you!"


def ours(session_id: int, writer: int, *, using: str = "default") -> Call:
    """Return our append to a session, as a process does it that has read the session once."""
    from django_chat_sessions.agents import Message
    from django_chat_sessions.models import ChatSession
    from django_chat_sessions.operations import messages

    session = ChatSession.objects.using(using).get(pk=session_id)
    numbers = iter(range(1_000_000))

    def append() -> None:
        messages.append(session, Message("user", f"{writer} {next(numbers)} {TEXT}"))

    return append


def theirs(connection: Any, session_id: int, writer: int) -> Call:
    """Return the floor's append."""
    numbers = iter(range(1_000_000))

    def append() -> None:
        connection.execute(floor.APPEND, (session_id, f"{writer} {next(numbers)} {TEXT}")).fetchone()

    return append


@contextmanager
def crew(count: int) -> Iterator[list[Connection]]:
    """Have processes, each with a connection of ours and one of the floor's, waiting for work."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(count):
        mine, other = context.Pipe()
        process = context.Process(target=work, args=(other,), daemon=True)
        process.start()
        pipes.append(mine)
        processes.append(process)
    for pipe in pipes:
        pipe.recv()
    try:
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join(10)


def work(pipe: Connection) -> None:
    """Do what one is told, until it is nothing."""
    import django

    django.setup()
    with floor.connect() as connection:
        pipe.send("ready")
        while (task := pipe.recv()) is not None:
            which, session_id, writer, calls, start = task
            append = ours(session_id, writer) if which == "ours" else theirs(connection, session_id, writer)
            time.sleep(max(0.0, start - time.time()))
            try:
                begin = time.time()
                for _ in range(calls):
                    append()
                pipe.send((begin, time.time()))
            except Exception as error:  # noqa: BLE001 - told to the one who asked
                pipe.send(f"{type(error).__name__}: {error}")
