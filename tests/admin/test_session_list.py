"""The list of sessions: what staff sees, filters and finds, and what that costs."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User

from django_chat_sessions.admin import listing, searching
from django_chat_sessions.choices import Status
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import expiry, privacy, sessions
from tests.admin.conftest import SESSIONS, keys, overdue

pytestmark = pytest.mark.django_db


def test_list_shows_what_staff_needs(reader, talk):
    session = talk("Hello", title="Review Q4 budget")
    body = reader.get(SESSIONS).content.decode()
    for text in ("Review Q4 budget", str(session.uuid), "alice", "echo", "minutes left", "chat-badge--active"):
        assert text in body


def test_list_asks_for_the_permission_to_view(client, talk):
    talk("Hello")
    User.objects.create_user("plain", password="demo", is_staff=True)
    client.login(username="plain", password="demo")
    assert client.get(SESSIONS).status_code == 403


def test_a_session_past_its_deadline_reads_as_expired_before_any_sweep(reader, talk):
    live, late = talk("Hello"), overdue(talk("Hello"))
    response = reader.get(SESSIONS)
    assert response.content.decode().count("chat-badge--expired") == 1
    assert keys(reader.get(SESSIONS, {"status": "expired"})) == [late.pk]
    assert keys(reader.get(SESSIONS, {"status": "active"})) == [live.pk]
    assert keys(reader.get(SESSIONS, {"status": "live"})) == [live.pk]


def test_filters_and_counts_agree_with_what_the_rows_say(reader, talk):
    made = [talk(), talk("Hello"), overdue(talk()), overdue(talk("Hello")), talk("Bye"), talk("Oh")]
    sessions.end(made[4])
    sessions.fail(made[5])
    overdue_and_swept = overdue(talk())
    expiry.expire(limit=1)
    made.append(overdue_and_swept)
    seen = []
    for status in Status.values:
        response = reader.get(SESSIONS, {"status": status})
        changes = response.context["cl"]
        assert changes.result_count == len(changes.result_list)
        assert response.content.decode().count(f"chat-badge--{status}") == changes.result_count
        seen += keys(response)
    assert sorted(seen) == sorted(session.pk for session in made)


def test_status_that_does_not_exist_is_no_error(reader, talk):
    talk("Hello")
    assert reader.get(SESSIONS, {"status": "happy"}).status_code == 302


@pytest.mark.parametrize("name", ["agent", "application", "status", "owner", "q", "strategy__exact"])
def test_a_nul_in_the_address_is_no_error(reader, talk, name):
    talk("Hello")
    assert reader.get(SESSIONS, {name: "\0"}).status_code in {200, 302}


def test_agents_are_offered_from_the_registry_and_not_from_the_table(reader, talk, django_assert_num_queries):
    talk("Hello", agent="count")
    ChatSession.objects.update(agent="retired")
    offered = reader.get(SESSIONS).context["cl"].filter_specs[1].lookup_choices
    assert ("echo", "echo") in offered
    assert ("retired", "retired") not in offered
    response = reader.get(SESSIONS, {"agent": "retired"})
    assert len(keys(response)) == 1
    assert ("retired", "retired") in response.context["cl"].filter_specs[1].lookup_choices


def test_application_strategy_hold_and_date_filter(reader, talk):
    plain, other = talk("Hello"), talk("Hello", application="shop", agent="single")
    privacy.hold(other)
    today = f"{other.created_at:%Y-%m-%d} 00:00:00+00:00"
    assert reader.get(SESSIONS).content.decode().count("chat-badge--held") == 1
    for filters in (
        {"application": "shop"},
        {"strategy__exact": "single"},
        {"is_held__exact": "1"},
        {"application": "shop", "status": "active", "created_at__gte": today},
    ):
        assert keys(reader.get(SESSIONS, filters)) == [other.pk]
    assert keys(reader.get(SESSIONS, {"is_held__exact": "0"})) == [plain.pk]
    assert keys(reader.get(SESSIONS, {"created_at__lt": today})) == []


def test_the_application_field_keeps_the_other_filters(reader, talk):
    talk("Hello", application="shop")
    body = reader.get(SESSIONS, {"application": "shop", "status": "active"}).content.decode()
    assert '<input type="hidden" name="status" value="active">' in body
    assert 'name="application" value="shop"' in body


def test_an_owners_sessions_come_by_their_latest_activity(reader, talk, bob):
    first, second = talk(), talk()
    talk("Hello", owner=bob)
    sessions.heartbeat(first)
    response = reader.get(SESSIONS, {"owner": first.owner_id})
    assert keys(response) == [first.pk, second.pk]
    assert "By owner" in " ".join(response.content.decode().split())


def test_other_questions_to_the_table_are_refused(reader, talk):
    talk("Hello")
    assert reader.get(SESSIONS, {"state__icontains": "secret"}).status_code == 400
    assert reader.get(SESSIONS, {"owner__password__startswith": "md5"}).status_code == 400
    assert reader.get(SESSIONS, {"owner": "nobody"}).status_code == 302


@pytest.mark.parametrize("spelling", ["{}", " {} ", "{{{}}}"])
def test_search_finds_a_public_id_exactly(reader, talk, spelling):
    session = talk("Hello")
    talk("Hello")
    assert keys(reader.get(SESSIONS, {"q": spelling.format(session.uuid)})) == [session.pk]
    assert keys(reader.get(SESSIONS, {"q": str(uuid.uuid4())})) == []


def test_search_finds_the_owner_and_words_of_the_title(reader, talk, bob):
    budget = talk("Hello", title="Review Q4 budget 100%")
    bobs = talk("Hello", owner=bob)
    assert keys(reader.get(SESSIONS, {"q": "BO"})) == [bobs.pk]
    assert keys(reader.get(SESSIONS, {"q": "budget review"})) == [budget.pk]
    assert keys(reader.get(SESSIONS, {"q": "100%"})) == [budget.pk]
    assert keys(reader.get(SESSIONS, {"q": "review nothing"})) == []
    assert keys(reader.get(SESSIONS, {"q": "budget", "status": "ended"})) == []


def test_search_of_titles_is_bounded_to_the_newest(reader, talk, monkeypatch):
    talk(title="budget of long ago")
    newer = talk(title="budget")
    monkeypatch.setattr(listing, "WINDOW", 1)
    assert keys(reader.get(SESSIONS, {"q": "budget"})) == [newer.pk]
    monkeypatch.setattr(searching, "MATCHES", 1)
    assert keys(reader.get(SESSIONS, {"q": "alice"})) == [newer.pk]


def test_unstorable_characters_in_titles_are_shown_and_break_nothing(reader, talk):
    talk("Hello", title="a\0b\ud800c<script>")
    body = reader.get(SESSIONS).content.decode()
    assert "a\\u0000b\\ud800c&lt;script&gt;" in body


def test_counting_stops_at_a_limit(reader, talk, monkeypatch):
    for _ in range(5):
        talk()
    monkeypatch.setattr(listing.BoundedPaginator, "limit", 3)
    response = reader.get(SESSIONS)
    assert response.context["cl"].result_count == 3
    assert "more than 3" in response.content.decode()


def test_pages_follow_each_other_without_gaps(reader, talk, monkeypatch):
    from django_chat_sessions.admin import ChatSessionAdmin

    monkeypatch.setattr(ChatSessionAdmin, "list_per_page", 2)
    made = [talk().pk for _ in range(5)]
    shown = [key for number in (1, 2, 3) for key in keys(reader.get(SESSIONS, {"p": number}))]
    assert shown == made[::-1]
    assert reader.get(SESSIONS, {"p": 9}).status_code == 302


@pytest.mark.parametrize("query", [{}, {"status": "expired"}, {"q": "alice"}, {"owner": "alice"}, {"application": "x"}])
def test_queries_do_not_grow_with_rows(reader, talk, alice, django_assert_max_num_queries, query):
    if "owner" in query:
        query = {"owner": alice.pk}
    counts = []
    for number in (5, 50):
        while ChatSession.objects.count() < number:
            overdue(talk("Hello", title="A title", application="x"))
        with django_assert_max_num_queries(12) as captured:
            response = reader.get(SESSIONS, query)
        assert len(keys(response)) == number
        counts.append(len(captured.captured_queries))
    assert counts[0] == counts[1]


def test_the_list_loads_no_json_of_the_sessions(reader, talk, django_assert_max_num_queries):
    talk("Hello", state={"secret": "of the state"})
    with django_assert_max_num_queries(12) as captured:
        reader.get(SESSIONS)
    assert not any('"state"' in query["sql"] for query in captured.captured_queries)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("query", "index"),
    [({}, "chat_sessions_chatsession_pkey"), ({"owner": "alice"}, "chat_sessions_latest")],
)
def test_the_order_of_the_list_is_an_indexs(reader, talk, alice, django_assert_max_num_queries, query, index):
    from django.db import connection

    talk("Hello")
    with django_assert_max_num_queries(12) as captured:
        reader.get(SESSIONS, query and {"owner": alice.pk})
    keys_query = next(q["sql"] for q in captured.captured_queries if "LIMIT 5001" in q["sql"])
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {keys_query}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert index in plan
    assert "Sort" not in plan
