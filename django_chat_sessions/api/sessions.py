"""The routes of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NoReturn

from django.contrib.auth import get_user_model
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from .. import agents, conf, lookups
from ..agents import Message
from ..exceptions import InvalidRequest, PermissionRefused
from ..models import ChatSession
from ..operations import context, figures, limits, opening, sessions
from ..rules import lifecycle
from . import exports, queries, serializers
from .base import ChatViewSet, etag, listed
from .formats import JSONRenderer, LinesRenderer, MarkdownRenderer, ProblemRenderer
from .permissions import check_may_list, may_write
from .representation import message_object, session_object


class SessionViewSet(ChatViewSet):
    """A caller's own sessions."""

    def list(self, request: Request) -> Response:
        """List the caller's sessions, latest activity first."""
        query = self.query(queries.ListQuery)
        user, everybody = self._listed_for(query.get("owner"))
        narrowed = queries.filters(query)
        if narrowed is None or (user is None and not everybody):
            return listed([], None)
        place = {"limit": query["limit"], "after": query.get("cursor"), "using": self.using}
        return _page(lookups.latest(user, narrowed, everybody=everybody, **place))

    def _listed_for(self, owner: str | None) -> tuple[Any, bool]:
        """Return whose sessions to list, and whether everybody's."""
        if owner is None:
            return self.request.user, False
        check_may_list(self.request.user)
        if owner == "all":
            return None, True
        model = get_user_model()
        if "\x00" in owner:  # which PostgreSQL takes in no parameter
            return None, False
        return model._default_manager.filter(**{model.USERNAME_FIELD: owner}).first(), False

    def create(self, request: Request) -> Response:
        """Open a session, or find the live one that the strategy or the ``external_id`` names."""
        parent, source = self._named("parent"), self._named("continue_from")
        agents.find(self._said("agent") or "")
        body = partial(serializers.OpenBody, context={"owner": request.user, "agent": self._said("agent")})
        data = self.body(body)  # type: ignore[arg-type]
        data = {name: value for name, value in data.items() if name not in {"parent", "continue_from"}}
        history = [serializers.message(item) for item in data.pop("messages", [])]
        if not all(may_write(request.user, message.role) for message in history):
            self._refuse(history, parent)
        transcript = data.pop("transcript", None)
        if transcript is not None:
            # Its roles need no permission: what the agent said in it is what the agent said.
            history = list(transcript.messages)
            data = {"agent": transcript.agent, "state": transcript.state or None, **data}
        environment = {**data.pop("environment", {}), **conf.get().capture(request._request)}
        opened = opening.open(
            request.user,
            **data | {"timeout": serializers.overrides(data["timeout"]) if "timeout" in data else None},
            parent=parent,
            continue_from=source,
            environment=environment,
            messages=history,
            client=self.client,
        )
        session = self.see(str(opened.session.uuid))
        return self.answer(session, status=201 if opened.created else 200)

    def _said(self, name: str) -> str | None:
        """Return a string of the body before anything else of it is checked: what does not exist is told first."""
        said = self.request.data.get(name) if isinstance(self.request.data, dict) else None
        return said if isinstance(said, str) else None

    def _named(self, name: str) -> ChatSession | None:
        public_id = self._said(name)
        return None if public_id is None else self.see(public_id)

    def _refuse(self, history: Sequence[Message], parent: ChatSession | None) -> NoReturn:
        """Refuse the roles of a history, but first whatever a caller is told before that."""
        for message in history:
            limits.check_message(message)
        if parent is not None:
            lifecycle.check_live(parent.status, parent.expires_at, self.now)
        raise PermissionRefused

    def retrieve(self, request: Request, session: str) -> Response:
        """Return a session; reading is not activity."""
        return self.answer(self.see(session))

    def partial_update(self, request: Request, session: str) -> Response:
        """Rename, tag or describe a session, live or over."""
        found = self.see(session)
        data = self.body(serializers.ChangeBody)
        return self.answer(sessions.change(found, **data, expected_sequence=self.expected(found)))

    def destroy(self, request: Request, session: str) -> Response:
        """Remove a session with all its descendants."""
        found = self.see(session)
        sessions.delete(found, expected_sequence=self.expected(found))
        return Response(status=204)

    def resume(self, request: Request, session: str) -> Response:
        """Come back to a session, and get what a model would see of it."""
        found = self.see(session)
        budget = self.body(serializers.ResumeBody)
        resumed = sessions.resume(found, client=self.client, expected_sequence=self.expected(found))
        window = context.window(resumed.session, **budget)
        idle = round(resumed.idle_seconds, 3)
        return self.answer(resumed.session, idle_seconds=idle, context=_context(window))

    def heartbeat(self, request: Request, session: str) -> Response:
        """Keep a session alive."""
        found = self.see(session)
        self.body(serializers.NoBody)
        return self.answer(sessions.heartbeat(found, client=self.client, expected_sequence=self.expected(found)))

    def renew(self, request: Request, session: str) -> Response:
        """Move the deadline on request."""
        found = self.see(session)
        self.body(serializers.NoBody)
        return self.answer(sessions.renew(found, client=self.client, expected_sequence=self.expected(found)))

    def timeout(self, request: Request, session: str) -> Response:
        """Change a session's own timeouts; null returns one to the inherited."""
        found = self.see(session)
        changes = self.body(serializers.TimeoutBody)
        expected = self.expected(found)
        return self.answer(sessions.change_timeout(found, changes, client=self.client, expected_sequence=expected))

    def end(self, request: Request, session: str) -> Response:
        """End a session on purpose."""
        found = self.see(session)
        data = self.body(serializers.EndBody)
        return self.answer(sessions.end(found, **data, client=self.client, expected_sequence=self.expected(found)))

    def fork(self, request: Request, session: str) -> Response:
        """Open a new session with the conversation up to a sequence."""
        found = self.see(session)
        data = self.body(serializers.ForkBody)
        made = opening.fork(found, **data, client=self.client, expected_sequence=self.expected(found))
        return self.answer(self.see(str(made.uuid)), status=201)

    def children(self, request: Request, session: str) -> Response:
        """List the sessions right below one."""
        found = self.see(session)
        query = self.query(queries.ChildrenQuery)
        narrowed = lookups.Filters(parent=found.uuid)
        place = {"limit": query["limit"], "after": query.get("cursor"), "using": self.using}
        return _page(lookups.latest(request.user, narrowed, **place))

    def summary(self, request: Request, session: str) -> Response:
        """Return the figures of a session, or of the tree below it."""
        found = self.see(session)
        query = self.query(queries.SummaryQuery)
        return Response(asdict(figures.summarize(found, tree=query["tree"])))

    def state(self, request: Request, session: str) -> Response:
        """Return the session's own state."""
        return _state(self.see(session))

    def change_state(self, request: Request, session: str) -> Response:
        """Apply a JSON merge patch (RFC 7396) to the session's state."""
        found = self.see(session)
        patch = self.request.data
        if not isinstance(patch, dict):
            raise InvalidRequest({"body": ["A merge patch of a state is a JSON object."]})
        expected = self.expected(found)
        return _state(sessions.change_state(found, patch, client=self.client, expected_sequence=expected))

    def window(self, request: Request, session: str) -> Response:
        """Return what a model would see of a session."""
        found = self.see(session)
        return Response(_context(context.window(found, **self.query(queries.WindowQuery))))


class ExportViewSet(ChatViewSet):
    """A whole session, to take away."""

    renderer_classes = [JSONRenderer, LinesRenderer, MarkdownRenderer, ProblemRenderer]

    def retrieve(self, request: Request, session: str) -> HttpResponse:
        """Return a session as JSON, as lines of JSON or as Markdown."""
        found = self.see(session)
        kind = self.query(queries.ExportQuery)["as"]
        content, content_type = exports.FORMATS[kind](found, self.now)
        response = HttpResponse(content, content_type=content_type)
        response["Content-Disposition"] = f'attachment; filename="{found.uuid}.{exports.ENDINGS[kind]}"'
        response["ETag"] = etag(found)
        return response


def _page(page: lookups.Listed) -> Response:
    results = [session_object(session, page.now) for session in page.sessions]
    return listed(results, None if page.next is None else queries.cursor(page.next))


def _state(session: ChatSession) -> Response:
    response = Response({"state": session.state, "last_sequence": session.last_sequence})
    response["ETag"] = etag(session)
    return response


def _context(window: context.Window) -> dict[str, Any]:
    return {
        "messages": [message_object(message) for message in window.messages],
        "summary": window.summary,
        "state": window.state,
        "truncated": window.truncated,
    }
