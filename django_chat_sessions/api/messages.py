"""The routes of messages and events."""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from .. import agents, transcripts
from ..agents import Message
from ..choices import LIVE, Delivery
from ..exceptions import InvalidRequest, MessageNotFound, PermissionRefused
from ..fields import hide
from ..models import EXTERNAL_ID_LENGTH, ChatSession
from ..operations import asking, limits, messages, runs, writing
from ..operations.patience import let_connections_go
from ..rules import concurrency
from . import queries, serializers, streams
from .base import ChatViewSet, passed
from .permissions import WRITE_ANY_ROLE, may, may_write
from .representation import message_object
from .runs import Answering

#: Seconds between two looks while a client waits for an event.
POLL_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.0)


class MessageViewSet(Answering):
    """The conversation of a session."""

    def list(self, request: Request, session: str) -> Response:
        """Return a page of the conversation, oldest first; without a cursor the latest."""
        found = self.see(session)
        page = transcripts.messages(found, **self.query(queries.PageQuery))
        return passed(page.body("messages"), found)

    def create(self, request: Request, session: str) -> HttpResponseBase:
        """Post a message, and get the agent's answer by its ``delivery``."""
        found = self.see(session)
        data = serializers.plain(request.data) or self.body(serializers.MessageBody)
        message = serializers.message(data, external_id=self._idempotency_key())
        concurrency.check_named(found.strategy, self.client)
        agent = agents.of(found.agent)
        delivery = data.get("delivery") or (Delivery.WAIT if agent.can_respond else Delivery.STORE)
        if delivery != Delivery.STORE:
            asking.responding(found)
        if not may_write(request.user, message.role):
            self._check_refused(found, message)
        if delivery == Delivery.STORE:
            return self._store(found, message)
        if delivery == Delivery.WAIT:
            return self.waited(found, runs.ask(found, message, **self.asking(found), on_wait=let_connections_go))
        if delivery == Delivery.STREAM:
            streams.check_server(request)
            return self.streamed(found, runs.start(found, message, **self.asking(found)))
        return self.queued(found, runs.start(found, message, **self.asking(found)))

    def _idempotency_key(self) -> str | None:
        key = self.request.META.get("HTTP_IDEMPOTENCY_KEY") or None
        if key is not None and len(key) > EXTERNAL_ID_LENGTH:
            raise InvalidRequest({"external_id": [f"An Idempotency-Key has at most {EXTERNAL_ID_LENGTH} characters."]})
        return key

    def _check_refused(self, session: ChatSession, message: Message) -> None:
        """Refuse a role, unless it is a repeat, which writes nothing; but first whatever is told before that."""
        limits.check_message(message)
        if messages.repeated(session, message) is None:
            writing.check(session, self.now, client=self.client)
            limits.check_count(session.message_count)
            raise PermissionRefused

    def _store(self, session: ChatSession, message: Message) -> Response:
        stored = messages.append(session, message, client=self.client, expected_sequence=self.expected(session))
        status = 201 if stored.created else 200
        return self.answer(session, status=status, message=message_object(stored.message))

    def retrieve(self, request: Request, session: str, sequence: str) -> Response:
        """Return one message as it reads now."""
        return Response(message_object(messages.find(self.see(session), _sequence(sequence))))

    def partial_update(self, request: Request, session: str, sequence: str) -> Response:
        """Replace the text of one's own message."""
        found = self.see(session)
        number = _sequence(sequence)
        messages.find(found, number)
        data = self.body(serializers.EditBody)
        edited = messages.edit(found, number, data["content"], **self._revision(found))
        return Response(message_object(edited))

    def destroy(self, request: Request, session: str, sequence: str) -> Response:
        """Take one's own message back."""
        found = self.see(session)
        messages.withdraw(found, _sequence(sequence), **self._revision(found))
        return Response(status=204)

    def _revision(self, session: ChatSession) -> dict[str, Any]:
        return {
            "own_only": not may(self.request.user, WRITE_ANY_ROLE),
            "client": self.client,
            "expected_sequence": self.expected(session),
        }


def _sequence(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise MessageNotFound
    return int(text)


class EventViewSet(ChatViewSet):
    """The log of a session."""

    @property
    def may_lag(self) -> bool:  # type: ignore[override]
        """Whether a replica will do: not for who waits for what is about to be written."""
        return "wait" not in self.request.query_params

    def list(self, request: Request, session: str) -> Response:
        """Return a page of the log, oldest first; with ``wait`` held until there is something after ``after``."""
        found = self.see(session)
        query = self.query(queries.EventsQuery)
        wait, kind = query.pop("wait"), query.pop("type", None)
        types = (hide(kind),) if kind else ()
        if wait and "after" not in query:
            query["after"] = found.last_sequence
        page = transcripts.events(found, types=types, **query)
        until = time.monotonic() + wait
        while page.after is None and time.monotonic() < until and found.status in LIVE:
            found = self._look_again(session, found, until)
            page = transcripts.events(found, types=types, **query)
        return passed(page.body("events"), found)

    def _look_again(self, public_id: str, session: ChatSession, until: float) -> ChatSession:
        """Wait, without a database connection, until the session has moved on or the time is over."""
        looks = 0
        found = session
        while found.last_sequence == session.last_sequence and time.monotonic() < until:
            let_connections_go()
            pause = POLL_SECONDS[min(looks, len(POLL_SECONDS) - 1)]
            time.sleep(max(0.0, min(pause, until - time.monotonic())))
            found, looks = self.see(public_id), looks + 1
        return found

    def create(self, request: Request, session: str) -> Response:
        """Record an application's own event."""
        found = self.see(session)
        data = self.body(serializers.EventBody)
        sequence = messages.record(
            found, data["type"], data.get("data", {}), client=self.client, expected_sequence=self.expected(found)
        )
        page = transcripts.events(found, after=sequence - 1, before=sequence + 1, limit=1)
        response = passed(page.json[1:-1], found)
        response.status_code = 201
        return response
