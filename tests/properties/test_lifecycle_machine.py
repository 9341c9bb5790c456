"""Whatever is done to sessions in whatever order, what the documentation says of their life holds."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from django_chat_sessions import agents, dialects
from django_chat_sessions.agents import Agent, Message
from django_chat_sessions.choices import LIVE, Status
from django_chat_sessions.exceptions import (
    AgentFailed,
    ChatSessionError,
    ClientConflict,
    InvalidTimeout,
    LegalHold,
    MessageNotFound,
    RenewalLimitReached,
    SessionEnded,
    SessionExpired,
    SessionNotLive,
)
from django_chat_sessions.models import ChatSession, SessionEvent
from django_chat_sessions.operations import (
    expiry,
    messages,
    opening,
    privacy,
    runs,
    sessions,
    verification,
)
from django_chat_sessions.rules.lifecycle import TRANSITIONS
from django_chat_sessions.testing import age

CLIENTS = st.sampled_from(["tab-a", "tab-b"])
NAMES = st.sampled_from(["p-multiple", "p-single", "p-per-tab", "p-active"])
TEXTS = st.text(st.characters(codec=None), min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
PATCHES = st.dictionaries(TEXTS, VALUES, max_size=3)
REFUSALS = (ClientConflict, SessionEnded, SessionExpired)


def remembering(turn: Any) -> str:
    turn.state["asked"] = turn.state.get("asked", 0) + 1
    if "fail" in turn.question.content:
        raise RuntimeError
    return f"answer {turn.state['asked']}"


@pytest.fixture(autouse=True)
def answering_agents(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level("CRITICAL", logger="django_chat_sessions")
    strategies = {"p-multiple": "multiple", "p-single": "single", "p-per-tab": "per_tab", "p-active": "active_tab_wins"}
    for name, strategy in strategies.items():
        agents.register(Agent(name, remembering, strategy=strategy))
    yield
    for name in strategies:
        agents.unregister(name)


class Life(RuleBasedStateMachine):
    """Two tabs of one user, an operator, and time."""

    opened = Bundle("opened")

    @initialize()
    def arrive(self) -> None:
        self.user = get_user_model().objects.create_user(f"user-{uuid.uuid4().hex}")
        self.before: dict[int, tuple[str, int]] = {}

    def fresh(self, session: ChatSession) -> ChatSession | None:
        return ChatSession.objects.filter(pk=session.pk).first()

    def attempt(self, session: ChatSession, act: Any, *allowed: type[Exception]) -> None:
        """Do something that needs a live session: it is refused if and only if something stands against it."""
        row = self.fresh(session)
        if row is None:
            return
        is_live = row.is_live_at(dialects.now("default"))
        try:
            act(row)
        except SessionNotLive:
            assert not is_live
        except (ClientConflict, *allowed):
            assert is_live
        else:
            assert is_live
            assert verification.verify(row) == []

    # ------------------------------------------------------------------------------------------------------ opening

    @rule(target=opened, agent=NAMES, client=CLIENTS, title=TEXTS, state=PATCHES)
    def open(self, agent: str, client: str, title: str, state: dict[str, Any]) -> ChatSession:
        result = opening.open(self.user, agent=agent, client=client, title=title, state=state)
        row = result.session
        assert row.is_live_at(dialects.now("default"))
        if result.created:
            assert (row.title, row.status) == (title, Status.CREATED)
        return row

    @rule(target=opened, parent=opened, agent=NAMES, client=CLIENTS)
    def open_child(self, parent: ChatSession, agent: str, client: str) -> Any:
        found = self.fresh(parent)
        if found is None:
            return multiple()
        try:
            return opening.open(self.user, agent=agent, parent=found, client=client).session
        except ChatSessionError:
            return multiple()

    @rule(target=opened, source=opened, part=st.floats(0, 1))
    def fork(self, source: ChatSession, part: float) -> Any:
        row = self.fresh(source)
        if row is None:
            return multiple()
        at = max(1, round(part * row.last_sequence))
        made = opening.fork(row, at=at)
        expected = [m for m in messages.everything(row) if (m.sequence or 0) <= at]
        copied = list(messages.everything(made))
        assert [(m.role, m.content, m.created_at) for m in copied] == [
            (m.role, m.content, m.created_at) for m in expected
        ]
        assert all(m.run is None and m.external_id is None for m in copied)
        assert made.state == opening.state_at(row, at)
        return made

    # ------------------------------------------------------------------------------------------------------- writing

    @rule(session=opened, client=CLIENTS, text=TEXTS)
    def say(self, session: ChatSession, client: str, text: str) -> None:
        def act(row: ChatSession) -> None:
            before = row.last_sequence
            stored = messages.append(row, Message("user", text), client=client).message
            assert messages.find(row, stored.sequence or 0).content == text
            assert row.last_sequence > before
            assert row.status == Status.ACTIVE

        self.attempt(session, act)

    @rule(session=opened, client=CLIENTS, text=TEXTS)
    def say_twice_under_one_name(self, session: ChatSession, client: str, text: str) -> None:
        message = Message("user", text, external_id=uuid.uuid4().hex)

        def act(row: ChatSession) -> None:
            first = messages.append(row, message, client=client)
            last = row.last_sequence
            again = messages.append(row, message, client=client)
            assert (first.created, again.created) == (True, False)
            assert again.message.sequence == first.message.sequence
            row.refresh_from_db()
            assert row.last_sequence == last

        self.attempt(session, act)

    @rule(session=opened, client=CLIENTS, text=st.sampled_from(["hello", "fail"]))
    def ask(self, session: ChatSession, client: str, text: str) -> None:
        self.attempt(session, lambda row: runs.ask(row, Message("user", text), client=client), AgentFailed)

    @rule(session=opened, client=CLIENTS, text=TEXTS, pick=st.floats(0, 1))
    def edit(self, session: ChatSession, client: str, text: str, pick: float) -> None:
        def act(row: ChatSession) -> None:
            said = [m.sequence for m in messages.everything(row)]
            sequence = said[int(pick * (len(said) - 1))] if said else 0
            assert messages.edit(row, sequence or 0, text, client=client).content == text

        # Looked up before the session's state is: a message that is not there is told first.
        self.attempt_on_message(session, act)

    @rule(session=opened, client=CLIENTS, pick=st.floats(0, 1))
    def withdraw(self, session: ChatSession, client: str, pick: float) -> None:
        def act(row: ChatSession) -> None:
            said = [m.sequence for m in messages.everything(row)]
            sequence = (said[int(pick * (len(said) - 1))] if said else 0) or 0
            messages.withdraw(row, sequence, client=client)
            versions = SessionEvent.objects.filter(session=row, position=sequence)
            assert not any(event.content for event in versions)
            assert sequence not in [m.sequence for m in messages.everything(row)]

        self.attempt_on_message(session, act)

    def attempt_on_message(self, session: ChatSession, act: Any) -> None:
        row = self.fresh(session)
        if row is None:
            return
        is_live, has_messages = row.is_live_at(dialects.now("default")), row.message_count > 0
        try:
            act(row)
        except MessageNotFound:
            assert not has_messages
        except SessionNotLive:
            assert not is_live
        except ClientConflict:
            assert is_live
        else:
            assert is_live

    @rule(session=opened, client=CLIENTS, patch=PATCHES)
    def change_state(self, session: ChatSession, client: str, patch: dict[str, Any]) -> None:
        self.attempt(session, lambda row: sessions.change_state(row, patch, client=client))

    @rule(session=opened, title=TEXTS, tags=st.lists(TEXTS, max_size=2), metadata=PATCHES)
    def describe(self, session: ChatSession, title: str, tags: list[str], metadata: dict[str, Any]) -> None:
        row = self.fresh(session)
        if row is not None:
            sessions.change(row, title=title, tags=tags, metadata=metadata)
            row.refresh_from_db()
            assert (row.title, row.tags, row.metadata) == (title, tags, metadata)

    # ---------------------------------------------------------------------------------------------------------- time

    @rule(session=opened, client=CLIENTS)
    def resume(self, session: ChatSession, client: str) -> None:
        self.attempt(session, lambda row: sessions.resume(row, client=client))

    @rule(session=opened, client=CLIENTS)
    def heartbeat(self, session: ChatSession, client: str) -> None:
        def act(row: ChatSession) -> None:
            before, last = row.expires_at, row.last_sequence
            sessions.heartbeat(row, client=client)
            assert row.expires_at >= before
            assert row.last_sequence == last

        self.attempt(session, act)

    @rule(session=opened, client=CLIENTS)
    def renew(self, session: ChatSession, client: str) -> None:
        self.attempt(session, lambda row: sessions.renew(row, client=client), RenewalLimitReached)

    @rule(
        session=opened,
        client=CLIENTS,
        minutes=st.none() | st.integers(1, 1500),
        maximum=st.none() | st.integers(1, 11_000),
        renews=st.none() | st.booleans(),
    )
    def change_timeout(
        self, session: ChatSession, client: str, minutes: int | None, maximum: int | None, renews: bool | None
    ) -> None:
        changes = {"timeout_minutes": minutes, "max_duration_minutes": maximum, "auto_renew": renews}

        def act(row: ChatSession) -> None:
            sessions.change_timeout(row, changes, client=client)
            assert row.renewed_at < row.expires_at

        # What no session may ask for is refused before anybody looks whether this one may ask for anything.
        try:
            self.attempt(session, act)
        except InvalidTimeout:
            assert (minutes, maximum) != (None, None)

    @rule(session=opened, minutes=st.sampled_from([1, 6, 26, 31, 800]))
    def time_passes(self, session: ChatSession, minutes: int) -> None:
        row = self.fresh(session)
        # Of what is over the log has the end's instant, which no helper moves.
        if row is not None and row.status in LIVE:
            age(row, minutes=minutes)

    @rule()
    def sweep(self) -> None:
        expiry.recover()
        expiry.warn()
        expiry.expire()
        assert not ChatSession.objects.due_for_expiry(dialects.now("default")).exists()

    # -------------------------------------------------------------------------------------------------------- the end

    @rule(session=opened, client=CLIENTS)
    def end(self, session: ChatSession, client: str) -> None:
        def act(row: ChatSession) -> None:
            sessions.end(row, reason="done", client=client)
            assert (row.status, row.end_reason) == (Status.ENDED, "done")
            assert not ChatSession.objects.filter(parent=row, status__in=LIVE).exists()

        self.attempt(session, act)

    @rule(session=opened)
    def fail(self, session: ChatSession) -> None:
        self.attempt(session, lambda row: sessions.fail(row, reason="broken"))

    @rule(session=opened)
    def hold(self, session: ChatSession) -> None:
        row = self.fresh(session)
        if row is not None:
            privacy.hold(row) if not row.is_held else privacy.release(row)

    @rule(session=consumes(opened))
    def delete(self, session: ChatSession) -> None:
        row = self.fresh(session)
        if row is None:
            return
        tree = list(ChatSession.objects.tree(row))
        try:
            gone = sessions.delete(row)
        except LegalHold:
            assert any(below.is_held for below in tree)
            assert self.fresh(session) is not None
        else:
            assert gone == len(tree)
            assert not SessionEvent.objects.filter(session__in=[below.pk for below in tree]).exists()

    # ---------------------------------------------------------------------------------------------- what always holds

    @invariant()
    def every_row_is_what_its_log_says(self) -> None:
        for row in self.rows():
            assert verification.verify(row) == []

    @invariant()
    def every_log_counts_without_gaps_and_only_grows(self) -> None:
        for row in self.rows():
            sequences = list(row.events.order_by("sequence").values_list("sequence", flat=True))
            assert sequences == list(range(1, row.last_sequence + 1))
            status, last = self.before.get(row.pk, (row.status, 0))
            assert row.last_sequence >= last
            assert row.status == status or row.status in _reachable(status)
            self.before[row.pk] = row.status, row.last_sequence

    @invariant()
    def messages_are_counted_as_they_read(self) -> None:
        for row in self.rows():
            assert row.message_count == len(list(messages.everything(row)))

    @invariant()
    def one_live_session_a_place(self) -> None:
        taken = [
            (row.agent, row.application, row.slot) for row in self.rows() if row.slot is not None and row.status in LIVE
        ]
        assert len(taken) == len(set(taken))

    def rows(self) -> list[ChatSession]:
        return list(ChatSession.objects.filter(owner=self.user)) if hasattr(self, "user") else []


def _reachable(status: str) -> set[str]:
    """Return the statuses that a few steps lead to."""
    found, frontier = set(), {status}
    while frontier:
        frontier = {after for before in frontier for after in TRANSITIONS[before]} - found
        found |= frontier
    return found


@pytest.mark.django_db
def test_the_life_of_sessions_holds_its_promises_in_any_order() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
