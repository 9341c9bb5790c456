"""What a model sees of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import BooleanField, F, Func

from .. import agents, conf
from ..agents import Message
from ..choices import EventType, Role
from ..models import ChatSession, SessionEvent
from ..querysets import SessionEventQuerySet
from ..rules import merge as patches
from ..rules import window as windows
from ..rules.tokens import estimate
from . import messages as conversation
from . import writing

#: The type as a literal: with a parameter, PostgreSQL's generic plan knows no partial index, and reads the whole log.
_COMPACTED = Func(F("type"), template=f"%(expressions)s = '{EventType.CONTEXT_COMPACTED}'", output_field=BooleanField())


@dataclass(frozen=True, slots=True)
class Window:
    """What a model sees.

    Attributes:
        messages: oldest first.
        state: the session's state, over its parents'.
        truncated: whether the conversation has more messages.
        summary: what stands for the messages before these; None where nothing does, or nothing has to.
    """

    messages: tuple[Message, ...]
    state: dict[str, Any]
    truncated: bool
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Compaction:
    """A summary of a conversation's beginning.

    Attributes:
        summary: the text.
        up_to: the sequence of the last message that it covers; system messages it never does.
        messages: how many it stands for.
        tokens: how many tokens these took.
        sequence: of its event.
    """

    summary: str
    up_to: int
    messages: int
    tokens: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How large a window may be.

    Attributes:
        messages: how many at the most.
        tokens: how many at the most, or None.
        count: the tokens of a message.
    """

    messages: int
    tokens: int | None
    count: windows.Counter

    @classmethod
    def of(cls, session: ChatSession, *, messages: int | None = None, tokens: int | None = None) -> Budget:
        """Return what is given, else the agent's, else the settings'."""
        settings, agent = conf.get(), agents.of(session.agent)
        given = (messages, agent.window_messages, settings.WINDOW_MESSAGES)
        most = (tokens, agent.window_tokens, settings.WINDOW_TOKENS)
        return cls(
            next(number for number in given if number is not None),
            next((number for number in most if number is not None), None),
            settings.token_counter or estimate,
        )

    def fit(self, messages: Sequence[Message], *, summary: str | None = None, keep: int | None = None) -> list[Message]:
        """Return what fits beside a summary; ``keep`` is the sequence of a message that is kept in any case."""
        taken = 0 if summary is None or self.tokens is None else self.size(summary)
        return windows.fit(
            messages,
            max_messages=self.messages,
            max_tokens=None if self.tokens is None else self.tokens - taken,
            count=self.count,
            keep=None if keep is None else lambda message: message.sequence == keep,
        )

    def is_ample(self, seen: Sequence[Message], chosen: Sequence[Message]) -> bool:
        """Tell whether nothing is missing from what was chosen; one more than it takes was read, if there is one."""
        return len(others(seen)) <= self.messages and len(chosen) == len(
            windows.fit(seen, max_messages=None, max_tokens=None)
        )

    def size(self, summary: str) -> int:
        """Return the tokens of a summary."""
        return self.count(Message(Role.SYSTEM, summary))


def window(
    session: ChatSession,
    *,
    max_messages: int | None = None,
    max_tokens: int | None = None,
    question: int | None = None,
    up_to: int | None = None,
) -> Window:
    """Return the latest messages that fit the budgets, system messages kept, a summary of those before, and the state.

    Args:
        session: live or over.
        max_messages: by default the agent's ``window_messages``, else the setting ``WINDOW_MESSAGES``.
        max_tokens: by default the agent's ``window_tokens``, else the setting ``WINDOW_TOKENS``; they are counted by
            the setting ``TOKEN_COUNTER``. The summary's count, too.
        question: the sequence of a message that is seen whatever it takes.
        up_to: the sequence of the last message to be seen, for an answer to what was asked earlier.
    """
    budget = Budget.of(session, messages=max_messages, tokens=max_tokens)
    said = spoken(session)
    if up_to is not None:
        said = said.filter(position__lte=up_to)
    newest = list(said.order_by("-position")[: budget.messages + 1])[::-1]
    asked = []
    if question is not None and all(event.position != question for event in newest):
        asked = list(said.filter(position=question))
    seen = read_all(system(session), asked, newest)
    chosen = budget.fit(seen, keep=question)
    summary = None
    # A conversation that fits costs no query for what might stand for it.
    made = None if budget.is_ample(seen, chosen) else latest(session)
    if made is not None and (up_to is None or made.up_to < up_to):
        chosen, summary = _beside(made, seen, chosen, budget, question)
    truncated = len(chosen) < session.message_count
    return Window(tuple(chosen), inherited_state(session), truncated=truncated, summary=summary)


def _beside(
    made: Compaction, seen: Sequence[Message], chosen: list[Message], budget: Budget, question: int | None
) -> tuple[list[Message], str | None]:
    """Return what fits beside a summary, and the summary; not that, where it would leave no room for the last word."""
    rest = [m for m in seen if m.role == Role.SYSTEM or (m.sequence or 0) > made.up_to or m.sequence == question]
    fits = budget.fit(rest, summary=made.summary)
    if others(rest) and not others(fits):
        return chosen, None
    if question is not None and all(message.sequence != question for message in fits):
        fits = budget.fit(rest, summary=made.summary, keep=question)
    return fits, made.summary


def others(messages: Sequence[Message]) -> list[Message]:
    """Return those that are no system messages."""
    return [message for message in messages if message.role != Role.SYSTEM]


def events_of(session: ChatSession) -> SessionEventQuerySet:
    """Return a session's log."""
    return SessionEvent.objects.using(writing.alias(session)).filter(session=session)


def spoken(session: ChatSession) -> SessionEventQuerySet:
    """Return the current messages, without the system's."""
    return events_of(session).current().exclude(role=Role.SYSTEM)


def system(session: ChatSession) -> list[SessionEvent]:
    """Return the current system messages."""
    return list(events_of(session).current().filter(role=Role.SYSTEM).order_by("position"))


def read_all(*lists: Sequence[SessionEvent]) -> list[Message]:
    """Return the messages of events, oldest first."""
    events = sorted((event for events in lists for event in events), key=lambda event: event.position or 0)
    return [conversation.read(event) for event in events]


def compactions(session: ChatSession) -> SessionEventQuerySet:
    """Return the summaries that are still true, the latest first."""
    return events_of(session).filter(_COMPACTED, superseded_by__isnull=True).order_by("-sequence")


def latest(session: ChatSession) -> Compaction | None:
    """Return the latest summary that is still true: all that it covers reads as it did."""
    found = compactions(session).first()
    if found is None or "summary" not in found.data:
        return None
    data = found.data
    return Compaction(data["summary"], found.position or 0, data["messages"], data["tokens"], found.sequence)


def inherited_state(session: ChatSession) -> dict[str, Any]:
    """Return a session's state laid over its parent's, and that over its own parent's, as they are now."""
    sessions = ChatSession.objects.using(writing.alias(session))
    states, parent = [session.state], session.parent_id
    while parent is not None:
        state, parent = sessions.filter(pk=parent).values_list("state", "parent_id").get()
        states.append(state)
    result: dict[str, Any] = {}
    for state in reversed(states):
        result = patches.overlay(result, state)
    return result


# A thin twin for async code; the synchronous function is the truth.
awindow = sync_to_async(window)
