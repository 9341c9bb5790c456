"""The timeouts in force, their bounds, and the deadline that follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_chat_sessions.choices import TimeoutMode
from django_chat_sessions.exceptions import InvalidRequest, InvalidTimeout
from django_chat_sessions.rules import timeouts
from django_chat_sessions.rules.timeouts import Bounds, TimeoutOverrides, TimeoutPolicy, merge

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
minutes = st.none() | st.integers(1, 12_000)
overrides = st.builds(
    TimeoutOverrides,
    st.none() | st.sampled_from(TimeoutMode.values),
    minutes,
    minutes,
    minutes,
    st.none() | st.booleans(),
)


def policy(idle: int, maximum: int, warning: int, *, mode: str = "standard", auto_renew: bool = True) -> TimeoutPolicy:
    return TimeoutPolicy(mode, idle, maximum, warning, auto_renew)


def test_without_any_tier_the_built_in_defaults_hold():
    assert merge() == policy(30, 720, 5)


@pytest.mark.parametrize(
    ("mode", "idle", "warning", "maximum"),
    [("aggressive", 5, 1, 720), ("standard", 30, 5, 720), ("lenient", 240, 15, 720), ("persistent", 1440, 60, 10_080)],
)
def test_each_mode_stands_for_its_minutes(mode, idle, warning, maximum):
    assert merge(TimeoutOverrides(mode=mode)) == policy(idle, maximum, warning, mode=mode)


def test_every_mode_has_its_minutes():
    assert set(timeouts.MODES) == set(TimeoutMode.values)


def test_the_nearest_tier_wins():
    tiers = (TimeoutOverrides(timeout_minutes=10), TimeoutOverrides(timeout_minutes=20))
    assert merge(*tiers).timeout_minutes == 20
    assert merge(*tiers, TimeoutOverrides(timeout_minutes=40)).timeout_minutes == 40


def test_tiers_overlay_field_by_field():
    merged = merge(
        TimeoutOverrides(mode="lenient", max_duration_minutes=1000),
        TimeoutOverrides(warning_threshold_minutes=7),
        TimeoutOverrides(timeout_minutes=60, auto_renew=False),
    )
    assert merged == policy(60, 1000, 7, mode="lenient", auto_renew=False)


def test_minutes_beat_the_mode_of_their_own_tier_and_the_mode_stays_shown():
    assert merge(TimeoutOverrides(mode="lenient", timeout_minutes=90)) == policy(90, 720, 15, mode="lenient")


def test_a_nearer_mode_beats_farther_minutes():
    assert merge(TimeoutOverrides(timeout_minutes=90), TimeoutOverrides(mode="aggressive")).timeout_minutes == 5


def test_a_mode_that_inherits_the_maximum_leaves_the_farther_one():
    merged = merge(TimeoutOverrides(max_duration_minutes=900), TimeoutOverrides(mode="lenient"))
    assert merged.max_duration_minutes == 900


def test_automatic_renewal_can_be_turned_off_and_on_again_by_a_nearer_tier():
    off = TimeoutOverrides(auto_renew=False)
    assert merge(off).auto_renew is False
    assert merge(off, TimeoutOverrides(auto_renew=True)).auto_renew is True


@pytest.mark.parametrize(("idle", "warning"), [(5, 2), (4, 2), (6, 5), (1, 0)])
def test_an_inherited_warning_that_would_not_be_below_the_idle_timeout_is_half_of_it(idle, warning):
    assert merge(TimeoutOverrides(timeout_minutes=idle)).warning_threshold_minutes == warning


def test_a_warning_of_ones_own_never_gives_way():
    own = TimeoutOverrides(timeout_minutes=10, warning_threshold_minutes=10)
    assert merge(own).warning_threshold_minutes == 10


def test_an_inherited_maximum_is_at_least_the_idle_timeout():
    assert merge(TimeoutOverrides(timeout_minutes=1000)).max_duration_minutes == 1000
    assert merge(TimeoutOverrides(mode="lenient", max_duration_minutes=60), TimeoutOverrides()) == policy(
        240, 240, 15, mode="lenient"
    )


def test_a_maximum_of_ones_own_is_never_raised():
    assert merge(TimeoutOverrides(timeout_minutes=1000, max_duration_minutes=100)).max_duration_minutes == 100


def test_what_gave_way_for_a_farther_tier_is_itself_again_for_a_nearer_one():
    """An agent's long idle timeout raises the maximum only for sessions that have it."""
    globally, agent = TimeoutOverrides(max_duration_minutes=60), TimeoutOverrides(timeout_minutes=240)
    assert merge(globally, agent, TimeoutOverrides()).max_duration_minutes == 240
    assert merge(globally, agent, TimeoutOverrides(timeout_minutes=30)).max_duration_minutes == 60


@given(st.lists(overrides, max_size=3))
def test_inherited_warnings_and_maxima_never_contradict_the_idle_timeout(tiers):
    merged = merge(*tiers, TimeoutOverrides())
    assert 0 <= merged.warning_threshold_minutes < merged.timeout_minutes <= merged.max_duration_minutes


@given(st.lists(overrides, max_size=3), overrides)
def test_what_the_nearest_tier_says_is_what_is_in_force(tiers, own):
    merged = merge(*tiers, own)
    assert own.as_dict().items() <= {name: getattr(merged, name) for name in own.as_dict()}.items()


# --------------------------------------------------------------------------------------------------- several warnings


def several(*minutes: int) -> TimeoutOverrides:
    return TimeoutOverrides(warning_threshold_minutes=minutes)


