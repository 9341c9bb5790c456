"""Who is told of events in the processes that the tests start: they leave a line for each, and one of them raises."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_chat_sessions.notices import Notice

#: In a session with this tag nobody can be told of anything.
POISON = "poison"


def remembers(notice: Notice) -> None:
    _remember("remembers", notice)


def raises(notice: Notice) -> None:
    if POISON in notice.session.tags:
        _remember("raised", notice)
        raise RuntimeError("a secret")
    _remember("raises", notice)


def _remember(name: str, notice: Notice) -> None:
    with (Path(os.environ["TEST_TOLD"]) / name).open("a") as file:
        file.write(f"{notice.session.uuid} {notice.sequence} {notice.type}\n")
