"""How a run ends, whoever ends it: its agent, a person, the clock, or recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from .. import chunks, log
from ..choices import ALIVE, EventType, Role, RunStatus
from ..models import Run, SessionEvent
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
    output, position = run.output_sequence, None
    if spoken and status != RunStatus.SUCCEEDED:
        position = place(run)
        message = Message(Role.ASSISTANT, spoken, metadata={CUT_SHORT: str(status)})
        entries.append(said(message, run, now, position))
        output = position or next_sequence
    kept = {name: value for name, value in (figures or {}).items() if name != "tokens"}
    changed = {"status": status, "error": error, "finished_at": now, "output_sequence": output, **kept}
    if not alive.update(**changed):
        return []
    if position is not None:
        log.outdate(run.session, position, by=next_sequence)
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


def place(run: Run) -> int | None:
    """Return the place of the next message of a run that answers a question again which is not the last.

    That is before the next question, where there is room: each event of the log has a place that only a message needs,
    so between two questions there are some. None is the place of the message's own event.
    """
    if not run.is_repeat:
        return None
    events = SessionEvent.objects.using(run._state.db or "default").filter(session=run.session_id).current()
    later = events.filter(position__gt=run.input_sequence)
    question = later.filter(role=Role.USER).order_by("position").values_list("position", flat=True).first()
    if question is None:
        return None
    between = later.filter(position__lt=question).order_by("-position")
    taken = between.values_list("position", flat=True).first() or run.input_sequence
    return taken + 1 if taken + 1 < question else None


def said(message: Message, run: Run, now: datetime, position: int | None = None) -> log.Entry:
    """Return the event that stores what a run said, in a place of its own or in another."""
    entry = conversation.entry(replace(message, run=str(run.uuid), created_at=now))
    return replace(entry, position=position)
