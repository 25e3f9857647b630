"""Validated arguments as the annotated types, and return values as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import pathlib
import uuid
from typing import Annotated, Any, Dict, List, Literal, NamedTuple, Optional, Set, Tuple, Union

import pytest

from minimcp.engines.errors import InvalidArguments
from minimcp.engines.schema import hints, text
from minimcp.engines.schema.validator import Validator, check_input_schema, check_schema
from minimcp.protocol import content
from tests.test_hints import Color, Context, House, Level, Options, Pet, Plain, Shape, Stop, UserId, of


@dataclasses.dataclass
class Span:
    low: int
    high: int

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError("low is above high")


class Point(NamedTuple):
    x: int
    y: float = 0.5


def arrives(hint, value):
    """What a function gets for a JSON value that was validated."""
    signature = of(hint)
    check_input_schema(signature.schema)
    Validator(signature.schema).check({"value": value})
    return signature.bind({"value": value})["value"]


ID = "123e4567-e89b-12d3-a456-426614174000"
UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("hint", "value", "arrived"),
    [
        (int, 5.0, 5),
        (float, 5, 5.0),
        (Any, 5, 5),
        (UserId, 5.0, 5),
        (datetime.datetime, "2026-07-28T09:30:00Z", datetime.datetime(2026, 7, 28, 9, 30, tzinfo=UTC)),
        (datetime.datetime, "2026-07-28T09:30:00.25", datetime.datetime(2026, 7, 28, 9, 30, 0, 250_000)),
        (datetime.date, "2026-07-28", datetime.date(2026, 7, 28)),
        (datetime.time, "09:30:01", datetime.time(9, 30, 1)),
        (datetime.timedelta, "P1DT2H30M1.5S", datetime.timedelta(days=1, hours=2, minutes=30, seconds=1.5)),
        (datetime.timedelta, "-PT5S", datetime.timedelta(seconds=-5)),
        (uuid.UUID, ID, uuid.UUID(ID)),
        (decimal.Decimal, "12.50", decimal.Decimal("12.50")),
        (decimal.Decimal, "-1.5E+3", decimal.Decimal("-1500")),
        (decimal.Decimal, ".5", decimal.Decimal("0.5")),
        (decimal.Decimal, 1e300, decimal.Decimal("1e300")),
        (decimal.Decimal, 12.1, decimal.Decimal("12.1")),
        (decimal.Decimal, 10**30, decimal.Decimal(10**30)),
        (pathlib.Path, "/tmp/x", pathlib.Path("/tmp/x")),
        (bytes, "aGk=", b"hi"),
        (Color, "blue", Color.BLUE),
        (Level, 2, Level.HIGH),
        (Level, 2.0, Level.HIGH),
        (Shape, "FLAT", Shape.FLAT),
        (Literal[1, True, "a"], True, True),
        (Literal[Color.RED], "red", Color.RED),
        (Optional[datetime.date], None, None),
        (Optional[datetime.date], "2026-07-28", datetime.date(2026, 7, 28)),
        (Union[int, str], "5", "5"),
        (Union[int, float], 5.0, 5.0),
        (Union[int, float], 5, 5),
        (Union[datetime.date, str], "2026-07-28", datetime.date(2026, 7, 28)),
        (Union[datetime.date, str], "soon", "soon"),
        (Union[Span, Stop], {"name": "x"}, Stop("x")),
        (Union[List[int], List[Color]], ["red"], [Color.RED]),
        (Union[Any, int], "x", "x"),
        (List[int], [1, 2.0], [1, 2]),
        (Set[str], ["a", "b"], {"a", "b"}),
        (frozenset, [1], frozenset([1])),
        (Tuple[int, Color], [1, "red"], (1, Color.RED)),
        (Tuple[datetime.date, ...], ["2026-07-28"], (datetime.date(2026, 7, 28),)),
        (tuple, [1, "x"], (1, "x")),
        (Dict[str, Color], {"a": "red"}, {"a": Color.RED}),
        (Point, {"x": 1.0}, Point(1, 0.5)),
        (Plain, {"a": 1.0, "b": "2026-07-28"}, {"a": 1, "b": datetime.date(2026, 7, 28)}),
        (Options, {"id": ID}, {"id": uuid.UUID(ID)}),
        (Stop, {"name": "a", "next": [{"name": "b"}]}, Stop("a", None, [Stop("b")])),
        (
            House,
            {"pets": [{"name": "Rex", "born": "2026-07-28"}]},
            House(pets=[Pet(name="Rex", born=datetime.date(2026, 7, 28))]),
        ),
    ],
)
def test_an_argument_arrives_as_its_type(hint, value, arrived):
    found = arrives(hint, value)
    assert found == arrived
    assert type(found) is type(arrived)


@pytest.mark.parametrize(
    ("hint", "value", "sentence"),
    [
        (datetime.date, "2026-13-01", '"value" is not a valid date: write it like 2026-07-28'),
        (datetime.date, "20260728", '"value" is not a valid date: write it like 2026-07-28'),
        (datetime.datetime, "yesterday", '"value" is not a valid date and time: write it like 2026-07-28T09:30:00Z'),
        (datetime.datetime, "", '"value" is not a valid date and time: write it like 2026-07-28T09:30:00Z'),
        (datetime.time, "25:00:00", '"value" is not a valid time: write it like 09:30:00'),
        (datetime.timedelta, "P", '"value" is not a valid duration: write it like P1DT2H30M'),
        (datetime.timedelta, "P99999999999D", '"value" is not a valid duration: write it like P1DT2H30M'),
        (uuid.UUID, "x", f'"value" is not a valid UUID: write it like {ID}'),
        (decimal.Decimal, "NaN", '"value" is not a valid decimal number: write it like 12.50'),
        (decimal.Decimal, "x" * 9000, '"value" is not a valid decimal number: write it like 12.50'),
        *[
            (decimal.Decimal, text, '"value" is not a valid decimal number: write it like 12.50')
            for text in (
                "1e999999999",
                "1e1001",
                "1e-1001",
                " 1 ",
                "1\n",
                "1_000",
                "١٢",
                "",
                ".",
                "+",
                "1e",
                "sNaN",
                "1" * 1001,
            )
        ],
        *[
            (uuid.UUID, text, f'"value" is not a valid UUID: write it like {ID}')
            for text in ("{" + ID + "}", "urn:uuid:" + ID, ID.replace("1", "١"), ID.replace("-", "_"), ID[:-1] + "\n")
        ],
        (pathlib.Path, "a\0b", '"value" is not a valid path: it contains a NUL character'),
        (bytes, "*", '"value" is not a valid base64 text'),
        (bytes, "é", '"value" is not a valid base64 text'),
        (float, 10**400, '"value" is too large for a number'),
        (List[datetime.date], ["2026-07-28", "x"], '"value[1]" is not a valid date: write it like 2026-07-28'),
        (Stop, {"name": "a", "next": [{"name": "b", "at": "x"}]}, None),
        (Dict[str, uuid.UUID], {"k": "x"}, f'"value.k" is not a valid UUID: write it like {ID}'),
        (Span, {"low": 2, "high": 1}, '"value" is refused (low is above high)'),
        (House, {"pets": [{"name": "a", "born": "x"}]}, None),
        (Union[datetime.date, uuid.UUID], "x", None),
        (Set[Any], [[1]], '"value" cannot be turned into the type that is expected there'),
    ],
)
def test_an_argument_that_is_not_of_its_type_is_refused_by_name(hint, value, sentence):
    with pytest.raises(InvalidArguments) as caught:
        arrives(hint, value)
    text = str(caught.value)
    assert text.startswith('"value')
    assert sentence in (None, text)
    assert len(text) < 1000
    assert not any(word in text for word in ("pydantic", "Traceback", ".py", "http"))


def test_arguments_that_need_nothing_pass_through_untouched():
    def function(a: str, b: Any, c: List[str] = ()):
        pass

    arguments = {"a": "x", "b": [1]}
    assert hints.signature(function, Context).bind(arguments) is arguments
    numbers = {"value": 5}
    assert of(int).bind(numbers) is numbers


def test_binding_leaves_the_message_as_it_came():
    arguments = {"value": 5.0}
    assert of(int).bind(arguments) == {"value": 5}
    assert type(arguments["value"]) is float


def test_keyword_catch_alls_open_the_schema_and_receive_converted_values():
    def anything(a: int, **rest):
        pass

    def dates(a: int, ctx: Context, **days: datetime.date):
        pass

    assert "additionalProperties" not in hints.signature(anything, Context).schema
    made = hints.signature(dates, Context)
    assert made.schema["additionalProperties"] == {"type": "string", "format": "date"}
    assert made.bind({"a": 1, "b": "2026-07-28"}) == {"a": 1, "b": datetime.date(2026, 7, 28)}
    with pytest.raises(InvalidArguments, match='"ctx" is not a known argument'):
        made.bind({"a": 1, "ctx": "2026-07-28"})


def test_a_raw_schema_is_kept_and_arguments_arrive_as_they_are():
    def function(when: datetime.date, other: complex, ctx: Context, more=1):
        pass

    schema = {"type": "object", "x-mine": 1}
    made = hints.raw_signature(function, Context, schema)
    assert made.schema is schema
    assert made.context == "ctx"
    assert made.bind({"when": 5, "other": 6}) == {"when": 5, "other": 6}
    with pytest.raises(InvalidArguments, match='"other" missing'):
        made.bind({"when": 5})
    for extra in ("new", "ctx"):
        with pytest.raises(InvalidArguments, match=f'"{extra}" is not a known argument'):
            made.bind({"when": 5, "other": 6, extra: 7})


def test_strings_become_what_the_schema_asks_for():
    def function(
        n: int, on: bool, name: str, ids: List[int], level: Level, maybe: Optional[int], any, mixed: Union[int, str]
    ):
        pass

    made = hints.signature(function, Context)
    given = {
        "n": "5",
        "on": "true",
        "name": "5",
        "ids": "[1]",
        "level": "2",
        "maybe": "null",
        "any": "1",
        "mixed": "1",
        "x": "1",
    }
    assert text.from_texts(made.schema, given) == {
        "n": 5,
        "on": True,
        "name": "5",
        "ids": [1],
        "level": 2,
        "maybe": None,
        "any": "1",
        "mixed": "1",
        "x": "1",
    }
    deep = text.from_texts(made.schema, {"n": "five", "ids": "[" * 100_000})
    assert deep == {"n": "five", "ids": "[" * 100_000}


@pytest.mark.parametrize(
    ("hint", "typed", "found"),
    [
        # As JSON, and always read so
        (int, "5", 5),
        (int, "5.0", 5),
        (int, "1e3", 1000),
        (float, "2.5e1", 25.0),
        (bool, "false", False),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Optional[int], "null", None),
        (Literal[1, 2], "2", 2),
        (Literal[1, "a"], "1", "1"),
        (Union[int, str], "1", "1"),
        (Optional[Any], "1", "1"),
        (decimal.Decimal, "1.50", "1.50"),
        # As people write it
        (bool, "True", True),
        (int, "+5", 5),
        (list[str], "one", ["one"]),
        (list[int], "1", [1]),
        # What does not fit stays text, for the validation to refuse
        (int, "x", "x"),
        (int, "5.5", "5.5"),
        (float, "NaN", "NaN"),
        (bool, "1", "1"),
        (list[int], "x", "x"),
        (dict[str, int], "[1]", "[1]"),
        (int, "", ""),
    ],
)
def test_a_text_is_converted_by_its_type(hint, typed, found):
    def function(x):
        pass

    function.__annotations__ = {"x": hint}
    got = text.from_texts(hints.signature(function).schema, {"x": typed})["x"]
    assert got == found and type(got) is type(found)


# Return hints and values


@pytest.mark.parametrize(
    "hint",
    [
        None,
        type(None),
        str,
        bytes,
        Any,
        object,
        Optional[str],
        Union[str, dict],
        dict,
        Dict[str, Any],
        list,
        List[Any],
        Annotated[str, "x"],
        Tuple[bytes, str],
        List[Tuple[bytes, str]],
    ],
)
def test_text_blocks_and_unknown_results_have_no_output_schema(hint):
    assert hints.output_schema(hint, content.is_content_hint) is None


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (int, {"type": "integer"}),
        (Dict[str, str], {"type": "object", "additionalProperties": {"type": "string"}}),
        (bool, {"type": "boolean"}),
        (Dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (List[int], {"type": "array", "items": {"type": "integer"}}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (
            Point,
            {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "number"}},
                "required": ["x", "y"],
            },
        ),
    ],
)
def test_data_has_an_output_schema(hint, schema):
    assert hints.output_schema(hint, content.is_content_hint) == schema


@pytest.mark.parametrize("hint", [Stop, Span, Options, Plain, Pet, House, List[Stop]])
def test_output_schemas_of_classes_are_valid_and_have_their_type_at_the_root(hint):
    schema = hints.output_schema(hint, content.is_content_hint)
    check_schema(schema, "outputSchema")
    assert schema["type"] in ("object", "array")
    assert "default" not in json.dumps(schema) or hint in (Pet, House)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Stop, Stop("a", datetime.datetime(2026, 7, 28, tzinfo=UTC), [Stop("b")])),
        (Point, Point(1)),
        (House, House(pets=[Pet(name="Rex")])),
        (List[Color], [Color.RED]),
        (Dict[str, decimal.Decimal], {"a": decimal.Decimal("1.50")}),
        (Set[int], {3, 1}),
        (Tuple[int, str], (1, "a")),
        (Shape, Shape.ROUND),
    ],
)
def test_what_a_function_returns_fits_its_output_schema_and_comes_back_as_it_was(hint, value):
    data = hints.to_json(value)
    json.dumps(data, allow_nan=False)
    Validator(hints.output_schema(hint, content.is_content_hint)).check(data)
    assert arrives(hint, data) == value


def test_an_unsupported_return_hint_is_refused():
    with pytest.raises(TypeError, match="return hint: the hint Context has no JSON form"):
        hints.output_schema(Context, content.is_content_hint)


def test_the_return_hint_of_a_function_is_resolved():
    def function(a) -> Stop:
        pass

    assert hints.signature(function, Context).returns is Stop
    assert hints.signature(lambda: 1, Context).returns is None


def test_values_become_json():
    class Name(str):
        pass

    value = {
        "a": [Name("x"), 1.5, None, True],
        Color.RED: {3, 1, 2},
        5: frozenset(["b", "a"]),
        "b": (datetime.date(2026, 7, 28), datetime.time(9), datetime.timedelta(days=-1, seconds=-1.5)),
        "c": [b"hi", bytearray(b"hi"), memoryview(b"hi"), uuid.UUID(ID), pathlib.Path("/x"), decimal.Decimal("1.0")],
        "d": [Level.LOW, datetime.timedelta(0), datetime.timedelta(hours=1, minutes=5)],
    }
    assert hints.to_json(value) == {
        "a": ["x", 1.5, None, True],
        "red": [1, 2, 3],
        "5": ["a", "b"],
        "b": ["2026-07-28", "09:00:00", "-P1DT1.5S"],
        "c": ["aGk=", "aGk=", "aGk=", ID, "/x", "1.0"],
        "d": [1, "P0D", "PT1H5M"],
    }
    assert type(hints.to_json(Name("x"))) is str


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": -float("inf")}], decimal.Decimal("NaN")])
def test_numbers_that_json_lacks_are_refused(value):
    with pytest.raises(ValueError, match="is not a JSON number"):
        hints.to_json(value)


def test_values_that_contain_themselves_are_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        hints.to_json(loop)


@pytest.mark.parametrize("value", [object(), [lambda: 1], {"a": 1j}, {(1, 2): 3}, {None: 1}, iter([1]), Context, Stop])
def test_objects_without_json_form_are_refused(value):
    with pytest.raises(TypeError, match="has no JSON form|cannot be the name"):
        hints.to_json(value)
