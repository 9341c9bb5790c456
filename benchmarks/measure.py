"""Taking turns: our way and the floor's, in blocks, so that whatever else the machine does hits both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times in microseconds, the aim is the ratio to stay under."""

    work: str
    variant: str
    median_us: float
    floor_us: float
    ratio: float
    aim: float | None

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met; None where there is none."""
        return None if self.aim is None else self.ratio <= self.aim

    @property
    def told(self) -> str:
        """What is told of it while the others are measured."""
        return f"{self.work}, {self.variant}: {self.median_us:.0f} µs, {self.ratio:.2f} of the floor"

    def as_dict(self) -> dict[str, object]:
        """Return it as it is written to the file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Amount:
    """One line of the other table: something that is not the time that a piece of work takes."""

    work: str
    variant: str
    unit: str
    median: float
    floor: float | None = None

    @property
    def told(self) -> str:
        """What is told of it while the others are measured."""
        return f"{self.work}, {self.variant}: {figure(self.median)} {self.unit}, floor {figure(self.floor)}"

    def as_dict(self) -> dict[str, object]:
        """Return it as it is written to the file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    rounds: int = 7
    scale: float = 1.0

    def calls(self, number: int) -> int:
        """Return how many calls to make of so many."""
        return max(5, int(number * self.scale))


def compare(work: str, variant: str, ours: list[float], floor: list[float], aim: float | None) -> Row:
    """Return the row of rounds of seconds."""
    mine, theirs = median(ours) * 1e6, median(floor) * 1e6
    return Row(work, variant, round(mine, 1), round(theirs, 1), round(mine / theirs, 2), aim)


def alternate(ours: Call, floor: Call, *, rounds: int, calls: int, block: int = 20) -> tuple[list[float], list[float]]:
    """Call both in turns, a block each, and return each round's median in seconds."""
    for call in (ours, floor):
        timed(call, block)
    medians: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(max(1, calls // block)):
            # The one that begins changes, so that neither always runs after the other's leavings.
            for which in (0, 1) if number % 2 else (1, 0):
                times[which].extend(timed((ours, floor)[which], block))
        for which in (0, 1):
            medians[which].append(median(times[which]))
    return medians


def timed(call: Call, number: int) -> list[float]:
    """Call it so often and return how long each took, in seconds."""
    times = []
    clock = time.perf_counter
    for _ in range(number):
        start = clock()
        call()
        times.append(clock() - start)
    return times


def say(text: str, *, end: str = "\n") -> None:
    """Tell how far we are."""
    print(text, end=end, file=sys.stderr, flush=True)


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| work | variant | median µs | floor µs | ratio | aim | |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    said = {None: "", True: "met", False: "MISSED"}
    for row in rows:
        aim = "" if row.aim is None else f"{row.aim:.1f}"
        lines.append(
            f"| {row.work} | {row.variant} | {row.median_us:.0f} | {row.floor_us:.0f} | {row.ratio:.2f} | {aim}"
            f" | {said[row.is_met]} |"
        )
    return "\n".join(lines)


def amounts_table(amounts: list[Amount]) -> str:
    """Return what is no time as a Markdown table."""
    lines = ["| work | variant | median | floor | unit |", "|---|---|--:|--:|---|"]
    lines += [
        f"| {one.work} | {one.variant} | {figure(one.median)} | {figure(one.floor)} | {one.unit} |" for one in amounts
    ]
    return "\n".join(lines)


def figure(value: float | None) -> str:
    """Return a number with as many digits as mean something."""
    return "" if value is None else f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
