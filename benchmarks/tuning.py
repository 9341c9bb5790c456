"""What the settings of the database are worth: our append under others, against the recommended ones."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connections

from . import crew, data
from .measure import Call, Plan, Row, alternate, compare

#: The aliases of the settings, and whether the connection is given back after each append.
WAYS = {
    "a connection for each append": ("reconnecting", True),
    "a pooled connection for each append": ("pool", True),
    "bound by the server, nothing prepared": ("binding", False),
    "Django's defaults, a persistent connection": ("plain", False),
    "synchronous_commit = off, the last moments lost in a crash": ("asynchronous", False),
}


def measure(plan: Plan) -> Iterator[Row]:
    """Measure all of them; the floor is the recommended settings."""
    owner = data.user("tuner")
    for variant, (alias, returned) in WAYS.items():
        a, b = data.opened(owner, 2)
        other = crew.ours(a.pk, 0, using=alias)
        if returned:
            other = _returning(other, alias)
        pair = alternate(other, crew.ours(b.pk, 0), rounds=plan.rounds, calls=plan.calls(60))
        yield compare("append, other settings", variant, *pair, None)


def _returning(append: Call, alias: str) -> Call:
    def call() -> None:
        append()
        connections[alias].close()

    return call
