"""Events are never changed or deleted: by no method of the ORM, and on PostgreSQL by no SQL either."""

from __future__ import annotations

import pytest
from django.db import Error, connection, transaction
from django.db.models import QuerySet

from django_chat_sessions.exceptions import LogIsAppendOnly
from django_chat_sessions.models import ChatSession, Run, SessionEvent
from django_chat_sessions.operations import messages, privacy, verification
from django_chat_sessions.testing import make_session, say

EVENTS = "chat_sessions_sessionevent"


@pytest.fixture
def session(alice):
    session = make_session(alice, agent="silent")
    say(session, "one")
    say(session, "two")
    return session


@pytest.fixture
def other(alice):
    session = make_session(alice, agent="silent")
    say(session, "theirs")
    return session


def snapshot() -> list[dict]:
    return list(SessionEvent.objects.order_by("pk").values())


def new(session: ChatSession) -> SessionEvent:
    from django.utils import timezone

    return SessionEvent(session=session, sequence=99, type="message", created_at=timezone.now())


async def _run(awaitable):
    return await awaitable


def wait(awaitable):
    from asgiref.sync import async_to_sync

    return async_to_sync(_run)(awaitable)


ROUTES = {
    "save": lambda s, e, o: e.save(),
    "save fields": lambda s, e, o: e.save(update_fields=["content"]),
    "save new": lambda s, e, o: new(s).save(),
    "asave": lambda s, e, o: wait(e.asave()),
    "delete": lambda s, e, o: e.delete(),
    "adelete": lambda s, e, o: wait(e.adelete()),
    "create": lambda s, e, o: SessionEvent.objects.create(session=s, sequence=99, type="x"),
    "acreate": lambda s, e, o: wait(SessionEvent.objects.acreate(session=s, sequence=99, type="x")),
    "bulk_create": lambda s, e, o: SessionEvent.objects.bulk_create([new(s)]),
    "abulk_create": lambda s, e, o: wait(SessionEvent.objects.abulk_create([new(s)])),
    "get_or_create": lambda s, e, o: SessionEvent.objects.get_or_create(session=s, sequence=99),
    "update_or_create": lambda s, e, o: SessionEvent.objects.update_or_create(session=s, sequence=2),
    "aget_or_create": lambda s, e, o: wait(SessionEvent.objects.aget_or_create(session=s, sequence=99)),
    "aupdate_or_create": lambda s, e, o: wait(SessionEvent.objects.aupdate_or_create(session=s, sequence=2)),
    "update": lambda s, e, o: SessionEvent.objects.update(content="x"),
    "aupdate": lambda s, e, o: wait(SessionEvent.objects.aupdate(content="x")),
    "filtered update": lambda s, e, o: SessionEvent.objects.filter(sequence=2).update(content="x"),
    "bulk_update": lambda s, e, o: SessionEvent.objects.bulk_update([e], ["content"]),
    "abulk_update": lambda s, e, o: wait(SessionEvent.objects.abulk_update([e], ["content"])),
    "queryset delete": lambda s, e, o: SessionEvent.objects.all().delete(),
    "queryset adelete": lambda s, e, o: wait(SessionEvent.objects.all().adelete()),
    "manager delete": lambda s, e, o: SessionEvent.objects.delete(),
    "raw delete": lambda s, e, o: SessionEvent.objects.filter(pk=e.pk)._raw_delete("default"),
    "ordered delete": lambda s, e, o: s.events.order_by("sequence").delete(),
    "conversation update": lambda s, e, o: s.events.conversation().update(content="x"),
    "related update": lambda s, e, o: s.events.update(content="x"),
    "related delete": lambda s, e, o: s.events.all().delete(),
    "related create": lambda s, e, o: s.events.create(sequence=99, type="x"),
    "related bulk_create": lambda s, e, o: s.events.bulk_create([new(s)]),
    "related get_or_create": lambda s, e, o: s.events.get_or_create(sequence=99),
    "related update_or_create": lambda s, e, o: s.events.update_or_create(sequence=2),
    "related add": lambda s, e, o: s.events.add(*o.events.all()),
    "related add new": lambda s, e, o: s.events.add(new(s), bulk=False),
    "related aadd": lambda s, e, o: wait(s.events.aadd(o.events.last())),
    "related set": lambda s, e, o: s.events.set(list(o.events.all())),
    "assignment": lambda s, e, o: setattr(s, "events", list(o.events.all())),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ROUTES)
def test_every_route_of_the_orm_is_closed(session, other, name):
    before = snapshot()
    event = session.events.get(sequence=2)
    event.content = "forged"
    with pytest.raises((LogIsAppendOnly, TypeError) if name == "assignment" else LogIsAppendOnly):
        ROUTES[name](session, event, other)
    assert snapshot() == before


def test_no_writing_method_of_a_queryset_is_forgotten():
    """A method that Django adds some day has to be closed too."""
    writes = {name for name, method in vars(QuerySet).items() if getattr(method, "alters_data", False)}
    writes |= {"bulk_create", "bulk_update", "create", "get_or_create", "update_or_create"}
    writes |= {f"a{name}" for name in writes if hasattr(QuerySet, f"a{name}")}
    mine = type(SessionEvent.objects.all())
    assert {name for name in writes if getattr(mine, name) is getattr(QuerySet, name)} == set()


