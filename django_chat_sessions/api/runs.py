"""The routes of runs, and the ways in which an answer is delivered."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from ..choices import Delivery
from ..chunks import Cursor
from ..models import ChatSession
from ..operations import asking, runs
from ..operations.asking import Started
from ..operations.patience import let_connections_go
from ..operations.runs import Asked
from ..rules import concurrency
from . import queries, serializers, streams
from .base import ChatViewSet, listed
from .formats import EventStreamRenderer, JSONRenderer, ProblemRenderer
from .representation import message_object, run_object


class Answering(ChatViewSet):
    """A route that an agent answers."""

    renderer_classes = [JSONRenderer, ProblemRenderer, EventStreamRenderer]

    def waited(self, session: ChatSession, asked: Asked) -> Response:
        """Answer when the agent has."""
        around: dict[str, Any] = {
            "message": message_object(asked.message),
            "reply": asked.reply and message_object(asked.reply),
            "run": asked.run and run_object(asked.run),
        }
        return self.answer(session, status=201 if asked.created else 200, **around)

    def queued(self, session: ChatSession, started: Started) -> Response:
        """Answer that the agent will."""
        around = {"message": message_object(started.message), "run": started.run and run_object(started.run)}
        return self.answer(session, status=202 if started.created else 200, **around)

    def streamed(self, session: ChatSession, started: Started) -> HttpResponseBase:
        """Answer as the agent speaks: from the question on until the run is over."""
        return streams.stream(session, Cursor(started.after), until=started.run, is_once=started.run is None)

    def asking(self, session: ChatSession) -> dict[str, Any]:
        """Return who asks, and on which condition."""
        return {
            "context": self.context(session),
            "client": self.client,
            "expected_sequence": self.expected(session),
        }


class RunViewSet(Answering):
    """The answers of a session's agent."""

    def list(self, request: Request, session: str) -> Response:
        """List the runs, latest first."""
        found = self.see(session)
        query = self.query(queries.RunsQuery)
        page, following = runs.latest(found, limit=query["limit"], before=query.get("cursor"))
        return listed([run_object(run) for run in page], None if following is None else queries.run_cursor(following))

    def retrieve(self, request: Request, session: str, run: str) -> Response:
        """Return one run."""
        return Response(run_object(runs.find(self.see(session), run)))

    def create(self, request: Request, session: str) -> HttpResponseBase:
        """Have the last question, or an earlier one, answered again."""
        found = self.see(session)
        data = self.body(serializers.RunBody)
        concurrency.check_named(found.strategy, self.client)
        asking.responding(found)
        delivery = data.get("delivery", Delivery.WAIT)
        again = {**self.asking(found), "input_sequence": data.get("input_sequence")}
        if delivery == Delivery.WAIT:
            return self.waited(found, runs.ask_again(found, **again, on_wait=let_connections_go))
        if delivery == Delivery.STREAM:
            streams.check_server(request)
            return self.streamed(found, runs.start_again(found, **again))
        return self.queued(found, runs.start_again(found, **again))

    def cancel(self, request: Request, session: str, run: str) -> Response:
        """Stop an answer; what was said is kept."""
        found = self.see(session)
        meant = runs.find(found, run)
        self.body(serializers.NoBody)
        concurrency.check_named(found.strategy, self.client)
        cancelled = runs.cancel(found, meant, client=self.client, expected_sequence=self.expected(found))
        return Response(run_object(cancelled), status=202)
