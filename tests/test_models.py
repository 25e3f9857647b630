"""Hints of pydantic, and constraints that JSON Schema cannot say: they run, or registration refuses them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import subprocess
import sys
from typing import Annotated, Any, Dict, Generic, List, Literal, NamedTuple, Optional, TypeVar, Union

import annotated_types
import pydantic
import pytest
from pydantic import AfterValidator, BeforeValidator, Field, Strict, StringConstraints
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from minimcp import Client, Server
from minimcp.engines.errors import InvalidArguments
from minimcp.engines.schema import hints
from minimcp.engines.schema.validator import Validator, check_input_schema
from minimcp.protocol.forms import form
from tests.test_binding import arrives
from tests.test_hints import Context, of, schema_of

T = TypeVar("T")


def inside(value):
    if ".." in value:
        raise ValueError("leads out")
    return value


def even(value):
    return value % 2 == 0


def above(value, info):
    if value < info.data["low"]:
        raise ValueError("below low")
    return value


def given(function, **arguments):
    """What a function gets for arguments that come in."""
    made = hints.signature(function, Context)
    check_input_schema(made.schema)
    Validator(made.checked).check(arguments)
    return function(**made.bind(arguments))


def refused(function, **arguments):
    with pytest.raises(InvalidArguments) as caught:
        given(function, **arguments)
    return str(caught.value)


# Field


def test_an_optional_with_bounds_is_one_union_and_names_its_bound():
    def function(n: Annotated[Optional[int], Field(ge=1, le=100, description="how many")] = None):
        return n

    assert hints.signature(function).schema["properties"]["n"] == {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 100}, {"type": "null"}],
        "description": "how many",
        "default": None,
    }
    assert refused(function, n=500) == '"n" must be at most 100, not 500'
    assert [given(function), given(function, n=None), given(function, n=7)] == [None, None, 7]


def test_the_same_without_pydantic():
    def function(n: Annotated[Optional[int], annotated_types.Interval(ge=1, le=100), "how many"] = None):
        return n

    assert hints.signature(function).schema["properties"]["n"] == {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 100}, {"type": "null"}],
        "description": "how many",
        "default": None,
    }
    assert refused(function, n=500) == '"n" must be at most 100, not 500'


def test_a_field_as_default_is_a_description_and_no_value():
    def function(
        q: str = Field(description="what"),
        limit: int = Field(10, ge=1, le=50, description="how many"),
        more: Annotated[int, Field(default=3)] = 4,
        made: list = Field(default_factory=list),  # noqa: B008
        none: Optional[str] = Field(None),
    ):
        return q, limit, more, made, none

    schema = hints.signature(function).schema
    assert schema["properties"] == {
        "q": {"type": "string", "description": "what"},
        "limit": {"type": "integer", "default": 10, "minimum": 1, "maximum": 50, "description": "how many"},
        "more": {"type": "integer", "default": 4},
        "made": {"type": "array", "items": {}},
        "none": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    }
    assert schema["required"] == ["q"]
    assert given(function, q="x") == ("x", 10, 4, [], None)
    assert refused(function, q="x", limit=9999) == '"limit" must be at most 50, not 9999'
    assert refused(function) == '"q" missing'


def test_a_default_within_annotated_counts():
    def function(n: Annotated[int, Field(default=3)]):
        return n

    assert given(function) == 3 and "required" not in hints.signature(function).schema


def test_an_alias_is_the_name_of_the_argument():
    def function(
        from_: Annotated[str, Field(alias="from")],
        either: int = Field(0, validation_alias=pydantic.AliasChoices("one", "other")),
        _private: Annotated[int, Field(ge=0)] = 1,
        json: Annotated[int, Field(ge=0)] = 2,
    ):
        return from_, either, _private, json

    schema = hints.signature(function).schema
    assert list(schema["properties"]) == ["from", "one", "_private", "json"] and schema["required"] == ["from"]
    assert given(function, **{"from": "a"}) == ("a", 0, 1, 2)
    assert given(function, **{"from": "a", "other": 5, "_private": 6, "json": 7}) == ("a", 5, 6, 7)
    assert "from_" in refused(function, from_="a")
    assert "_private" in refused(function, **{"from": "a", "_private": -1})


def test_aliases_that_cannot_be_told_apart_are_refused():
    def twice(a: Annotated[int, Field(alias="x")], b: Annotated[int, Field(alias="x")]):
        pass

    def taken(a: Annotated[int, Field(alias="b")], b: int):
        pass

    def path(a: int = Field(validation_alias=pydantic.AliasPath("a", 0))):
        pass

    for function in (twice, taken, path):
        with pytest.raises(TypeError, match="alias"):
            hints.signature(function)


# Validators


def test_validators_run():
    def after(path: Annotated[str, AfterValidator(inside)]):
        return path

    def before(tags: Annotated[List[str], BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)]):
        return tags

    def within(paths: Optional[List[Annotated[str, AfterValidator(inside)]]] = None):
        return paths

    assert given(after, path="a") == "a" and refused(after, path="../a") == '"path" is refused (leads out)'
    assert given(before, tags="a,b") == ["a", "b"] == given(before, tags=["a", "b"])
    assert '"tags"' in refused(before, tags=5)
    assert given(within, paths=["a"]) == ["a"] and '"paths[0]"' in refused(within, paths=["../a"])
    assert given(within) is None


def test_a_validator_sees_the_arguments_before_its_own():
    def function(low: int, high: Annotated[int, AfterValidator(above)]):
        return low, high

    assert given(function, low=1, high=2) == (1, 2)
    assert refused(function, low=2, high=1) == '"high" is refused (below low)'


def test_a_validator_that_crashes_is_a_refusal():
    def function(a: Annotated[str, AfterValidator(lambda value: {}[value])]):
        return a

    assert refused(function, a="x").startswith("The arguments cannot be turned")


@pytest.mark.parametrize(
    "hint, good, arrived, bad",
    [
        (Annotated[str, StringConstraints(strip_whitespace=True, max_length=3)], "  abc ", "abc", "abcd"),
        (Annotated[str, StringConstraints(pattern="^a+$")], "aa", "aa", "b"),
        (Annotated[int, Field(strict=True)], 5, 5, 5.0),
        (Annotated[datetime.date, Strict()], "2026-07-28", datetime.date(2026, 7, 28), 5),
        (pydantic.PositiveInt, 1, 1, 0),
        (pydantic.conint(gt=3, strict=True), 4, 4, 3),
        (List[Annotated[int, Field(ge=1)]], [1], [1], [0]),
        (Dict[str, pydantic.PositiveInt], {"a": 1}, {"a": 1}, {"a": 0}),
        (Annotated[List[int], Field(min_length=1)], [1], [1], []),
        (Annotated[decimal.Decimal, Field(ge=0)], "1.5", decimal.Decimal("1.5"), "-1"),
        (pydantic.Json[List[int]], "[1]", [1], "x"),
        (pydantic.UUID4, "9f3f1c0e-3b1a-4c2b-8f6e-1d2c3b4a5f60", None, "123e4567-e89b-12d3-a456-426614174000"),
        # of annotated_types, without pydantic
        (Annotated[int, annotated_types.Predicate(even)], 2, 2, 3),
        (annotated_types.LowerCase[str], "a", "a", "A"),
        (Annotated[int, annotated_types.Predicate(annotated_types.Not(even))], 3, 3, 2),
        (Annotated[decimal.Decimal, annotated_types.Ge(0)], "1.5", decimal.Decimal("1.5"), "-1"),
        (Annotated[decimal.Decimal, annotated_types.MultipleOf(decimal.Decimal("0.5"))], "1.5", None, "1.2"),
        (
            Annotated[datetime.date, annotated_types.Ge(datetime.date(2026, 1, 1))],
            "2026-07-28",
            datetime.date(2026, 7, 28),
            "2025-07-28",
        ),
        (Annotated[Optional[datetime.timedelta], annotated_types.Lt(datetime.timedelta(1))], None, None, "P2D"),
        (Annotated[bytes, annotated_types.MaxLen(2)], "AAA=", b"\0\0", "AAAA"),
        (Annotated[List[Annotated[str, annotated_types.Len(1, 2)]], annotated_types.MinLen(1)], ["a"], ["a"], ["abc"]),
        (Annotated[Union[int, float], annotated_types.Ge(1)], 1.5, 1.5, 0.5),
    ],
)
def test_a_constraint_holds(hint, good, arrived, bad):
    found = checked(hint, good)
    assert arrived is None or found == arrived
    with pytest.raises(InvalidArguments):
        checked(hint, bad)


def checked(hint, value):
    signature = of(hint)
    check_input_schema(signature.checked)
    Validator(signature.checked).check({"value": value})
    return signature.bind({"value": value})["value"]


@pytest.mark.parametrize(
    "hint",
    [
        Annotated[str, annotated_types.Ge(1)],
        Annotated[int, annotated_types.MinLen(1)],
        Annotated[datetime.date, annotated_types.MaxLen(1)],
        Annotated[datetime.date, annotated_types.Ge(1)],
        Annotated[Union[int, str], annotated_types.Ge(1)],
        Annotated[datetime.datetime, annotated_types.Timezone(None)],
        Annotated[str, str.islower],
        Annotated[str, lambda value: value],
        Annotated[int, range(3)],
        Annotated[List[int], slice(1, 2)],
        Annotated[List[Annotated[int, {"minimum": 1}]], Field(min_length=1)],
        List[Annotated[pydantic.PositiveInt, even]],
    ],
)
def test_what_looks_like_a_check_and_cannot_be_one_is_refused(hint):
    with pytest.raises(TypeError, match="^.*function: "):
        of(hint)


def test_markers_of_others_say_nothing():
    class Marker:
        pass

    assert schema_of(Annotated[int, Marker(), Marker, annotated_types.Unit("m")]) == {"type": "integer"}


def test_checks_that_a_schema_of_the_authors_own_would_silence_are_refused():
    def default(a: int = Field(3)):
        pass

    def validated(a: Annotated[str, AfterValidator(inside)]):
        pass

    def limited(a: Annotated[int, annotated_types.Ge(1)]):
        pass

    for function in (default, validated, limited):
        with pytest.raises(TypeError, match="parameter a: with a schema of its own"):
            hints.raw_signature(function, Context, {"type": "object"})


def test_a_form_runs_checks_in_its_hints_and_refuses_those_it_would_lose():
    _, bind = form({"a": Annotated[str, AfterValidator(inside)]})
    assert bind({"a": "x"}) == {"a": "x"}
    with pytest.raises(InvalidArguments):
        bind({"a": "../x"})
    for fields in (Plain, Bounded, {"a": (int, Field(3, ge=1))}):
        with pytest.raises(TypeError):
            form(fields)


# Classes


@pydantic_dataclass
class Bounded:
    n: int = Field(ge=1)
    name: str = "x"


@dataclasses.dataclass
class Plain:
    n: int = Field(ge=1)


@dataclasses.dataclass
class Page(Generic[T]):
    items: List[T]
    next: Optional[Page[T]] = None


@dataclasses.dataclass
class Numbered(Page[int], Generic[T]):
    label: T = None  # type: ignore[assignment]


class Box(TypedDict, Generic[T]):
    inner: T


class Strictly(TypedDict):
    __pydantic_config__ = pydantic.ConfigDict(strict=True)  # type: ignore[misc]
    n: int


class Pair(NamedTuple):
    path: Annotated[str, AfterValidator(inside)]
    n: int = 0


class Generous(pydantic.BaseModel, Generic[T]):
    items: List[T]


@pytest.mark.parametrize(
    "hint, good, arrived, bad",
    [
        (Bounded, {"n": 1}, Bounded(n=1), {"n": 0}),
        (List[Bounded], [{"n": 1}], [Bounded(n=1)], [{}]),
        (Plain, {"n": 1}, None, {"n": 0}),
        (Page[int], {"items": [1]}, Page([1]), {"items": ["x"]}),
        (
            Page[Page[datetime.date]],
            {"items": [{"items": ["2026-07-28"]}]},
            Page([Page([datetime.date(2026, 7, 28)])]),
            {"items": [1]},
        ),
        (Numbered[str], {"items": [1], "label": "a"}, Numbered([1], None, "a"), {"items": ["x"], "label": "a"}),
        (Page, {"items": [1, "a"]}, Page([1, "a"]), {"items": 1}),
        (Box[int], {"inner": 1}, {"inner": 1}, {"inner": "x"}),
        (Page[pydantic.PositiveInt], {"items": [1]}, Page([1]), {"items": [0]}),
        (Strictly, {"n": 1}, {"n": 1}, {"n": 1.0}),
        (Pair, ["a", 1], Pair("a", 1), ["../a"]),
        (Generous[int], {"items": [1]}, Generous[int](items=[1]), {"items": ["x"]}),
    ],
)
def test_a_class_means_what_its_author_wrote(hint, good, arrived, bad):
    if hint is Box[int] and sys.version_info < (3, 11):
        pytest.skip("generic TypedDicts have their arguments from Python 3.11 on")
    found = checked(hint, good)
    assert arrived is None or (found == arrived and type(found) is type(arrived))
    with pytest.raises(InvalidArguments):
        checked(hint, bad)


def test_two_arguments_of_a_generic_class_are_two_definitions():
    def function(a: Page[int], b: Page[str]):
        pass

    assert list(hints.signature(function).schema["$defs"]) == ["Page_int", "Page_str"]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    tail: str


@dataclasses.dataclass
class Circle:
    r: float


@dataclasses.dataclass
class Square:
    side: float
    tilt: float = 0


@pytest.mark.parametrize(
    "hint, value, sentence",
    [
        (Optional[Cat], {"kind": "cat", "lives": "x"}, '"value.lives" must be an integer, not a string'),
        (Union[Cat, Dog], {"kind": "dog", "tail": 1}, '"value.tail" must be a string, not an integer'),
        (Union[Cat, Dog, None], {"kind": "cat", "lives": None}, '"value.lives" must be an integer, not null'),
        (Annotated[Union[Cat, Dog], Field(discriminator="kind")], {"kind": "dog"}, '"value" lacks "tail"'),
        (List[Union[Cat, Dog]], [{"kind": "dog", "tail": 1}], '"value[0].tail" must be a string, not an integer'),
        (Optional[Circle], {"r": "x"}, '"value.r" must be a number, not a string'),
        (Optional[Circle], {}, '"value" lacks "r"'),
        (Union[Circle, Square], {"side": "x"}, '"value.side" must be a number, not a string'),
        (Union[Circle, Square], {"side": 1, "tilt": []}, '"value.tilt" must be a number, not an array'),
        (Union[Circle, List[int]], ["x"], '"value[0]" must be an integer, not a string'),
        (Optional[Union[Circle, int]], "x", '"value" must be an object or an integer or null, not "x"'),
        (Optional[Literal["a", "b"]], "c", '"value" must be one of "a", "b" or null, not "c"'),
        (Optional[Optional[Annotated[int, annotated_types.Le(3)]]], 5, '"value" must be at most 3, not 5'),
    ],
)
def test_a_message_is_about_the_branch_that_the_value_belongs_to(hint, value, sentence):
    with pytest.raises(InvalidArguments) as caught:
        checked(hint, value)
    assert str(caught.value) == sentence


# Results


def test_a_return_hint_checks_and_writes_as_pydantic_does():
    @pydantic_dataclass
    class Point:
        x: int = Field(serialization_alias="X")

    server = Server("s")

    def number(n: int) -> Annotated[int, Field(ge=0), AfterValidator(lambda value: value // (value != 3))]:
        return n

    def point() -> Point:
        return Point(x=1)

    def text(n: int) -> Annotated[str, Field(max_length=2)]:
        return "x" * n

    def cat() -> Cat:
        return {"kind": "cat", "lives": 9}  # type: ignore[return-value]

    point.__annotations__["return"] = Point
    for function in (number, point, text, cat):
        server.tool(function)
    with Client(server) as client:
        assert client.call_tool("number", n=1).data == 1
        assert client.call_tool("number", n=-1).is_error and client.call_tool("number", n=3).is_error
        assert client.call_tool("point").data == {"X": 1}
        assert client.call_tool("text", n=2).data == "xx" and client.call_tool("text", n=3).is_error
        assert client.call_tool("cat").data == {"kind": "cat", "lives": 9}


# Callables


def test_a_partial_has_its_own_parameters():
    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: One.
            b: Two.
        """
        return a + b

    partial = functools.update_wrapper(functools.partial(add, 1), add)
    wrapped = functools.wraps(add)(functools.partial(functools.update_wrapper(functools.partial(add), add), b=2))
    made = hints.signature(partial)
    assert made.schema["properties"] == {"b": {"type": "integer", "description": "Two."}} and made.text == "Add."
    assert given(partial, b=2) == 3
    assert hints.signature(wrapped).schema["required"] == ["a"] and given(wrapped, a=1) == 3
    assert hints.signature(functools.partial(add, 1)).text == "Add."
    server = Server("s")
    server.tool(partial)
    with Client(server) as client:
        assert client.call_tool("add", b=2).data == 3


def test_a_callable_without_a_name_needs_one():
    class Caller:
        def __call__(self, a: int) -> int:
            return a

    server = Server("s")
    for callable_ in (functools.partial(even, 1), Caller()):
        with pytest.raises(TypeError, match="give name="):
            server.tool(callable_)
        with pytest.raises(TypeError, match="give name="):
            server.prompt(callable_)
    with pytest.raises(TypeError, match="give name="):
        server.resource("x://{a}")(Caller())
    server.tool(Caller(), "named")
    with Client(server) as client:
        assert client.call_tool("named", a=1).data == 1


def test_pydantic_is_loaded_for_nobody_else():
    program = """
import sys, dataclasses, datetime
from typing import Annotated, Optional
import annotated_types
from minimcp import Server

@dataclasses.dataclass
class Stop:
    at: datetime.date

server = Server("s")

@server.tool
def f(a: Annotated[Optional[int], annotated_types.Ge(1)], b: Stop, c: annotated_types.LowerCase[str] = "x") -> Stop:
    return b

assert "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_what_fits_comes_as_it_is_for_hints_of_our_own() -> None:
    assert arrives(Page[int], {"items": [1]}) == Page([1])
    made = of(Any)
    assert made.checked is made.schema
