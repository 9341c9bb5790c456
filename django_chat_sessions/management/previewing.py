"""``chat_sessions sweep --dry-run``: what sweeps would do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC

from django.core.management.base import BaseCommand

from ..batches import Example
from ..operations import sweeps
from ..operations.sweeps import Preview


def handle(command: BaseCommand, names: Iterable[str]) -> None:
    """Say what these sweeps would do now, and do nothing."""
    for name in names:
        for line in _lines(sweeps.preview(name)):
            command.stdout.write(line)
    command.stdout.write("Nothing was done.")


def _lines(preview: Preview) -> Iterator[str]:
    held = f"; {_held(preview.held)}" if preview.held else ""
    waiting = f"; {_waiting(preview.waiting)}" if preview.waiting else ""
    yield f"{preview.task}: {counted(preview.total, preview.noun)}{held}{waiting}"
    by = {"status": _most(preview.by_status), "agent": _most(preview.by_agent), "age": preview.by_age}
    for title, groups in by.items():
        if groups:
            yield f"  by {title:<8}{_grouped(groups)}"
    if preview.sample:
        yield from _table(preview.sample)


def counted(number: int, noun: str) -> str:
    """Return a number of things, of one as of several."""
    one = " or ".join(word.removesuffix("s") for word in noun.split(" and "))
    return f"{number} {one if number == 1 else noun}"


def _held(number: int) -> str:
    return "1 more is under legal hold and stays" if number == 1 else f"{number} more are under legal hold and stay"


def _waiting(number: int) -> str:
    return "1 more waits for its subscribers" if number == 1 else f"{number} more wait for their subscribers"


def _most(groups: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(groups.items(), key=lambda group: (-group[1], group[0])))


def _grouped(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{_named(name)} {number}" for name, number in groups.items())


def _table(sample: Iterable[Example]) -> Iterator[str]:
    rows = [("session", "status", "agent", "due since")]
    for one in sample:
        since = f"{one.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        rows.append((str(one.session), one.status, _named(one.agent), since))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _named(name: str) -> str:
    return name or "(none)"
