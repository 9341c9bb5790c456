"""The hand-written look-ups see exactly what ``ChatSession.objects.visible_to`` does."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser
from hypothesis import given, settings
from hypothesis import strategies as st

from django_chat_sessions import lookups
from django_chat_sessions.choices import Status
from django_chat_sessions.exceptions import SessionNotFound
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import sessions
from django_chat_sessions.testing import age, make_session, say

pytestmark = pytest.mark.django_db

WORDS = ["", "a", "A", "%", "_", "\\", "a%b", "\x00", "\ud800", "é", "\ufdd00000"]

worlds = st.lists(
    st.fixed_dictionaries(
        {
            "owner": st.integers(0, 2),
            "agent": st.sampled_from(["", "silent", "echo"]),
            "application": st.sampled_from(WORDS),
            "title": st.sampled_from(WORDS),
            "tags": st.lists(st.sampled_from(WORDS[1:]), max_size=2),
            "days": st.sampled_from([0, 0, 2]),
            "end": st.booleans(),
            "said": st.sampled_from(WORDS),
        }
    ),
    min_size=1,
    max_size=6,
)

narrowings = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(Status.values),
        "agent": st.sampled_from(["", "silent", "nobody"]),
        "application": st.sampled_from(WORDS),
        "tag": st.sampled_from(WORDS),
    },
)


def build(people, world) -> None:
    ChatSession.objects.all().delete()
    for one in world:
        session = make_session(
            people[one["owner"]],
            agent=one["agent"],
            application=one["application"],
            title=one["title"],
            tags=one["tags"],
        )
        if one["said"]:
            say(session, one["said"])
        if one["end"]:
            sessions.end(session)
        age(session, days=one["days"])


@pytest.fixture
def people(django_user_model):
    return [*(django_user_model.objects.create_user(name) for name in ("alice", "bob")), None]


@settings(max_examples=30)
@given(world=worlds, narrowed=narrowings)
def test_lists_agree_with_the_queryset(people, world, narrowed):
    build(people, world)
    for user in people[:2]:
        page = lookups.latest(user, lookups.Filters(**narrowed), limit=100)
        rows = ChatSession.objects.visible_to(user)
        for name in ("agent", "application"):
            if name in narrowed:
                rows = rows.filter(**{name: narrowed[name]})
        if "status" in narrowed:
            rows = rows.in_status(narrowed["status"], page.now)
        expected = [row for row in rows if "tag" not in narrowed or narrowed["tag"] in row.tags]
        assert {row.pk for row in page.sessions} == {row.pk for row in expected}
        for found in page.sessions:
            row = next(row for row in expected if row.pk == found.pk)
            columns = [field.attname for field in ChatSession._meta.concrete_fields]
            assert [getattr(found, name) for name in columns] == [getattr(row, name) for name in columns]


@settings(max_examples=30)
@given(world=worlds, text=st.sampled_from([word for word in WORDS if word]))
def test_search_is_literal(people, world, text):
    build(people, world)
    for user in people[:2]:
        found = lookups.latest(user, lookups.Filters(search=text), limit=100).sessions
        expected = [
            row
            for row in ChatSession.objects.visible_to(user)
            if any(text.lower() in said.lower() for said in (row.title, *row.events.values_list("content", flat=True)))
        ]
        assert {row.pk for row in found} == {row.pk for row in expected}


@settings(max_examples=20)
@given(world=worlds)
def test_single_look_ups_agree_with_the_queryset(people, world):
    build(people, world)
    for user in (*people[:2], AnonymousUser(), None):
        visible = set(ChatSession.objects.visible_to(user).values_list("uuid", flat=True))
        for uuid in [*ChatSession.objects.values_list("uuid", flat=True), uuid4()]:
            assert is_seen(user, str(uuid)) == is_seen(user, str(uuid).upper()) == (uuid in visible)


def is_seen(user, public_id: str) -> bool:
    try:
        lookups.session(user, public_id)
    except SessionNotFound:
        return False
    return True


@settings(max_examples=20)
@given(world=worlds, limit=st.integers(1, 4))
def test_pages_put_together_are_the_whole_list(people, world, limit):
    build(people, world)
    for user in people[:2]:
        found, after = [], None
        while True:
            page = lookups.latest(user, lookups.Filters(), limit=limit, after=after)
            found += [session.pk for session in page.sessions]
            after = page.next
            if after is None:
                break
        rows = ChatSession.objects.visible_to(user).order_by("-last_activity_at", "-uuid")
        assert found == [row.pk for row in rows]
