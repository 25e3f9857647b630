"""JSON Schema validation: of schemas at registration and of values at each call, bounded and without network.

Dialects: 2020-12 (also when `$schema` is absent), 2019-09, draft 7, draft 6 and draft 4. Only this module
imports jsonschema, and only when a schema or a value needs more than `fast_check`.
Spec: FEAT-017, FEAT-048 to FEAT-056
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice, product
from typing import Any

from .. import bounds
from ..errors import InvalidArguments
from . import fast_check
from .patterns import compile_pattern
from .values import KINDS

MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_TEXT = 2_000_000  # characters of all strings of one schema
MAX_SECONDS = 1.0  # processor time of one validation

_TOO_LARGE = f"{{}} is too large: at most {MAX_NODES} values and {MAX_TEXT} characters"
_BROKEN = {
    "depth": f"{{}} is nested deeper than {MAX_DEPTH} levels, or contains itself",
    "values": _TOO_LARGE,
    "text": _TOO_LARGE,
    "keys": "{}: the keys of a JSON object are strings",
}

DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DIALECTS = {
    DEFAULT_DIALECT: "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
}


class _TooMuch(Exception):
    """The validation takes too long."""


def check_schema(schema: Any, what: str = "inputSchema") -> None:
    """Check that a schema is a valid, bounded, self-contained schema of a supported dialect.

    :param what: how the messages call the schema.
    :raises ValueError: with a sentence that says what is wrong. Spec: FEAT-048 to FEAT-056
    """
    if not isinstance(schema, dict):
        raise ValueError(f"{what} must be a JSON object (a dict), not {type(schema).__name__}")
    broken = bounds.exceeded(schema, MAX_DEPTH, MAX_NODES, MAX_TEXT)
    if broken is not None:
        raise ValueError(_BROKEN[broken].format(what))
    dialect = _dialect(schema, what)
    if _fast_check(schema, dialect) is not None:
        return
    try:
        _load(dialect).check_schema(schema)
    except Exception as error:  # SchemaError; a wrong regular expression or URI stops the check itself
        place = "/".join(map(str, getattr(error, "absolute_path", ())))
        reason = str(getattr(error, "message", error))[:300]
        raise ValueError(f"{what} is not valid JSON Schema{place and f' at {place!r}'}: {reason}") from None
    _check_subschemas(schema, dialect, what)


def check_input_schema(schema: Any, what: str = "inputSchema") -> None:
    """Check a schema as `check_schema` does, and that its root has `"type": "object"`. Spec: FEAT-017"""
    check_schema(schema, what)
    if schema.get("type") != "object":
        raise ValueError(f'{what} must have "type": "object" at its root')


class Validator:
    """Validates values by one schema; threads may share it.

    A value that the fast check accepts costs about a microsecond; all others are validated by jsonschema
    within `MAX_SECONDS`. A string too long to be searched for its pattern in that time counts as invalid.
    """

    __slots__ = ("schema", "_accepts", "_slow")

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self._accepts = _fast_check(schema, _dialect(schema, "the schema")) or fast_check.never
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
            problems = ["The value is nested too deeply, or its schema refers to itself without end"]
        if problems:
            raise InvalidArguments("; ".join(problems)[:900])

    def is_valid(self, value: Any) -> bool:
        """Return whether a value is valid."""
        try:
            self.check(value)
        except InvalidArguments:
            return False
        return True

    def _problems(self, value: Any) -> list[str]:
        from referencing import Registry
        from referencing.exceptions import Unresolvable

        if self._slow is None:
            schema = {keyword: part for keyword, part in self.schema.items() if keyword != "$schema"}
            self._slow = _load(_dialect(self.schema, "the schema"))(schema, registry=Registry())
        _budget.deadline, _budget.steps = time.thread_time() + MAX_SECONDS, 0
        try:
            return list(dict.fromkeys(_sentence(error) for error in islice(self._slow.iter_errors(value), 3)))
        except _TooMuch as reason:
            return [str(reason)]
        except Unresolvable:
            return ["The schema has a reference that leads outside of it"]
        except ValueError as error:  # of a pattern
            return [f"The schema cannot be used: {error}"]


_budget = threading.local()  # of the validation that runs in this thread


def _dialect(schema: dict[str, Any], what: str) -> str:
    declared = schema.get("$schema", DEFAULT_DIALECT)
    if not isinstance(declared, str):
        raise ValueError(f"{what}: $schema must be a string, for example {DEFAULT_DIALECT!r}")
    name = declared[:-1] if declared.endswith("#") else declared
    if name not in _DIALECTS:
        raise ValueError(f"{what}: the dialect {declared[:100]!r} is not supported; use one of " + ", ".join(_DIALECTS))
    return name


def _fast_check(schema: dict[str, Any], dialect: str) -> Callable[[Any], bool] | None:
    if dialect.endswith("draft-04/schema"):
        return None  # 5.0 is not an integer there
    try:
        return fast_check.accepts(schema)
    except fast_check.Unsupported:
        return None


def _check_subschemas(schema: dict[str, Any], dialect: str, what: str) -> None:
    """Check parts that the dialect's own schema cannot: references, patterns and nested dialects."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    root = specification_with(dialect).create_resource(schema)
    base = root.id() or ""
    waiting: list[Any] = [(root, Registry().with_resource(base, root).resolver(base))]
    seen = set()
    while waiting:
        resource, resolver = waiting.pop()
        node = resource.contents
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        if node is not schema:
            if isinstance(node.get("$schema"), str):
                raise ValueError(f"{what}: $schema belongs at the root only, where it holds for the whole schema")
            resolver = resolver.in_subresource(resource)
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            ref = node.get(keyword)
            if isinstance(ref, str):
                try:
                    found = resolver.lookup(ref)
                except (Unresolvable, ValueError, LookupError, AttributeError, TypeError):
                    raise ValueError(
                        f"{what}: {keyword} {ref[:100]!r} leads nowhere inside the schema; "
                        "references are not fetched, so put the target under $defs"
                    ) from None
                waiting.append((specification_with(dialect).create_resource(found.contents), found.resolver))
        for pattern in (node.get("pattern"), *(node.get("patternProperties") or ())):
            if isinstance(pattern, str):
                try:
                    compile_pattern(pattern)
                except ValueError as error:
                    raise ValueError(f"{what}: {error}") from None
        waiting.extend((inner, resolver) for inner in resource.subresources())


