"""JSON Schema: what is refused at registration, what a value's judgement says, and that both are bounded."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import time

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimcp.engines.errors import InvalidArguments
from minimcp.engines.schema import fast_check, judge
from minimcp.engines.schema.validator import Undecided, Validator, check_input_schema, check_schema

FORECAST = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "days": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def complaint(schema, value):
    with pytest.raises(InvalidArguments) as caught:
        Validator(schema).check(value)
    return str(caught.value)


# Checking schemas


@pytest.mark.parametrize("schema", [None, [], "object", 5, True])
def test_a_schema_that_is_no_object_is_refused(schema):
    with pytest.raises(ValueError, match="inputSchema must be a JSON object"):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"type": ["string", "string"]},
        {"type": "object", "properties": []},
        {"type": "object", "required": "city"},
        {"type": "object", "required": ["a", "a"]},
        {"type": "string", "minLength": -1},
        {"type": "string", "pattern": "("},
        {"type": "string", "title": 5},
        {"type": "integer", "minimum": "1"},
        {"type": "array", "items": [{"type": "string"}]},
        {"enum": 5},
        {"anyOf": []},
        {"$defs": {"a": 5}},
        {"$ref": 5},
    ],
)
def test_a_schema_that_its_dialect_does_not_allow_is_refused(schema):
    with pytest.raises(ValueError, match="^outputSchema is not valid JSON Schema"):
        check_schema(schema, "outputSchema")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "additionalProperties": False},
        FORECAST,
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]},
        {"$schema": "http://json-schema.org/draft-06/schema", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "string"}}},
        {"$dynamicRef": "#node", "$dynamicAnchor": "node", "type": ["object", "null"]},
        {"$id": "https://example.com/a", "$ref": "https://example.com/a#/$defs/b", "$defs": {"b": {}}},
        {"$id": "https://example.com/a", "$ref": "b", "$defs": {"b": {"$id": "b", "type": "string"}}},
        {"properties": {"$ref": {"type": "string"}, "$schema": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"x-mcp-header": "Region", "type": "string"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "string"}}},
    ],
)
def test_a_valid_schema_of_any_supported_dialect_is_accepted(schema):
    check_schema(schema)


@pytest.mark.parametrize("dialect", ["urn:x", "", "http://json-schema.org/draft-03/schema#", "https://json-schema.org"])
def test_an_unknown_dialect_is_reported_with_the_supported_ones(dialect):
    with pytest.raises(ValueError, match=r"is not supported; use one of https://json-schema\.org/draft/2020-12/schema"):
        check_schema({"$schema": dialect})


@pytest.mark.parametrize(
    "dialect", ["https://json-schema.org/draft-07/schema#", "http://json-schema.org/draft/2020-12/schema#"]
)
def test_a_dialect_is_known_with_either_scheme(dialect):
    check_schema({"$schema": dialect, "type": "object", "definitions": {"a": {"pattern": "^a"}}})


@pytest.mark.parametrize("dialect", [4, None, ["http://json-schema.org/draft-07/schema#"]])
def test_a_dialect_that_is_no_string_is_refused(dialect):
    with pytest.raises(ValueError, match=r"\$schema must be a string"):
        check_schema({"$schema": dialect, "type": "object"})


def test_a_dialect_below_the_root_is_refused():
    inner = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string"}
    with pytest.raises(ValueError, match="belongs at the root"):
        check_schema({"type": "object", "properties": {"a": inner}})


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
@pytest.mark.parametrize(
    "ref",
    [
        "http://127.0.0.1:9/schema.json",
        "https://json-schema.org/draft/2020-12/schema",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "other.json",
        "../x",
        "#/$defs/missing",
        "#nowhere",
        "//[bad",
        "#/%zz",
    ],
)
def test_a_reference_that_leads_outside_or_nowhere_is_refused_without_fetching(keyword, ref, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    schema = {"type": "object", "properties": {"a": {keyword: ref}}}
    with pytest.raises(ValueError, match="leads nowhere inside the schema|is not valid JSON Schema"):
        check_schema(schema)
    assert re.search("leads nowhere inside the schema|must be", complaint(schema, {"a": 1}))


def test_a_schema_too_deep_too_large_or_containing_itself_is_refused():
    deep: dict = {}
    for _ in range(10_000):
        deep = {"not": deep}
    with pytest.raises(ValueError, match="nested deeper than 64 levels"):
        check_schema(deep)
    loop: dict = {"type": "object"}
    loop["properties"] = {"a": loop}
    with pytest.raises(ValueError, match="contains itself"):
        check_schema(loop)
    with pytest.raises(ValueError, match="too large"):
        check_schema({"enum": list(range(60_000))})
    with pytest.raises(ValueError, match="too large"):
        check_schema({"description": "x" * 10_000_000})
    with pytest.raises(ValueError, match="keys of a JSON object are strings"):
        check_schema({"properties": {1: {}}})


@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_a_pattern_that_could_hang_is_refused(keyword):
    schema = {keyword: "^(a+)+$"} if keyword == "pattern" else {keyword: {"^(a+)+$": {}}}
    with pytest.raises(ValueError, match="may take very long"):
        check_schema({"type": "object", "properties": {"a": schema}})


@pytest.mark.parametrize("root", ["array", ["object", "null"], None])
def test_an_input_schema_has_type_object_at_its_root(root):
    schema = {} if root is None else {"type": root}
    with pytest.raises(ValueError, match='must have "type": "object" at its root'):
        check_input_schema(schema)
    check_input_schema({"type": "object"})


# Judging values


def test_a_valid_value_passes_and_numbers_follow_json():
    check = Validator(FORECAST).check
    check({"city": "Oslo"})
    check({"city": "Oslo", "days": 5.0, "unit": "C"})
    assert not Validator({"type": "integer"}).is_valid(True)
    assert not Validator({"type": "integer"}).is_valid(5.5)
    assert Validator({"type": "number"}).is_valid(5)
    assert Validator({"const": 1}).is_valid(1.0)
    assert not Validator({"const": 1}).is_valid(True)
    assert not Validator({"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer"}).is_valid(5.0)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, '"city" missing'),
        ([], "The value must be an object, not an array"),
        ({"city": 5}, '"city" must be a string, not an integer'),
        ({"city": ""}, '"city" must have at least 1 characters, not ""'),
        ({"city": "x", "days": "3"}, '"days" must be an integer, not a string'),
        ({"city": "x", "days": True}, '"days" must be an integer, not true'),
        ({"city": "x", "days": 0}, '"days" must be at least 1, not 0'),
        ({"city": "x", "unit": "K"}, '"unit" must be one of "C", "F", not "K"'),
        ({"city": "x", "dyas": 3}, '"dyas" is unknown; known are "city", "days", "unit"'),
    ],
)
def test_the_message_names_the_place_and_what_was_expected(value, sentence):
    assert complaint(FORECAST, value) == sentence


def test_several_faults_are_told_at_once():
    assert complaint(FORECAST, {"days": "x", "unit": 1}).count(";") == 2


def test_nested_places_and_unions_are_told():
    stop = {"type": "object", "properties": {"at": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}
    schema = {"type": "object", "properties": {"stops": {"type": "array", "items": stop}}}
    text = complaint(schema, {"stops": [{"at": 1}, {"at": "x"}]})
    assert text == '"stops[1].at" must be an integer or null, not "x"'


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (FORECAST, {"city": "x" * 100_000, "days": "y" * 100_000, "z" * 5000: 1}),
        ({"enum": ["x" * 5000] * 2}, "y" * 5000),
        ({"properties": {"k" * 5000: {"type": "string"}}}, {"k" * 5000: 5}),
        ({"anyOf": [{"type": "string"}, {"const": "x" * 5000}]}, {"a": ["b" * 5000] * 50}),
        ({"required": ["r" * 500] * 50}, {}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}),
        ({"unevaluatedProperties": False}, {"a" * 5000: 1}),
        ({"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": False}, {"b" * 5000: 1}),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 3),
        ({"not": {}}, "\n\x00"),
        ({"type": "array", "items": False}, [1]),
    ],
)
def test_a_message_is_short_and_names_no_library(schema, value):
    text = complaint(schema, value)
    assert 10 < len(text) < 1000
    assert not re.search("jsonschema|referencing|Traceback|line \\d|\\.py", text)


def test_doubling_references_end_in_time_with_an_error():
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**definitions, "d30": {"type": "string"}}}
    check_schema(schema)
    started = time.thread_time()
    assert "takes too long to validate" in complaint(schema, "x")
    assert time.thread_time() - started < 2


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_doubling_alternatives_end_in_time(keyword):
    definitions = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**definitions, "d30": {"type": "object", "required": ["a"]}}}
    started = time.thread_time()
    assert complaint(schema, {})
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$dynamicRef": "#a", "$dynamicAnchor": "a"},
        {"unevaluatedProperties": False, "$ref": "#"},
    ],
)
def test_a_schema_that_is_only_itself_ends_in_a_clean_error_in_any_thread(schema):
    texts = []
    thread = threading.Thread(target=lambda: texts.append(complaint(schema, {"a": 1})))
    thread.start()
    thread.join(30)
    assert texts == ["The value is nested too deeply, or its schema refers to itself without end"]


def at_depth(frames, call):
    return call() if frames == 0 else at_depth(frames - 1, call)


def test_a_schema_without_end_is_the_same_error_at_any_depth_of_the_stack(capfd):
    texts = set()
    limit = sys.getrecursionlimit()
    # A full collection of what a whole run of tests holds may take longer than a value may.
    gc.collect()
    gc.disable()
    try:
        for frames in range(0, limit - 150, 10):
            texts.add(at_depth(frames, lambda: complaint({"not": {"$ref": "#"}}, {"a": 1})))
    finally:
        gc.enable()
    assert texts == {"The value is nested too deeply, or its schema refers to itself without end"}
    assert capfd.readouterr().err == ""  # of the Rust in jsonschema, which panics at the end of the stack


DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("dialect", ["https://json-schema.org/draft/2020-12/schema", DRAFT_7])
@pytest.mark.parametrize(
    ("wrap", "times"),
    [
        (lambda inner: {"not": inner}, 63),
        (lambda inner: {"items": inner}, 63),
        (lambda inner: {"anyOf": [inner]}, 31),
        (lambda inner: {"dependencies": {"a": inner}}, 31),
        (lambda inner: {"properties": {"a": inner}}, 31),
    ],
)
def test_a_schema_may_be_as_deep_as_is_told(dialect, wrap, times):
    schema: dict = {"minLength": 1}
    for _ in range(times):
        schema = wrap(schema)
    check_schema({"$schema": dialect, **schema})


@pytest.mark.parametrize(
    "dialect", ["http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"]
)
@pytest.mark.parametrize("part", [{"type": None}, {"type": "int"}, {"multipleOf": 0}, {"minimum": "1"}, 5, ["x"]])
@pytest.mark.parametrize("place", ["$defs", "x-parts", "default"])
def test_the_target_of_a_reference_is_a_valid_schema_wherever_it_stands(dialect, part, place):
    schema = {"$schema": dialect, "allOf": [{"$ref": f"#/{place}/A"}], place: {"A": part}}
    with pytest.raises(ValueError, match=f"is not valid JSON Schema at '#/{re.escape(place)}/A"):
        check_schema(schema)
    assert "The schema cannot be used" in complaint(schema, 1)


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"multipleOf": 0.5}, 10**400, True),
        ({"multipleOf": 0.3}, 10**400 + 1, False),
        ({"multipleOf": 10**400}, 1e300, False),
        ({"multipleOf": 0.5}, float("inf"), False),
        ({"multipleOf": 0.5}, float("nan"), False),
        ({"maximum": 1e300}, 10**400, False),
        ({"enum": [2**60, "a"]}, float(2**60), True),
        ({"enum": [2**60, "a"]}, 2**60 + 1, False),
    ],
)
def test_numbers_of_any_size_are_judged(schema, value, fits):
    assert Validator(schema).is_valid(value) is fits


def test_chosen_numbers_cannot_slow_down_a_comparison():
    numbers = [(2**61 - 1) * n for n in range(100_000)]  # all have the same hash
    for schema, value in (({"uniqueItems": True}, numbers), ({"enum": numbers[:9000]}, 5), ({"type": "integer"}, 5)):
        started = time.thread_time()
        Validator(schema).is_valid(value)
        assert time.thread_time() - started < 1


def test_a_large_schema_is_checked_in_time():
    mixed = [[n, str(n), [n]][n % 3] for n in range(9000)]
    for schema in (
        {"$schema": "http://json-schema.org/draft-04/schema#", "enum": mixed[:4900]},
        {"properties": {f"p{n}": {"type": "string", "pattern": "^a"} for n in range(2400)}},
        {"patternProperties": {f"^({n}[\u4e00-\u9fff]+-)*$": {} for n in range(4000)}},
        {"allOf": [{"$ref": "#/$defs/" + "a" * n} for n in range(1000)], "$defs": {"a": {}}},
    ):
        started = time.thread_time()
        try:
            check_schema(schema)
        except ValueError:
            pass
        assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"const": {"a": list(range(5000))}}}, [{"a": list(range(5000))}] * 2000),
        ({"items": {"enum": [list(range(5000)), 1]}}, [list(range(5000))] * 2000),
        ({"items": {"oneOf": [{"enum": list(range(2000))}] * 200}}, [["x"] * 1000] * 1000),
        ({"items": {"uniqueItems": True}}, [list(range(5000))] * 2000),
        ({"items": {"unevaluatedProperties": False, "allOf": [{"required": []}] * 2000}}, [{}] * 9000),
        ({"items": {"dependentRequired": {f"p{n}": ["a"] for n in range(4000)}}}, [{}] * 9000),
        ({"anyOf": [False] * 9000}, [list(range(100_000))]),
        ({"anyOf": [{"type": "string"}] * 4000}, [list(range(100_000))]),
        ({"anyOf": [{"type": "integer"}] * 4000}, "\u3042" * 2_000_000),
        ({"unevaluatedItems": False, "oneOf": [False] * 9000}, [list(range(100_000))]),
        ({"contains": False}, [1] * 1_000_000),
        ({"items": {}}, [1] * 1_000_000),
        ({"propertyNames": {"title": "x"}}, dict.fromkeys(map(str, range(300_000)))),
        ({"unevaluatedItems": False, "prefixItems": [True] * 9000}, [1] * 100_000),
        ({"unevaluatedItems": {"type": "string"}, "contains": {"type": "string"}}, [1] * 100_000),
        (
            {"unevaluatedProperties": False, "patternProperties": {f"^{n}": True for n in range(2000)}},
            dict.fromkeys(map(str, range(9000))),
        ),
        (
            {"items": {"$ref": "#/$defs/b"}, "$defs": {"b": {"$id": "b", "$dynamicRef": "#z", "$dynamicAnchor": "z"}}},
            [1] * 100_000,
        ),
    ],
)
def test_what_a_keyword_compares_is_counted(schema, value):
    started = time.thread_time()
    Validator(schema).is_valid(value)
    # Half a second is allowed; the collector of a process with all tests in it may run within.
    assert time.thread_time() - started < 2


def test_a_deep_value_of_a_recursive_schema_is_judged_or_refused_cleanly():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}
    validator = Validator({"$ref": "#/$defs/node", "$defs": {"node": node}})
    value: dict = {"n": 1}
    for _ in range(50):
        value = {"next": value, "n": 2}
    validator.check(value)
    for _ in range(100_000):
        value = {"next": value}
    with pytest.raises(InvalidArguments, match="nested too deeply"):
        validator.check(value)
    while "next" in value:
        value = value["next"]  # taken apart step by step: old Pythons free deep values recursively


def test_the_time_in_which_the_library_is_loaded_does_not_count(monkeypatch):
    real, waited = judge.load, []

    def load(dialect):
        if not waited:
            waited.append(threading.Event().wait(0.6))
        return real(dialect)

    monkeypatch.setattr(judge, "load", load)
    schema = {"properties": {f"p{number}": {"type": "integer", "minimum": 1} for number in range(50)}}
    with pytest.raises(InvalidArguments, match='"p7" must be at least 1, not 0'):
        Validator(schema, foreign=True).check({"p7": 0})
    assert waited == [False]


def test_large_values_are_judged_in_time():
    schema = {
        "properties": {
            "unique": {"type": "array", "uniqueItems": True},
            "choice": {"items": {"enum": [f"v{n}" for n in range(2000)]}},
            "text": {"items": {"pattern": r"\s+$"}},
        }
    }
    validator = Validator(schema)
    for value in (
        {"unique": [{"n": n} for n in range(200_000)]},
        {"choice": ["x"] * 200_000},
        {"choice": ["v1999"] * 200_000},
        {"text": [" " * 3000 + "x"] * 1000},
    ):
        started = time.thread_time()
        validator.is_valid(value)
        assert time.thread_time() - started < 3


@pytest.mark.parametrize("others", [False, {"type": "integer"}])
def test_the_names_of_many_members_are_searched_in_time(others):
    validator = Validator({"patternProperties": {"a+b": {}}, "additionalProperties": others})
    value = {"a" * 1990 + str(n): 1 for n in range(1000)}
    started = time.thread_time()
    assert "takes too long to validate" in complaint(validator.schema, value)
    assert time.thread_time() - started < 3
    assert "longer than 2000 characters" in complaint(validator.schema, {"a" * 100_000: 1})


def test_a_pattern_that_was_never_checked_is_an_error_and_not_a_crash():
    assert "may take very long" in complaint({"type": "string", "pattern": "^(a+)+$"}, "a" * 40 + "!")


def test_equal_items_are_found_whatever_their_order_and_type():
    validator = Validator({"uniqueItems": True})
    assert validator.is_valid([1, True, "1", [1], {"a": 1}, {"a": True}, None, 0, False])
    for value in ([1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [[1, [2]], [1, [2.0]]], ["a", 5, "a"]):
        assert not validator.is_valid(value)


def test_a_string_too_long_for_its_pattern_is_an_error_that_says_so():
    schema = {"type": "string", "pattern": r"x\s+$"}
    assert re.fullmatch(
        r"A string that must match a pattern is longer than \d+ characters", complaint(schema, "x" * 100_000)
    )


def test_a_foreign_pattern_is_held_against_a_few_thousand_characters_at_most():
    schema = {"properties": {"a": {"type": "string", "pattern": "^[a-z]*$"}, "b": {"type": "integer"}}}
    validator = Validator(schema, foreign=True)
    validator.check({"a": "x" * 4000})
    for value in ({"a": "x" * 4001}, {"a": "X" * 4001}):
        with pytest.raises(Undecided):
            validator.check(value)
    for value in ({"a": "X" * 4000}, {"a": "x" * 4001, "b": "x"}):
        with pytest.raises(InvalidArguments) as caught:
            validator.check(value)
        assert not isinstance(caught.value, Undecided)
    assert "must match" in complaint(schema, {"a": "X" * 4001})


def test_one_validator_judges_in_many_threads_at_once():
    validator = Validator({"allOf": [FORECAST]})
    results = []

    def work(good):
        for _ in range(50):
            results.append(validator.is_valid({"city": "x"} if good else {"city": 1}) is good)

    threads = [threading.Thread(target=work, args=(n % 2 == 0,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [True] * 300


def test_ordinary_schemas_and_values_do_not_load_jsonschema():
    code = (
        "import sys\n"
        "from minimcp.engines.schema import hints, validator\n"
        "def f(a: int, b: 'list[str]' = ()): pass\n"
        "made = hints.signature(f).schema\n"
        "validator.check_input_schema(made); validator.Validator(made).check({'a': 1, 'b': ['x']})\n"
        "sys.exit('jsonschema' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# The quick accept against the full validator


def _sized(noun):
    return {f"min{noun}": st.integers(-1, 3), f"max{noun}": st.integers(0, 4)}


_BOUND = st.sampled_from([-1, 0, 1, 1.5, 2, True, "1"])
_NAME = st.sampled_from(["a", "b", "c"])
_SCALAR = st.sampled_from([None, True, False, 0, 1, 2, -1, 1.0, 1.5, 2.0, "", "a", "b", "abc", 10**20])
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_NAME, inner, max_size=3)),
    max_leaves=6,
)


def _schemas(inner):
    def made(kind, required, optional):
        return st.fixed_dictionaries({"type": st.just(kind), **required}, optional=optional)

    return st.one_of(
        st.fixed_dictionaries({}, optional={"description": st.sampled_from(["x", 5]), "default": _SCALAR}),
        made("string", {}, {**_sized("Length"), "pattern": st.sampled_from(["^a", "b$", "(", "^(a+)+$"])}),
        made("integer", {}, dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], _BOUND)),
        made("number", {}, dict.fromkeys(["minimum", "exclusiveMaximum"], _BOUND)),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, True, False, {"$ref": "#/$defs/d"}]),
        st.lists(st.sampled_from(["string", "integer", "number", "null", "array", "x"]), max_size=3).map(
            lambda names: {"type": names}
        ),
        st.fixed_dictionaries({"enum": st.lists(_VALUE, max_size=4)}, optional={"type": st.just("integer")}),
        st.fixed_dictionaries({"const": _VALUE}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"oneOf": st.lists(inner, max_size=3)}),
        made(
            "array",
            {},
            {
                **_sized("Items"),
                "items": inner,
                "prefixItems": st.lists(inner, max_size=2),
                "uniqueItems": st.booleans(),
            },
        ),
        made(
            "object",
            {"properties": st.dictionaries(_NAME, inner, max_size=3)},
            {
                **_sized("Properties"),
                "required": st.lists(_NAME, max_size=3),
                "additionalProperties": st.one_of(st.booleans(), inner),
            },
        ),
    )


_SCHEMA = st.recursive(st.sampled_from([{"type": "string"}, {"type": "integer"}, {}]), _schemas, max_leaves=6)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(_SCHEMA, _SCHEMA, st.lists(_VALUE, min_size=1, max_size=8))
def test_the_quick_accept_never_accepts_what_the_full_validator_rejects(schema, definition, values):
    if not isinstance(schema, dict):
        return
    schema = {**schema, "$defs": {"d": definition}}
    full = jsonschema.Draft202012Validator
    try:
        accepts = fast_check.accepts(schema)
    except fast_check.Unsupported:
        accepts = fast_check.never
    else:
        full.check_schema(schema)
    try:
        check_schema(schema)
    except ValueError:
        return
    for value in values:
        try:
            valid = full(schema).is_valid(value)
        except RecursionError:
            continue
        assert valid or not accepts(value)
        assert Validator(schema).is_valid(value) is valid


@pytest.mark.parametrize(
    ("schema", "good"),
    [
        (FORECAST, {"city": "x", "days": 3, "unit": "C"}),
        ({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, [1, None, 2.0]),
        ({"type": "object", "additionalProperties": {"type": ["string", "null"]}}, {"a": "x", "b": None}),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"type": "null"}}}}}, {"n": None}),
        ({"anyOf": [{"const": "a", "title": "A"}, {"type": "integer"}]}, 5),
    ],
)
def test_the_quick_accept_knows_ordinary_schemas(schema, good):
    assert fast_check.accepts(schema)(good) is True
