"""For how long what is over is kept, from the outermost tier to the innermost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_chat_sessions.choices import LIVE, RetentionAction, Status
from django_chat_sessions.rules import retention
from django_chat_sessions.rules.retention import KEPT, MOST_DAYS, Retention, overlay

DAY = timedelta(days=1)
OVER = [status for status in Status if status not in LIVE]

days = st.none() | st.integers(0, MOST_DAYS) | st.floats(0, MOST_DAYS) | st.timedeltas(timedelta(0), MOST_DAYS * DAY)
tiers = st.dictionaries(st.sampled_from([str(status) for status in KEPT]), days)


def test_what_nobody_says_is_built_in():
    kept = overlay()
    assert [kept.of(status) for status in KEPT] == [30 * DAY, 90 * DAY, 180 * DAY, None]
    assert kept.action == RetentionAction.ARCHIVE


def test_every_status_that_is_over_has_its_retention_and_no_other():
    assert set(KEPT) == set(OVER)
    assert [overlay({status: 1}).of(status) for status in KEPT] == [DAY] * 4
    assert [Retention().of(status) for status in LIVE] == [None] * 3


@pytest.mark.parametrize(
    ("given_", "meant"), [(0, 0 * DAY), (0.5, DAY / 2), (7, 7 * DAY), (3 * DAY, 3 * DAY), (None, None)]
)
def test_days_are_numbers_or_durations_and_none_is_for_ever(given_, meant):
    assert overlay({"ended": given_}).ended == meant


def test_the_innermost_tier_wins_key_by_key():
    kept = overlay(
        {"expired": 1, "ended": 1, "failed": 1, "action": "delete"}, {"ended": 2, "failed": 2}, {"failed": None}
    )
    assert kept == Retention(expired=DAY, ended=2 * DAY, failed=None, archived=None, action="delete")


def test_for_ever_farther_out_gives_way_to_days_further_in():
    assert overlay({"expired": None}, {"expired": 3}).expired == 3 * DAY


@pytest.mark.parametrize("action", RetentionAction.values)
def test_what_is_archived_is_deleted_whatever_the_action(action):
    kept = overlay({"action": action})
    assert [kept.action_for(status) for status in KEPT] == [action, action, action, "delete"]


@given(st.lists(tiers, max_size=4), tiers)
def test_what_the_nearest_tier_says_is_what_is_in_force(outer, nearest):
    kept = overlay(*outer, nearest)
    for status, value in nearest.items():
        meant = value if value is None or isinstance(value, timedelta) else timedelta(days=value)
        assert kept.of(status) == meant


# ------------------------------------------------------------------------------------------------------------ problems


@given(tiers, st.sampled_from([{}, *({"action": action} for action in RetentionAction.values)]))
def test_a_sound_tier_has_no_problems(tier, action):
    assert list(retention.problems({**tier, **action})) == []


@pytest.mark.parametrize(
    ("tier", "said"),
    [
        (None, "no dict"),
        (30, "no dict"),
        ([("expired", 3)], "no dict"),
        ({"active": 3}, "'active' is none of"),
        ({"Expired": 3}, "'Expired' is none of"),
        ({3: 3}, "3 is none of"),
        ({"expired": -1}, "expired is -1"),
        ({"ended": MOST_DAYS + 1}, "ended is"),
        ({"ended": timedelta(days=-1)}, "ended is"),
        ({"ended": timedelta(days=MOST_DAYS, microseconds=1)}, "ended is"),
        ({"failed": float("nan")}, "failed is nan"),
        ({"failed": float("inf")}, "failed is inf"),
        ({"failed": True}, "failed is True"),
        ({"failed": "30"}, "failed is '30'"),
        ({"archived": [1]}, "archived is"),
        ({"action": "burn"}, "the action 'burn'"),
        ({"action": None}, "the action None"),
        ({"action": ["delete"]}, "the action ['delete']"),
    ],
)
def test_what_is_wrong_with_a_tier_is_said(tier: Any, said: str):
    found = list(retention.problems(tier))
    assert len(found) == 1
    assert said in found[0]


def test_every_problem_is_said_at_once():
    assert len(list(retention.problems({"expired": -1, "ended": "x", "action": "burn", "other": 1}))) == 4
