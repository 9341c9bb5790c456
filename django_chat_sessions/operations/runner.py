"""Giving answers in this process: a thread for each, and one that keeps them all.

The keeper stores what was said and waits, says that this process is still alive, notices what was taken from it
(cancelled, over, taken over by another process), and stops what is out of time. It waits for no lock: an answer whose
session somebody holds for long must not make the others look lost.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from time import monotonic
from typing import Any

from django.db import connections, transaction

from .. import conf, dialects
from ..choices import RunStatus
from ..models import Run
from .listening import Lost
from .performing import INTERRUPT_SECONDS, Execution, Outcome, perform, process_name

__all__ = ["INTERRUPT_SECONDS", "RUNNER", "Execution", "Outcome", "Runner", "perform", "process_name"]

logger = logging.getLogger("django_chat_sessions")

#: Seconds between two looks of the keeper at what waits, and at what was taken from this process.
TICK_SECONDS = 0.05
WATCH_SECONDS = 0.35

#: Seconds for which the keeper leaves the database alone after it failed, and between two lines that say so.
AWAY_SECONDS = 0.25
COMPLAINT_SECONDS = 10.0


#: Agents of a process that do not stop, if ``RUN_CONCURRENCY`` allows no more, until it begins no other answer.
MOST_STUCK = 16

#: Whether this is an agent's own code, in whichever thread.
_IS_ANSWERING: ContextVar[bool] = ContextVar("chat_sessions_is_answering", default=False)


class Runner:
    """All the answers that this process gives."""

    def __init__(self) -> None:
        """Give none yet."""
        self.reset()

    def reset(self) -> None:
        """Know of none: a forked child has none of its parent's threads."""
        self._news = threading.Condition()
        self._waiting: deque[Execution] = deque()
        self._active: set[Execution] = set()
        self._stuck: set[Execution] = set()
        self._keys: set[tuple[str, int, int]] = set()
        self._keeper: threading.Thread | None = None
        self.is_draining = False

    @property
    def has_room(self) -> bool:
        """Whether an answer would be begun at once."""
        return not self._waiting and self._has_hand

    @property
    def _has_hand(self) -> bool:
        # Agents that do not stop when they are told to give their places back, but not without end.
        limit = conf.get().RUN_CONCURRENCY
        return len(self._active) < limit and len(self._stuck) < max(limit, MOST_STUCK)

    def submit(self, execution: Execution) -> None:
        """Give an answer as soon as this process has a hand free.

        Where it is given already, or this process is about to stop and the answer has not begun, that comes to nothing
        at once: the run stays queued.
        """
        with self._news:
            if execution.key in self._keys or (self.is_draining and execution.run.status == RunStatus.QUEUED):
                execution.resolve()
                return
            self._keys.add(execution.key)
            execution.outcome.add_done_callback(self._tell)
            execution.on_stopped, execution.on_due = self._release, self._notify
            # An agent that asks another is waited for by one that has a place: to wait for one would be for ever.
            if self.has_room or _IS_ANSWERING.get():
                self._start(execution)
            else:
                self._waiting.append(execution)

    def _tell(self, _: Any) -> None:
        self._notify()

    def _notify(self) -> None:
        with self._news:
            self._news.notify_all()

    def _release(self, execution: Execution) -> None:
        """Give the place of an answer that is over to another, though its agent may not have noticed yet."""
        with self._news:
            if execution in self._active:
                self._active.discard(execution)
                self._stuck.add(execution)
            self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and self._has_hand:
            self._start(self._waiting.popleft())
        self._news.notify_all()

    def _start(self, execution: Execution) -> None:
        self._active.add(execution)
        try:
            if self._keeper is None:
                keeper = threading.Thread(target=self._keep, name="chat-keeper", daemon=True)
                keeper.start()
                self._keeper = keeper
            threading.Thread(target=self._work, args=(execution,), name="chat-run", daemon=True).start()
        except RuntimeError as error:
            # The machine has no more threads; recovery tries again.
            self._forget(execution)
            execution.resolve(None, error)
        self._news.notify_all()

    def _work(self, execution: Execution) -> None:
        _IS_ANSWERING.set(True)
        try:
            execution.work()
            execution.tidy()
        except Exception:
            logger.exception("What comes after run %s could not be done", execution.run.uuid)
        finally:
            with suppress(Exception):
                connections.close_all()
            with self._news:
                self._forget(execution)
                self._start_waiting()

    def _forget(self, execution: Execution) -> None:
        self._active.discard(execution)
        self._stuck.discard(execution)
        self._keys.discard(execution.key)

    def _keep(self) -> None:
        """Look after the answers that are given, for as long as there are any."""
        watched_at = beaten_at = monotonic()
        complained_at = 0.0
        while (executions := self._kept()) is not None:
            try:
                for execution in executions:
                    _look_after(execution)
                if monotonic() - watched_at > WATCH_SECONDS:
                    watched_at = monotonic()
                    _each_database(executions, _watch)
                if monotonic() - beaten_at > conf.get().HEARTBEAT_SECONDS:
                    beaten_at = monotonic()
                    _each_database(executions, _beat)
            except Exception:
                # Whatever it is, the others' answers go on, and so does this thread.
                if monotonic() - complained_at > COMPLAINT_SECONDS:
                    complained_at = monotonic()
                    logger.exception("Answers that are being given cannot be looked after; this is tried again")
                with suppress(Exception):
                    connections.close_all()
                threading.Event().wait(AWAY_SECONDS)

    def _kept(self) -> list[Execution] | None:
        """Wait for a tick, and return what there is to look after; None lets the keeper go, as there is nothing."""
        with self._news:
            if not self._active and not self._stuck:
                connections.close_all()
                self._news.wait(1)
            if not self._active and not self._stuck:
                self._keeper = None
                return None
            self._news.wait(TICK_SECONDS)
            return [*self._active, *self._waiting, *self._stuck]

    def drain(self, seconds: float) -> list[Execution]:
        """Take no new answer, let those that are given be finished, and return those that had not begun.

        They are still queued, for another process to take.
        """
        until = monotonic() + seconds
        with self._news:
            self.is_draining = True
            dropped = [execution for execution in self._waiting if execution.run.status == RunStatus.QUEUED]
            for execution in dropped:
                self._waiting.remove(execution)
                self._forget(execution)
                execution.resolve()
            self._news.wait_for(self._is_done, timeout=max(0.0, until - monotonic()))
        return dropped

    def _is_done(self) -> bool:
        return all(execution.outcome.done() for execution in [*self._active, *self._waiting])

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nothing is given any more; tell whether that is so."""
        with self._news:
            return self._news.wait_for(lambda: not self._active and not self._waiting, timeout=seconds)


def _look_after(execution: Execution) -> None:
    try:
        execution.tick()
    except Lost:
        execution.stop()
    except Exception as error:
        # Only what the agent said can be at fault: the recorder keeps what the database is to blame for.
        logger.exception("Run %s fails", execution.run.uuid)
        execution.give_up(error)


def _each_database(executions: Iterable[Execution], act: Callable[[str, list[Execution]], None]) -> None:
    """Do something about those answers that have begun, a database at a time."""
    by_alias: dict[str, list[Execution]] = {}
    for execution in executions:
        if execution.is_begun:
            by_alias.setdefault(execution.using, []).append(execution)
    for using, mine in by_alias.items():
        act(using, mine)


def _running(using: str, executions: list[Execution]) -> Any:
    keys = [execution.run.pk for execution in executions]
    return Run.objects.using(using).filter(pk__in=keys, status=RunStatus.RUNNING).order_by()


def _watch(using: str, executions: list[Execution]) -> None:
    """Stop the work on what was taken from this process."""
    attempts = dict(_running(using, executions).values_list("pk", "attempt"))
    for execution in executions:
        if attempts.get(execution.run.pk) != execution.key[2] and not execution.is_ending:
            execution.stop()


def _beat(using: str, executions: list[Execution]) -> None:
    """Say that this process is still alive; of a run that somebody holds at this moment, the next time."""
    mine = _running(using, executions).filter(worker__in={execution.worker for execution in executions})
    with transaction.atomic(using=using):
        if dialects.is_postgresql(using):
            keys = list(mine.select_for_update(skip_locked=True, of=("self",)).values_list("pk", flat=True))
            mine = Run.objects.using(using).filter(pk__in=keys)
        mine.update(heartbeat_at=dialects.now(using))


RUNNER = Runner()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RUNNER.reset)
