"""Celery's door: each task is one call of an operation. Nothing imports this but Celery itself."""

from __future__ import annotations

import logging
import math
import mmap
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict
from functools import partial
from time import monotonic
from typing import Any

from celery import Task, current_app, shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from django.db import connections, router

from . import conf
from .models import ChatSession
from .notifications.patience import Patience
from .operations import archiving, dispatching, expiry, outbox, pieces, purging, recovery, sweeps
from .operations.performing import TOKEN
from .operations.runner import RUNNER

logger = logging.getLogger(__name__)

#: Seconds that who asks a question waits for the broker.
SEND_SECONDS = 1.0

#: Messages that wait for a broker; more of them are only runs.
BACKLOG = 10

#: Seconds between two looks at the outbox that a process asks for, and after which an old one is not worth it.
NUDGE_SECONDS, NUDGE_EXPIRES = 1.0, 20.0

_patience = Patience("nudging who delivers")

#: Whether this worker was told to stop: in memory that children have in common with the parent, who alone is told.
#: Where a child is no fork, it is bounded by ``SWEEP_SECONDS`` only.
STOPPING = mmap.mmap(-1, 1)


@shared_task(name="chat_sessions.warn")
def warn_sessions() -> dict[str, Any]:
    """Warn of every session that will expire soon; return what was done."""
    return _sweep(expiry.warn)


@shared_task(name="chat_sessions.expire")
def expire_sessions() -> dict[str, Any]:
    """Record the expiry of every session whose deadline has passed; return what was done."""
    return _sweep(expiry.expire)


@shared_task(name="chat_sessions.recover")
def recover_runs() -> dict[str, Any]:
    """See to answers whose process is lost, to those that nobody took, and to orphaned children; return what was done.

    Where this process is the one that gives them (``RUNNER`` is not Celery), the task lasts until they are given.
    """
    done = _sweep(recovery.recover)
    RUNNER.wait()
    return done


@shared_task(name="chat_sessions.archive")
def archive_sessions() -> dict[str, Any]:
    """Archive the sessions whose retention is over; return what was done."""
    return _sweep(archiving.archive)


@shared_task(name="chat_sessions.purge")
def purge_sessions() -> dict[str, Any]:
    """Delete the sessions whose retention is over; return what was done."""
    return _sweep(purging.purge)


@shared_task(name="chat_sessions.compact")
def compact_chunks() -> dict[str, Any]:
    """Delete the chunks of answers that were finished long enough ago; return what was done."""
    return _sweep(pieces.compact)


@shared_task(name="chat_sessions.deliver", bind=True)
def deliver_events(self: Task[..., dict[str, Any]], using: str | None = None) -> dict[str, Any]:
    """Tell subscribers of the events that wait for it; return what was done.

    It takes no longer than ``outbox.LONGEST_SECONDS``, since others are behind it in the queue; where that was not
    enough, it sends for itself, and comes after them.
    """
    done = _sweep(partial(outbox.deliver, using=using), longest=outbox.LONGEST_SECONDS)
    if not done["is_finished"] and not self.request.is_eager:
        nudge(using or router.db_for_write(ChatSession))
    return done


@shared_task(name="chat_sessions.run", bind=True, ignore_result=True)
def give_answer(self: Task[..., None], run: str, using: str) -> None:
    """Give the answer of a queued run."""
    worker = f"{_named(self.request.hostname or 'celery')}:{os.getpid()}"
    dispatching.execute(run, using=using, worker=worker)


class Sender:
    """One thread that sends messages to the broker, which may take as long as it likes to say that it is not there.

    Celery waits for a broker that does not answer, in ways that differ from one kind to another and with no common
    limit; who asks a question must not.
    """

    def __init__(self) -> None:
        """Have no thread yet."""
        self.reset()

    def reset(self) -> None:
        """Have none: a forked child has none of its parent's threads."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._letters: queue.SimpleQueue[tuple[Callable[[], Any], Future[None]]] = queue.SimpleQueue()
        self._stuck: Future[None] | None = None

    def send(self, run: str, using: str) -> None:
        """Send a run, and wait for that, but not for long.

        Raises:
            TimeoutError: the broker does not answer; the run may have been sent all the same.
            Exception: the broker is away.
        """
        with self._lock:
            if self._stuck is not None and not self._stuck.done():
                raise TimeoutError("The broker has not answered for a while.")
        sent = self.post(partial(give_answer.apply_async, args=(run, using), retry=False))
        try:
            sent.result(SEND_SECONDS)
        except FutureTimeout:
            self._stuck = sent
            raise TimeoutError("The broker does not answer.") from None

    @property
    def is_behind(self) -> bool:
        """Whether so much waits that what can be missed had better not be sent."""
        return self._letters.qsize() >= BACKLOG

    def post(self, letter: Callable[[], Any]) -> Future[None]:
        """Have something sent, after what waits for that already; who likes may wait."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="chat-sender", daemon=True)
                self._thread.start()
        sent: Future[None] = Future()
        self._letters.put((letter, sent))
        return sent

    def _work(self) -> None:
        while True:
            letter, sent = self._letters.get()
            try:
                letter()
            except Exception as error:  # noqa: BLE001 - it is told to who waits
                sent.set_exception(error)
            else:
                sent.set_result(None)


