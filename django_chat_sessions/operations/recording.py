"""What an answer leaves behind: its beginning, what is said, and its end.

A run belongs to the process that began its present attempt. Whatever that process writes is written under the session's
lock and only while the run still says so; once it does not, because somebody cancelled it, its session is over or
another process took over, there is nothing more to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from threading import RLock
from time import monotonic
from typing import Any

from .. import chunks, conf, log, notifications
from ..agents import Agent
from ..choices import MESSAGE_TYPES, EventType, Role, RunStatus
from ..exceptions import SessionNotFound, SessionNotLive
from ..models import ChatSession, Run, SessionEvent
from ..rules import lifecycle
from ..rules import merge as patches
from ..turns import Message, Piece, Turn
from . import messages as conversation
from . import writing
from .sessions import record_state
from .settling import said, settle
from .speaking import Speech, Whole


class Lost(Exception):
    """The run is not this process's any more."""


def begin(draft: writing.Draft, run: Run, agent: Agent, *, worker: str) -> None:
    """Start an attempt: record it, take what it answers anew out of the conversation, and give it its time.

    Args:
        draft: of the locked session.
        run: queued.
        agent: who answers.
        worker: the name of the process.
    """
    must_finish = draft.now + timedelta(seconds=agent.time_limit_seconds)
    old = _answer_to(draft.session, run) if run.is_repeat or run.attempt > 1 else []
    data: dict[str, Any] = {"run": str(run.uuid), "input_sequence": run.input_sequence, "attempt": run.attempt}
    if old:
        data["supersedes"] = [event.position for event in old]
    sequence = draft.record(EventType.RUN_STARTED, data)
    for event in old:
        log.supersede(draft.session, event, by=sequence)
    run.status, run.worker, run.spoken_sequence, run.output_sequence = RunStatus.RUNNING, worker, sequence, None
    run.started_at = run.heartbeat_at = draft.now
    run.first_token_at, run.expires_at = None, must_finish
    run.save(using=writing.alias(draft.session))
    draft.touch(until=must_finish)


def _answer_to(session: ChatSession, run: Run) -> list[SessionEvent]:
    """Return what was answered to the run's question: all of it, or what earlier attempts of this run said of it."""
    events = SessionEvent.objects.using(writing.alias(session)).filter(session=session).current()
    following = events.filter(position__gt=run.input_sequence).order_by("position")
    question = following.filter(role=Role.USER).values_list("position", flat=True).first()
    if question is not None:
        following = following.filter(position__lt=question)
    said = following.filter(role__in=(Role.ASSISTANT, Role.TOOL))
    return [event for event in said if run.is_repeat or event.data.get("run") == str(run.uuid)]


