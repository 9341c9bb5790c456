"""Which sessions retention concerns: by status, agent and application, and not those that somebody holds."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db.models import F

from django_chat_sessions import agents, batches, dialects
from django_chat_sessions.choices import RetentionAction
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.operations import archiving, cleaning, expiry, privacy, purging, retention, sessions, sweeps
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, types

pytestmark = pytest.mark.django_db

#: As people name things.
ODD = ["it's 100% {mine}", 'a"b\\c', "nul\x00 here", "\ud800 half", "%(agent)s", "ünïcödé 🦊", "x" * 64]


@pytest.fixture
def over(alice):
    """Return a function that makes a session that has been over, in a status, for some days."""

    def over(status: str = "ended", days: float = 0, **fields) -> ChatSession:
        session = make_session(alice, **{"agent": "silent", **fields})
        say(session, "hello")
        if status == "expired":
            age(session, hours=1)
            expiry.expire()
        else:
            {"ended": sessions.end, "failed": sessions.fail, "archived": sessions.end}[status](session)
        if status == "archived":
            ChatSession.objects.filter(pk=session.pk).update(settled_at="2000-01-01T00:00Z")
            archiving.archive()
        at = dialects.now("default") - timedelta(days=days)
        ChatSession.objects.filter(pk=session.pk).update(settled_at=at)
        session.refresh_from_db()
        return session

    return over


def due(action: str = "archive") -> set:
    """Return the public ids of what a sweep would take."""
    found = retention.due("default", dialects.now("default"), RetentionAction(action))
    return {example.session for one in found for example in batches.sample("default", one, 100)}


def later(session: ChatSession, **duration: float) -> None:
    """Let time pass for a session that is over."""
    ChatSession.objects.filter(pk=session.pk).update(settled_at=F("settled_at") - timedelta(**duration))


def is_there(session: ChatSession) -> bool:
    return ChatSession.objects.filter(pk=session.pk).exists()


# ----------------------------------------------------------------------------------------------------------- by status


@pytest.mark.parametrize(("status", "days"), [("expired", 30), ("ended", 90), ("failed", 180)])
def test_each_status_is_kept_for_its_own_time(over, status, days):
    session = over(status, days - 0.01)
    assert archiving.archive().count == 0
    later(session, days=0.02)
    assert archiving.archive().count == 1
    found = fresh(session)
    assert (found.status, last(session).type) == ("archived", "session.archived")
    assert purging.purge().count == 0


def test_what_is_live_is_never_due(alice, configured):
    configured(RETENTION=dict.fromkeys(("expired", "ended", "failed", "archived"), 0))
    session = make_session(alice, agent="silent")
    assert archiving.archive().count == purging.purge().count == 0
    assert fresh(session).status == "created"


@pytest.mark.parametrize("status", ["expired", "ended", "failed"])
def test_none_is_for_ever(over, configured, status):
    configured(RETENTION={status: None})
    session = over(status, 30_000)
    assert archiving.archive().count == 0
    assert fresh(session).status == status


@pytest.mark.parametrize("status", ["expired", "ended", "failed"])
@pytest.mark.parametrize("action", ["archive", "delete"])
def test_zero_is_with_the_next_sweep(over, configured, status, action):
    configured(RETENTION={status: 0, "action": action})
    session = over(status)
    assert (archiving.archive().count, purging.purge().count) == ((1, 0) if action == "archive" else (0, 1))
    assert is_there(session) == (action == "archive")


def test_what_is_archived_is_deleted_after_its_own_time_counted_from_the_archiving(over, configured):
    configured(RETENTION={"ended": 10, "archived": 5})
    session = over("ended", 11)
    assert archiving.archive().count == 1
    assert purging.purge().count == 0
    later(session, days=4.9)
    assert purging.purge().count == 0
    later(session, days=0.2)
    assert purging.purge().count == 1
    assert not is_there(session)


def test_what_is_archived_is_kept_for_ever_if_nobody_says_otherwise(over):
    session = over("archived", 30_000)
    assert purging.purge().count == 0
    assert is_there(session)


def test_parts_of_a_day_count(over, configured):
    configured(RETENTION={"ended": 0.5})
    session = over("ended", 0.49)
    assert archiving.archive().count == 0
    later(session, minutes=30)
    assert archiving.archive().count == 1


def test_a_change_of_the_settings_applies_to_what_is_over_already(over, configured):
    session = over("ended", 10)
    assert due() == set()
    configured(RETENTION={"ended": 9})
    assert due() == {session.uuid}
    configured(RETENTION={"ended": 9, "action": "delete"})
    assert (due(), due("delete")) == (set(), {session.uuid})


# ------------------------------------------------------------------------------------------------- agent, application


def test_an_agents_retention_is_over_the_settings(over, agent, configured):
    configured(RETENTION={"ended": 10, "expired": 10})
    agent("careful", retention={"ended": 100})
    theirs, others = over("ended", 20, agent="careful"), over("ended", 20)
    expired = over("expired", 20, agent="careful")
    assert due() == {others.uuid, expired.uuid}
    later(theirs, days=81)
    assert theirs.uuid in due()


def test_an_applications_retention_is_over_its_agents(over, agent, configured):
    configured(RETENTION={"ended": 10}, APPLICATION_RETENTION={"billing": {"ended": 50, "action": "delete"}})
    agent("careful", retention={"ended": 100, "action": "archive"})
    billing = over("ended", 60, agent="careful", application="billing")
    over("ended", 60, agent="careful", application="other")
    other = over("ended", 20, application="other")
    assert due() == {other.uuid}
    assert due("delete") == {billing.uuid}


@pytest.mark.parametrize("cleanup", ["deferred", "immediate", "lazy"])
@pytest.mark.parametrize("status", ["expired", "ended", "failed"])
def test_what_an_agent_has_that_is_not_registered_any_more_is_kept_for_ever(over, agent, configured, status, cleanup):
    agent("gone", retention={status: 1000})
    session = over(status, 999, agent="gone")
    agents.unregister("gone")
    configured(CLEANUP=cleanup, RETENTION={"action": "delete"})
    assert (purging.purge().count, archiving.archive().count, expiry.expire().count) == (0, 0, 0)
    assert cleaning.on_access(fresh(session)).status == status
    agent("gone", retention={status: 998}, cleanup="deferred")
    assert purging.purge().count == 1


def test_what_its_application_says_holds_where_the_agent_is_not_registered_any_more(over, agent, configured):
    agent("gone")
    billing, other = over("ended", 20, agent="gone", application="billing"), over("ended", 20, agent="gone")
    agents.unregister("gone")
    configured(RETENTION={"ended": 1}, APPLICATION_RETENTION={"billing": {"ended": 10}})
    assert due() == {billing.uuid}
    assert (archiving.archive().count, fresh(other).status) == (1, "ended")


def test_a_sweep_names_the_agents_because_of_which_it_keeps_something(over, agent, configured, caplog):
    configured(RETENTION={"ended": 10, "action": "delete"})
    for name, days in (("gone", 11), ("away", 11), ("young", 9), ("", 11)):
        if name:
            agent(name)
        over("ended", days, agent=name)
        over("ended", days, agent=name)
        agents.unregister(name)
    assert purging.purge().count == 2
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.agents == ["away", "gone"]
    assert "'away', 'gone'" in warning.getMessage()
    caplog.clear()
    assert archiving.archive().count == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("name", ODD)
def test_applications_of_any_name_are_told_apart(over, configured, name):
    configured(RETENTION={"ended": 10}, APPLICATION_RETENTION={name: {"ended": 50}})
    kept, other = over("ended", 20, application=name), over("ended", 20, application="plain")
    assert due() == {other.uuid}
    later(kept, days=31)
    assert due() == {kept.uuid, other.uuid}
    assert archiving.archive().count == 2
    assert fresh(kept).application == name


@pytest.mark.parametrize("name", [name for name in ODD if name.isprintable()])
def test_agents_of_any_name_are_told_apart(over, agent, configured, name):
    configured(RETENTION={"ended": 10})
    agent(name, retention={"ended": 50})
    over("ended", 20, agent=name)
    other = over("ended", 20)
    assert due() == {other.uuid}


def test_every_application_and_agent_is_found(over):
    """By a loose index scan, which must not skip the last, the empty or the equal ones."""
    found = {
        over("ended", 100, agent=agent, application=application).uuid
        for agent in ("silent", "echo")
        for application in ("", "a", "A", "b", "z" * 64, *ODD[:4])
        for _ in range(2)
    }
    assert len(due()) == 36
    assert due() == found


# ----------------------------------------------------------------------------------------------------------- who waits


@pytest.mark.parametrize("action", ["archive", "delete"])
def test_what_is_held_is_left_and_counted(over, configured, action):
    configured(RETENTION={"ended": 10, "action": action})
    held, later, free = over("ended", 20), over("ended", 5), over("ended", 20)
    for session in (held, later):
        privacy.hold(session)
    work = archiving.archive if action == "archive" else purging.purge
    swept = work()
    assert (swept.count, swept.held) == (1, 1)
    assert sweeps.preview(swept.task).held == 1
    assert (fresh(held).status, is_there(free)) == ("ended", action == "archive")
    privacy.release(held)
    swept = work()
    assert (swept.count, swept.held) == (1, 0)


@pytest.mark.parametrize("given_", [{"limit": 1}, {"watch": lambda swept: False}])
def test_what_is_held_is_counted_by_a_sweep_that_was_cut_short_too(over, configured, given_):
    configured(RETENTION={"ended": 10}, SWEEP_BATCH=1)
    privacy.hold(over("ended", 20))
    for _ in range(3):
        over("ended", 20)
    swept = archiving.archive(**given_)
    assert (swept.count, swept.held, swept.is_finished) == (1, 1, False)


@pytest.mark.parametrize("action", ["archive", "delete"])
def test_what_subscribers_have_yet_to_be_told_of_waits(over, configured, action):
    configured(RETENTION={"ended": 0, "action": action}, SUBSCRIBERS={"session.ended": ["tests.nowhere.to_be_found"]})
    session = over("ended")
    work = archiving.archive if action == "archive" else purging.purge
    assert OutboxEntry.objects.get().session == session
    assert work().count == 0
    assert due(action) == set()
    OutboxEntry.objects.update(set_aside_at=dialects.now("default"))
    assert work().count == 1


@pytest.mark.parametrize("task", ["archive", "purge"])
def test_a_preview_counts_what_waits_until_subscribers_are_told(over, configured, task):
    action = "archive" if task == "archive" else "delete"
    configured(RETENTION={"ended": 10, "action": action}, SUBSCRIBERS={"session.ended": ["tests.nowhere.x"]})
    over("ended", 20)
    over("ended", 5)
    privacy.hold(over("ended", 20))
    found = sweeps.preview(task)
    assert (found.total, found.held, found.waiting) == (0, 0, 1)
    assert f"{task}: 0 sessions; 1 more waits for its subscribers" in said(task)
    over("ended", 20)
    assert f"{task}: 0 sessions; 2 more wait for their subscribers" in said(task)
    OutboxEntry.objects.all().delete()
    found = sweeps.preview(task)
    assert (found.total, found.held, found.waiting) == (2, 1, 0)
    assert "subscribers" not in said(task)


def said(task: str) -> str:
    """Return what the command says that the sweep would do."""
    out = StringIO()
    call_command("chat_sessions", "sweep", task, "--dry-run", stdout=out)
    return out.getvalue()


def test_what_belongs_to_others_is_not_counted_as_held(over, configured, agent):
    configured(RETENTION={"ended": 10})
    agent("lazy", cleanup="lazy")
    agent("keeper", retention={"ended": None})
    for name in ("lazy", "keeper"):
        privacy.hold(over("ended", 20, agent=name))
    assert archiving.archive().held == 0


# ------------------------------------------------------------------------------------------------------ as it proceeds


def test_sweeps_keep_to_a_limit_and_go_on_where_they_stopped(over, configured):
    configured(RETENTION={"ended": 1}, SWEEP_BATCH=2)
    found = [over("ended", days) for days in (5, 4, 3, 2, 2)]
    assert archiving.archive(limit=3).count == 3
    assert [fresh(session).status for session in found] == ["archived"] * 3 + ["ended"] * 2
    assert archiving.archive().count == 2


def test_batches_are_bounded_by_events_too(over, configured):
    configured(RETENTION={"ended": 1}, SWEEP_EVENTS=6)
    for _ in range(5):
        over("ended", 5)  # three events each
    swept = archiving.archive()
    assert swept.count == 5
    assert swept.batches >= 3


def test_one_session_longer_than_a_batch_may_be_goes_alone(over, configured):
    configured(RETENTION={"ended": 1}, SWEEP_EVENTS=1)
    for _ in range(3):
        over("ended", 5)
    assert archiving.archive().count == 3


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_sessions_that_fell_due_at_the_same_instant_are_all_taken(over, configured, batch):
    configured(RETENTION={"ended": 1, "action": "delete"}, SWEEP_BATCH=batch)
    found = [over("ended", 5) for _ in range(7)]
    at = dialects.now("default").replace(microsecond=0) - timedelta(days=5)
    ChatSession.objects.filter(pk__in=[session.pk for session in found]).update(settled_at=at)
    assert purging.purge().count == 7


def test_archived_sessions_read_as_archived_and_say_what_stays(over, configured):
    configured(RETENTION={"ended": 1})
    session = over("ended", 5, title="Title", metadata={"a": 1}, tags=["t"], state={"secret": 1})
    archiving.archive()
    found = fresh(session)
    assert (found.title, found.metadata, found.tags, found.state) == ("Title", {"a": 1}, ["t"], {})
    assert types(session) == ["session.created", "message", "session.ended", "session.archived"]
    assert not session.events.filter(content__contains="hello").exists()
