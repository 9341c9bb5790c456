"""What a sweep costs that finds nothing: a look at an index for each group, and no transaction."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import opening, sessions, sweeps
from django_chat_sessions.operations.sweeping import FIRST, LONG, Budget

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def settled(alice):
    """Live and ended sessions, of which nothing is due."""
    for agent in ("", "silent"):
        opening.open(alice, agent=agent)
        sessions.end(opening.open(alice, agent=agent).session)


@pytest.mark.parametrize("name", ["expire", "archive", "purge"])
def test_a_sweep_that_finds_nothing_begins_no_transaction(settled, name):
    with CaptureQueriesContext(connection) as queries:
        assert sweeps.SWEEPS[name].work().count == 0
    assert not [query["sql"] for query in queries if query["sql"].startswith(("BEGIN", "UPDATE", "SAVEPOINT"))]


def test_a_batch_that_took_long_halves_the_next_and_quick_ones_double_it():
    budget = Budget(None, 1000)
    budget.keep_pace(FIRST, LONG / 5)
    assert budget.size == 2 * FIRST
    budget.keep_pace(100, LONG / 5)  # there was no more: that says nothing of a whole one
    assert budget.size == 2 * FIRST
    budget.keep_pace(2 * FIRST, LONG * 2)
    assert budget.size == FIRST
    budget.keep_pace(1, LONG * 2)
    assert budget.size == 1


def test_nothing_takes_more_than_the_setting_says():
    budget = Budget(None, 300)
    for _ in range(5):
        budget.keep_pace(budget.size, 0)
    assert budget.size == 300


def test_small_trees_are_deleted_together(alice, settings):
    settings.CHAT_SESSIONS = {**settings.CHAT_SESSIONS, "RETENTION": {"ended": 0, "action": "delete"}}
    for _ in range(3):
        top = opening.open(alice).session
        opening.open(alice, parent=top)
        sessions.end(top)
    ChatSession.objects.update(settled_at=top.created_at - timedelta(days=1))
    swept = sweeps.SWEEPS["purge"].work()
    assert (swept.count, ChatSession.objects.count()) == (6, 0)
    assert swept.batches <= 3  # those that stand alone, the trees, and nothing more
