"""Sentences for people and models about what a value lacks."""

from __future__ import annotations

import json
from typing import Any

from .values import KINDS

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
    "false": "is not allowed",
}


def sentence(error: Any, where: str = "") -> str:
    """Return a sentence that says where a value does not fit, and what was due there.

    :param error: one of jsonschema.
    :param where: its subject, if not the place of the value.
    """
    error = nearest(error)
    keyword, rule, value = error.validator or "false", error.validator_value, error.instance
    place = ""
    for step in error.absolute_path:
        place += f"[{step}]" if isinstance(step, int) else f".{step[:120]}" if place else step[:120]
    where = where or f'"{place[:120]}"' if place else "The value"
    if keyword == "required":
        missing = ", ".join(_show(name) for name in rule if name not in value)[:300]
        return f"{where} lacks {missing}" if place else f"{missing} missing"
    if keyword == "additionalProperties" and rule is False and "patternProperties" not in error.schema:
        known = error.schema.get("properties") or {}
        extra = ", ".join(_show(name) for name in value if name not in known)[:150]
        allowed = f"; known are {', '.join(map(_show, known))}"[:300] if known else ""
        return f"{where} has the unknown member {extra}{allowed}" if place else f"{extra} is unknown{allowed}"
    words = {
        "expected": _expected({keyword: rule}),
        "options": " or ".join(dict.fromkeys(map(_expected, rule[:8] if keyword in ("anyOf", "oneOf") else ()))),
        "rule": _show(rule),
        "value": _show(value),
        "kind": _show(value) if isinstance(value, bool) else _kind(value),
    }
    return f"{where} {_RULES.get(keyword, f'does not satisfy {_show(keyword)} of the schema').format(**words)}"[:500]


def nearest(error: Any) -> Any:
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