def test_reading_stays_possible(session):
    assert session.events.count() == 3
    assert [event.content for event in session.events.conversation()] == ["one", "two"]
    assert [event.sequence for event in SessionEvent.objects.filter(session=session).after(1)] == [2, 3]
    assert SessionEvent.objects.select_for_update().filter(session=session).exists()


def test_events_go_with_their_session(session, other):
    ChatSession.objects.filter(pk=session.pk).delete()
    assert set(SessionEvent.objects.values_list("session", flat=True)) == {other.pk}


def test_names_say_nothing_of_the_content(session, alice):
    secret = make_session(alice, agent="silent", title="secret", metadata={"secret": 1}, external_id="secret")
    message = say(secret, "secret", metadata={"secret": 1})
    event = secret.events.get(sequence=message.sequence)
    run = Run(session=secret, input_sequence=2, error="secret")
    for record in (secret, event, run):
        assert "secret" not in str(record) + repr(record)
    assert str(secret.uuid) in str(secret)
    assert str(event) == "2 message"
    assert event.label == "message"


# ---------------------------------------------------------------------------------------------------- PostgreSQL itself


def run(sql: str, *parameters: object) -> int:
    """Run raw SQL in a transaction of its own."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
class TestOnPostgreSQL:
    @pytest.mark.parametrize(
        "sets",
        [
            "content = 'x'", "data = '{}'", "data = '{\"a\": 1}'", "type = 'app.x'", "role = 'assistant'",
            "sequence = 99", "position = 99", "token_count = 1", "created_at = now()", "external_id = 'x'",
            "id = 99999", "superseded_by = 3, content = 'x'",
        ],
    )  # fmt: skip
    def test_no_sql_changes_an_event(self, session, sets):
        before = snapshot()
        sequence = 1 if sets == "data = '{}'" else 2
        with pytest.raises(Error, match="append-only"):
            run(f"UPDATE {EVENTS} SET {sets} WHERE session_id = %s AND sequence = %s", session.pk, sequence)
        assert snapshot() == before

    def test_no_sql_moves_an_event_to_another_session(self, session, other):
        with pytest.raises(Error, match="append-only"):
            run(f"UPDATE {EVENTS} SET session_id = %s WHERE session_id = %s", other.pk, session.pk)

    def test_the_pointer_is_set_once(self, session):
        where = f"WHERE session_id = {session.pk} AND sequence = 2"
        assert run(f"UPDATE {EVENTS} SET superseded_by = 3 {where}") == 1
        for value in ("4", "NULL"):
            with pytest.raises(Error, match="append-only"):
                run(f"UPDATE {EVENTS} SET superseded_by = {value} {where}")

    def test_no_sql_deletes_an_event_of_a_session_that_stays(self, session):
        before = snapshot()
        with pytest.raises(Error, match="go with their session"):
            run(f"DELETE FROM {EVENTS} WHERE session_id = %s AND sequence = 2", session.pk)
        with pytest.raises(Error, match="go with their session"):
            run(f"DELETE FROM {EVENTS}")
        assert snapshot() == before

    def test_events_may_go_first_where_their_session_goes_in_the_same_transaction(self, session, other):
        with transaction.atomic():
            run(f"DELETE FROM {EVENTS} WHERE session_id = %s", session.pk)
            run("DELETE FROM chat_sessions_chatsession WHERE id = %s", session.pk)
        assert set(SessionEvent.objects.values_list("session", flat=True)) == {other.pk}

    def test_no_sql_deletes_a_held_session(self, session):
        privacy.hold(session)
        with pytest.raises(Error, match="legal hold"), transaction.atomic():  # noqa: PT012
            run(f"DELETE FROM {EVENTS} WHERE session_id = %s", session.pk)
            run("DELETE FROM chat_sessions_chatsession WHERE id = %s", session.pk)
        assert session.events.count() == 4

    def test_even_the_private_door_leaves_the_skeleton(self, session):
        for sets in ("sequence = 99", "type = 'app.x'", "created_at = now()"):
            with pytest.raises(Error, match="skeleton"), transaction.atomic():  # noqa: PT012
                run("SELECT set_config('chat_sessions.erasing', 'on', true)")
                run(f"UPDATE {EVENTS} SET {sets} WHERE session_id = %s AND sequence = 2", session.pk)

    def test_the_private_door_closes_behind_a_withdrawal(self, session):
        with transaction.atomic():
            messages.withdraw(session, 2)
            with pytest.raises(Error, match="append-only"):
                run(f"UPDATE {EVENTS} SET content = 'x' WHERE session_id = %s AND sequence = 3", session.pk)
        with pytest.raises(Error, match="append-only"):
            run(f"UPDATE {EVENTS} SET content = 'x' WHERE session_id = %s AND sequence = 3", session.pk)
        assert verification.verify(session) == []