@lru_cache
def _load(dialect: str) -> Any:
    """Return the validator class of a dialect, with every keyword counted against the budget of the check."""
    import jsonschema

    base: Any = getattr(jsonschema, _DIALECTS[dialect])
    keywords = {**base.VALIDATORS, "uniqueItems": _unique_items}
    for name in ("pattern", "patternProperties", "additionalProperties", "unevaluatedProperties"):
        if name in keywords:
            keywords[name] = _searching(keywords[name])
    extend: Any = jsonschema.validators.extend
    return extend(base, validators={name: _counted(function) for name, function in keywords.items()})


def _spend(steps: int) -> None:
    _budget.steps += steps
    if _budget.steps > 500:
        _budget.steps = 0
        if time.thread_time() > _budget.deadline:
            raise _TooMuch("The value takes too long to validate: send less, or simplify the schema")


def _counted(function: Any) -> Any:
    def keyword(validator: Any, rule: Any, value: Any, schema: Any) -> Any:
        _spend(1 + (len(value) if isinstance(value, (list, dict)) else 0))
        return function(validator, rule, value, schema)

    return keyword


def _searching(function: Any) -> Any:
    """Return a keyword that searches patterns, within the budget before the library searches them again."""

    def keyword(validator: Any, rule: Any, value: Any, schema: Any) -> Any:
        if isinstance(rule, str):
            searches = product([rule], [value] if isinstance(value, str) else [])
        else:
            searches = product(schema.get("patternProperties", ()), value if isinstance(value, dict) else [])
        for pattern, text in searches:
            search, longest = compile_pattern(pattern)
            if len(text) > longest:
                raise _TooMuch(f"A string that must match a pattern is longer than {longest} characters")
            search(text)
            _spend(50 + len(text))
        return function(validator, rule, value, schema)

    return keyword


