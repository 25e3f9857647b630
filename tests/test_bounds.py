"""Bounds of a JSON value: depth, number of values, text, and keys that are strings."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from typing import Any

import pytest

from minimcp import ProtocolError
from minimcp.client.transports import stdio
from minimcp.client.transports.messages import parse
from minimcp.engines import bounds
from minimcp.engines.bounds import exceeded, has_more_values
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


HOSTILE = [
    '","',
    "[]",
    "{}",
    '""',
    '"a,b"',
    '"\\"[,"',
    '"\\\\"',
    '"\\\\\\",{"',
    "0",
    "[[]]",
    '{"":{}}',
    '{"a,[":"b]",":":",","":"\\\\"}',
    " [ ] ",
    "[1 , 2]",
    "null",
    '"\\u0022,"',
    '"é,"',
]


def _values(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return len(inner) + sum(map(_values, inner))


def _counted(raw):
    """The number of values as a bisection by `has_more_values` finds it."""
    low, high = -1, len(raw) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if has_more_values(raw, middle) else (low, middle)
    return high


@pytest.mark.parametrize("piece", [1, 2, 7, 256 * 1024])
def test_values_are_counted_on_the_bytes_as_they_are_after_decoding(monkeypatch, piece):
    monkeypatch.setattr(bounds, "_PIECE", piece)
    numbers = random.Random(7)
    for _ in range(500):
        text = numbers.choice(HOSTILE)
        for _ in range(numbers.randrange(4)):
            parts = [numbers.choice([text, numbers.choice(HOSTILE)]) for _ in range(numbers.randrange(1, 4))]
            if numbers.random() < 0.5:
                text = f"[{','.join(parts)}]"
            else:
                names = [json.dumps(numbers.choice([",", "[", '"', "\\", "a", ""]) + str(n)) for n in range(len(parts))]
                text = "{" + ",".join(f"{name}:{part}" for name, part in zip(names, parts)) + "}"
        assert _counted(text.encode()) == _values(json.loads(text)), text


@pytest.mark.parametrize("raw", [b"", b'"', b'",', b"[,,,", b'{"a', b"\xff,[", b'\\"\\'])
def test_what_is_no_json_is_counted_without_an_error(raw):
    assert has_more_values(raw, 100) is False
    assert has_more_values(raw * 1000, 10**6) is False


@pytest.mark.parametrize("item", ['{"":0}', "[[]]", "[0]", '","', '{"a":{"b":0}}', '"",[]', '[{"\\"":",[,["}]'])
def test_counting_costs_little_more_than_the_bytes(item):
    raw = b"[" + b",".join([item.encode()] * (4_000_000 // len(item))) + b"]"
    tracemalloc.start()
    began = time.thread_time()
    assert has_more_values(raw, 100_000)
    took = time.thread_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(raw) and took < 5


@pytest.mark.parametrize("over_http", [True, False])
def test_a_client_refuses_an_answer_of_too_many_values_before_it_is_built(over_http):
    item = b'{"":0}'
    body = b'{"jsonrpc":"2.0","id":1,"result":{"x":[' + b",".join([item] * 3_000_000) + b"]}}"
    tracemalloc.start()
    try:
        if over_http:
            with pytest.raises(ProtocolError, match="more than 5000000 elements"):
                parse(body)
        else:
            with pytest.raises(InvalidRequest, match="more than 5000000 elements"):
                wire.loads(body, stdio.MAX_DEPTH, stdio.MAX_ELEMENTS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(body)


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
        assert _counted(json.dumps(value, indent=indent, ensure_ascii=ascii).encode()) == _values(value)


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
