"""The routes of agents: asking one something that nobody stores."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.db import connections, router
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from .. import agents
from ..agents import Message, RequestContext
from ..exceptions import AgentNotFound
from ..models import ChatSession
from ..operations import stateless
from ..operations.stateless import Answered
from . import serializers
from .base import ChatViewSet, NowhereViewSet
from .representation import message_object


class QueryViewSet(ChatViewSet):
    """Questions outside of any session."""

    def create(self, request: Request, agent: str) -> Response:
        """Answer one question, and store nothing."""
        agents.find(agent)
        self.client  # noqa: B018 - a wrong name is refused on every call
        body = partial(serializers.QueryBody, context={"owner": request.user, "agent": agent})
        data = self.body(body)  # type: ignore[arg-type]
        context = RequestContext.of(request._request, user=request.user, session=None, instant=timezone.now())
        asking = {"agent": agent, "transcript": data.get("transcript"), "context": context}
        return Response(_object(self._ask(serializers.message(data), asking)))

    def _ask(self, message: Message, asking: dict[str, Any]) -> Answered:
        """Wait for the answer. Where the server tells that the client hangs up, the agent's work is stopped."""
        is_told = isinstance(self.request._request, ASGIRequest)
        if is_told and not connections[router.db_for_write(ChatSession)].in_atomic_block:
            return async_to_sync(stateless.aask)(self.request.user, message, **asking)
        return stateless.ask(self.request.user, message, **asking)


class NoAgentViewSet(NowhereViewSet):
    """Paths below agents that are no route."""

    def refuse(self, request: Request, **_: Any) -> NoReturn:
        """Answer what the name of no agent is answered."""
        raise AgentNotFound


def _object(answered: Answered) -> dict[str, Any]:
    usage = {
        "input_tokens": answered.input_tokens,
        "output_tokens": answered.output_tokens,
        "cost": answered.cost if answered.cost is None else str(answered.cost),
    }
    return {
        "reply": answered.reply and message_object(answered.reply),
        "messages": [message_object(message) for message in answered.messages],
        "usage": usage,
        "transcript": answered.transcript,
    }
