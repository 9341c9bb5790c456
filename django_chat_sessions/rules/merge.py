"""JSON merge patch (RFC 7396): applying one, and finding the one that leads from here to there."""

from __future__ import annotations

from typing import Any


def merge(target: Any, patch: Any) -> Any:
    """Apply ``patch`` to ``target`` and return the result; neither is changed (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below``: objects are merged, every other value of ``above`` wins."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        result[key] = overlay(under, value) if both and under is not None else value
    return result


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the merge patch that turns ``before`` into ``after``.

    A value of ``None`` in ``after`` can't be said in a merge patch, which removes such a key (RFC 7396,
    section 1).
    """
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    patch |= {key: None for key, old in before.items() if old is not None and after.get(key) is None}
    for key, value in after.items():
        if value is None or (key in before and same(before[key], value)):
            continue
        old = before.get(key)
        patch[key] = difference(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return patch


def same(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are the same; unlike ``==``, ``1`` is not ``true``."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if {type(left), type(right)} == {int, float}:
        return _same_number(left, right)
    return bool(left == right)


def _same_number(left: float, right: float) -> bool:
    """Compare as doubles: PostgreSQL writes 1e23 out in full, and Python reads that as an integer unequal to it."""
    try:
        return float(left) == float(right)
    except OverflowError:
        return False
