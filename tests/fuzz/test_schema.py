"""Schemas, values and patterns of strangers: one kind of exception, a bound in time, and what jsonschema says."""

from __future__ import annotations

import os
import time

import pytest

pytest.importorskip("hypothesis")

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema.exceptions import SchemaError
from jsonschema_specifications import REGISTRY

from minimcp.engines.errors import InvalidArguments
from minimcp.engines.schema import fast_check
from minimcp.engines.schema.dialects import DIALECTS
from minimcp.engines.schema.patterns import compile_pattern
from minimcp.engines.schema.validator import Undecided, Validator, check_schema

bounded = settings(
    max_examples=int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "120")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

NAME = st.sampled_from(["a", "b", "c", "$ref", "$id"])
NUMBERS = [0, 1, 2, -1, 3, 1.0, 1.5, 0.1, 1e308, 10**400, 2**61 - 1]
TEXTS = ["", "a", "b", "abc", "string", "#", "#/$defs/d"]


def values(scalars):
    """Return a strategy for values of these scalars."""
    return st.recursive(
        st.sampled_from(scalars),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAME, inner, max_size=3)),
        max_leaves=8,
    )


JSON = values([None, True, False, *NUMBERS, *TEXTS])
VALUE = values([None, True, False, *NUMBERS, *TEXTS, float("inf"), float("nan")])
REFERENCE = st.sampled_from(
    ["#", "#/$defs/d", "#/$defs/e", "#d", "x", "#/properties/a", "#/const", "http://h/x", "//["]
)
PATTERN = st.sampled_from(["^a", "b$", "^(a+)+$", r"^\p{L}$", "(?<n>a)", "(", "^(?i:a[A-Z]*)*$"])
KEYWORDS = sorted(
    {keyword for uri in REGISTRY if "draft-03" not in uri for keyword in REGISTRY.contents(uri).get("properties", ())}
)


def schemas(wild):
    """Return a strategy for schemas; wild ones have any value for any keyword."""
    right = {
        "type": st.sampled_from(
            ["string", "integer", "number", "object", "array", "null", "boolean", ["null", "array"]]
        ),
        "const": JSON,
        "enum": st.lists(JSON, max_size=3),
        **dict.fromkeys(
            [word for word in KEYWORDS if word.startswith(("min", "max")) and "imum" not in word], st.integers(0, 3)
        ),
        **dict.fromkeys(["minimum", "maximum", "multipleOf"], st.sampled_from([1, 2, 0.5, 3.0])),
        "required": st.lists(NAME, max_size=2, unique=True),
        "uniqueItems": st.booleans(),
        "dependentRequired": st.dictionaries(NAME, st.lists(NAME, max_size=2, unique=True), max_size=2),
        "pattern": st.sampled_from(["^a", "b$", "^[a-c]*$"]),
        "$ref": st.sampled_from(["#/$defs/d", "#/$defs/e"]),
    }

    def extend(inner):
        members = st.dictionaries(NAME, inner, max_size=3)
        parts = {
            **right,
            **dict.fromkeys(["allOf", "anyOf", "oneOf", "prefixItems"], st.lists(inner, min_size=1, max_size=3)),
            **dict.fromkeys(["properties", "dependentSchemas"], members),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b|c"]), inner, max_size=2),
            **dict.fromkeys(
                [
                    *("not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames"),
                    *("unevaluatedItems", "unevaluatedProperties"),
                ],
                inner,
            ),
        }
        if wild:
            anything = st.one_of(VALUE, inner, st.lists(inner, max_size=2), members, REFERENCE, PATTERN)
            parts = {keyword: st.one_of(anything, parts.get(keyword, anything)) for keyword in KEYWORDS}
        # A few keywords each, or nothing would ever be valid.
        return st.lists(st.sampled_from(sorted(parts)), max_size=4, unique=True).flatmap(
            lambda chosen: st.fixed_dictionaries({keyword: parts[keyword] for keyword in chosen})
        )

    leaves = st.sampled_from([{}, True, False, {"type": "string"}, {"type": "integer"}])
    return st.recursive(leaves, extend, max_leaves=8)


def whole(schema, d, e, dialect=None):
    declared = {} if dialect is None else {"$schema": dialect}
    rest = schema if isinstance(schema, dict) else {"allOf": [schema]}
    return {**declared, **rest, "$defs": {"d": d, "e": e}}


@bounded
@given(
    schemas(True), schemas(True), VALUE, st.sampled_from([None, *DIALECTS]), st.booleans(), st.lists(VALUE, max_size=4)
)
def test_any_schema_and_value_end_in_one_kind_of_exception_and_in_time(schema, d, e, dialect, foreign, values):
    schema = whole(schema, d, e, dialect)
    started = time.thread_time()
    try:
        check_schema(schema, foreign=foreign)
    except ValueError:
        pass
    for value in values:
        try:
            Validator(schema, foreign=foreign).check(value)
        except (InvalidArguments, ValueError) as error:
            assert str(error)
    assert time.thread_time() - started < 1.0


@bounded
@given(schemas(False), schemas(False), schemas(False), st.lists(JSON, min_size=1, max_size=6))
def test_the_verdicts_are_those_of_jsonschema(schema, d, e, values):
    schema = whole(schema, d, e)
    full = jsonschema.Draft202012Validator(schema)
    full.check_schema(schema)
    check_schema(schema)
    try:
        accepts = fast_check.accepts(schema)
    except fast_check.Unsupported:
        accepts = fast_check.never
    for value in values:
        try:
            valid = full.is_valid(value)
        except BaseException:  # without a bound of its own, or for numbers that it cannot divide
            continue
        try:
            Validator(schema).check(value)
            judged = True
        except Undecided as error:
            raise AssertionError(str(error)) from None
        except InvalidArguments as error:
            if "takes too long" in str(error) or "nested too deeply" in str(error):
                continue
            judged = False
        assert judged is valid
        assert valid or not accepts(value)


@bounded
@given(schemas(True), schemas(True), st.sampled_from(sorted(DIALECTS)))
def test_no_schema_is_accepted_that_jsonschema_refuses(schema, d, dialect):
    schema = whole(schema, d, True, dialect)
    try:
        check_schema(schema)
    except ValueError:
        return
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except SchemaError as error:
        # Patterns are translated, and JSON has no NaN, which all compare false.
        assert error.validator == "format", error.message


_LEAF = st.sampled_from(["a", "b", "A", "[ab]", "[^a]", ".", r"\w", r"\W", r"\n", "é", "s", "ſ"])
_PATTERNS = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(lambda two: f"(?:{two[0]}){two[1]}"),
        st.tuples(st.sampled_from(["i", "s", "a", "m", "-i", "s-i"]), inner).map(lambda two: f"(?{two[0]}:{two[1]})"),
        inner.map(lambda one: f"(?=^{one})"),
    ),
    max_leaves=7,
)


@bounded
@given(_PATTERNS, st.sampled_from(["", "(?i)", "(?s)", "(?m)", "(?im)"]), st.text("abAés\n", min_size=1, max_size=4))
def test_any_pattern_that_is_accepted_ends_in_time(pattern, flags, unit):
    for whole_pattern in (f"{flags}^{pattern}$", flags + pattern + "x"):
        try:
            search, longest = compile_pattern(whole_pattern)
        except ValueError:
            continue
        for length in (28, longest):
            text = (unit * length)[: min(longest, length) - 1] + "!"
            started = time.thread_time()
            search(text)
            assert time.thread_time() - started < 1.0