@pytest.mark.parametrize("given_", [[15, 5, 1], (1, 5, 15), {5, 1, 15}, frozenset({15, 5, 1}), [5, 15, 1, 5]])
def test_several_thresholds_are_in_the_order_of_time_each_once(given_):
    merged = merge(TimeoutOverrides(warning_threshold_minutes=given_))
    assert (merged.warning_threshold_minutes, merged.later_warnings) == (15, (5, 1))


def test_none_at_all_are_inherited():
    assert merge(several()).warning_threshold_minutes == 5


def test_one_threshold_has_none_after_it():
    assert merge(several(7)) == merge(TimeoutOverrides(warning_threshold_minutes=7)) == policy(30, 720, 7)


@pytest.mark.parametrize(
    "nearer", [TimeoutOverrides(warning_threshold_minutes=8), TimeoutOverrides(mode="standard"), several(8)]
)
def test_a_nearer_tier_replaces_all_thresholds(nearer):
    assert merge(several(15, 5, 1), nearer).later_warnings == ()


def test_a_nearer_tier_that_says_nothing_of_warnings_leaves_them():
    merged = merge(several(15, 5, 1), TimeoutOverrides(timeout_minutes=60))
    assert (merged.warning_threshold_minutes, merged.later_warnings) == (15, (5, 1))


@pytest.mark.parametrize(("idle", "first", "later"), [(15, 7, (5, 1)), (10, 5, (1,)), (3, 1, ()), (16, 15, (5, 1))])
def test_where_the_first_gives_way_those_below_it_stay(idle, first, later):
    merged = merge(several(15, 5, 1), TimeoutOverrides(timeout_minutes=idle))
    assert (merged.warning_threshold_minutes, merged.later_warnings) == (first, later)


@given(st.lists(st.builds(TimeoutOverrides, st.none(), minutes, minutes, st.sets(st.integers(0, 99))), max_size=3))
def test_warnings_come_one_after_the_other(tiers):
    merged = merge(*tiers, TimeoutOverrides())
    every = (merged.timeout_minutes, merged.warning_threshold_minutes, *merged.later_warnings)
    assert list(every) == sorted(set(every), reverse=True)


def test_every_threshold_has_to_be_within_the_bounds():
    for wrong in ((60, 5), (40, -1)):
        with pytest.raises(InvalidTimeout) as refusal:
            timeouts.check(merge(TimeoutOverrides(timeout_minutes=60, warning_threshold_minutes=wrong)), Bounds())
        assert refusal.value.field == "warning_threshold_minutes"


def test_a_session_has_one_threshold_of_its_own():
    with pytest.raises(InvalidRequest) as refusal:
        timeouts.check(merge(several(15, 5)), Bounds(), own=several(15, 5))
    assert "warning_threshold_minutes" in refusal.value.errors
    timeouts.check(merge(several(15, 5)), Bounds(), own=TimeoutOverrides(warning_threshold_minutes=5))


# ----------------------------------------------------------------------------------------------------------- the bounds


@pytest.mark.parametrize(
    ("given_", "field", "least", "most"),
    [
        (policy(4, 720, 1), "timeout_minutes", 5, 1440),
        (policy(1441, 10_080, 1), "timeout_minutes", 5, 1440),
        (policy(60, 59, 5), "max_duration_minutes", 60, 10_080),
        (policy(60, 10_081, 5), "max_duration_minutes", 60, 10_080),
        (policy(60, 720, 60), "warning_threshold_minutes", 0, 59),
        (policy(60, 720, -1), "warning_threshold_minutes", 0, 59),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_the_bounds(given_, field, least, most):
    with pytest.raises(InvalidTimeout) as refusal:
        timeouts.check(given_, Bounds())
    assert (refusal.value.field, refusal.value.min_minutes, refusal.value.max_minutes) == (field, least, most)
    assert field in str(refusal.value)
    assert str(least) in str(refusal.value)
    assert str(most) in str(refusal.value)


@pytest.mark.parametrize("good", [policy(5, 5, 0), policy(1440, 10_080, 1439), policy(60, 60, 59)])
def test_the_bounds_themselves_are_within(good):
    timeouts.check(good, Bounds())


def test_bounds_are_what_the_settings_say():
    timeouts.check(policy(2, 20_000, 1), Bounds(1, 10, 20_000))
    with pytest.raises(InvalidTimeout) as refusal:
        timeouts.check(policy(11, 20_000, 1), Bounds(1, 10, 20_000))
    assert refusal.value.max_minutes == 10


# --------------------------------------------------------------------------------------------------------- the deadline


def test_a_partial_change_keeps_what_is_not_given_and_none_inherits():
    own = TimeoutOverrides(mode="lenient", timeout_minutes=60)
    assert timeouts.change(own, {"auto_renew": False}) == TimeoutOverrides("lenient", 60, None, None, False)
    assert timeouts.change(own, {"mode": None}) == TimeoutOverrides(timeout_minutes=60)
    assert timeouts.change(own, {}) == own


def test_the_deadline_is_the_idle_timeout_after_the_last_renewal():
    renewed = NOON + timedelta(hours=1)
    assert timeouts.deadline(policy(30, 720, 5), NOON, renewed) == renewed + timedelta(minutes=30)


def test_the_deadline_is_never_past_the_maximum_duration():
    late = NOON + timedelta(minutes=710)
    assert timeouts.deadline(policy(30, 720, 5), NOON, late) == NOON + timedelta(minutes=720)
    assert timeouts.limit(policy(30, 720, 5), NOON) == NOON + timedelta(minutes=720)


def test_a_tier_says_only_what_is_set():
    assert TimeoutOverrides().as_dict() == {}
    assert TimeoutOverrides(auto_renew=False, warning_threshold_minutes=0).as_dict() == {
        "warning_threshold_minutes": 0,
        "auto_renew": False,
    }
