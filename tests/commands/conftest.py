"""What tests of the command share."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from django.core.management import call_command


class Terminal(StringIO):
    """Somewhere that somebody watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def sweep() -> Callable[..., str]:
    """Return a function that runs `chat_sessions sweep` and returns what it says."""

    def sweep(*args: str, **options: object) -> str:
        out = StringIO()
        call_command("chat_sessions", "sweep", *args, stdout=out, **options)
        return out.getvalue()

    return sweep
