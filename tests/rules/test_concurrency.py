"""What each strategy gives a newcomer, and whom it lets write."""

from __future__ import annotations

import pytest

from django_chat_sessions.choices import Strategy
from django_chat_sessions.exceptions import ClientConflict, InvalidRequest
from django_chat_sessions.rules import concurrency
from django_chat_sessions.rules.concurrency import ANY

FREE = ("multiple", "single")
BOUND = ("per_tab", "active_tab_wins")


def test_every_strategy_is_in_these_tables():
    assert {*FREE, *BOUND} == set(Strategy.values)


@pytest.mark.parametrize(
    ("strategy", "place"), [("multiple", None), ("single", ""), ("per_tab", "A"), ("active_tab_wins", "")]
)
def test_a_newcomer_wants_the_place_of_the_strategy(strategy, place):
    assert concurrency.slot(strategy, "A") == place


@pytest.mark.parametrize("strategy", FREE)
@pytest.mark.parametrize("client", [None, "", "A", "B", ANY])
def test_any_tab_writes_where_the_strategy_binds_none(strategy, client):
    concurrency.check_control(strategy, "A", client)


@pytest.mark.parametrize("strategy", BOUND)
def test_the_tab_in_control_writes_and_another_is_refused(strategy):
    concurrency.check_control(strategy, "A", "A")
    for controlling in ("B", None, "a", "A "):
        with pytest.raises(ClientConflict):
            concurrency.check_control(strategy, controlling, "A")


@pytest.mark.parametrize("strategy", BOUND)
@pytest.mark.parametrize("client", [None, ""])
def test_a_nameless_tab_is_told_to_name_itself(strategy, client):
    for check in (
        lambda: concurrency.check_named(strategy, client),
        lambda: concurrency.check_control(strategy, "A", client),
    ):
        with pytest.raises(InvalidRequest) as refusal:
            check()
        assert list(refusal.value.errors) == ["client"]


@pytest.mark.parametrize("strategy", Strategy.values)
def test_the_server_itself_is_bound_by_no_tab(strategy):
    concurrency.check_named(strategy, ANY)
    concurrency.check_control(strategy, "A", ANY)
    assert not concurrency.takes_control(strategy, "A", ANY)


@pytest.mark.parametrize("strategy", Strategy.values)
@pytest.mark.parametrize("controlling", [None, "A", "B"])
def test_control_passes_only_where_the_active_tab_wins_and_to_another_tab(strategy, controlling):
    passes = strategy == "active_tab_wins" and controlling != "A"
    assert concurrency.takes_control(strategy, controlling, "A") is passes
