"""Any hint with any value: the clean error, or a value that converts back to what came."""

from __future__ import annotations

import datetime
import decimal
import os
import pathlib
import uuid
from typing import Annotated, Any, Dict, List, Literal, Optional, Set, Tuple, Union

import annotated_types
import pydantic
import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimcp.engines.errors import InvalidArguments
from minimcp.engines.schema import hints
from minimcp.engines.schema.validator import Validator
from minimcp.protocol import content
from tests.test_hints import Color, House, Level, Options, Pet, Plain, Shape, Stop, of

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "150"))
HINTS = st.recursive(
    st.sampled_from(
        [
            *(str, int, float, bool, None, Any, bytes, list, dict, tuple, set),
            *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
            *(uuid.UUID, decimal.Decimal, pathlib.Path, Color, Level, Shape, Stop, Plain, Options, Pet, House),
            *(Literal["a", 1, True, None], pydantic.PositiveInt, annotated_types.LowerCase[str]),
            Annotated[decimal.Decimal, annotated_types.Ge(0)],
            Annotated[str, pydantic.StringConstraints(max_length=3)],
            Annotated[int, pydantic.Field(le=5)],
            Annotated[str, annotated_types.Len(1, 3)],
        ]
    ),
    lambda inner: st.one_of(
        inner.map(lambda hint: Optional[hint]),
        inner.map(lambda hint: List[hint]),
        inner.map(lambda hint: Set[hint]),
        inner.map(lambda hint: Dict[str, hint]),
        inner.map(lambda hint: Tuple[hint, ...]),
        st.tuples(inner, inner).map(lambda pair: Union[pair]),
        st.tuples(inner, inner).map(lambda pair: Tuple[pair]),
    ),
    max_leaves=4,
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *(
                "a",
                "red",
                "ROUND",
                "aGk=",
                "2026-07-28",
                "2026-07-28T09:30:00Z",
                "09:30:00",
                "P1DT2H",
                "-PT1.5S",
                "12.50",
            ),
            *("1e999999999", " 1 ", "1_000", "١٢", "1" * 5000, "NaN", "\ud800", "a\0b", "P" + "9" * 5000 + "D"),
            *(
                "2026-02-30",
                "0000-01-01",
                "24:00:00",
                "2026-07-28T25:00:00Z",
                "9" * 32,
                "123e4567-e89b-12d3-a456-426614174000",
            ),
        ]
    ),
    st.dates().map(str),
    st.datetimes().map(datetime.datetime.isoformat),
    st.uuids().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "id", "name", "at", "next", "pets"]), inner, max_size=3),
    ),
    max_leaves=6,
)
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(HINTS, VALUES)
def test_a_value_is_refused_cleanly_or_converts_back(hint: Any, value: Any) -> None:
    signature = of(hint)
    try:
        Validator(signature.checked).check({"value": value})
        arrived = signature.bind({"value": value})["value"]
    except InvalidArguments as refusal:
        assert 0 < len(str(refusal)) < 1000
        return
    data = hints.to_json(arrived)
    Validator(signature.checked).check({"value": data})
    again = signature.bind({"value": data})["value"]
    assert again == arrived or again != again
    assert type(again) is type(arrived)


@QUICK
@given(VALUES)
def test_what_a_function_returns_is_content_or_data_and_never_a_crash(value: Any) -> None:
    for kind, is_item in (
        ("content", content.is_block),
        ("contents", content.is_contents),
        ("messages", content.is_message),
    ):
        for each in (value, {kind: value}, {kind: [value]}, {"type": value}, {"role": value, "content": value}):
            is_item(each)
            if content.is_result(each, kind, is_item):
                assert all(map(is_item, each[kind]))
            found = content.blocks(each)
            assert found is None or all(map(content.is_block, found))
