"""Lists of sessions: filters, search, and cursors that survive what happens meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from django_chat_sessions.testing import age, make_session, say

from .conftest import problem, row

pytestmark = pytest.mark.django_db


def ids(api, query: str = "") -> list[str]:
    return [item["id"] for item in api.reads(f"sessions?{query}")["results"]]


def test_latest_activity_comes_first(api):
    first, second, third = (api.open()["id"] for _ in range(3))
    assert ids(api) == [third, second, first]
    api.post(f"sessions/{first}/heartbeat")
    assert ids(api) == [first, third, second]


def test_list_shows_sessions_as_they_read(api):
    session = api.open(title="x")
    listed = api.reads("sessions")["results"][0]
    read = api.reads(f"sessions/{session['id']}")
    for moving in ("time_remaining_seconds",):
        assert listed.pop(moving) == pytest.approx(read.pop(moving), abs=5)
    assert listed == read


def test_pages_are_walked_by_cursor_while_sessions_become_active(api):
    made = [api.open()["id"] for _ in range(7)]
    met, cursor = [], ""
    while True:
        page = api.reads(f"sessions?limit=2{cursor}")
        met += [item["id"] for item in page["results"]]
        api.post(f"sessions/{made[-1]}/heartbeat")
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert met == made[::-1]
    assert ids(api, "limit=7")[0] == made[-1]


def test_session_that_moves_to_the_front_is_missed_and_none_is_met_twice(api):
    made = [api.open()["id"] for _ in range(5)]
    page = api.reads("sessions?limit=2")
    api.post(f"sessions/{made[0]}/heartbeat")
    api.open()
    rest = [item["id"] for item in api.reads(f"sessions?limit=5&cursor={page['next']}")["results"]]
    assert rest == [made[2], made[1]]


def test_equal_instants_are_told_apart(api, alice):
    made = {str(make_session(alice).uuid) for _ in range(6)}
    instant = timezone.now()
    type(row({"id": next(iter(made))})).objects.update(last_activity_at=instant)
    met, cursor = [], ""
    while cursor is not None:
        page = api.reads(f"sessions?limit=1{cursor}")
        met += [item["id"] for item in page["results"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert (len(met), set(met)) == (6, made)


def test_filters_narrow_exactly(api):
    one = api.open(agent="silent", application="shop", tags=["a", "b"], external_id="e")["id"]
    two = api.open(agent="hasty", application="Shop", tags=["ab"])["id"]
    child = api.open(parent=one)["id"]
    assert ids(api, "agent=hasty") == [two]
    assert ids(api, "agent=Hasty") == []
    assert ids(api, "application=shop") == [one]
    assert ids(api, "tag=a") == [one]
    assert ids(api, "tag=ab") == [two]
    assert ids(api, "external_id=e") == [one]
    assert ids(api, f"parent={one}") == [child]
    assert ids(api, f"parent={child}") == []
    assert ids(api, "parent=x") == []
    assert ids(api, "agent=silent&tag=b&application=shop") == [one]
    assert ids(api, "agent=silent&tag=ab") == []
    assert ids(api, "application=") == [child]


def test_status_is_filtered_as_it_reads_before_any_sweep(api):
    made = {name: api.open()["id"] for name in ("created", "active", "expired", "ended", "unswept")}
    for name in ("active", "unswept"):
        api.say({"id": made[name]}, "hello")
    api.post(f"sessions/{made['ended']}/end")
    for name in ("expired", "unswept"):
        age(row({"id": made[name]}), days=1)
    assert set(ids(api, "status=expired")) == {made["expired"], made["unswept"]}
    for name in ("created", "active", "ended"):
        assert ids(api, f"status={name}") == [made[name]]
    assert ids(api, "status=archived") == []


def test_instants_narrow_and_are_excluded_themselves(api):
    old, new = api.open(), api.open()
    age(row(old), days=3)
    created = api.reads(f"sessions/{new['id']}")["created_at"]
    day = (datetime.fromisoformat(created) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ids(api, f"created_after={day}") == [new["id"]]
    assert ids(api, f"created_before={day}") == [old["id"]]
    assert ids(api, f"created_after={created}") == []
    assert ids(api, f"created_before={created}") == [old["id"]]
    assert ids(api, f"created_after={day[:-1]}%2B00:00") == [new["id"]]
    assert ids(api, f"created_after={day[:-1]}") == [new["id"]]
    assert ids(api, "created_after=0001-01-01T00:00:00Z&created_before=9999-12-31T23:59:59Z") == [new["id"], old["id"]]
    problem(api.get("sessions?created_after=0001-01-01T00:00:00%2B10:00"), 400, "invalid_request")


@pytest.mark.parametrize("text", ["100%", "a_b", "back\\slash", "'quoted'", '"', "\\", "%", "_", "é", "😀", "*", "(x"])
def test_search_takes_every_character_literally(text, api):
    title, said = api.open(title=f"before {text} after")["id"], api.open()
    api.say(said, f"before {text} after")
    api.open(title="100x aXb backslash quoted")
    from urllib.parse import quote

    assert set(ids(api, f"search={quote(text)}")) == {title, said["id"]}


def test_search_reads_the_conversation_as_it_reads_now_in_any_case(api):
    session = api.open(title="Review")
    path = f"sessions/{session['id']}"
    api.say(session, "the first words")
    assert ids(api, "search=FIRST") == ids(api, "search=review") == [session["id"]]
    api.patch(f"{path}/messages/2", {"content": "other words"})
    assert ids(api, "search=first") == []
    assert ids(api, "search=other") == [session["id"]]
    api.delete(f"{path}/messages/2")
    assert ids(api, "search=other") == []
    assert ids(api, "search=session.created") == []
    assert ids(api, "search=") == [session["id"]]


def test_search_that_is_too_long_is_refused(api):
    assert ids(api, f"search={'%25' * 1000}") == []
    problem(api.get(f"sessions?search={'x' * 1001}"), 400, "invalid_request")


def test_children_are_paged_like_sessions(api):
    parent = api.open()["id"]
    made = [api.open(parent=parent)["id"] for _ in range(3)]
    page = api.reads(f"sessions/{parent}/children?limit=2")
    rest = api.reads(f"sessions/{parent}/children?limit=2&cursor={page['next']}")
    assert [item["id"] for item in (*page["results"], *rest["results"])] == made[::-1]
    assert rest["next"] is None
    problem(api.get(f"sessions/{parent}/children?limit=0"), 400, "invalid_request")
    problem(api.get(f"sessions/{parent}/children?cursor=x"), 400, "invalid_request")


def test_messages_of_others_do_not_move_ones_list(api, stranger):
    session = api.open()["id"]
    say(row({"id": stranger.open()["id"]}), "hello")
    assert ids(api) == [session]
