"""JSON merge patches, and which JSON values are the same."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_chat_sessions.rules.merge import difference, merge, overlay, same

#: RFC 7396, appendix A: original, patch, result.
RFC_7396 = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]

leaves = st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3)
keys = st.sampled_from(["a", "b", "c", "d"])
#: Values that a merge patch can say: no null as a member of an object; in arrays anything goes.
values = st.recursive(
    leaves,
    lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(st.none() | inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(keys, values, max_size=4)
anything = st.recursive(
    st.none() | leaves, lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=3)
)


@pytest.mark.parametrize(("original", "patch", "result"), RFC_7396)
def test_the_cases_of_the_rfc(original, patch, result):
    assert merge(json.loads(original), json.loads(patch)) == json.loads(result)


def test_all_cases_of_the_rfc_are_here():
    assert len(RFC_7396) == 15


@given(objects, objects)
def test_the_difference_leads_from_the_one_to_the_other(before, after):
    assert same(merge(before, difference(before, after)), after)


@given(st.dictionaries(keys, anything, max_size=4))
def test_there_is_no_difference_between_a_value_and_itself_even_where_it_holds_null(value):
    assert difference(value, deepcopy(value)) == {}


@given(objects, objects)
def test_the_difference_of_two_that_are_not_the_same_is_not_empty(before, after):
    assert bool(difference(before, after)) is not same(before, after)


@given(objects, anything)
def test_merging_changes_neither_the_target_nor_the_patch(target, patch):
    copies = deepcopy((target, patch))
    merge(target, patch)
    difference(target, patch if isinstance(patch, dict) else {})
    overlay(target, patch if isinstance(patch, dict) else {})
    assert same(list(copies), [target, patch])


def test_null_that_is_asked_for_removes_the_key():
    assert difference({"a": 1, "b": 2}, {"a": None, "b": 2}) == {"a": None}


def test_only_what_differs_within_an_object_is_in_the_difference():
    assert difference({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3}}) == {"a": {"y": 3}}


@given(objects, objects)
def test_laying_over_keeps_what_is_below_and_shows_what_is_above(below, above):
    laid = overlay(below, above)
    assert laid.keys() == below.keys() | above.keys()
    assert all(same(laid[key], below[key]) for key in below.keys() - above.keys())
    assert all(same(laid[key], above[key]) for key in above if not isinstance(above[key], dict))


def test_laying_over_merges_objects_to_any_depth_and_null_covers():
    below = {"a": {"x": {"p": 1, "q": 2}}, "b": 1}
    assert overlay(below, {"a": {"x": {"q": 3}}, "b": None}) == {"a": {"x": {"p": 1, "q": 3}}, "b": None}


@given(anything)
def test_a_value_is_the_same_as_its_copy(value):
    assert same(value, deepcopy(value))


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, True), (0, False), ([1], [True]), ({"a": 0}, {"a": False}), (None, False), (0, None), ("1", 1), ({}, []),
     ([], None), ({"a": None}, {}), ([1, 2], [2, 1]), ("", None), ({"a": [{"b": 1}]}, {"a": [{"b": True}]})],
)  # fmt: skip
def test_values_that_python_or_a_glance_takes_for_equal_are_not_the_same(left, right):
    assert not same(left, right)
    assert not same(right, left)


@pytest.mark.parametrize(("left", "right"), [(1, 1.0), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (1e23, 10**23)])
def test_numbers_of_one_value_are_the_same_however_a_database_writes_them(left, right):
    """PostgreSQL writes 1e23 out in full, and Python reads that as an integer that no float equals."""
    assert same(left, right)
    assert same(right, left)


def test_an_integer_beyond_every_float_is_the_same_as_itself_alone():
    assert same(10**400, 10**400)
    assert not same(10**400, 1.5)
    assert not same(2**53, 2**53 + 1)
