"""What waits for subscribers, or waited in vain: told again or dropped by staff that may."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_chat_sessions.models import OutboxEntry
from tests.admin.conftest import keys, page, said, staff

pytestmark = pytest.mark.django_db

OUTBOX = "/admin/chat_sessions/outboxentry/"


@pytest.fixture
def entry(talk):
    """Return a function that puts an event into the outbox."""

    def entry(*, session=None, is_aside=False, seconds=0, error="ValueError at app.hooks:7", sequence=1):
        now = timezone.now()
        return OutboxEntry.objects.create(
            session=session or talk(),
            sequence=sequence,
            subscriber="app.hooks.tell",
            attempts=16,
            next_attempt_at=now + timedelta(seconds=seconds),
            error=error,
            set_aside_at=now if is_aside else None,
            created_at=now,
        )

    return entry


def act(client, action, *entries):
    return client.post(OUTBOX, {"action": action, "_selected_action": [one.pk for one in entries]}, follow=True)


def test_the_list_says_what_waits_and_what_was_set_aside(entry):
    client = staff("reader", "view_outboxentry")
    waits, aside = entry(), entry(is_aside=True)
    shown = client.get(OUTBOX)
    assert keys(shown) == [aside.pk, waits.pk]
    body = shown.content.decode()
    assert "ValueError at app.hooks:7" in body
    assert "app.hooks.tell" in body
    assert page(aside.session) in body
    assert keys(client.get(OUTBOX, {"place": "waiting"})) == [waits.pk]
    assert keys(client.get(OUTBOX, {"place": "set_aside"})) == [aside.pk]
    assert keys(client.get(OUTBOX, {"q": str(waits.session.uuid)})) == [waits.pk]
    assert client.get(OUTBOX, {"place": "elsewhere"}).status_code == 302


def test_the_list_costs_the_same_however_many_wait(entry):
    client = staff("reader", "view_outboxentry")

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(OUTBOX)
        return len(queries)

    entry()
    cost()
    before = cost()
    for _ in range(5):
        entry()
    assert cost() == before


def test_what_nobody_can_show_is_shown(entry):
    one = entry(error="a\0<script>")
    body = staff("reader", "view_outboxentry").get(f"{OUTBOX}{one.pk}/change/").content.decode()
    assert "a\\u0000&lt;script&gt;" in body


def test_nothing_is_added_changed_or_deleted_by_hand(boss, entry):
    one = entry()
    assert boss.get(f"{OUTBOX}add/").status_code == 403
    assert boss.post(f"{OUTBOX}{one.pk}/change/", {"error": "x"}).status_code == 403
    assert boss.post(f"{OUTBOX}{one.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in boss.get(OUTBOX).content.decode()


def test_staff_has_events_delivered_again(entry, caplog):
    client = staff("support", "view_outboxentry", "change_outboxentry")
    aside, soon = entry(is_aside=True), entry(seconds=20)
    shown = act(client, "deliver_again", aside, soon)
    assert said(shown) == ["1 event is due now.", "Others are to be told within a minute anyway."]
    aside.refresh_from_db()
    soon.refresh_from_db()
    assert (aside.set_aside_at, aside.attempts, aside.error, soon.attempts) == (None, 0, "", 16)
    assert aside.next_attempt_at <= timezone.now()
    (logged,) = LogEntry.objects.all()
    assert (logged.user.username, logged.object_id, logged.is_change()) == ("support", str(aside.pk), True)
    assert logged.object_repr == "1 for app.hooks.tell"


def test_staff_drops_events(entry):
    client = staff("boss", "view_outboxentry", "delete_outboxentry")
    one, other = entry(is_aside=True), entry()
    kept = entry()
    assert said(act(client, "drop", one, other)) == ["2 events were dropped."]
    assert list(OutboxEntry.objects.all()) == [kept]
    assert {logged.object_id for logged in LogEntry.objects.all() if logged.is_deletion()} == {
        str(one.pk), str(other.pk),
    }  # fmt: skip


@pytest.mark.parametrize("permissions", [["view_outboxentry"], ["view_outboxentry", "change_chatsession"]])
def test_staff_without_the_permission_does_neither(entry, permissions):
    client = staff("reader", *permissions)
    one = entry(is_aside=True)
    assert client.get(OUTBOX).context["action_form"] is None
    for action in ("deliver_again", "drop"):
        act(client, action, one)
    one.refresh_from_db()
    assert one.set_aside_at is not None
    assert not LogEntry.objects.exists()


def test_staff_without_any_permission_sees_nothing(entry):
    assert staff("nobody").get(OUTBOX).status_code == 403


def test_an_action_takes_so_many_at_the_most(boss, entry, monkeypatch):
    monkeypatch.setattr("django_chat_sessions.admin.outbox.ACTION_LIMIT", 1)
    several = [entry(is_aside=True), entry(is_aside=True)]
    for action in ("deliver_again", "drop"):
        assert said(act(boss, action, *several)) == ["An action takes 1 events at the most. Nothing was done."]
    assert OutboxEntry.objects.filter(set_aside_at=None).count() == 0
    assert OutboxEntry.objects.count() == 2
