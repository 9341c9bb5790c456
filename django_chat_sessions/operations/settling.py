"""How a run ends, whoever ends it: its agent, a person, the clock, or recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from .. import chunks, log
from ..choices import ALIVE, EventType, Role, RunStatus
from ..models import Run
from ..turns import CUT_SHORT, Message
from . import messages as conversation


def settle(
    run: Run,
    status: RunStatus,
    *,
    now: datetime,
    next_sequence: int,
    error: str = "",
    spoken: str | None = None,
    figures: Mapping[str, Any] | None = None,
) -> list[log.Entry]:
    """End a run whose session the caller has locked; return the events that say so, none where it is over already.

    What it said that is in no message yet becomes one, marked as cut short.

    Args:
        run: refreshed in place where it is ended.
        status: how it ends.
        now: when.
        next_sequence: of the first of the events.
        error: the name of what went wrong.
        spoken: what it said that is in no message; None looks it up.
        figures: tokens and cost.
    """
    entries: list[log.Entry] = []
    alive = Run.objects.using(run._state.db or "default").filter(pk=run.pk, status__in=ALIVE, attempt=run.attempt)
    spoken = chunks.unspoken(run) if spoken is None else spoken
    output = run.output_sequence
    if spoken and status != RunStatus.SUCCEEDED:
        entries.append(said(Message(Role.ASSISTANT, spoken, metadata={CUT_SHORT: str(status)}), run, now))
        output = next_sequence
    kept = {name: value for name, value in (figures or {}).items() if name != "tokens"}
    changed = {"status": status, "error": error, "finished_at": now, "output_sequence": output, **kept}
    if not alive.update(**changed):
        return []
    for name, value in changed.items():
        setattr(run, name, value)
    data = {"run": str(run.uuid), "output_sequence": output, **_plain(figures or {})}
    if error:
        data["error"] = error
    return [*entries, log.Entry(type=_ENDS[status], data=data)]


_ENDS = {
    RunStatus.SUCCEEDED: EventType.RUN_SUCCEEDED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELLED: EventType.RUN_CANCELLED,
}


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in figures.items()}


def said(message: Message, run: Run, now: datetime, position: int | None = None) -> log.Entry:
    """Return the event that stores what a run said, in a place of its own or in another."""
    entry = conversation.entry(replace(message, run=str(run.uuid), created_at=now))
    return replace(entry, position=position)
