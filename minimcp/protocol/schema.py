"""JSON Schema: checking schemas at registration and values at each call, bounded and without any network.

Dialects: 2020-12 (also when `$schema` is absent), 2019-09, draft 7, draft 6 and draft 4. Only this module
imports jsonschema, and only when a schema or a value needs more than the quick accept of `quick.py`.
Spec: FEAT-017, FEAT-048 to FEAT-056
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

from . import quick
from .errors import InvalidArguments
from .patterns import compile_pattern

MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_TEXT = 2_000_000  # characters of all strings of one schema
MAX_SECONDS = 1.0  # processor time of one validation

DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DIALECTS = {
    DEFAULT_DIALECT: "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
}
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_SUBSCHEMAS = frozenset(
    ["items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"]
    + ["contains", "propertyNames", "not", "if", "then", "else", "contentSchema"]
    + ["allOf", "anyOf", "oneOf", "prefixItems"]
)
_NAMED_SUBSCHEMAS = frozenset(
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"]
)
_NAMES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
}


class _TooMuch(Exception):
    """Validation would take longer than it may."""


def check_schema(schema: Any, what: str = "inputSchema") -> None:
    """Check that a schema is a valid, bounded, self-contained schema of a supported dialect.

    :param what: how the messages call the schema.
    :raises ValueError: with a sentence that says what is wrong. Spec: FEAT-048 to FEAT-056
    """
    if not isinstance(schema, dict):
        raise ValueError(f"{what} must be a JSON object (a dict), not {type(schema).__name__}")
    _check_bounds(schema, what)
    dialect = _dialect(schema, what)
    if _quick(schema, dialect) is not None:
        return
    from jsonschema import exceptions

    try:
        _load(dialect).check_schema(schema)
    except exceptions.SchemaError as error:
        place = "/".join(str(step) for step in error.absolute_path)
        where = f"{what} is not valid JSON Schema at {place!r}" if place else f"{what} is not valid JSON Schema"
        raise ValueError(f"{where}: {error.message[:300]}") from None
    except Exception as error:
        # A wrong regular expression or a malformed URI stops the check itself.
        raise ValueError(f"{what} is not valid JSON Schema: {str(error)[:300]}") from None
    _check_subschemas(schema, dialect, what)


def check_input_schema(schema: Any, what: str = "inputSchema") -> None:
    """Check a schema as `check_schema` does, and that its root has `"type": "object"`. Spec: FEAT-017"""
    check_schema(schema, what)
    if schema.get("type") != "object":
        raise ValueError(f'{what} must have "type": "object" at its root')


class Validator:
    """Judges values by one schema; safe to use from many threads at once.

    What the quick accept is sure about costs about a microsecond; everything else is judged by jsonschema
    within `MAX_SECONDS`. A string too long to be searched for its pattern in that time counts as invalid.
    """

    __slots__ = ("schema", "_accepts", "_slow")

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self._accepts = _quick(schema, _dialect(schema, "the schema")) or quick.never
        self._slow: Any = None

    def check(self, value: Any) -> None:
        """Return when the value is valid.

        :raises InvalidArguments: when it is not; the message (below 1 KB) names the place and what was due.
        """
        try:
            if self._accepts(value):
                return
            problems = self._problems(value)
        except RecursionError:
            raise InvalidArguments(
                "The value is nested too deeply, or its schema refers to itself without end"
            ) from None
        if problems:
            raise InvalidArguments("; ".join(problems)[:900])

    def is_valid(self, value: Any) -> bool:
        """Say whether a value is valid."""
        try:
            self.check(value)
        except InvalidArguments:
            return False
        return True

    def _problems(self, value: Any) -> list[str]:
        if self._slow is None:
            from referencing import Registry

            schema = {keyword: part for keyword, part in self.schema.items() if keyword != "$schema"}
            self._slow = _load(_dialect(self.schema, "the schema"))(schema, registry=Registry())
        from referencing.exceptions import Unresolvable

        _budget.deadline, _budget.steps = time.thread_time() + MAX_SECONDS, 0
        try:
            return list(dict.fromkeys(_sentence(error) for error in islice(self._slow.iter_errors(value), 3)))
        except _TooMuch as reason:
            return [str(reason)]
        except Unresolvable:
            return ["The schema has a reference that leads outside of it"]


_budget = threading.local()


def _dialect(schema: dict[str, Any], what: str) -> str:
    declared = schema.get("$schema", DEFAULT_DIALECT)
    if not isinstance(declared, str):
        raise ValueError(f"{what}: $schema must be a string, for example {DEFAULT_DIALECT!r}")
    name = declared[:-1] if declared.endswith("#") else declared
    if name not in _DIALECTS:
        raise ValueError(f"{what}: the dialect {declared[:100]!r} is not supported; use one of " + ", ".join(_DIALECTS))
    return name


def _quick(schema: dict[str, Any], dialect: str) -> Callable[[Any], bool] | None:
    if dialect.endswith("draft-04/schema"):
        return None  # 5.0 is no integer there
    try:
        return quick.accepts(schema)
    except quick.Unsupported:
        return None


def _check_bounds(schema: dict[str, Any], what: str) -> None:
    level: list[Any] = [schema]
    nodes = text = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for key, child in item.items():
                    if not isinstance(key, str):
                        raise ValueError(f"{what} has the key {key!r}; the keys of a JSON object are strings")
                    text += len(key) + (len(child) if isinstance(child, str) else 0)
                below.extend(item.values())
            elif isinstance(item, (list, tuple)):
                below.extend(item)
                text += sum(len(child) for child in item if isinstance(child, str))
        nodes += len(below)
        if nodes > MAX_NODES or text > MAX_TEXT:
            raise ValueError(f"{what} is too large: at most {MAX_NODES} values and {MAX_TEXT} characters")
        level = [child for child in below if isinstance(child, (dict, list, tuple))]
        if not level:
            return
    raise ValueError(f"{what} is nested deeper than {MAX_DEPTH} levels, or contains itself")


def _subschemas(schema: dict[str, Any]) -> Iterator[Any]:
    for keyword, value in schema.items():
        if keyword in _SUBSCHEMAS:
            yield from value if isinstance(value, list) else [value]
        elif keyword in _NAMED_SUBSCHEMAS and isinstance(value, dict):
            yield from value.values()


def _check_subschemas(schema: dict[str, Any], dialect: str, what: str) -> None:
    """Check what the dialect's own schema cannot: references, patterns and nested dialects."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    specification = specification_with(dialect)
    root = specification.create_resource(schema)
    base = root.id() or ""
    registry: Registry[Any] = Registry().with_resource(base, root)
    waiting: list[Any] = [(schema, registry.resolver(base))]
    seen = set()
    while waiting:
        node, resolver = waiting.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        if node is not schema:
            if isinstance(node.get("$schema"), str):
                raise ValueError(f"{what}: $schema belongs at the root only, where it holds for the whole schema")
            resolver = resolver.in_subresource(specification.create_resource(node))
        for keyword in _REFERENCES:
            ref = node.get(keyword)
            if isinstance(ref, str):
                try:
                    found = resolver.lookup(ref)
                except (Unresolvable, ValueError, LookupError, AttributeError, TypeError):
                    raise ValueError(
                        f"{what}: {keyword} {ref[:100]!r} leads nowhere inside the schema; "
                        "references are not fetched, so put the target under $defs"
                    ) from None
                waiting.append((found.contents, found.resolver))
        patterns = [node.get("pattern"), *(node.get("patternProperties") or ())]
        for pattern in patterns:
            if isinstance(pattern, str):
                try:
                    compile_pattern(pattern)
                except ValueError as error:
                    raise ValueError(f"{what}: {error}") from None
        waiting.extend((child, resolver) for child in _subschemas(node))


