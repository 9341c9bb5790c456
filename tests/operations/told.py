"""Subscribers. What they were told is in ``heard``, and in the file that ``TEST_HEARD`` names, for other processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django_chat_sessions.notices import Notice

heard: list[Notice] = []

#: What a subscriber does after it has heard; a test may give it something to do.
then: list[Callable[[Notice], Any]] = []

HERE = __name__


def path(name: str) -> str:
    """Return how the settings name a subscriber."""
    return f"{HERE}.{name}"


def hear(notice: Notice) -> None:
    heard.append(notice)
    for act in then:
        act(notice)


def hear_too(notice: Notice) -> None:
    hear(notice)


async def ahear(notice: Notice) -> None:
    await asyncio.sleep(0)
    hear(notice)


async def dawdle(notice: Notice) -> None:
    heard.append(notice)
    await asyncio.sleep(60)


def refuse(notice: Notice) -> None:
    heard.append(notice)
    raise ValueError(f"of {notice.data}")


uncallable = "this"


# ----------------------------------------------------------------------------------------------------- other processes


def _write_down(*words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    file = os.open(os.environ["TEST_HEARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def write_down(notice: Notice) -> None:
    _write_down("begin", notice.session.uuid, notice.sequence, notice.attempt)
    time.sleep(0.002)
    _write_down("end", notice.session.uuid, notice.sequence, notice.attempt)


def die(notice: Notice) -> None:
    """Write down what was told and, where the test has not said that it is enough, die."""
    write_down(notice)
    if not Path(os.environ["TEST_HEARD"] + ".enough").exists() and notice.data.get("content") == "deadly":
        os._exit(9)


def refuse_twice(notice: Notice) -> None:
    write_down(notice)
    if notice.attempt < 3:
        raise ValueError(notice.data)
