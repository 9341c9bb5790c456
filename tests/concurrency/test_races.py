"""What happens at the same instant, with real threads on a real database."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest

from django_chat_sessions import dialects, log
from django_chat_sessions.agents import Message
from django_chat_sessions.exceptions import (
    ClientConflict,
    ExternalIdConflict,
    MessageLimitReached,
    MessageNotFound,
    RunInProgress,
    SequenceConflict,
    SessionEnded,
    SessionExpired,
    SessionLimitReached,
    SessionNotFound,
)
from django_chat_sessions.models import ChatSession, Run, SessionEvent
from django_chat_sessions.operations import expiry, messages, opening, privacy, recovery, runs, sessions
from django_chat_sessions.rules.timeouts import TimeoutOverrides
from django_chat_sessions.testing import age, make_session, say
from tests.concurrency.conftest import at_once, unexpected
from tests.operations.reading import fresh, texts, types

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("transactions"), pytest.mark.slow]

ROUNDS = 8


def write(session, text="x", **fields):
    return messages.append(fresh(session), Message("user", text, **fields))


# -------------------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize("tabs", [2, 8])
@pytest.mark.parametrize("name", ["single", "active_tab_wins", "per_tab"])
def test_tabs_that_open_at_the_same_instant_make_one_session(alice, name, tabs):
    client = "same" if name == "per_tab" else None
    for _ in range(3):
        outcomes = at_once(
            *(partial(opening.open, alice, agent=name, client=client or f"tab {n}") for n in range(tabs))
        )
        assert unexpected(outcomes) == []
        assert len({opened.session.pk for opened in outcomes}) == 1
        assert sum(opened.created for opened in outcomes) == 1
        sessions.end(outcomes[0].session)
    assert ChatSession.objects.count() == 3


def test_tabs_that_open_where_an_expired_session_stands_make_one_new_one(alice):
    old = age(make_session(alice, agent="single"), hours=1)
    outcomes = at_once(*[partial(opening.open, alice, agent="single")] * 4)
    assert unexpected(outcomes) == []
    assert len({opened.session.pk for opened in outcomes}) == 1
    assert types(old) == ["session.created", "session.expired"]


def test_one_external_id_is_one_session(alice):
    outcomes = at_once(*[partial(opening.open, alice, agent="silent", external_id="x")] * 8)
    assert unexpected(outcomes) == []
    assert ChatSession.objects.count() == 1
    assert Counter(opened.created for opened in outcomes) == {True: 1, False: 7}


def test_no_more_live_sessions_than_allowed(alice, configured):
    configured(MAX_LIVE_SESSIONS=3)
    outcomes = at_once(*[partial(opening.open, alice, agent="silent")] * 8)
    assert unexpected(outcomes, SessionLimitReached) == []
    assert ChatSession.objects.count() == 3


@pytest.mark.parametrize("how", [sessions.end, sessions.delete])
def test_opening_a_child_races_the_end_of_its_parent(alice, how):
    for _ in range(ROUNDS):
        top = make_session(alice, agent="silent")
        opened, gone = at_once(
            lambda top=top: opening.open(alice, agent="silent", parent=fresh(top)).session,
            lambda top=top: how(fresh(top)),
        )
        assert unexpected([opened], SessionEnded, SessionNotFound, ChatSession.DoesNotExist) == []
        assert unexpected([gone]) == []
        assert not ChatSession.objects.live(dialects.now("default")).exists()


# -------------------------------------------------------------------------------------------------------------- writing


def test_many_writers_leave_every_sequence_once_and_lose_nothing(alice):
    session = make_session(alice, agent="silent")
    writers, each = 16, 50

    def talk(writer):
        mine = fresh(session)
        return [messages.append(mine, Message("user", f"{writer}:{n}")).message.sequence for n in range(each)]

    outcomes = at_once(*(partial(talk, writer) for writer in range(writers)))
    assert unexpected(outcomes) == []
    found = fresh(session)
    assert found.message_count == writers * each
    assert found.last_sequence == writers * each + 1
    sequences = list(session.events.order_by("sequence").values_list("sequence", flat=True))
    assert sequences == list(range(1, writers * each + 2))
    assert sorted(sequence for mine in outcomes for sequence in mine) == sequences[1:]
    assert all(mine == sorted(mine) for mine in outcomes)
    assert len(set(texts(session))) == writers * each


def test_instants_never_run_against_the_sequence(alice):
    session = make_session(alice, agent="silent")
    at_once(*[lambda: [write(session) for _ in range(20)]] * 6)
    instants = list(session.events.order_by("sequence").values_list("created_at", flat=True))
    assert instants == sorted(instants)


def test_a_repeated_name_is_written_once(alice):
    for minutes in (0, 7) * 3:
        session = age(make_session(alice, agent="silent"), minutes=minutes)
        outcomes = at_once(*[partial(write, session, "hi", external_id="x")] * 8)
        assert unexpected(outcomes) == []
        assert Counter(appended.created for appended in outcomes) == {True: 1, False: 7}
        assert texts(session) == ["hi"]
        assert types(session).count("session.resumed") == (1 if minutes else 0)


def test_one_name_with_two_payloads_is_written_once_and_conflicts_once(alice):
    for _ in range(ROUNDS):
        session = make_session(alice, agent="silent")
        outcomes = at_once(*(partial(write, session, text, external_id="x") for text in ("a", "b")))
        assert unexpected(outcomes, ExternalIdConflict) == []
        assert fresh(session).last_sequence == 2


def test_whoever_expects_a_sequence_writes_once(alice):
    session = make_session(alice, agent="silent")
    outcomes = at_once(*[lambda: messages.append(fresh(session), Message("user", "x"), expected_sequence=1)] * 8)
    assert unexpected(outcomes, SequenceConflict) == []
    assert fresh(session).last_sequence == 2


def test_a_full_session_takes_no_message_too_many(alice, configured):
    configured(MAX_MESSAGES=3)
    session = make_session(alice, agent="silent")
    outcomes = at_once(*[partial(write, session)] * 8)
    assert unexpected(outcomes, MessageLimitReached) == []
    assert fresh(session).message_count == 3


def test_coming_back_in_several_tabs_is_coming_back_once(alice):
    session = age(make_session(alice, agent="silent"), minutes=7)
    outcomes = at_once(*[partial(write, session)] * 6)
    assert unexpected(outcomes) == []
    assert types(session).count("session.resumed") == 1


def test_changes_of_different_keys_both_survive(alice):
    session = make_session(alice, agent="silent")
    outcomes = at_once(*(partial(lambda n: sessions.change_state(fresh(session), {f"k{n}": n}), n) for n in range(8)))
    assert unexpected(outcomes) == []
    assert fresh(session).state == {f"k{n}": n for n in range(8)}


def test_an_edit_races_a_withdrawal(alice):
    for number in range(ROUNDS):
        session = make_session(alice, agent="silent")
        say(session, "secret")
        outcomes = at_once(
            lambda session=session: messages.edit(fresh(session), 2, "secret too"),
            lambda session=session: messages.withdraw(fresh(session), 2),
            *[lambda session=session, n=n: messages.edit(fresh(session), 2, f"secret {n}") for n in range(number % 3)],
        )
        assert unexpected(outcomes, MessageNotFound) == []
        assert outcomes[1] is None
        assert texts(session) == []
        assert not SessionEvent.objects.filter(session=session, content__contains="secret").exists()
        assert fresh(session).message_count == 0


def test_a_message_is_withdrawn_once(alice):
    session = make_session(alice, agent="silent")
    say(session, "x")
    outcomes = at_once(*[lambda: messages.withdraw(fresh(session), 2)] * 4)
    assert unexpected(outcomes, MessageNotFound) == []
    assert outcomes.count(None) == 1
    assert types(session).count("message.deleted") == 1


def test_two_tabs_take_control_one_after_the_other(alice):
    session = make_session(alice, agent="active_tab_wins", client="A")
    outcomes = at_once(*(partial(lambda c: sessions.resume(fresh(session), client=c), c) for c in ("B", "C", "D")))
    assert unexpected(outcomes) == []
    found = fresh(session)
    for client in ("A", "B", "C", "D"):
        if client != found.client:
            with pytest.raises(ClientConflict):
                messages.append(found, Message("user", "x"), client=client)
    assert types(session) == ["session.created", *["session.superseded"] * 3]


# ----------------------------------------------------------------------------------------------------------- the ending


def test_a_write_that_races_the_end_lands_before_it_or_is_refused(alice):
    for _ in range(ROUNDS):
        session = make_session(alice, agent="silent")
        outcomes = at_once(lambda s=session: sessions.end(fresh(s)), *[partial(write, session)] * 3)
        assert unexpected(outcomes, SessionEnded) == []
        assert types(session)[-1] == "session.ended"
        landed = sum(not isinstance(found, SessionEnded) for found in outcomes[1:])
        assert fresh(session).message_count == landed


def test_renewing_races_ending(alice):
    for _ in range(ROUNDS):
        session = make_session(alice, agent="silent")
        renewed, ended = at_once(lambda s=session: sessions.renew(fresh(s)), lambda s=session: sessions.end(fresh(s)))
        assert unexpected([renewed], SessionEnded) == []
        assert unexpected([ended]) == []
        found = fresh(session)
        assert (found.status, found.renewal_count) == ("ended", 0 if isinstance(renewed, SessionEnded) else 1)


def test_only_one_ends_a_session(alice):
    session = make_session(alice, agent="silent")
    outcomes = at_once(*[lambda: sessions.end(fresh(session))] * 4)
    assert unexpected(outcomes, SessionEnded) == []
    assert types(session) == ["session.created", "session.ended"]


def test_a_deletion_races_a_hold(alice):
    for _ in range(ROUNDS):
        session = make_session(alice, agent="silent")
        deleted, held = at_once(lambda s=session: sessions.delete(fresh(s)), lambda s=session: privacy.hold(fresh(s)))
        is_there = ChatSession.objects.filter(pk=session.pk).exists()
        assert is_there is isinstance(deleted, Exception)
        assert is_there is not isinstance(held, Exception)
        if is_there:
            assert fresh(session).is_held


# --------------------------------------------------------------------------------------------------------------- expiry


def test_a_write_that_races_an_expiry_lands_before_it_or_is_refused(alice):
    landed = 0
    for number in range(ROUNDS * 2):
        session = make_session(alice, agent="silent", timeout=TimeoutOverrides(auto_renew=False))

        def sweep(session=session, milliseconds=5 + 3 * (number % 4)):
            with log.begin("default"):
                log.lock(session)
                soon = dialects.now("default") + timedelta(milliseconds=milliseconds)
                ChatSession.objects.filter(pk=session.pk).update(expires_at=soon)
            while dialects.now("default") < soon:
                time.sleep(0.0005)
            return expiry.expire()

        def talk(session=session):
            while True:
                write(session)

        swept, refused = at_once(sweep, talk)
        assert swept.count <= 1  # it passes over a row that a writer holds
        expiry.expire()
        assert isinstance(refused, SessionExpired)
        found = types(session)
        assert found[-1] == "session.expired"
        assert found.count("session.expired") == 1
        assert all(
            at <= fresh(session).ended_at for at in session.events.current().values_list("created_at", flat=True)
        )
        landed += fresh(session).message_count
    assert landed


def test_a_write_that_waited_past_the_deadline_is_refused(alice, transactions):
    if transactions == "deferred":
        pytest.skip("the instant is read before the lock; a system check asks for IMMEDIATE")
    session = make_session(alice, agent="silent")
    soon = dialects.now("default") + timedelta(milliseconds=300)
    ChatSession.objects.filter(pk=session.pk).update(expires_at=soon)
    has_lock = threading.Event()

    def hold():
        with log.begin("default"):
            log.lock(session)
            has_lock.set()
            time.sleep(0.5)

    def wait():
        has_lock.wait(5)
        return write(session)

    _, written = at_once(hold, wait)
    assert isinstance(written, SessionExpired)


def test_sweeps_in_several_workers_record_each_expiry_once(alice, configured):
    configured(SWEEP_BATCH=3)
    expired = [age(make_session(alice, agent="silent"), hours=1) for _ in range(20)]
    outcomes = at_once(*[expiry.expire] * 4)
    assert unexpected(outcomes) == []
    assert sum(swept.count for swept in outcomes) == 20
    assert all(types(session) == ["session.created", "session.expired"] for session in expired)


def test_warnings_in_several_workers_come_once(alice, configured):
    configured(SWEEP_BATCH=3)
    near = [age(make_session(alice, agent="silent"), minutes=26) for _ in range(10)]
    outcomes = at_once(*[expiry.warn] * 3)
    assert unexpected(outcomes) == []
    expiry.warn()
    assert all(types(session) == ["session.created", "session.expiring"] for session in near)


def test_a_renewal_races_the_sweep(alice):
    for _ in range(ROUNDS):
        session = age(make_session(alice, agent="silent"), minutes=29, seconds=59.99)
        renewed, swept = at_once(lambda s=session: sessions.renew(fresh(s)), expiry.expire)
        assert unexpected([renewed, swept], SessionExpired) == []
        status = fresh(session).status_at(dialects.now("default"))
        assert (status == "expired") is isinstance(renewed, SessionExpired)


# --------------------------------------------------------------------------------------------------------------- asking


def test_two_questions_at_once_have_one_answer_and_one_refusal(alice, agent):
    def slow(turn):
        time.sleep(0.3)
        return "answer"

    agent("slow", slow)
    session = make_session(alice, agent="slow")
    outcomes = at_once(*(partial(lambda t: runs.ask(fresh(session), Message("user", t)), t) for t in ("a", "b")))
    assert [type(found).__name__ for found in outcomes].count("RunInProgress") == 1
    assert unexpected(outcomes, RunInProgress) == []
    assert len(texts(session)) == 2
    assert Run.objects.count() == 1


def test_one_question_asked_twice_at_once_is_stored_once(alice, agent):
    def slow(turn):
        time.sleep(0.1)
        return "answer"

    agent("slow", slow)
    session = make_session(alice, agent="slow")
    question = Message("user", "q", external_id="x")
    outcomes = at_once(*[lambda: runs.ask(fresh(session), question)] * 4)
    assert unexpected(outcomes, RunInProgress) == []
    assert texts(session) == ["q", "answer"]
    assert Run.objects.count() == 1


def test_agents_that_change_different_keys_lose_nothing_to_people_who_write(alice, agent):
    def remember(turn):
        turn.state["agent"] = turn.state.get("agent", 0) + 1
        return "ok"

    agent("remembering", remember)
    session = make_session(alice, agent="remembering")

    def ask():
        for _ in range(5):
            runs.ask(fresh(session), Message("user", "q"))

    def patch(name):
        for number in range(5):
            sessions.change_state(fresh(session), {name: number})
            write(session)

    outcomes = at_once(ask, partial(patch, "a"), partial(patch, "b"))
    assert unexpected(outcomes) == []
    assert fresh(session).state == {"agent": 5, "a": 4, "b": 4}
    assert fresh(session).message_count == 20


# -------------------------------------------------------------------------------------------------- everything together


def test_every_operation_at_once_is_never_locked_out(alice):
    session = make_session(alice, agent="count")
    say(session, "first")

    def often(operation, times=8):
        for number in range(times):
            operation(fresh(session), number)

    outcomes = at_once(
        *(
            partial(often, operation)
            for operation in (
                lambda s, n: say(s, "x"),
                lambda s, n: messages.record(s, "app.x"),
                lambda s, n: messages.edit(s, 2, f"edit {n}"),
                lambda s, n: sessions.change_state(s, {"n": n}),
                lambda s, n: sessions.heartbeat(s),
                lambda s, n: sessions.change(s, title=str(n)),
                lambda s, n: opening.fork(s),
                lambda s, n: opening.open(alice, parent=s),
                lambda s, n: sessions.change_timeout(s, {"timeout_minutes": 30 + n}),
                lambda s, n: runs.ask(s, Message("user", "q")),
                lambda s, n: (expiry.warn(), expiry.expire(), recovery.recover()),
            )
        )
    )
    assert unexpected(outcomes) == []