@dataclass(slots=True)
class Recorder:
    """Writes what one attempt of a run says.

    What is heard may come from one thread while another flushes.

    Attributes:
        session: an instance of its own.
        run: begun.
        agent: who speaks.
        turn: whose state is compared at the end.
        is_inline: whether all this happens within a transaction of the caller, where nobody else sees a chunk.
        reply: the agent's last message.
    """

    session: ChatSession
    run: Run
    agent: Agent
    turn: Turn
    state: dict[str, Any]
    is_inline: bool = False
    speech: Speech = field(default_factory=Speech)
    reply: Message | None = None
    is_over: bool = False
    _lock: Any = field(default_factory=RLock)
    _waiting: str = ""
    _index: int = 0
    _flushed_at: float = 0.0

    def __post_init__(self) -> None:
        """Go on counting where an earlier attempt stopped."""
        if self.run.attempt > 1:
            self._index = chunks.next_index(self.run)

    def hear(self, piece: Piece) -> None:
        """Take a piece of the answer and store what is whole by it.

        Raises:
            Lost: the run is not this process's any more.
            Exception: the piece is none that an agent may say.
        """
        with self._lock:
            self._check()
            for whole in self.speech.hear(piece):
                self._store(whole)
            if isinstance(piece, str):
                self._waiting += piece
                self.tick()

    def tick(self) -> None:
        """Store what has waited for long enough; the first words wait for nothing."""
        with self._lock:
            if self.is_over or monotonic() - self._flushed_at < conf.get().CHUNK_SECONDS:
                return
            if self._waiting:
                self._flush()
            elif self.speech.calls and not self.is_inline:
                for whole in self.speech.close():
                    self._store(whole)
                self._flushed_at = monotonic()

    def record(self, type_: str, data: Mapping[str, Any]) -> None:
        """Append an application's event to the log.

        Raises:
            Lost: the run is not this process's any more.
            ChatSessionError: as ``messages.record`` says.
        """
        with self._lock:
            self._check()
            conversation.record(self.session, type_, data)

    def finish(self) -> None:
        """End the answer well.

        Raises:
            Lost: the run is not this process's any more.
        """
        with self._lock:
            self._check()
            self._flush()
            with self._writing() as draft:
                for message in self.speech.close():
                    self._say(draft, message)
                record_state(draft, patches.difference(self.state, self.turn.state))
                self._settle(draft, RunStatus.SUCCEEDED)
            self.is_over = True

    def fail(self, error: str) -> None:
        """End the answer badly, and keep what was said; nothing where the run is not this process's any more."""
        with self._lock:
            if self.is_over:
                return
            self.is_over = True
            self._flush()
            with writing.writing(self.session, live=False) as draft:
                self._settle(draft, RunStatus.FAILED, error)

    def _settle(self, draft: writing.Draft, status: RunStatus, error: str = "") -> None:
        draft.entries += settle(
            self.run,
            status,
            now=draft.now,
            next_sequence=draft.next_sequence,
            error=error,
            spoken=self.speech.text if self.is_inline else None,
            figures=self._figures(),
        )

    def _figures(self) -> dict[str, Any]:
        """Return what the answer took; ``tokens`` are those that no message counts."""
        usage, counted = self.speech.usage, self.speech.counted
        if usage is None:
            return {"output_tokens": counted} if counted else {}
        cost = usage.cost
        if cost is None and self.agent.price is not None:
            cost = self.agent.price.of(usage)
        figures: dict[str, Any] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        if cost is not None:
            figures["cost"] = cost
        return {**figures, "tokens": max(0, usage.input_tokens + usage.output_tokens - counted)}

    def _check(self) -> None:
        if self.is_over:
            raise Lost

    def _lose(self) -> None:
        self.is_over = True
        raise Lost

    def _flush(self) -> None:
        """Store what waits."""
        text, self._waiting = self._waiting, ""
        if not text or self.is_inline:
            return
        if not chunks.append(self.run, self._index, text):
            self._lose()
        using = writing.alias(self.session)
        notifications.tell(using, self.session.uuid)
        self._index, self._flushed_at = self._index + 1, monotonic()
        if self.run.first_token_at is None:
            chunks.note_first(self.run)

    def _store(self, whole: Whole) -> None:
        self._flush()
        with self._writing() as draft:
            if isinstance(whole, Message):
                self._say(draft, whole)
                self.run.save(using=writing.alias(self.session), update_fields=["spoken_sequence", "output_sequence"])
                draft.touch()
            else:
                for state in (self.state, self.turn.state):
                    merged = patches.merge(state, dict(whole.patch))
                    state.clear()
                    state.update(merged)
                record_state(draft, whole.patch)
                draft.touch()

    def _say(self, draft: writing.Draft, message: Message) -> None:
        sequence = draft.next_sequence
        position = self._place(draft.session)
        draft.entries.append(said(message, self.run, draft.now, position))
        if position is not None:
            log.outdate(draft.session, position, by=sequence)
        self.run.spoken_sequence = sequence
        if message.role == Role.ASSISTANT:
            self.run.output_sequence = position or sequence
            self.reply = replace(message, sequence=position or sequence, run=str(self.run.uuid), created_at=draft.now)

    def _place(self, session: ChatSession) -> int | None:
        """Return the place of an answer to a question that is not the last: before the next one, where there is room.

        Each event of the log has a place that only a message needs, so between two questions there are some.
        """
        if not self.run.is_repeat:
            return None
        events = SessionEvent.objects.using(writing.alias(session)).filter(session=session, type__in=MESSAGE_TYPES)
        later = events.current().filter(position__gt=self.run.input_sequence, role=Role.USER).order_by("position")
        question = later.values_list("position", flat=True).first()
        if question is None:
            return None
        between = events.current().filter(position__gt=self.run.input_sequence, position__lt=question)
        taken = between.order_by("-position").values_list("position", flat=True).first() or self.run.input_sequence
        return taken + 1 if taken + 1 < question else None

    @contextmanager
    def _writing(self) -> Iterator[writing.Draft]:
        """Open a draft of the session, which has to be live, for the run, which has to be this attempt's.

        Raises:
            Lost: one of them is not.
        """
        before = (self.run.spoken_sequence, self.run.output_sequence, self.reply, self.speech.text)
        try:
            with writing.writing(self.session, live=False) as draft:
                runs = Run.objects.using(writing.alias(self.session)).filter(pk=self.run.pk, attempt=self.run.attempt)
                if not runs.filter(status=RunStatus.RUNNING).exists() or not _is_live(draft):
                    self._lose()
                yield draft
        except SessionNotFound:
            self._lose()
        except BaseException:
            # Nothing of it was stored.
            self.run.spoken_sequence, self.run.output_sequence, self.reply, self.speech.text = before
            raise


def _is_live(draft: writing.Draft) -> bool:
    try:
        lifecycle.check_live(draft.session.status, draft.session.expires_at, draft.now)
    except SessionNotLive:
        return False
    return True
