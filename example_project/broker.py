"""The broker of the demo: Kombu's folder of messages, as safe for several processes as it has to be here.

Kombu's own file-system transport creates a message's file and then fills it, so that a worker which looks between
the two takes an empty message, and dies of it (https://github.com/celery/kombu/issues/1551); its tables of bindings
have the same gap. Here a message gets its name when it is whole, and whoever uses a table has it alone.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """A channel whose files are never seen half-written."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        # Named after when it was sent, as Kombu does: whoever takes messages takes them in the order of their names.
        name = f"{round(time.monotonic() * 1000)}_{uuid4()}"
        unfinished = folder / f"{name}.unfinished"
        try:
            unfinished.write_text(dumps(payload), encoding="utf-8")
            unfinished.replace(folder / f"{name}.{queue}.msg")
        except OSError as error:
            raise ChannelError(f"Cannot add {name} to {folder}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep everybody else from the tables of bindings; the lock goes with the process, whatever ends that."""
        self.control_folder.mkdir(parents=True, exist_ok=True)
        with (self.control_folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def get_table(self, exchange: str) -> Any:
        with self._alone():
            return super().get_table(exchange)

    def _queue_bind(self, *args: Any) -> None:
        with self._alone():
            super()._queue_bind(*args)

    def _delete(self, *args: Any, **kwargs: Any) -> None:
        with self._alone():
            super()._delete(*args, **kwargs)


class Transport(filesystem.Transport):
    """Kombu's file-system transport with channels of ours; `CELERY_BROKER_TRANSPORT` names it."""

    Channel = Channel
