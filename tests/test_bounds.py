"""Bounds of a JSON value: depth, number of values, text, and keys that are strings."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from minimcp.engines.bounds import exceeded, written
from minimcp.protocol import wire
from minimcp.protocol.errors import InvalidRequest


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


def values(value: Any) -> int:
    """How many members and items all containers of a value have."""
    if not isinstance(value, (dict, list)):
        return 0
    return len(value) + sum(map(values, value.values() if isinstance(value, dict) else value))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        [[]],
        [{}, [], {}],
        [""],
        {"": ""},
        {"a,[{": "b,]}", 'c"': '\\"', "\\": "\\\\", '\\\\"': [',"', "[]", "{}"]},
        [1, [2, [3, {"a": [None, True, -1.5e3]}]]],
        "a,b[{",
        7,
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_what_a_text_holds_is_counted_without_decoding_it(value: Any, indent: int | None) -> None:
    for ascii in (True, False):
        assert written(json.dumps(value, indent=indent, ensure_ascii=ascii).encode(), 1000) == values(value)


@pytest.mark.parametrize("unit", [b'{"":0},', b'"",', b'"aa",', b"0,", b"[],", b"{},", b'"\\"",', b"[[[]]],", b"1.5,"])
def test_a_body_of_small_elements_costs_few_times_its_size(unit: bytes) -> None:
    raw = b"[" + unit * (4 * 1024 * 1024 // len(unit)) + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="more than 250000 elements"):
            wire.loads(raw)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(raw)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["," * 1_000_000, "[{," * 300_000, '\\",[' * 100_000])
def test_commas_and_brackets_of_a_text_are_no_elements(text: str) -> None:
    assert wire.loads(json.dumps({"a": text}).encode()) == {"a": text}
