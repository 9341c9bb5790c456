"""What becomes of the part of a conversation that its agent no longer sees: a summary, beside the log."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import agents, conf
from ..agents import Agent, Message, Summarizer
from ..choices import EventType
from ..exceptions import SessionNotFound, SessionNotLive
from ..models import ChatSession, SessionEvent
from ..rules import window as windows
from . import context as contexts
from . import writing
from .context import Budget, Compaction
from .patience import hang_up

logger = logging.getLogger("django_chat_sessions")

#: Of the window's messages and of its tokens, what a compaction leaves as it was said, so that the next is not due at
#: once, and what tokens a summary may take.
KEPT_MESSAGES, KEPT_TOKENS, SUMMARY_TOKENS = 3 / 4, 1 / 2, 1 / 4

#: For how many summaries one call asks at the most; each covers up to a window.
ROUNDS = 10


class Unusable(Exception):
    """What a hook returned is no summary."""


@dataclass(frozen=True, slots=True)
class _Outgrown:
    """What is to be summarized next.

    Attributes:
        base: the summary so far.
        events: the messages after it, oldest first.
    """

    base: Compaction | None
    events: Sequence[SessionEvent]

    @property
    def start(self) -> int:
        """The sequence of the last message of the summary so far."""
        return 0 if self.base is None else self.base.up_to

    @property
    def end(self) -> int:
        """The sequence of the last message of the summary to be."""
        return self.events[-1].position or 0


def compact(session: ChatSession) -> Compaction | None:
    """Have what no longer fits a session's window summarized, by its agent or the setting ``SUMMARIZE``.

    As soon as something does not fit, the oldest part of the window goes with it, so that this happens once in a
    while. It takes as long as the hook does: call it in the background, outside of any transaction. Two may do it at
    once: the first one's summary counts. Where it comes to nothing, the next call begins anew.

    Returns:
        The latest summary that it made; None where there was nothing to do, or it came to nothing, which is logged.
    """
    agent = agents.of(session.agent)
    hook = agent.summarize or conf.get().summarize
    made = None
    for _ in range(ROUNDS if hook is not None else 0):
        outgrown = _outgrown(session)
        if outgrown is None or hook is None:
            break
        latest = _compact(session, agent, hook, outgrown)
        if latest is None:
            break
        made = latest
    return made


def _outgrown(session: ChatSession) -> _Outgrown | None:
    """Return the oldest messages that no summary covers, where the window can't show all of them."""
    budget, base = Budget.of(session), contexts.latest(session)
    spoken = contexts.spoken(session).filter(position__gt=0 if base is None else base.up_to)
    newest = list(spoken.order_by("-position")[: budget.messages + 1])
    seen = contexts.read_all(newest, contexts.system(session))
    summary = None if base is None else base.summary
    if budget.is_ample(seen, budget.fit(seen, summary=summary)):
        return None
    left = contexts.others(_smaller(budget).fit(seen, keep=newest[0].position))
    border = left[0].sequence if left else newest[0].position
    events = list(spoken.filter(position__lt=border).order_by("position")[: budget.messages + 1])
    batch = windows.oldest(
        contexts.read_all(events), max_messages=budget.messages, max_tokens=budget.tokens, count=budget.count
    )
    return _Outgrown(base, events[: len(batch)]) if batch else None


def _smaller(budget: Budget) -> Budget:
    tokens = None if budget.tokens is None else int(budget.tokens * KEPT_TOKENS)
    return replace(budget, messages=int(budget.messages * KEPT_MESSAGES), tokens=tokens)


def _compact(session: ChatSession, agent: Agent, hook: Summarizer, outgrown: _Outgrown) -> Compaction | None:
    budget = Budget.of(session)
    messages = contexts.read_all(outgrown.events)
    hang_up(writing.alias(session))
    try:
        summary = _summarize(agent, hook, messages, None if outgrown.base is None else outgrown.base.summary)
        _check(summary, budget)
    except Exception:
        logger.exception("Session %s was not compacted", session.uuid)
        return None
    try:
        return _record(session, outgrown, summary, sum(map(budget.count, messages)))
    except (SessionNotLive, SessionNotFound):
        return None


def _summarize(agent: Agent, hook: Summarizer, messages: Sequence[Message], so_far: str | None) -> Any:
    said = hook(messages, so_far)
    if not inspect.isawaitable(said):
        return said

    async def wait() -> Any:
        async with asyncio.timeout(agent.time_limit_seconds):
            return await said

    return asyncio.run(wait())


def _check(summary: Any, budget: Budget) -> None:
    """Refuse what is no summary, or a larger one than the window has use for.

    Raises:
        Unusable: it says why.
    """
    if not isinstance(summary, str) or not summary.strip():
        raise Unusable("A summary is text.")
    limit = conf.get().MAX_MESSAGE_LENGTH
    if len(summary) > limit:
        raise Unusable(f"A summary has at most {limit} characters (MAX_MESSAGE_LENGTH).")
    if budget.tokens is not None and budget.size(summary) > budget.tokens * SUMMARY_TOKENS:
        raise Unusable(f"A summary takes at most a quarter of the window's {budget.tokens} tokens.")


def _record(session: ChatSession, outgrown: _Outgrown, summary: str, taken: int) -> Compaction | None:
    """Record a summary, unless what it was made of was changed meanwhile, or somebody else was first."""
    base = outgrown.base
    messages = len(outgrown.events) + (0 if base is None else base.messages)
    taken += 0 if base is None else base.tokens
    data = {"summary": summary, "up_to": outgrown.end, "messages": messages, "tokens": taken}
    with writing.writing(session) as draft:
        if not _is_unchanged(draft.session, outgrown):
            return None
        sequence = draft.record(EventType.CONTEXT_COMPACTED, data, position=outgrown.end)
    return Compaction(summary, outgrown.end, messages, taken, sequence)


def _is_unchanged(session: ChatSession, outgrown: _Outgrown) -> bool:
    spoken = contexts.spoken(session).filter(position__gt=outgrown.start, position__lte=outgrown.end)
    now = list(spoken.order_by("position").values_list("sequence", flat=True))
    return contexts.latest(session) == outgrown.base and now == [event.sequence for event in outgrown.events]
