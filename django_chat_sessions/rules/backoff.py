"""When something that failed is tried again."""

from __future__ import annotations

#: Seconds after the first failure; each further one doubles them, up to the longest.
SHORTEST, LONGEST = 1.0, 3600.0

#: How much of a delay is left to chance, so that what failed together is not tried again together.
SPREAD = 0.25


def delay(attempts: int, *, chance: float, asked: float | None = None) -> float:
    """Return the seconds until the next attempt.

    Args:
        attempts: how many have failed.
        chance: a random number from 0 to 1.
        asked: seconds that the other side asked for; it is left alone for at least as long, within the longest delay.
    """
    # The exponent is bounded, as a float is.
    longest = min(LONGEST, SHORTEST * 2.0 ** min(attempts - 1, 32))
    seconds = longest * (1 - SPREAD * chance)
    return seconds if asked is None else min(LONGEST, max(seconds, asked))
