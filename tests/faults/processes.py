"""What happens in the processes that the tests start: they stay somewhere, or their clock jumps.

``TEST_STAY`` is a regular expression. The first process of all that share ``TEST_STAY_FILE`` which runs a statement
like that stays behind it, in its transaction, and says who it is in the file, until somebody removes the file; so does
the next one after that, ``TEST_STAY_TIMES`` of a process at the most. ``TEST_STAY_COUNT`` lets so many such statements
of a process pass before.

``TEST_CLOCK`` says by how many seconds SIGUSR1 moves the process's clock.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

#: Statements that a stay is about, parameters included, are searched as far as here.
SEEN = 5000

LIMITS = {"COUNT": "0", "TIMES": "1000"}


def stay(pattern: str, file: Path, *, passing: int, times: int) -> None:
    """Stay behind statements that match, once so many have passed, and so many times at the most."""
    seen = stays = 0

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal seen, stays
        result = execute(sql, params, many, context)
        if re.search(pattern, f"{sql} {params}"[:SEEN], re.DOTALL):
            seen += 1
            if seen > passing and stays < times:
                stays += _stay(file)
        return result

    def install(connection: Any, **_: Any) -> None:
        if wrapper not in connection.execute_wrappers:
            connection.execute_wrappers.append(wrapper)

    connection_created.connect(install, weak=False)


def _stay(file: Path) -> bool:
    """Stay, unless somebody does; tell which."""
    try:
        with file.open("x") as opened:
            opened.write(str(os.getpid()))
    except FileExistsError:
        return False
    while file.exists():
        time.sleep(0.02)
    return True


def jump(seconds: float) -> None:
    """Move the clock; what counts durations does not jump, as on a machine whose clock is set."""
    import time_machine

    time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True).start()


if pattern := os.environ.get("TEST_STAY"):
    passing, times = (int(os.environ.get(f"TEST_STAY_{name}", default)) for name, default in LIMITS.items())
    stay(pattern, Path(os.environ["TEST_STAY_FILE"]), passing=passing, times=times)
if seconds := float(os.environ.get("TEST_CLOCK", "0")):
    signal.signal(signal.SIGUSR1, lambda *_: jump(seconds))
