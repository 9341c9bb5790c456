"""When what is over is cleaned up: by sweeps, by the one that records the expiry, or when somebody comes back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_chat_sessions import agents, dialects
from django_chat_sessions.exceptions import SessionNotFound
from django_chat_sessions.models import ChatSession, OutboxEntry
from django_chat_sessions.operations import archiving, cleaning, expiry, privacy, purging, sessions
from django_chat_sessions.testing import age, make_session, say
from tests.operations.reading import fresh, last, types

pytestmark = pytest.mark.django_db

ACTIONS = ["archive", "delete"]


def is_there(session: ChatSession) -> bool:
    return ChatSession.objects.filter(pk=session.pk).exists()


def over(session: ChatSession, *, days: float) -> ChatSession:
    """Let a session have been over for some days."""
    if fresh(session).ended_at is None:
        sessions.end(session)
    settled_at = dialects.now("default") - timedelta(days=days)
    ChatSession.objects.filter(pk=session.pk).update(settled_at=settled_at)
    return fresh(session)


@pytest.fixture
def talk(alice):
    """Return a session in which something was said."""
    session = make_session(alice, agent="silent")
    say(session, "hello")
    return session


# ----------------------------------------------------------------------------------------------------------- immediate


@pytest.mark.parametrize("action", ACTIONS)
def test_immediately_the_sweep_that_records_the_expiry_cleans_up(talk, configured, action):
    configured(CLEANUP="immediate", RETENTION={"action": action})
    age(talk, hours=1)
    expiry.expire()
    assert is_there(talk) == (action == "archive")
    if action == "archive":
        assert types(talk)[-2:] == ["session.expired", "session.archived"]
        assert fresh(talk).status == "archived"


def test_what_was_ended_is_kept_for_its_time_all_the_same(talk, configured):
    configured(CLEANUP="immediate")
    sessions.end(talk)
    expiry.expire()
    archiving.archive()
    assert fresh(talk).status == "ended"


def test_an_agent_may_want_it_at_once_where_others_do_not(alice, agent, talk):
    agent("tidy", cleanup="immediate")
    theirs = make_session(alice, agent="tidy")
    for session in (theirs, talk):
        age(session, hours=1)
    expiry.expire()
    assert [fresh(session).status for session in (theirs, talk)] == ["archived", "expired"]


def test_an_agent_may_want_it_later_where_others_want_it_at_once(alice, agent, configured, talk):
    configured(CLEANUP="immediate")
    agent("patient", cleanup="deferred")
    theirs = make_session(alice, agent="patient")
    for session in (theirs, talk):
        age(session, hours=1)
    expiry.expire()
    assert [fresh(session).status for session in (theirs, talk)] == ["expired", "archived"]


def test_an_application_may_keep_what_its_agent_would_not(alice, configured, talk):
    configured(CLEANUP="immediate", APPLICATION_RETENTION={"billing": {"expired": 10}})
    billing = make_session(alice, agent="silent", application="billing")
    for session in (billing, talk):
        age(session, hours=1)
    expiry.expire()
    assert [fresh(session).status for session in (billing, talk)] == ["expired", "archived"]


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_held_is_not_cleaned_up_at_once(talk, configured, action):
    configured(CLEANUP="immediate", RETENTION={"action": action})
    privacy.hold(talk)
    age(talk, hours=1)
    expiry.expire()
    assert fresh(talk).status == "expired"


def test_a_sweep_that_was_cut_short_cleans_up_the_next_time(talk, configured):
    configured(CLEANUP="immediate")
    age(talk, hours=1)
    expiry.expire(watch=lambda swept: False)
    assert fresh(talk).status == "expired"
    expiry.expire()
    assert fresh(talk).status == "archived"


@pytest.mark.parametrize("action", ACTIONS)
def test_a_sweep_that_a_limit_ends_has_cleaned_up_what_it_expired(alice, configured, action):
    configured(CLEANUP="immediate", RETENTION={"action": action})
    found = [age(make_session(alice, agent="silent"), hours=1) for _ in range(5)]
    swept = expiry.expire(limit=3)
    assert (swept.count, swept.is_finished) == (3, False)
    statuses = [session.status for session in ChatSession.objects.filter(pk__in=[session.pk for session in found])]
    assert sorted(statuses) == (["archived"] * 3 if action == "archive" else []) + ["created"] * 2


def test_each_batch_is_cleaned_up_before_the_next_one_expires(alice, configured):
    configured(CLEANUP="immediate", SWEEP_BATCH=2)
    for _ in range(6):
        age(make_session(alice, agent="silent"), hours=1)
    most = []

    def watch(swept) -> bool:
        most.append(ChatSession.objects.filter(status="expired").count())
        return True

    expiry.expire(watch=watch)
    assert max(most) == 2
    assert ChatSession.objects.filter(status="archived").count() == 6


def test_subscribers_are_told_before_it_is_gone(talk, configured):
    configured(
        CLEANUP="immediate", RETENTION={"action": "delete"}, SUBSCRIBERS={"session.expired": ["tests.nowhere.x"]}
    )
    age(talk, hours=1)
    expiry.expire()
    assert OutboxEntry.objects.get().session == talk
    OutboxEntry.objects.all().delete()
    expiry.expire()
    assert not is_there(talk)


def test_a_session_is_counted_once_though_it_was_expired_and_cleaned_up(talk, configured):
    configured(CLEANUP="immediate")
    age(talk, hours=1)
    assert expiry.expire().count == 1


def test_nobody_who_wants_it_at_once_costs_the_sweep_nothing(talk, configured):
    counted = []
    for cleanup in ("deferred", "immediate"):
        configured(CLEANUP=cleanup)
        with CaptureQueriesContext(connection) as queries:
            expiry.expire()
        counted.append(sum("settled_at" in query["sql"] for query in queries))
    assert counted[0] == 0
    assert counted[1] == 2


# ---------------------------------------------------------------------------------------------------------------- lazy


@pytest.fixture
def lazy(configured):
    """Have what is over cleaned up by whoever comes."""
    configured(CLEANUP="lazy", RETENTION={"expired": 1, "ended": 1, "archived": 5})


@pytest.mark.usefixtures("lazy")
def test_no_sweep_cleans_up_what_is_left_to_whoever_comes(talk):
    over(talk, days=100)
    assert (expiry.expire().count, archiving.archive().count, purging.purge().count) == (0, 0, 0)
    assert fresh(talk).status == "ended"


@pytest.mark.usefixtures("lazy")
def test_whoever_comes_finds_it_archived(talk):
    found = cleaning.on_access(over(talk, days=2))
    assert (found.status, fresh(talk).status) == ("archived", "archived")
    assert not talk.events.filter(content="hello").exists()
    assert last(talk).data["reason"] == "retention"


@pytest.mark.usefixtures("lazy")
def test_whoever_comes_too_late_finds_nothing(talk, configured):
    configured(CLEANUP="lazy", RETENTION={"ended": 1, "action": "delete"})
    found = over(talk, days=2)
    with pytest.raises(SessionNotFound):
        cleaning.on_access(found)
    assert not is_there(talk)


@pytest.mark.usefixtures("lazy")
def test_what_is_archived_is_gone_for_whoever_comes_after_its_time(talk):
    cleaning.on_access(over(talk, days=2))
    over(talk, days=4)
    assert cleaning.on_access(fresh(talk)).status == "archived"
    found = over(talk, days=6)
    with pytest.raises(SessionNotFound):
        cleaning.on_access(found)


@pytest.mark.usefixtures("lazy")
def test_an_expiry_that_no_sweep_has_recorded_is_recorded_first(talk):
    age(talk, days=2)
    assert cleaning.on_access(fresh(talk)).status == "archived"
    assert types(talk)[-2:] == ["session.expired", "session.archived"]
    assert fresh(talk).ended_at == fresh(talk).expires_at


@pytest.mark.usefixtures("lazy")
def test_an_expiry_that_is_recorded_on_access_ends_what_is_below(talk, alice, configured):
    configured(CLEANUP="lazy", RETENTION={"expired": 1}, EXPIRE_CHILDREN=True)
    child = make_session(alice, agent="silent", parent=talk)
    age(talk, days=2)
    cleaning.on_access(fresh(talk))
    assert fresh(child).end_reason == "parent_ended"


@pytest.mark.usefixtures("lazy")
def test_what_is_not_due_is_left_as_it_is(talk, alice):
    recent = over(make_session(alice, agent="silent"), days=0.5)
    expired = age(make_session(alice, agent="silent"), hours=1)
    for session in (talk, recent, expired):
        before = fresh(session)
        assert cleaning.on_access(before) is before
        assert fresh(session).last_sequence == before.last_sequence


@pytest.mark.usefixtures("lazy")
def test_what_is_held_is_shown_to_whoever_comes(talk):
    privacy.hold(talk)
    assert cleaning.on_access(over(talk, days=100)).status == "ended"


@pytest.mark.usefixtures("lazy")
def test_a_hold_that_came_meanwhile_is_heeded(talk):
    stale = over(talk, days=100)
    privacy.hold(fresh(talk))
    assert cleaning.on_access(stale).status == "ended"
    assert stale.is_held


@pytest.mark.usefixtures("lazy")
def test_an_agent_may_say_otherwise(talk, agent):
    agent("silent", cleanup="deferred")
    assert cleaning.on_access(over(talk, days=100)).status == "ended"
    assert archiving.archive().count == 1


@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize("action", ACTIONS)
def test_what_subscribers_have_yet_to_be_told_of_waits(talk, configured, action):
    configured(CLEANUP="lazy", RETENTION={"ended": 1, "action": action})
    now = dialects.now("default")
    OutboxEntry.objects.create(session=talk, sequence=1, subscriber="x", next_attempt_at=now, created_at=now)
    assert cleaning.on_access(over(talk, days=2)).status == "ended"


@pytest.mark.usefixtures("lazy")
def test_a_parent_is_there_for_as_long_as_what_is_below_it(talk, alice, configured):
    configured(CLEANUP="lazy", RETENTION={"ended": 1, "action": "delete"})
    child = make_session(alice, agent="silent", parent=talk)
    over(talk, days=2)
    over(child, days=0.5)
    assert cleaning.on_access(fresh(talk)).status == "ended"
    over(child, days=2)
    with pytest.raises(SessionNotFound):
        cleaning.on_access(fresh(talk))
    assert not is_there(child)


@pytest.mark.usefixtures("lazy")
def test_whoever_comes_for_a_child_leaves_its_parent(talk, alice, configured):
    configured(CLEANUP="lazy", RETENTION={"ended": 1, "action": "delete"})
    child = make_session(alice, agent="silent", parent=talk)
    for session in (talk, child):
        over(session, days=2)
    with pytest.raises(SessionNotFound):
        cleaning.on_access(fresh(child))
    assert is_there(talk)


@pytest.mark.usefixtures("lazy")
def test_what_cannot_be_cleaned_up_is_shown_all_the_same(talk, monkeypatch, caplog):
    def crash(*args: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(archiving, "archive_one", crash)
    assert cleaning.on_access(over(talk, days=2)).status == "ended"
    assert str(talk.uuid) in caplog.text
    assert "on purpose" not in caplog.text


@pytest.mark.parametrize("cleanup", ["deferred", "immediate"])
def test_nothing_is_asked_where_it_is_not_lazy(talk, configured, django_assert_num_queries, cleanup):
    configured(CLEANUP=cleanup)
    found = over(talk, days=1000)
    with django_assert_num_queries(0):
        assert cleaning.on_access(found) is found


@pytest.mark.usefixtures("lazy")
def test_what_was_just_read_is_not_asked_for_the_time(talk, django_assert_num_queries):
    found = fresh(talk)
    with django_assert_num_queries(0):
        cleaning.on_access(found, now=dialects.now("default") if connection.vendor == "sqlite" else found.created_at)


# -------------------------------------------------------------------------------------------------------- by the doors


@pytest.fixture
def paths(talk):
    """Return what the API says of a session."""
    path = f"/api/chat/sessions/{talk.uuid}"
    return [
        f"{path}{rest}" for rest in ("", "/messages", "/events", "/export", "/state", "/context", "/runs", "/summary")
    ]


@pytest.mark.usefixtures("lazy")
def test_the_api_reads_it_as_archived_from_the_first_call_on(talk, api_of, alice, paths):
    for path in reversed(paths):
        ChatSession.objects.filter(pk=talk.pk).exclude(status="archived").exists() and over(talk, days=2)
        response = api_of(alice).get(path)
        assert response.status_code == 200
        assert b"hello" not in response.content
    assert api_of(alice).get(paths[0]).json()["status"] == "archived"


@pytest.mark.usefixtures("lazy")
def test_the_api_does_not_find_what_its_first_call_deletes(talk, api_of, alice, configured, paths):
    configured(CLEANUP="lazy", RETENTION={"ended": 1, "action": "delete"})
    over(talk, days=2)
    for path in paths:
        response = api_of(alice).get(path)
        assert (response.status_code, response.json()["code"]) == (404, "session_not_found")
    assert not is_there(talk)


@pytest.mark.usefixtures("lazy")
def test_a_stranger_cleans_up_nothing(talk, api_of, bob, paths):
    over(talk, days=2)
    assert api_of(bob).get(paths[0]).status_code == 404
    assert fresh(talk).status == "ended"


@pytest.mark.usefixtures("lazy")
def test_a_page_has_no_session_any_more(talk, rf, alice, configured):
    from django.http import HttpResponse

    from django_chat_sessions.middleware import ChatSessionMiddleware

    def view(request):
        seen.append(request.chat_session and request.chat_session.status)
        return HttpResponse()

    seen: list[str | None] = []
    over(talk, days=2)
    for _ in range(2):
        request = rf.get("/", headers={"X-Chat-Session": str(talk.uuid)})
        request.user = alice
        ChatSessionMiddleware(view)(request)
        configured(CLEANUP="lazy", RETENTION={"archived": 0})
    assert seen == ["archived", None]
    assert not is_there(talk)


@pytest.mark.usefixtures("lazy")
def test_the_admins_page_cleans_up_too(talk, admin_client, configured):
    path = f"/admin/chat_sessions/chatsession/{talk.pk}/change/"
    over(talk, days=2)
    assert b"hello" not in admin_client.get(path).content
    assert fresh(talk).status == "archived"
    configured(CLEANUP="lazy", RETENTION={"archived": 0})
    assert admin_client.get(path).status_code == 302
    assert not is_there(talk)


def test_a_later_strategy_takes_over_what_is_there(talk, agent, configured):
    """What was left to whoever comes is swept once the setting changes."""
    configured(CLEANUP="lazy")
    over(talk, days=1000)
    assert archiving.archive().count == 0
    configured(CLEANUP="deferred")
    assert archiving.archive().count == 1
    assert agents.of("silent").cleanup_in_force == "deferred"