class Nudges:
    """When this process has the outbox looked at: once in ``NUDGE_SECONDS`` at the most, however often it is asked.

    What is asked for too soon after another look is planned for the next one, so that nothing waits for the beat.
    """

    def __init__(self) -> None:
        """Have planned nothing."""
        self.reset()

    def reset(self) -> None:
        """Have planned nothing: a forked child sends nothing of its parent's."""
        self._lock = threading.Lock()
        self._planned: dict[str, list[float]] = {}

    def plan(self, using: str, at: float, *, now: float) -> float | None:
        """Plan a look at an instant, and return the seconds until then; None where another one does for it.

        Args:
            using: the database.
            at: the instant from which there is something, by a monotonic clock.
            now: the present one.
        """
        with self._lock:
            planned = [one for one in self._planned.get(using, ()) if one > now - NUDGE_SECONDS]
            before = [one for one in planned if at - NUDGE_SECONDS < one < at]
            at = max(before) + NUDGE_SECONDS if before else at
            does = any(at <= one < at + NUDGE_SECONDS for one in planned)
            self._planned[using] = planned if does else [*planned, at]
        return None if does else max(0.0, at - now)


SENDER = Sender()
NUDGES = Nudges()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SENDER.reset)
    os.register_at_fork(after_in_child=NUDGES.reset)


def send(run: str, using: str) -> None:
    """Send a queued run to a worker; a broker that is away is waited for no longer than ``SEND_SECONDS``.

    Raises:
        Exception: it was not sent.
    """
    if give_answer.app.conf.task_always_eager:
        give_answer.apply_async(args=(run, using))
    else:
        SENDER.send(run, using)


def nudge(using: str, seconds: float = 0.0) -> None:
    """Have a worker look at the outbox, now or in a while; waits for nothing, and never raises.

    What is lost of it, because the broker is away, the next beat makes good.
    """
    wait = None if SENDER.is_behind else NUDGES.plan(using, monotonic() + seconds, now=monotonic())
    if wait is None:
        return
    if deliver_events.app.conf.task_always_eager:
        if not wait:
            deliver_events.apply_async(kwargs={"using": using})
        return
    letter = partial(
        deliver_events.apply_async,
        kwargs={"using": using},
        countdown=wait,
        # A worker that comes late finds newer ones, and drops the others: what is not one of these gets its turn.
        expires=wait + NUDGE_EXPIRES,
        retry=False,
    )
    SENDER.post(letter).add_done_callback(_note)


def _note(sent: Future[None]) -> None:
    error = sent.exception()
    if isinstance(error, Exception):
        _patience.complain(error)


def is_configured() -> bool:
    """Tell whether this project has a broker to send runs to."""
    return bool(getattr(settings, "CELERY_BROKER_URL", None) or current_app.conf.broker_url)


@worker_shutting_down.connect(dispatch_uid="django_chat_sessions.tasks")
def hand_back(sender: str, **_: Any) -> None:
    """Let a worker that is told to stop finish what it says within its grace, and take the rest from it then.

    Its sweeps end after the batch.
    """
    STOPPING[0] = True
    RUNNER.is_draining = True
    thread = threading.Timer(conf.get().GRACE_SECONDS, _take_from, args=(_named(str(sender)),))
    thread.daemon = True
    thread.start()


def _named(hostname: str) -> str:
    """Return the name of a worker and its children, which no other worker of that host name has, the next one say."""
    return f"{hostname}:{TOKEN}"


def _take_from(worker: str) -> None:
    try:
        recovery.release_all(worker, using=router.db_for_write(ChatSession))
    except Exception:
        logger.exception("What %s was saying cannot be handed over; recovery finds it", worker)
    finally:
        connections.close_all()


def _sweep(work: sweeps.Work, longest: float = math.inf) -> dict[str, Any]:
    """Sweep for as long as a task may, and its worker is to run; what is left is for the next one."""
    longest = min(longest, conf.get().SWEEP_SECONDS)
    return asdict(work(watch=lambda swept: swept.seconds < longest and not STOPPING[0]))
