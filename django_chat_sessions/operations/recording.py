"""What an answer leaves behind: its beginning, what is said, and its end.

A run belongs to the process that began its present attempt. Whatever that process writes is written under the session's
lock and only while the run still says so; once it does not, because somebody cancelled it, its session is over or
another process took over, there is nothing more to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from functools import partial
from threading import RLock
from time import monotonic
from typing import Any, NoReturn

from django.db.models import Q

from .. import chunks, conf, log, notifications
from ..agents import Agent
from ..choices import EventType, Role, RunStatus
from ..exceptions import SessionNotFound
from ..models import ChatSession, Run, SessionEvent
from ..rules import merge as patches
from ..turns import Message, Piece, StateChange, Turn
from . import messages as conversation
from . import writing
from .listening import Lost
from .patience import AWAY, hang_up, impatient, patiently
from .sessions import record_state
from .settling import place, said, settle
from .speaking import Speech, Whole


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
    """Return what was answered to the run's question: all of it, or what earlier attempts of this run said of it.

    What a run said may stand behind a later question, which somebody stored meanwhile.
    """
    using = writing.alias(session)
    runs = Run.objects.using(using).filter(session=session, input_sequence=run.input_sequence)
    said_by = {str(uuid) for uuid in runs.values_list("uuid", flat=True)} if run.is_repeat else {str(run.uuid)}
    events = SessionEvent.objects.using(using).filter(session=session).current()
    following = events.filter(position__gt=run.input_sequence)
    question = following.filter(role=Role.USER).order_by("position").values_list("position", flat=True).first()
    between = Q(data__run__in=sorted(said_by))
    if run.is_repeat:
        between |= Q(position__lt=question) if question is not None else Q()
        between = between if question is not None else Q()
    return list(following.filter(between, role__in=(Role.ASSISTANT, Role.TOOL)).order_by("position"))


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
        is_over: whether there is nothing more to write.
        is_ending: whether its end is being written.
        on_due: is called when something has waited for long enough, to have another thread call ``tick``. The thread
            that hears keeps no connection then while the agent says nothing.
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
    is_ending: bool = False
    on_due: Callable[[], None] | None = None
    _lock: Any = field(default_factory=RLock)
    _waiting: str = ""
    # So much of what waits may have been stored: the database went away before it said so.
    _doubtful: int = 0
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
                if self._is_due:
                    (self.on_due or self._try_to_flush)()

    @property
    def _is_due(self) -> bool:
        """Whether something has waited for long enough; the first words wait for nothing."""
        return not self.is_over and monotonic() - self._flushed_at >= conf.get().CHUNK_SECONDS

    def tick(self) -> None:
        """Store what has waited for long enough, where that is possible without waiting for anybody.

        Raises:
            Lost: the run is not this process's any more.
            Exception: what was said cannot be stored.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._is_due:
                return
            if self._waiting:
                self._try_to_flush(waits=False)
            elif self.speech.calls and not self.is_ending:
                self._flushed_at = monotonic()
                self._try_to_close()
        finally:
            self._lock.release()

    def record(self, type_: str, data: Mapping[str, Any]) -> None:
        """Append an application's event to the log.

        Raises:
            Lost: the run is not this process's any more.
            ChatSessionError: as ``messages.record`` says.
        """
        with self._lock:
            self._check()
            self._insist(self._flush)
            tried: list[int] = []
            self._insist(lambda: self._record(type_, data, tried))
            self._let_go()

    def _record(self, type_: str, data: Mapping[str, Any], tried: list[int]) -> None:
        with self._writing() as draft:
            events = SessionEvent.objects.using(writing.alias(draft.session)).filter(session=draft.session)
            if tried and events.filter(sequence=tried[-1], type=type_, data=dict(data)).exists():
                return  # The last try came through, though the database went away before it said so.
            tried.append(draft.next_sequence)
            conversation.record(self.session, type_, data)
            writing.refresh(draft.session, self.session)

    def finish(self) -> None:
        """End the answer well.

        Raises:
            Lost: the run is not this process's any more.
        """
        with self._lock:
            self._check()
            self.is_ending = True
            self._insist(self._finish)
            self.is_over = True

    def _finish(self) -> None:
        self._flush()
        with self._writing() as draft:
            for message in self.speech.close():
                self._say(draft, message)
            record_state(draft, patches.difference(self.state, self.turn.state))
            self._settle(draft, RunStatus.SUCCEEDED)

    def fail(self, error: str) -> None:
        """End the answer badly, and keep what was said; nothing where the run is not this process's any more."""
        with self._lock:
            if self.is_over:
                return
            self.is_over = self.is_ending = True
            self._insist(partial(self._fail, error))

    def _fail(self, error: str) -> None:
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

    def _lose(self) -> NoReturn:
        self.is_over = True
        raise Lost

    def _insist(self, act: Callable[[], None]) -> None:
        """Do something as often as it takes while the database is away, as long as nobody takes the run from us.

        Whoever writes finds out first whether the last try came through after all.
        """
        was_over = self.is_over

        def try_() -> None:
            with self._restoring():
                act()

        def between() -> None:
            if self.is_over and not was_over:
                raise Lost

        patiently(self._using, try_, between=between)

    @property
    def _using(self) -> str:
        return writing.alias(self.session)

    @contextmanager
    def _restoring(self) -> Iterator[None]:
        """Where nothing was stored, remember what was there before."""
        run = {field.attname: getattr(self.run, field.attname) for field in self.run._meta.concrete_fields}
        speech = replace(self.speech, calls=list(self.speech.calls))
        reply = self.reply
        try:
            yield
        except BaseException:
            self.reply = reply
            for name, value in run.items():
                setattr(self.run, name, value)
            for one in fields(speech):
                setattr(self.speech, one.name, getattr(speech, one.name))
            raise

    def _try_to_flush(self, *, waits: bool = True) -> None:
        """Store what waits; where the database is away, it waits for longer."""
        try:
            self._flush(waits=waits)
        except AWAY:
            if self.is_inline:
                raise
            self._flushed_at = monotonic()
            hang_up(self._using)

    def _try_to_close(self) -> None:
        """Store the tool calls that were said, where nobody holds the session."""
        try:
            with self._restoring(), impatient(self._using):
                for whole in self.speech.close():
                    self._write(whole)
        except AWAY:
            hang_up(self._using)

    def _flush(self, *, waits: bool = True) -> None:
        """Store what waits."""
        if self.is_inline:
            self._waiting = ""
        if not self._waiting:
            return
        if self._doubtful and chunks.next_index(self.run) > self._index:
            self._index, self._waiting = self._index + 1, self._waiting[self._doubtful :]
        self._doubtful = len(self._waiting)
        if self._waiting and not chunks.append(self.run, self._index, self._waiting, waits=waits):
            self._doubtful = 0
            if waits:
                self._lose()
            return
        self._doubtful, self._waiting = 0, ""
        self._index, self._flushed_at = self._index + 1, monotonic()
        notifications.tell(self._using, self.session.uuid)
        if self.run.first_token_at is None:
            chunks.note_first(self.run)

    def _store(self, whole: Whole) -> None:
        self._insist(partial(self._flush_and_write, whole))
        self._let_go()

    def _let_go(self) -> None:
        """Keep no connection while the agent thinks."""
        if self.on_due is not None:
            hang_up(self._using)

    def _flush_and_write(self, whole: Whole) -> None:
        self._flush()
        self._write(whole)

    def _write(self, whole: Whole) -> None:
        before = self.run.spoken_sequence
        with self._writing() as draft:
            if not isinstance(whole, Message):
                self._change(draft, whole)
            elif self.run.spoken_sequence != before:
                # The last try came through, though the database went away before it said so.
                self.reply = replace(whole, sequence=self.run.output_sequence, run=str(self.run.uuid))
                return
            else:
                self._say(draft, whole)
                self.run.save(using=self._using, update_fields=["spoken_sequence", "output_sequence"])
            draft.touch()

    def _change(self, draft: writing.Draft, change: StateChange) -> None:
        for state in (self.state, self.turn.state):
            merged = patches.merge(state, dict(change.patch))
            state.clear()
            state.update(merged)
        record_state(draft, change.patch)

    def _say(self, draft: writing.Draft, message: Message) -> None:
        sequence = draft.next_sequence
        position = place(self.run)
        draft.entries.append(said(message, self.run, draft.now, position))
        if position is not None:
            log.outdate(draft.session, position, by=sequence)
        self.run.spoken_sequence = sequence
        if message.role == Role.ASSISTANT:
            self.run.output_sequence = position or sequence
            self.reply = replace(message, sequence=position or sequence, run=str(self.run.uuid), created_at=draft.now)

    @contextmanager
    def _writing(self) -> Iterator[writing.Draft]:
        """Open a draft of the session, which has to be live, for the run, which has to be this attempt's.

        Raises:
            Lost: one of them is not.
        """
        try:
            with self._restoring(), writing.writing(self.session, live=False) as draft:
                mine = {"pk": self.run.pk, "attempt": self.run.attempt, "status": RunStatus.RUNNING}
                runs = Run.objects.using(self._using).filter(**mine)
                spoken = runs.values_list("spoken_sequence", "output_sequence").first()
                if spoken is None or not draft.session.is_live_at(draft.now):
                    self._lose()
                self.run.spoken_sequence, self.run.output_sequence = spoken
                yield draft
        except SessionNotFound:
            self._lose()
