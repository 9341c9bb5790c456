"""Appending: one writer, and eight in processes of their own, on sessions of their own and all on the same one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

from . import crew, data, floor
from .measure import Plan, Row, alternate, compare, say

WRITERS = 8
AIM = 1.3


def one(plan: Plan) -> Iterator[Row]:
    """Measure one writer."""
    owner = data.user("writer")
    rounds: tuple[list[float], list[float]] = ([], [])
    pks = []
    with floor.connect() as connection:
        for _ in range(plan.rounds):
            a, b = data.opened(owner, 2)
            pks += [a.pk, b.pk]
            pair = alternate(crew.ours(a.pk, 0), crew.theirs(connection, b.pk, 0), rounds=1, calls=plan.calls(300))
            for which in (0, 1):
                rounds[which].extend(pair[which])
    check(pks)
    yield compare("append", "one writer", *rounds, AIM)


def eight(plan: Plan) -> Iterator[Row]:
    """Measure eight writers; the time of an append is the wall's over all of them."""
    with crew.crew(WRITERS) as pipes:
        yield _eight("eight writers, different sessions", pipes, plan, sessions=WRITERS)
        yield _eight("eight writers, the same session", pipes, plan, sessions=1)


def _eight(variant: str, pipes: list[Connection], plan: Plan, *, sessions: int) -> Row:
    owner = data.user("writer")
    rounds: dict[str, list[float]] = {"ours": [], "floor": []}
    calls = plan.calls(150)
    pks: list[int] = []
    for number in range(plan.rounds + 1):
        for which in ("ours", "floor") if number % 2 else ("floor", "ours"):
            targets = [session.pk for session in data.opened(owner, sessions)]
            pks += targets
            took = together(pipes, which, targets, calls)
            if number:  # the first round only warms up
                rounds[which].append(took / (calls * len(pipes)))
    check(pks)
    return compare("append", variant, rounds["ours"], rounds["floor"], AIM)


def check(pks: list[int]) -> None:
    """Stop where a log is not 1, 2, 3 …"""
    wrong = data.disorder(pks)
    if wrong:
        raise SystemExit("Disorder under load:\n  " + "\n  ".join(wrong[:20]))


def together(pipes: list[Connection], which: str, targets: list[int], calls: int) -> float:
    """Let all write at the same instant, and return the seconds from the first's start to the last's end."""
    start = time.time() + 0.1
    for number, pipe in enumerate(pipes):
        pipe.send((which, targets[number % len(targets)], number, calls, start))
    answers = [pipe.recv() for pipe in pipes]
    errors = [answer for answer in answers if isinstance(answer, str)]
    if errors:
        raise SystemExit(f"{len(errors)} of {len(pipes)} writers failed: {errors[0]}")
    return max(end for _, end in answers) - min(begin for begin, _ in answers)


def measure(plan: Plan) -> Iterator[Row]:
    """Measure appending."""
    yield from one(plan)
    say("  starting eight writers …")
    yield from eight(plan)
