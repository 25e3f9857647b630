"""Signatures as schemas, validated arguments as the annotated types, and return hints as output schemas."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import sys
import typing
import uuid
from typing import Annotated, Any, Dict, List, Literal, NewType, Optional, Sequence, Set, Tuple, Union

import annotated_types
import pydantic
import pytest
from typing_extensions import NotRequired, Required, TypedDict

from minimcp.engines.schema import hints
from minimcp.engines.schema.validator import check_input_schema


class Context:
    pass


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Shape(enum.Enum):
    ROUND = (1, 0)
    FLAT = (0, 1)


@dataclasses.dataclass
class Stop:
    """A stop.

    Attributes:
        name: Its name.
    """

    name: str
    at: Optional[datetime.datetime] = None
    next: List[Stop] = dataclasses.field(default_factory=list)


class Options(TypedDict, total=False):
    id: Required[uuid.UUID]
    deep: bool
    count: int


class Plain(TypedDict):
    a: int
    b: NotRequired[datetime.date]


class Pet(pydantic.BaseModel):
    """A pet."""

    name: str = pydantic.Field(min_length=1)
    born: Optional[datetime.date] = None
    friends: List[Pet] = []


class House(pydantic.BaseModel):
    pets: List[Pet]


UserId = NewType("UserId", int)


def of(hint):
    """The signature of a function with one parameter of this hint."""

    def function(value):
        pass

    function.__annotations__ = {"value": hint}
    return hints.signature(function, Context)


def schema_of(hint):
    return of(hint).schema["properties"]["value"]


# Schemas


def test_a_signature_is_a_closed_object_with_defaults_and_descriptions():
    def forecast(city: str, days: Annotated[int, "how many", {"minimum": 1}] = 3, ctx: Context = None, more=None):
        """Forecast the weather.

        Args:
            city: The city.
            days: overridden by the hint
            ctx: never shown
        """

    made = hints.signature(forecast, Context)
    assert made.schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "The city."},
            "days": {"type": "integer", "description": "how many", "minimum": 1, "default": 3},
            "more": {"default": None},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert list(made.schema["properties"]) == ["city", "days", "more"]
    assert (made.context, made.text, made.returns) == ("ctx", "Forecast the weather.", None)


def test_a_function_without_parameters_has_the_schema_that_the_specification_recommends():
    assert hints.signature(lambda: 1, Context).schema == {"type": "object", "additionalProperties": False}


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (UserId, {"type": "integer"}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (datetime.date, {"type": "string", "format": "date"}),
        (datetime.time, {"type": "string", "format": "time"}),
        (datetime.timedelta, {"type": "string", "format": "duration"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (pathlib.Path, {"type": "string", "format": "path"}),
        (decimal.Decimal, {"anyOf": [{"type": "number"}, {"type": "string"}]}),
        (Color, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Shape, {"type": "string", "enum": ["ROUND", "FLAT"]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, "b", None], {"enum": [1, "b", None]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (list, {"type": "array"}),
        (List[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (Set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (Tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            Tuple[int, str],
            {"type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        ),
        (dict, {"type": "object"}),
        (Dict[str, Any], {"type": "object"}),
        (Dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    ],
)
def test_a_hint_has_its_schema(hint, schema):
    assert schema_of(hint) == schema


def test_named_classes_are_definitions_and_may_be_recursive():
    made = of(Stop).schema
    assert made["properties"]["value"] == {"$ref": "#/$defs/Stop"}
    assert made["$defs"]["Stop"] == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Its name."},
            "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}], "default": None},
            "next": {"type": "array", "items": {"$ref": "#/$defs/Stop"}},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    check_input_schema(made)


def test_two_classes_of_one_name_get_two_definitions():
    other = dataclasses.make_dataclass("Stop", [("z", int)])
    made = of(Union[Stop, other]).schema
    assert list(made["$defs"]) == ["Stop", "Stop2"]
    assert list(made["$defs"]["Stop2"]["properties"]) == ["z"]


def test_a_typed_dict_says_what_is_required():
    definitions = of(Union[Options, Plain]).schema["$defs"]
    assert definitions["Options"]["required"] == ["id"]
    assert definitions["Plain"]["required"] == ["a"]


def test_raw_keywords_are_kept_verbatim():
    hint = Annotated[str, "Where", {"x-mcp-header": "Region", "examples": ["eu"], "pattern": "^[a-z]+$"}]
    assert schema_of(hint) == {
        "type": "string",
        "description": "Where",
        "x-mcp-header": "Region",
        "examples": ["eu"],
        "pattern": "^[a-z]+$",
    }


@pytest.mark.parametrize(
    ("hint", "keywords"),
    [
        (Annotated[int, annotated_types.Ge(1), annotated_types.Lt(5)], {"minimum": 1, "exclusiveMaximum": 5}),
        (Annotated[int, annotated_types.Interval(gt=0, le=9)], {"exclusiveMinimum": 0, "maximum": 9}),
        (Annotated[int, annotated_types.MultipleOf(3)], {"multipleOf": 3}),
        (Annotated[str, annotated_types.Len(1, 5)], {"minLength": 1, "maxLength": 5}),
        (Annotated[List[int], annotated_types.MinLen(2)], {"minItems": 2}),
        (
            Annotated[int, pydantic.Field(ge=1, description="n", title="N")],
            {"minimum": 1, "description": "n", "title": "N"},
        ),
        (Annotated[str, pydantic.Field(max_length=3)], {"maxLength": 3}),
    ],
)
def test_constraints_of_other_libraries_are_understood(hint, keywords):
    made = schema_of(hint)
    assert {key: made[key] for key in made if key not in ("type", "items")} == keywords


def test_bounds_of_an_optional_go_to_the_branch_that_is_not_null():
    made = schema_of(Annotated[Optional[int], annotated_types.Ge(1)])
    assert made == {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}


def test_a_default_of_none_permits_none():
    def function(a: int = None):
        pass

    made = hints.signature(function, Context).schema["properties"]["a"]
    assert made == {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}


def test_defaults_appear_when_json_can_say_them():
    def function(
        a: Color = Color.RED, b: Any = dataclasses, c: datetime.date = datetime.date(2026, 7, 28), d=float("nan")
    ):
        pass

    made = hints.signature(function, Context).schema["properties"]
    assert made["a"]["default"] == "red"
    assert "default" not in made["b"]
    assert made["c"]["default"] == "2026-07-28"
    assert "default" not in made["d"]


def test_pydantic_models_bring_their_own_schema():
    made = of(House).schema
    check_input_schema(made)
    assert made["properties"]["value"] == {"$ref": "#/$defs/House"}
    assert made["$defs"]["Pet"]["properties"]["name"]["minLength"] == 1
    assert made["$defs"]["Pet"]["properties"]["friends"]["items"] == {"$ref": "#/$defs/Pet"}
    check_input_schema(of(Pet).schema)
    assert of(Pet).schema["$defs"]["Pet"]["type"] == "object"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="X | Y is evaluated from Python 3.10 on")
def test_unions_with_a_bar_are_understood():
    def function(a: int | None, b: list[str | Stop] = ()):
        pass

    made = hints.signature(function, Context)
    assert made.schema["properties"]["a"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert made.bind({"a": 1, "b": ["x", {"name": "y"}]})["b"] == ["x", Stop("y")]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with Python 3.12")
def test_type_aliases_are_followed():
    scope: dict = {}
    exec("type Names = list[str]", scope)
    assert schema_of(scope["Names"]) == {"type": "array", "items": {"type": "string"}}


# The Context


@pytest.mark.parametrize("hint", [Context, "Context", Optional[Context], Annotated[Context, "hidden"]])
def test_the_context_is_hidden_however_it_is_annotated(hint):
    def function(a, ctx):
        pass

    function.__annotations__ = {"ctx": hint}
    made = hints.signature(function, Context)
    assert made.context == "ctx"
    assert list(made.schema["properties"]) == ["a"]


def test_a_context_that_is_imported_for_type_checkers_only_is_found():
    scope: dict = {}
    exec("def function(a: int, ctx: 'Context'): pass", scope)
    assert hints.signature(scope["function"], Context).context == "ctx"


def test_without_a_context_type_nothing_is_hidden():
    def function(a: int):
        pass

    assert hints.signature(function).context is None


def test_two_parameters_for_the_context_are_refused():
    def function(a: Context, b: Context):
        pass

    with pytest.raises(TypeError, match="two parameters for the Context"):
        hints.signature(function, Context)


# Refusals


async def coroutine():
    pass


async def stream():
    yield 1


def generator():
    yield 1


class Asynchronous:
    async def __call__(self):
        pass


@pytest.mark.parametrize("function", [coroutine, stream, Asynchronous(), functools.partial(coroutine)])
def test_async_def_is_refused_with_what_to_write(function):
    with pytest.raises(TypeError, match="is async def: write def"):
        hints.signature(function, Context)


def test_generators_classes_and_unbound_methods_are_refused():
    with pytest.raises(TypeError, match="return a list"):
        hints.signature(generator, Context)
    with pytest.raises(TypeError, match="is not a function"):
        hints.signature(Color, Context)
    with pytest.raises(TypeError, match="register that of an instance"):
        hints.signature(Method.run, Context)


class Method:
    def run(self, a: int):
        pass


def test_bound_methods_partials_and_callable_objects_are_accepted():
    class Caller:
        def __call__(self, b: str):
            pass

    def two(a: int, b: str):
        pass

    assert list(hints.signature(Method().run, Context).schema["properties"]) == ["a"]
    assert list(hints.signature(Caller(), Context).schema["properties"]) == ["b"]
    assert hints.signature(functools.partial(two, b="x"), Context).schema["required"] == ["a"]


def test_parameters_that_cannot_be_named_are_refused():
    scope: dict = {}
    exec("def positional(a, /): pass\ndef many(*words: str): pass", scope)
    with pytest.raises(TypeError, match="arguments arrive by name"):
        hints.signature(scope["positional"], Context)
    with pytest.raises(TypeError, match=r"write an ordinary parameter, like words: list\[str\]"):
        hints.signature(scope["many"], Context)


@pytest.mark.parametrize(
    "hint",
    [typing.Callable[[], int], Context, typing.TypeVar("T"), complex, range],
)
def test_a_hint_without_json_form_is_refused_with_what_to_write(hint):
    def function(value):
        pass

    function.__annotations__ = {"value": hint}
    with pytest.raises(TypeError, match="parameter value: the hint .* has no JSON form: write a basic type"):
        hints.signature(function)


@pytest.mark.parametrize("hint", [Dict[int, str], Literal[b"x"], Optional[List[Context]]])
def test_a_part_of_a_hint_without_json_form_is_refused(hint):
    with pytest.raises(TypeError, match="parameter value: "):
        of(hint)


def test_a_member_without_json_form_is_named():
    bad = dataclasses.make_dataclass("Bad", [("lock", Context)])
    with pytest.raises(TypeError, match="parameter value: Bad.lock: the hint Context has no JSON form"):
        of(bad)


def test_an_unknown_name_in_a_hint_is_refused():
    def function(a: Missing):  # noqa: F821
        pass

    with pytest.raises(TypeError, match="cannot be resolved: .*Missing.*; define or import"):
        hints.signature(function, Context)