def _unique_items(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if wanted and isinstance(instance, list) and len(set(map(_identity, instance))) != len(instance):
        yield ValidationError("not unique")


def _identity(value: Any) -> Any:
    """Return a hashable key, equal for values that JSON Schema calls equal: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict):
        return dict, frozenset((key, _identity(item)) for key, item in value.items())
    if isinstance(value, list):
        return list, tuple(map(_identity, value))
    return (bool, value) if isinstance(value, bool) else value


_RULES = {
    "type": "must be {expected}, not {kind}",
    "enum": "must be {expected}, not {value}",
    "const": "must be {expected}, not {value}",
    "anyOf": "must be {options}, not {value}",
    "oneOf": "must be {options}, not {value}",
    "minimum": "must be at least {rule}, not {value}",
    "maximum": "must be at most {rule}, not {value}",
    "exclusiveMinimum": "must be greater than {rule}, not {value}",
    "exclusiveMaximum": "must be less than {rule}, not {value}",
    "multipleOf": "must be a multiple of {rule}, not {value}",
    "minLength": "must have at least {rule} characters, not {value}",
    "maxLength": "must have at most {rule} characters, not {value}",
    "minItems": "must have at least {rule} items, not {value}",
    "maxItems": "must have at most {rule} items, not {value}",
    "pattern": "must match the pattern {rule}, not {value}",
    "uniqueItems": "must not contain the same item twice",
}


def _nearest(error: Any) -> Any:
    """Return the problem of the branch of a union that a value belongs to, or the error itself where there is none.

    A value belongs to the branches of its own type, then to those whose `const` or `enum` it has, then to the one with
    the fewest problems.
    """
    while error.validator in ("anyOf", "oneOf") and error.context:
        branches: dict[int, list[Any]] = {}
        for each in error.context:
            branches.setdefault(each.relative_schema_path[0], []).append(each)
        left = [each for each in branches.values() if not any(_is_of_another(problem) for problem in each)]
        if not left:
            return error
        chosen = min(left, key=lambda each: (sum(map(_marks_another, each)), len(each)))
        error = min(chosen, key=lambda problem: (-_marks_another(problem), problem.validator == "additionalProperties"))
    return error


def _is_of_another(problem: Any) -> bool:
    """Say whether a problem of a branch is that the value itself is of another type."""
    return problem.validator in ("type", "enum", "const") and not problem.relative_path


def _marks_another(problem: Any) -> bool:
    """Say whether a problem of a branch is that a member has not the value that marks the branch."""
    return problem.validator in ("enum", "const") and len(problem.relative_path) == 1


def _sentence(error: Any) -> str:
    """Return an error message that names no library."""
    error = _nearest(error)
    keyword, rule, value, place = error.validator, error.validator_value, error.instance, ""
    for step in error.absolute_path:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else str(step)
    where = f'"{place[:120]}"' if place else "The value"
    if keyword == "required":
        missing = ", ".join(_show(name) for name in rule if name not in value)[:300]
        return f"{where} lacks {missing}" if place else f"{missing} missing"
    if keyword == "additionalProperties" and rule is False and "patternProperties" not in error.schema:
        known = error.schema.get("properties", {})
        extra = ", ".join(_show(name) for name in value if name not in known)[:150]
        allowed = f"; known are {', '.join(map(_show, known))}"[:300] if known else ""
        return f"{where} has the unknown member {extra}{allowed}"
    words = {
        "expected": _expected({keyword: rule}),
        "options": " or ".join(dict.fromkeys(map(_expected, rule[:8] if keyword in ("anyOf", "oneOf") else ()))),
        "rule": _show(rule),
        "value": _show(value),
        "kind": _show(value) if isinstance(value, bool) else _kind(value),
    }
    return f"{where} {_RULES.get(keyword, f'does not satisfy {_show(keyword)} of the schema').format(**words)}"[:500]


def _expected(schema: Any) -> str:
    """Return a short description of a schema."""
    if not isinstance(schema, dict):
        return "another form"
    if "const" in schema or isinstance(schema.get("enum"), list):
        choices = ", ".join(_show(item, 40) for item in schema.get("enum", ())[:10])
        return f"one of {choices}" if choices else _show(schema.get("const"))
    names = schema.get("type", "object" if "$ref" in schema or "properties" in schema else ())
    found = " or ".join(KINDS[name][1] for name in ([names] if isinstance(names, str) else names) if name in KINDS)
    if found and isinstance(schema.get("format"), str):
        found += f" ({schema['format'][:40]})"
    return found or "another form"


def _kind(value: Any) -> str:
    return next((words for kind, words in KINDS.values() if type(value) is kind), "another value")


def _show(value: Any, limit: int = 60) -> str:
    if isinstance(value, (dict, list)) and len(value) > 20:
        return _kind(value)
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
