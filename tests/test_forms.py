"""The forms of elicitation: flat schemas from hints, classes or a ready schema."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from typing import Annotated, Any, List, Literal, Optional, TypedDict

import pytest

from minimcp.engines.errors import InvalidArguments
from minimcp.engines.schema.validator import check_schema
from minimcp.protocol.forms import form


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclasses.dataclass
class Booking:
    nights: int
    room: Literal["single", "double"] = "single"
    note: Optional[str] = None
    tags: List[Level] = dataclasses.field(default_factory=list)


class Contact(TypedDict):
    mail: Annotated[str, "Your address", {"format": "email"}]


def test_hints_become_a_flat_form():
    schema, _ = form(
        {
            "nights": Annotated[int, "How many", {"minimum": 1}],
            "smoking": (bool, False),
            "room": Literal["a", "b"],
            "when": datetime.date,
            "at": datetime.datetime,
            "mail": Annotated[str, {"format": "email", "title": "Mail"}],
            "level": (Level, Level.LOW),
            "tags": (List[Literal["x", "y"]], ["x"]),
            "price": Optional[float],
            "note": (Optional[str], None),
        }
    )
    assert schema == {
        "type": "object",
        "properties": {
            "nights": {"type": "integer", "description": "How many", "minimum": 1},
            "smoking": {"type": "boolean", "default": False},
            "room": {"type": "string", "enum": ["a", "b"]},
            "when": {"type": "string", "format": "date"},
            "at": {"type": "string", "format": "date-time"},
            "mail": {"type": "string", "format": "email", "title": "Mail"},
            "level": {"type": "string", "enum": ["low", "high"], "default": "low"},
            "tags": {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}, "default": ["x"]},
            "price": {"type": "number"},
            "note": {"type": "string"},
        },
        "required": ["nights", "room", "when", "at", "mail"],
    }
    check_schema(schema)


def test_a_dataclass_becomes_a_form():
    assert form(Booking)[0] == {
        "type": "object",
        "properties": {
            "nights": {"type": "integer"},
            "room": {"type": "string", "enum": ["single", "double"], "default": "single"},
            "note": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string", "enum": ["low", "high"]}},
        },
        "required": ["nights"],
    }


def test_a_typed_dict_becomes_a_form():
    mail = {"type": "string", "description": "Your address", "format": "email"}
    assert form(Contact)[0] == {"type": "object", "properties": {"mail": mail}, "required": ["mail"]}


def test_a_form_without_required_fields_has_no_required_member():
    assert form({"a": (int, 1)})[0] == {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "oneOf": [{"const": "#f00", "title": "Red"}], "default": "#f00"},
        {"type": "string", "enum": ["a"], "enumNames": ["A"]},
        {"type": "array", "minItems": 1, "maxItems": 2, "items": {"anyOf": [{"const": "a", "title": "A"}]}},
        {"type": "array", "items": {"type": "string", "enum": ["a"]}, "default": ["a"]},
        {"type": "number", "minimum": 0, "maximum": 1, "title": "T"},
    ],
)
def test_a_ready_schema_passes_verbatim_whole_or_by_field(field):
    ready = {"type": "object", "properties": {"a": field}, "required": ["a"], "x-mine": 1}
    assert form(ready)[0] is ready
    assert form({"a": field})[0]["properties"]["a"] == field


@pytest.mark.parametrize(
    "hint",
    [
        dict,
        Booking,
        List[int],
        List[str],
        list,
        bytes,
        uuid.UUID,
        datetime.timedelta,
        Any,
        complex,
        Literal[1, "a"],
        List[Booking],
    ],
)
def test_what_a_form_cannot_ask_for_is_refused_by_name(hint):
    with pytest.raises(TypeError, match="form field x: "):
        form({"x": hint})[0]


@pytest.mark.parametrize(
    "field",
    [
        {"type": "object", "properties": {}},
        {"type": "array", "items": {"type": "object"}},
        {"type": "string", "not": {}},
        {"$ref": "#"},
        {"type": ["string", "null"]},
        "string",
    ],
)
def test_a_ready_schema_that_is_not_flat_is_refused(field):
    with pytest.raises(TypeError, match="form field x: "):
        form({"type": "object", "properties": {"x": field}})[0]


@pytest.mark.parametrize("fields", [5, "x", None, [("a", int)], {1: int}, int])
def test_what_is_no_form_at_all_is_refused(fields):
    with pytest.raises(TypeError, match="form"):
        form(fields)[0]


def test_a_default_that_does_not_fit_and_a_wrong_tuple_are_refused():
    with pytest.raises(TypeError, match="the default 'x' does not fit"):
        form({"a": (int, "x")})[0]
    with pytest.raises(TypeError, match=r"write \(hint, default\)"):
        form({"a": (int,)})[0]


def test_a_class_with_a_nested_member_is_refused():
    nested = dataclasses.make_dataclass("Nested", [("inner", Booking)])
    with pytest.raises(TypeError, match="form field inner: .*nothing nested"):
        form(nested)[0]


def test_a_valid_answer_gets_the_types_of_the_hints():
    schema, convert = form({"when": datetime.date, "level": (Level, None), "tags": (List[Level], ["low"]), "n": int})
    assert schema["required"] == ["when", "n"]
    answer = {"when": "2026-07-28", "tags": ["high"], "n": 2.0}
    assert convert(answer) == {"when": datetime.date(2026, 7, 28), "tags": [Level.HIGH], "n": 2}
    assert answer["when"] == "2026-07-28"
    assert form(Booking)[1]({"nights": 1, "tags": ["low"]}) == {"nights": 1, "tags": [Level.LOW]}
    with pytest.raises(InvalidArguments, match='"when" is not a valid date'):
        convert({"when": "2026-02-30", "n": 1})


def test_the_answer_to_a_ready_schema_stays_as_it_is():
    ready = {"type": "object", "properties": {"when": {"type": "string", "format": "date"}}}
    schema, convert = form(ready)
    assert schema is ready
    assert convert({"when": "2026-07-28"}) == {"when": "2026-07-28"}


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "title": 5},
        {"type": "string", "minLength": "1"},
        {"type": "string", "maxLength": -1},
        {"type": "string", "format": "phone"},
        {"type": "string", "enum": "ab"},
        {"type": "string", "enum": [1, 2]},
        {"type": "string", "enumNames": [1]},
        {"type": "string", "oneOf": [{"const": "a"}]},
        {"type": "string", "default": 5},
        {"type": "string", "enum": ["a"], "default": "b"},
        {"type": "integer", "minimum": "0"},
        {"type": "integer", "default": 1.5},
        {"type": "boolean", "default": "yes"},
        {"type": "array", "items": {"enum": ["a"]}},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer", "enum": ["a"]}},
        {"type": "array", "items": {"anyOf": [{"title": "A"}]}},
        {"type": "array", "items": {"type": "string", "enum": ["a"]}, "minItems": "1"},
        {"type": "array", "items": {"type": "string", "enum": ["a"]}, "default": "a"},
        {"type": "array", "items": {"type": "string", "enum": ["a"]}, "default": ["b"]},
    ],
)
def test_a_ready_field_that_no_revision_has_is_refused(field):
    with pytest.raises(TypeError, match="form field a"):
        form({"type": "object", "properties": {"a": field}})
    with pytest.raises(TypeError, match="form field a"):
        form({"a": field})


@pytest.mark.parametrize("required", ["a", ["b"], [5], {"a": True}])
def test_what_a_ready_form_requires_are_its_fields(required):
    with pytest.raises(TypeError, match="required"):
        form({"type": "object", "properties": {"a": {"type": "string"}}, "required": required})