@lru_cache
def _load(dialect: str) -> Any:
    """The validator class of a dialect, with every keyword counted against the budget of the check."""
    import jsonschema

    base: Any = getattr(jsonschema, _DIALECTS[dialect])
    keywords = {name: _counted(function) for name, function in base.VALIDATORS.items()}
    replaced = {"pattern": _pattern, "patternProperties": _pattern_properties, "uniqueItems": _unique_items}
    keywords.update({name: _counted(function) for name, function in replaced.items()})
    extend: Any = jsonschema.validators.extend
    return extend(base, validators=keywords)


def _counted(function: Any) -> Any:
    def keyword(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _budget.steps += 1 + (len(value) if isinstance(value, (list, dict)) else 0)
        if _budget.steps > 500:
            _budget.steps = 0
            if time.thread_time() > _budget.deadline:
                raise _TooMuch("The value takes too long to validate: send less, or simplify the schema")
        return function(validator, value, instance, schema)

    return keyword


def _search(pattern: str, text: str) -> bool:
    search, longest = compile_pattern(pattern)
    if len(text) > longest:
        raise _TooMuch(f"A string that must match a pattern is longer than {longest} characters")
    _budget.steps += 50 + len(text)
    return search(text) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _search(pattern, instance):
        yield ValidationError("no match")


def _pattern_properties(validator: Any, patterns: dict[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for name, item in instance.items():
            if _search(pattern, name):
                yield from validator.descend(item, subschema, path=name, schema_path=pattern)


def _unique_items(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if wanted and isinstance(instance, list) and len({_identity(item) for item in instance}) != len(instance):
        yield ValidationError("not unique")


def _identity(value: Any) -> Any:
    """A hashable stand-in: equal for what JSON Schema calls equal, so 1 and 1.0 but not 1 and true."""
    if isinstance(value, dict):
        return dict, frozenset((key, _identity(item)) for key, item in value.items())
    if isinstance(value, list):
        return list, tuple(_identity(item) for item in value)
    return (bool, value) if isinstance(value, bool) else value


def _place(path: Any) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return f'"{text[:120]}"' if text else "The value"


def _show(value: Any, limit: int = 60) -> str:
    if isinstance(value, (dict, list)) and len(value) > 20:
        return _kind(value)
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in ((str, "a string"), (int, "an integer"), (float, "a number"), (list, "an array")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "an object"


_RULES = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be greater than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} members",
    "maxProperties": "must have at most {} members",
    "pattern": "must match the pattern {}",
    "const": "must be {}",
    "uniqueItems": "must not contain the same item twice",
    "contains": "must contain an item that fits the schema",
    "not": "must not have this form",
    "dependentRequired": "needs further members: {}",
}


def _expected(schema: Any) -> str:
    """What a schema asks for, in a few words."""
    if not isinstance(schema, dict):
        return "another form"
    if isinstance(schema.get("enum"), list):
        return "one of " + ", ".join(_show(item, 40) for item in schema["enum"][:10])
    if "const" in schema:
        return _show(schema["const"])
    names = schema.get("type", ())
    listed = [names] if isinstance(names, str) else names
    found = " or ".join(_NAMES.get(name, str(name)) for name in listed)
    if found and isinstance(schema.get("format"), str):
        found += f" ({schema['format'][:40]})"
    return found or ("an object" if "$ref" in schema or "properties" in schema else "another form")


def _sentence(error: Any) -> str:
    place, keyword, rule, value = (
        _place(error.absolute_path),
        error.validator,
        error.validator_value,
        error.instance,
    )
    if keyword == "type":
        return f"{place} must be {_expected({'type': rule})}, not {_kind(value)}"
    if keyword == "enum":
        return f"{place} must be {_expected({'enum': rule})}, not {_show(value)}"
    if keyword == "required":
        missing = [_show(name) for name in rule if name not in value]
        return (
            f"{place} lacks {', '.join(missing[:10])}" if error.absolute_path else f"{', '.join(missing[:10])} missing"
        )
    if keyword == "additionalProperties" and rule is False and "patternProperties" not in error.schema:
        known = list(error.schema.get("properties", ()))
        extra = [name for name in value if name not in known]
        allowed = f"; known are {', '.join(map(_show, known[:20]))}" if known else ""
        return f"{place} has the unknown member {', '.join(map(_show, extra[:5]))}{allowed}"[:300]
    if keyword in ("anyOf", "oneOf"):
        options = dict.fromkeys(_expected(branch) for branch in rule[:8])
        return f"{place} must be {' or '.join(options)}, not {_show(value)}"[:300]
    if keyword in _RULES:
        return f"{place} {_RULES[keyword].format(_show(rule))}, not {_show(value)}"
    return f"{place} does not satisfy {_show(keyword)} of the schema"
