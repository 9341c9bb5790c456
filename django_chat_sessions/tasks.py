"""Celery's door: each task is one call of an operation. Nothing imports this but Celery itself."""

from __future__ import annotations

import logging
import os
import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict
from typing import Any

from celery import Task, current_app, shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from django.db import connections, router

from . import conf
from .models import ChatSession
from .operations import dispatching, expiry, recovery
from .operations.performing import TOKEN
from .operations.runner import RUNNER
from .operations.sweeping import Swept

logger = logging.getLogger(__name__)

#: Seconds that who asks a question waits for the broker.
SEND_SECONDS = 1.0


@shared_task(name="chat_sessions.expire")
def expire_sessions() -> dict[str, Any]:
    """Record the expiry of every session whose deadline has passed; return what was done."""
    return _report(expiry.expire())


@shared_task(name="chat_sessions.warn")
def warn_sessions() -> dict[str, Any]:
    """Warn, once a deadline, of every session that will expire soon; return what was done."""
    return _report(expiry.warn())


@shared_task(name="chat_sessions.recover")
def recover_runs() -> dict[str, Any]:
    """See to answers whose process is lost, and to those that nobody took; return what was done.

    Where this process is the one that gives them (``RUNNER`` is not Celery), the task lasts until they are given.
    """
    done = _report(recovery.recover())
    RUNNER.wait()
    return done


@shared_task(name="chat_sessions.run", bind=True, ignore_result=True)
def give_answer(self: Task[..., None], run: str, using: str) -> None:
    """Give the answer of a queued run."""
    worker = f"{_named(self.request.hostname or 'celery')}:{os.getpid()}"
    dispatching.execute(run, using=using, worker=worker)


class Sender:
    """One thread that sends runs to the broker, which may take as long as it likes to say that it is not there.

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
        self._letters: queue.SimpleQueue[tuple[tuple[str, str], Future[None]]] = queue.SimpleQueue()
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
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="chat-sender", daemon=True)
                self._thread.start()
        sent: Future[None] = Future()
        self._letters.put(((run, using), sent))
        try:
            sent.result(SEND_SECONDS)
        except FutureTimeout:
            self._stuck = sent
            raise TimeoutError("The broker does not answer.") from None

    def _work(self) -> None:
        while True:
            letter, sent = self._letters.get()
            try:
                give_answer.apply_async(args=letter, retry=False)
            except Exception as error:  # noqa: BLE001 - it is told to who waits
                sent.set_exception(error)
            else:
                sent.set_result(None)


SENDER = Sender()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SENDER.reset)


def send(run: str, using: str) -> None:
    """Send a queued run to a worker; a broker that is away is waited for no longer than ``SEND_SECONDS``.

    Raises:
        Exception: it was not sent.
    """
    if give_answer.app.conf.task_always_eager:
        give_answer.apply_async(args=(run, using))
    else:
        SENDER.send(run, using)


def is_configured() -> bool:
    """Tell whether this project has a broker to send runs to."""
    return bool(getattr(settings, "CELERY_BROKER_URL", None) or current_app.conf.broker_url)


@worker_shutting_down.connect(dispatch_uid="django_chat_sessions.tasks")
def hand_back(sender: str, **_: Any) -> None:
    """Let a worker that is told to stop finish what it says within its grace, and take the rest from it then."""
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


def _report(swept: Swept) -> dict[str, Any]:
    done = asdict(swept)
    logger.info("chat_sessions.%(task)s count=%(count)d batches=%(batches)d", done)
    return done
