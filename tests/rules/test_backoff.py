"""When something that failed is tried again."""

from __future__ import annotations

import pytest

from django_chat_sessions.rules import backoff


def test_each_failure_doubles_the_delay_up_to_an_hour():
    delays = [backoff.delay(attempts, chance=0) for attempts in range(1, 17)]
    assert delays[:5] == [1, 2, 4, 8, 16]
    assert delays[11:] == [2048, 3600, 3600, 3600, 3600]
    assert backoff.delay(32_000, chance=0) == 3600


def test_a_quarter_of_the_delay_is_left_to_chance():
    assert backoff.delay(5, chance=1) == 12
    assert backoff.delay(5, chance=0.5) == 14


@pytest.mark.parametrize(("asked", "expected"), [(0.0, 16), (10.0, 16), (100.0, 100), (1e9, 3600)])
def test_who_asks_for_more_time_has_it_within_an_hour(asked, expected):
    assert backoff.delay(5, chance=0, asked=asked) == expected
