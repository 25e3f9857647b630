"""The fast check: ordinary JSON Schemas as functions that return "surely valid" or "ask the full validator".

A schema becomes a table from Python type to a test of the values of that type; None stands for "every value of
the type fits", a missing type for "not sure". A keyword that is not known here, or has a value that it may not
have, makes the whole schema unsupported: so a table never accepts what the full validator would reject, and a
schema that compiles is a valid schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Optional

from .values import KINDS, is_number

Test = Optional[Callable[[Any], bool]]
Table = dict[type, Test]

_NULL = type(None)
_ANNOTATIONS = {"title": str, "description": str, "format": str, "contentEncoding": str, "deprecated": bool}
_ANNOTATIONS.update({"examples": list, "default": object})


class Unsupported(Exception):
    """The schema has a keyword that only the full validator supports; the message names it."""


class _Anything(dict[type, Test]):
    """Return the table of a schema that accepts every value."""

    def get(self, key: Any, default: Any = None) -> Any:
        return None


def accepts(schema: Any) -> Callable[[Any], bool]:
    """Compile a schema into a function that returns True only for values that are surely valid.

    :raises Unsupported: when the schema is left to the full validator.
    """
    try:
        document = _Document(schema)
        for name in document.parts:
            document.reference(f"#/$defs/{name}")
        table = document.table(document.schema)
    except RecursionError:
        raise Unsupported("nesting") from None

    def test(value: Any) -> bool:
        found = table.get(type(value), never)
        return found is None or found(value)

    return test


def never(value: Any) -> bool:
    """The check for a type that a table does not list."""
    return False


class _Document:
    """Compiles one schema; the table of each definition is made once."""

    def __init__(self, schema: Any) -> None:
        self.schema = {keyword: part for keyword, part in schema.items() if keyword != "$schema"}
        self.parts = _take(self.schema, "$defs", dict, {})
        self.tables: dict[str, Table | None] = {}

    def reference(self, ref: Any) -> Table:
        name = str(ref)[len("#/$defs/") :]
        if ref != f"#/$defs/{name}" or name not in self.parts or set(name) & set("%~/"):
            raise Unsupported("$ref")
        if name not in self.tables:
            self.tables[name] = None
            self.tables[name] = self.table(self.parts[name])
        table = self.tables[name]
        if table is None:
            raise Unsupported("a schema that contains itself")
        return table

    def table(self, schema: Any) -> Table:
        if schema is True:
            return _Anything()
        if not isinstance(schema, dict):
            raise Unsupported("false")
        said = [key for key, part in schema.items() if isinstance(part, _ANNOTATIONS.get(key, ())) or key[:2] == "x-"]
        schema = {keyword: part for keyword, part in schema.items() if keyword not in said}
        if "$ref" in schema:
            table = self.reference(schema.pop("$ref"))
        elif "anyOf" in schema:
            table = _merge([self.table(branch) for branch in _take(schema, "anyOf", list)])
        elif "type" in schema:
            names = schema.pop("type")
            table = _merge([self.typed(name, schema) for name in (names if isinstance(names, list) else [names])])
        else:
            table = _Anything()
        if "const" in schema:
            table = _choices(table, [schema.pop("const")])
        if "enum" in schema:
            table = _choices(table, _take(schema, "enum", list))
        if schema:
            raise Unsupported(next(iter(schema)))
        return table

    def typed(self, name: Any, schema: dict[str, Any]) -> Table:
        if name in ("integer", "number"):
            limits = _limits(schema)
            return {int: limits, float: limits if name == "number" else _both(float.is_integer, limits)}
        if name == "string":
            return {str: _sizes(schema, "Length")}
        if name == "array":
            return {list: _both(_sizes(schema, "Items"), _each(self.table(schema.pop("items", True))))}
        if name == "object":
            return {dict: self.members(schema)}
        if name == "boolean" or name == "null":
            return {KINDS[name][0]: None}
        raise Unsupported("type")

    def members(self, schema: dict[str, Any]) -> Test:
        tables = {name: self.table(part) for name, part in _take(schema, "properties", dict, {}).items()}
        required = _take(schema, "required", list, [])
        needed = frozenset(name for name in required if isinstance(name, str))
        if len(needed) != len(required):
            raise Unsupported("required")
        others = schema.pop("additionalProperties", True)
        rest: Table = {} if others is False else self.table(others)
        if not tables and not needed and isinstance(rest, _Anything):
            return None

        def test(value: Any) -> bool:
            for name in needed:
                if name not in value:
                    return False
            for name, item in value.items():
                found = tables.get(name, rest).get(type(item), never)
                if found is not None and not found(item):
                    return False
            return True

        return test


def _take(schema: dict[str, Any], keyword: str, kind: type, default: Any = None) -> Any:
    value = schema.pop(keyword, default)
    if not isinstance(value, kind):
        raise Unsupported(keyword)
    return value


def _both(first: Test, second: Test) -> Test:
    if first is None or second is None:
        return first or second
    return lambda value: first(value) and second(value)


def _merge(tables: list[Table]) -> Table:
    # Trying one value against several branches could take exponential time, so each type has one branch.
    merged: Table = {kind: test for table in tables for kind, test in table.items()}
    if not tables or len(merged) != sum(map(len, tables)) or any(isinstance(table, _Anything) for table in tables):
        raise Unsupported("anyOf")
    return merged


def _choices(table: Table, values: list[Any]) -> Table:
    groups: dict[type, set[Any]] = {}
    for value in values:
        kind = type(value)
        if kind not in (str, int, bool, _NULL) or (kind is int and abs(value) >= 2**53):
            raise Unsupported("enum")  # chosen large numbers could all have the same hash
        if value in groups.setdefault(kind, set()):
            raise Unsupported("enum")
        groups[kind].add(value)
    if not groups:
        raise Unsupported("enum")
    return {kind: _both(group.__contains__, table.get(kind, never)) for kind, group in groups.items()}


def _sizes(schema: dict[str, Any], noun: str) -> Test:
    low, high = schema.pop("min" + noun, 0), schema.pop("max" + noun, sys.maxsize)
    if type(low) is not int or type(high) is not int or low < 0 or high < 0:
        raise Unsupported(noun)
    return (lambda value: low <= len(value) <= high) if (low, high) != (0, sys.maxsize) else None


_LIMITS: dict[str, Callable[[Any], Callable[[Any], bool]]] = {
    "minimum": lambda limit: lambda value: value >= limit,
    "maximum": lambda limit: lambda value: value <= limit,
    "exclusiveMinimum": lambda limit: lambda value: value > limit,
    "exclusiveMaximum": lambda limit: lambda value: value < limit,
}


def _limits(schema: dict[str, Any]) -> Test:
    test: Test = None
    for keyword, make in _LIMITS.items():
        if keyword in schema:
            limit = schema.pop(keyword)
            if not is_number(limit):
                raise Unsupported(keyword)
            test = _both(test, make(limit))
    return test


def _each(table: Table) -> Test:
    if isinstance(table, _Anything):
        return None
    plain = {kind for kind, test in table.items() if test is None}

    def test(value: Any) -> bool:
        if plain.issuperset(map(type, value)):
            return True
        for item in value:
            found = table.get(type(item), never)
            if found is not None and not found(item):
                return False
        return True

    return test
