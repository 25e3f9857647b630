"""Bounds of a JSON value: depth, number of values, text, and keys that are strings."""

from __future__ import annotations

import pytest

from minimcp.engines.bounds import exceeded


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("value", [5, "x" * 1000, None, {}, [], nested(4), {"a": [1, {"b": 2}]}])
def test_a_value_within_its_bounds_breaks_none(value):
    assert exceeded(value, 4, 10) is None


def test_depth_counts_containers_within_each_other():
    assert exceeded(nested(5), 4, 100) == "depth"
    assert exceeded({"a": {"b": {"c": {"d": {}}}}}, 4, 100) == "depth"
    assert exceeded(nested(100_000), 100_000, 1_000_000) is None


def test_members_and_items_are_counted_together():
    assert exceeded({"a": [1, 2, 3]}, 4, 4) is None
    assert exceeded({"a": [1, 2, 3, 4]}, 4, 4) == "values"


def test_text_is_counted_in_keys_and_strings_where_it_is_bounded():
    assert exceeded({"ab": ["cd", "ef"]}, 4, 10, 6) is None
    assert exceeded({"ab": ["cd", "efg"]}, 4, 10, 6) == "text"
    assert exceeded({"abcdefg": 1}, 4, 10, 6) == "text"
    assert exceeded({1: 2}, 4, 10, 6) == "keys" and exceeded({1: 2}, 4, 10) is None


def test_a_value_that_contains_itself_is_too_deep():
    value = []
    value.append(value)
    assert exceeded(value, 50, 10**6) == "depth"
    wide = {}
    wide.update(a=wide, b=wide)
    assert exceeded(wide, 50, 1000) == "values"
