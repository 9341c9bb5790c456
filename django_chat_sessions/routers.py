"""Read replicas: which database a request reads from, so that it sees what its user wrote.

Both classes here are named in the settings. The router gives a replica only to who says for whom they read, by the hint
``reader``, as the API does for what only reads; everything else stays on the primary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import MiddlewareNotUsed
from django.db import connections, router, transaction
from django.db.models import Model
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .replicas import Replicas
from .signals import events_appended


@dataclass(slots=True)
class Scope:
    """What one request did.

    Attributes:
        is_on_primary: whether it may have written there, or has to be noted for another reason.
        owners: whose sessions it wrote to.
        is_over: whether its answer is given; threads that it left behind do not write for it any more.
    """

    is_on_primary: bool = False
    owners: set[Hashable] = field(default_factory=set)
    is_over: bool = False


_scope: ContextVar[Scope | None] = ContextVar("chat_sessions_scope", default=None)


def _current() -> Scope | None:
    scope = _scope.get()
    return None if scope is None or scope.is_over else scope


class ReplicaRouter:
    """Reads from a replica where that has everything that the reader wrote, and from the primary otherwise.

    To say otherwise, name a subclass in ``DATABASE_ROUTERS``.

    Attributes:
        primary: the alias that is written to.
        replicas: aliases of its streaming replicas, the preferred first; those that the settings lack are left out.
        labels: the apps whose models it is about.
        cache: the alias of a cache that all processes share.
        max_lag_seconds: how far behind a replica may be for somebody who wrote nothing.
    """

    primary = "default"
    replicas: Sequence[str] = ("replica",)
    labels: Collection[str] = frozenset({"chat_sessions"})
    cache = "default"
    max_lag_seconds = 10.0

    def __init__(self) -> None:
        """Hear of what is written outside of requests, too: by agents, in tasks."""
        events_appended.connect(self._written)

    @cached_property
    def known(self) -> Replicas:
        """The replicas as this process knows them."""
        return Replicas(self.primary, self.replicas, cache=self.cache, max_lag_seconds=self.max_lag_seconds)

    def db_for_read(
        self, model: type[Model], *, instance: Model | None = None, reader: Any = None, **_: Any
    ) -> str | None:
        """Return where to read from.

        Args:
            model: what is read.
            instance: what it belongs to; that is read where this came from.
            reader: the user for whom it is read, and nothing is going to be written with it.
        """
        if model._meta.app_label not in self.labels:
            return None
        scope = _current()
        source = None if instance is None else instance._state.db
        if source in self.known.aliases and not (scope and scope.is_on_primary):
            return source
        if scope is None:
            return self.primary
        chosen = None if reader is None else self._choose(scope, reader)
        if chosen is None and reader is None:
            # Whoever reads in order to write says so, or says nothing.
            scope.is_on_primary = True
        return chosen or self.primary

    def _choose(self, scope: Scope, reader: Any) -> str | None:
        if not self.known or scope.is_on_primary or connections[self.primary].in_atomic_block:
            return None
        noted = self.known.notes.of(reader.pk)
        if noted is None:
            # Nobody knows what they wrote. They get a note, as if they had done it now.
            scope.is_on_primary = True
            return None
        return self.known.choose(noted)

    def db_for_write(self, model: type[Model], **_: Any) -> str | None:
        """Return the primary, from which the request reads from now on."""
        if model._meta.app_label not in self.labels:
            return None
        scope = _current()
        if scope is not None:
            scope.is_on_primary = True
        return self.primary

    def allow_relation(self, one: Model, other: Model, **_: Any) -> bool | None:
        """Allow what comes from a replica to be related to what comes from the primary: they are the same."""
        if not {one._meta.app_label, other._meta.app_label} & set(self.labels):
            return None
        ours = {self.primary, *self.known.aliases}
        return True if {one._state.db, other._state.db} <= ours else None

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        """Refuse to migrate a replica, whatever the app: it gets that from its primary."""
        return False if db in self.known.aliases else None

    def note(self, scope: Scope, user: Any) -> None:
        """Note, once all is committed, that the user and the owners have to see what a request did."""
        everybody = scope.owners | {getattr(user, "pk", None)} - {None}
        if self.known and scope.is_on_primary and everybody:
            self._once_committed(everybody)

    def _once_committed(self, everybody: Collection[Hashable]) -> None:
        if connections[self.primary].in_atomic_block:
            transaction.on_commit(partial(self.known.notes.write, everybody), using=self.primary)
        else:
            # Not by ``on_commit``, which would connect, and fail the request where the primary is away.
            self.known.notes.write(everybody)

    def _written(self, session: Any, **_: Any) -> None:
        """Note that something was written to a session."""
        if session.owner_id is None or session._state.db != self.primary or not self.known:
            return
        scope = _current()
        if scope is None:
            self._once_committed({session.owner_id})
        else:
            scope.is_on_primary = True
            scope.owners.add(session.owner_id)


class ReplicaMiddleware:
    """Tells the router what belongs to one request, and notes what that wrote before its answer is sent.

    It belongs at the top. It costs nothing where no ``ReplicaRouter`` is installed.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Work in the mode of what is below."""
        self._routers = [each for each in router.routers if isinstance(each, ReplicaRouter)]
        if not self._routers:
            raise MiddlewareNotUsed
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer within a scope of its own."""
        if self.is_async:
            return self._acall(request)
        with _opened() as scope:
            response: HttpResponseBase = self.get_response(request)
        self._note(scope, request)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        with _opened() as scope:
            response: HttpResponseBase = await self.get_response(request)
        if scope.is_on_primary:
            await sync_to_async(self._note)(scope, request)
        return response

    def _note(self, scope: Scope, request: HttpRequest) -> None:
        if scope.is_on_primary:
            for each in self._routers:
                each.note(scope, getattr(request, "user", None))


@contextmanager
def _opened() -> Iterator[Scope]:
    scope = Scope()
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        scope.is_over = True
        _scope.reset(token)
