"""A machine that does whatever can be done to sessions, in any order, and holds what the lifecycle promises."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from django_chat_sessions import dialects
from django_chat_sessions.agents import Message
from django_chat_sessions.choices import LIVE, MESSAGE_TYPES
from django_chat_sessions.exceptions import (
    AgentFailed,
    ChatSessionError,
    ClientConflict,
    ExternalIdConflict,
    InvalidRequest,
    LegalHold,
    MessageNotFound,
    RenewalLimitReached,
    SequenceConflict,
    SessionNotLive,
)
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import expiry, messages, opening, privacy, runs, sessions, verification
from django_chat_sessions.rules.concurrency import ANY
from django_chat_sessions.rules.lifecycle import TRANSITIONS
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import age

texts = st.text(st.sampled_from("ab\x00\ud800\ufdd0"), max_size=4)
values = st.none() | st.booleans() | st.integers(0, 1) | texts
patches = st.dictionaries(st.sampled_from("abc"), values | st.dictionaries(st.sampled_from("xy"), values), max_size=2)
clients = st.sampled_from([ANY, None, "A", "B"])
names = st.none() | st.sampled_from(["m1", "m2"])
sequences = st.integers(1, 8)
AGENTS = ["silent", "count", "failing", "single", "per_tab", "active_tab_wins", "hasty"]
overrides = st.builds(
    TimeoutOverrides,
    st.none() | st.sampled_from(["aggressive", "lenient"]),
    st.none() | st.integers(5, 60),
    st.none() | st.integers(30, 90),
    st.none() | st.integers(1, 6),
    st.none() | st.booleans(),
)
usernames = count()


def reachable(status: str, target: str) -> bool:
    """Tell whether a status can follow another, in any number of steps."""
    seen, level = set(), {status}
    while level - seen:
        seen |= level
        level = {after for now in level for after in TRANSITIONS[now]}
    return target in seen


class Sessions(RuleBasedStateMachine):
    """Operations on a few sessions of two users. Whatever refuses must refuse for a reason that is allowed here."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.owners = [User.objects.create(username=f"machine {next(usernames)}") for _ in range(2)]
        self.before: dict[int, ChatSession] = {}
        #: Deadlines may come nearer only by a change of the timeout.
        self.may_move_back: set[int] = set()

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.atomic.__exit__(None, None, None)

    # ------------------------------------------------------------------------------------------------------- operations

    @initialize(target=known)
    def begin(self) -> Any:
        return opening.open(self.owners[0], agent="silent").session.pk

    @rule(
        target=known, owner=st.integers(0, 1), agent=st.sampled_from(AGENTS), client=clients, state=patches,
        name=names, timeout=overrides, text=texts,
    )  # fmt: skip
    def open(self, owner, agent, client, state, name, timeout, text) -> Any:
        with suppress(InvalidRequest, ChatSessionError):
            opened = opening.open(
                self.owners[owner],
                agent=agent,
                client=client,
                state=state,
                external_id=name,
                timeout=timeout,
                title=text,
            )
            assert opened.session.is_live_at(dialects.now("default"))
            return opened.session.pk
        return multiple()

    @rule(target=known, pk=known)
    def open_child(self, pk) -> Any:
        parent = self.row(pk)
        with suppress(SessionNotLive, InvalidRequest):
            child = opening.open(parent.owner, agent="silent", parent=parent).session
            self.was_live(parent)
            return child.pk
        return multiple()

    @rule(target=known, pk=known, at=st.none() | sequences)
    def fork(self, pk, at) -> Any:
        with suppress(InvalidRequest):
            return opening.fork(self.row(pk), at=at).pk
        return multiple()

    @rule(target=known, pk=known)
    def continue_(self, pk) -> Any:
        source = self.row(pk)
        new = opening.open(source.owner, agent="silent", continue_from=source).session
        assert [m.content for m in messages.everything(new)] == [m.content for m in messages.everything(source)]
        assert verification.patches.same(new.state, source.state)
        return new.pk

    @rule(pk=known, text=texts, name=names, client=clients, role=st.sampled_from(["user", "assistant", "system"]))
    def say(self, pk, text, name, client, role) -> None:
        session = self.row(pk)
        before = session.last_sequence
        with suppress(SessionNotLive, ClientConflict, ExternalIdConflict, InvalidRequest):
            stored = messages.append(session, Message(role, text, external_id=name, token_count=1), client=client)
            if stored.created:
                self.was_live(pk)
                assert self.row(pk).last_sequence in (before + 1, before + 2)
                assert self.row(pk).status == "active"

    @rule(pk=known, expected=sequences)
    def say_as_expected(self, pk, expected) -> None:
        session = self.row(pk)
        before = session.last_sequence
        with suppress(SessionNotLive, SequenceConflict):
            messages.append(session, Message("user", "expected"), expected_sequence=expected)
            assert before == expected

    @rule(pk=known, sequence=sequences, text=texts)
    def edit(self, pk, sequence, text) -> None:
        with suppress(SessionNotLive, MessageNotFound):
            assert messages.edit(self.row(pk), sequence, text).content == text
            self.was_live(pk)
            assert messages.find(self.row(pk), sequence).content == text

    @rule(pk=known, sequence=sequences)
    def withdraw(self, pk, sequence) -> None:
        with suppress(SessionNotLive, MessageNotFound):
            messages.withdraw(self.row(pk), sequence)
            self.was_live(pk)
            versions = self.row(pk).events.filter(position=sequence)
            assert all(event.content == "" for event in versions)

    @rule(pk=known, patch=patches)
    def patch(self, pk, patch) -> None:
        with suppress(SessionNotLive):
            sessions.change_state(self.row(pk), patch)
            self.was_live(pk)

    @rule(pk=known, title=texts)
    def rename(self, pk, title) -> None:
        sessions.change(self.row(pk), title=title, metadata={title: title})
        assert self.row(pk).title == title

    @rule(pk=known)
    def record(self, pk) -> None:
        with suppress(SessionNotLive):
            messages.record(self.row(pk), "app.x", {"a": 1})
            self.was_live(pk)

    @rule(pk=known, client=clients)
    def resume(self, pk, client) -> None:
        with suppress(SessionNotLive, ClientConflict, InvalidRequest):
            assert sessions.resume(self.row(pk), client=client).idle_seconds >= 0
            self.was_live(pk)

    @rule(pk=known)
    def heartbeat(self, pk) -> None:
        before = self.row(pk)
        with suppress(SessionNotLive):
            sessions.heartbeat(self.row(pk))
            self.was_live(pk)
            after = self.row(pk)
            assert (after.last_sequence, after.status) == (before.last_sequence, before.status)

    @rule(pk=known)
    def view_page(self, pk) -> None:
        before = self.row(pk)
        if sessions.touch(pk, before.agent, using="default"):
            self.was_live(pk)
        assert self.row(pk).last_sequence == before.last_sequence

    @rule(pk=known)
    def renew(self, pk) -> None:
        with suppress(SessionNotLive, RenewalLimitReached):
            sessions.renew(self.row(pk))
            self.was_live(pk)

    @rule(pk=known, changes=overrides)
    def change_timeout(self, pk, changes) -> None:
        with suppress(ChatSessionError):
            sessions.change_timeout(self.row(pk), changes.as_dict())
            self.may_move_back.add(pk)

    @rule(pk=known, name=names)
    def ask(self, pk, name) -> None:
        session = self.row(pk)
        with suppress(SessionNotLive, InvalidRequest, AgentFailed, ExternalIdConflict):
            asked = runs.ask(session, Message("user", "q", external_id=name))
            assert asked.message.content == "q" or not asked.created
        assert not session.runs.filter(status__in=["queued", "running"]).exists()

    @rule(pk=known, reason=texts, how=st.sampled_from([sessions.end, sessions.fail]))
    def end(self, pk, reason, how) -> None:
        with suppress(SessionNotLive):
            how(self.row(pk), reason=reason)
            self.was_live(pk)
            assert self.row(pk).end_reason == reason
            assert not ChatSession.objects.filter(parent=pk).live(dialects.now("default")).exists()

    @rule(pk=known, hold=st.booleans())
    def hold(self, pk, hold) -> None:
        (privacy.hold if hold else privacy.release)(self.row(pk))
        assert self.row(pk).is_held is hold

    @rule(pk=consumes(known))
    def delete(self, pk) -> None:
        if not ChatSession.objects.filter(pk=pk).exists():
            return
        tree = list(ChatSession.objects.tree(self.row(pk)))
        held = any(session.is_held for session in tree)
        with suppress(LegalHold):
            assert sessions.delete(self.row(pk)) == len(tree)
            assert not held
        assert ChatSession.objects.filter(pk__in=[s.pk for s in tree]).count() == (len(tree) if held else 0)

    # -------------------------------------------------------------------------------------------------------- the clock

    @rule(pk=known, minutes=st.sampled_from([1, 6, 25, 31, 61]))
    def pass_time(self, pk, minutes) -> None:
        session = self.row(pk)
        if session.ended_at is None:
            self.before[session.pk] = age(session, minutes=minutes)

    @rule()
    def sweep(self) -> None:
        expiry.expire()
        assert not ChatSession.objects.due_for_expiry(dialects.now("default")).exists()

    @rule()
    def warn(self) -> None:
        expiry.warn()
        assert expiry.warn().count == 0

    # ------------------------------------------------------------------------------------------------ what always holds

    def row(self, pk: int) -> ChatSession:
        """Return a session; of one that is gone (a descendant of what was deleted), one that is there."""
        found = ChatSession.objects.filter(pk=pk).first() or ChatSession.objects.order_by("pk").last()
        if found is None:
            found = opening.open(self.owners[0], agent="silent").session
        return found

    def was_live(self, session: Any) -> None:
        """Hold that whatever was just written to was live before."""
        pk = session if isinstance(session, int) else session.pk
        before = self.before.get(pk)
        if before is not None:
            assert before.is_live_at(dialects.now("default"))

    @invariant()
    def rows_are_what_their_logs_say(self) -> None:
        now = dialects.now("default")
        rows = list(ChatSession.objects.order_by("pk"))
        for row in rows:
            assert verification.verify(row) == []
            events = list(row.events.order_by("sequence"))
            assert [event.sequence for event in events] == list(range(1, row.last_sequence + 1))
            current = [e for e in events if e.type in MESSAGE_TYPES and e.superseded_by is None]
            assert row.message_count == len(current) == len(list(messages.everything(row)))
            assert len({event.position for event in current}) == len(current)
            assert row.renewed_at <= now
            self.compare(self.before.get(row.pk), row)
        places = [
            (r.owner_id, r.agent, r.application, r.slot) for r in rows if r.slot is not None and r.is_live_at(now)
        ]
        assert len(places) == len(set(places))
        ids = [(r.owner_id, r.agent, r.external_id) for r in rows if r.external_id is not None and r.is_live_at(now)]
        assert len(ids) == len(set(ids))
        self.before = {row.pk: row for row in rows}
        self.may_move_back.clear()

    def compare(self, before: ChatSession | None, after: ChatSession) -> None:
        """Hold what may never happen from one step to the next."""
        if before is None:
            return
        assert reachable(before.status, after.status)
        assert after.last_sequence >= before.last_sequence
        assert after.last_activity_at >= before.last_activity_at
        assert after.pk in self.may_move_back or after.expires_at >= before.expires_at
        assert (after.uuid, after.environment, after.strategy) == (before.uuid, before.environment, before.strategy)
        if before.status not in LIVE:
            assert (after.status, after.state, after.message_count, after.ended_at) == (
                before.status, before.state, before.message_count, before.ended_at,
            )  # fmt: skip


@pytest.mark.slow
@pytest.mark.django_db
def test_whatever_is_done_to_sessions_the_lifecycle_holds() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    examples = int(os.environ.get("HYPOTHESIS_EXAMPLES", "25"))
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
