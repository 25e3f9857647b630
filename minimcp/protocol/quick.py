"""A compiler from ordinary JSON Schemas to closures that say "surely valid" or "ask the real validator".

A schema becomes a table from Python type to a test of values of that type; None stands for "every value of
the type fits", a missing type for "not sure". Keywords that are not known here make the whole schema
unsupported, so a table never accepts what the full validator would reject, and a schema that compiles is
valid in its dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from .patterns import compile_pattern

Test = Optional[Callable[[Any], bool]]
Table = dict[type, Test]


class Unsupported(Exception):
    """The schema uses something that only the full validator understands."""


class _Anything(dict[type, Test]):
    """The table of a schema that accepts every value."""

    def get(self, key: Any, default: Any = None) -> Any:
        return None


_NULL = type(None)
_TYPES = {
    "string": (str,),
    "boolean": (bool,),
    "null": (_NULL,),
    "integer": (int, float),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}
_ANNOTATIONS = {
    "title": str,
    "description": str,
    "$comment": str,
    "format": str,
    "contentEncoding": str,
    "contentMediaType": str,
    "deprecated": bool,
    "readOnly": bool,
    "writeOnly": bool,
    "examples": list,
    "default": object,
}
_NUMERIC = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def accepts(schema: Any, prefix_items: bool = True) -> Callable[[Any], bool]:
    """Compile a schema into a function that returns True only for values that are surely valid.

    :param prefix_items: whether the dialect knows `prefixItems` (2020-12).
    :raises Unsupported: when some keyword, or some value of a keyword, is left to the full validator.
    """
    try:
        return _test(_Compiler(schema, prefix_items).root())
    except RecursionError:
        raise Unsupported("nesting") from None


def never(value: Any) -> bool:
    """The test of a type that a table does not list."""
    return False


def _test(table: Table) -> Callable[[Any], bool]:
    if isinstance(table, _Anything):
        return lambda value: True
    if len(table) == 1:
        ((only, single),) = table.items()
        if single is None:
            return lambda value: type(value) is only
        return lambda value: type(value) is only and single(value)

    def test(value: Any) -> bool:
        found = table.get(type(value), never)
        return found is None or found(value)

    return test


def _size(schema: dict[str, Any], keyword: str, default: int | None) -> Any:
    value = schema.pop(keyword, default)
    if value is not default and (type(value) is not int or value < 0):
        raise Unsupported(keyword)
    return value


def _sizes(schema: dict[str, Any], noun: str) -> Test:
    low, high = _size(schema, "min" + noun, 0), _size(schema, "max" + noun, None)
    if high is not None:
        return lambda value: low <= len(value) <= high
    return (lambda value: len(value) >= low) if low else None


def _both(first: Test, second: Test) -> Test:
    if first is None or second is None:
        return first or second
    return lambda value: first(value) and second(value)


def _string(schema: dict[str, Any]) -> Test:
    sizes = _sizes(schema, "Length")
    if "pattern" not in schema:
        return sizes
    try:
        search, longest = compile_pattern(schema.pop("pattern"))
    except (ValueError, TypeError):
        raise Unsupported("pattern") from None
    if longest < 100_000:
        raise Unsupported("a pattern whose time must be watched")
    return _both(sizes, lambda value: len(value) <= longest and search(value) is not None)


def _range(schema: dict[str, Any]) -> Test:
    limits = [schema.pop(keyword, None) for keyword in _NUMERIC]
    if any(type(limit) not in (int, float, _NULL) for limit in limits):
        raise Unsupported("limits")
    low, high, above, below = limits
    if above is None and below is None:
        if low is not None and high is not None:
            return lambda value: low <= value <= high
        if low is not None:
            return lambda value: bool(value >= low)
        return None if high is None else lambda value: bool(value <= high)
    return lambda value: (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


class _Compiler:
    """Compiles one document; tables of referenced definitions are made once, before they are filled."""

    def __init__(self, document: Any, prefix_items: bool) -> None:
        self.document = document
        self.prefix_items = prefix_items
        self.tables: dict[str, Table] = {}
        self.filled: set[str] = set()

    def root(self) -> Table:
        schema = dict(self.document) if isinstance(self.document, dict) else self.document
        if isinstance(schema, dict):
            schema.pop("$schema", None)
            for group in ("$defs", "definitions"):
                names = schema.pop(group, {})
                if not isinstance(names, dict):
                    raise Unsupported(group)
                for name in names:
                    self.reference(f"#/{group}/{name}")
        return self.node(schema)

    def reference(self, ref: Any) -> Table:
        if not isinstance(ref, str) or "%" in ref or "~" in ref:
            raise Unsupported("$ref")
        group, _, name = ref[2:].partition("/")
        if not ref.startswith(("#/$defs/", "#/definitions/")) or "/" in name:
            raise Unsupported("$ref")
        known = self.document.get(group)
        if not isinstance(known, dict) or name not in known:
            raise Unsupported("$ref")
        if ref not in self.tables:
            self.tables[ref] = {}
            made = self.node(known[name])
            if isinstance(made, _Anything):
                raise Unsupported("$ref")
            self.tables[ref].update(made)
            self.filled.add(ref)
        table = self.tables[ref]
        if ref in self.filled:
            return table
        # Still being made, further up: the type must be plain to see; the test is looked up when it is run.
        declared = known[name].get("type")
        if declared not in ("object", "array"):
            raise Unsupported("$ref")
        (kind,) = _TYPES[declared]

        def later(value: Any) -> bool:
            test = table[kind]
            return test is None or test(value)

        return {kind: later}

    def node(self, schema: Any) -> Table:
        if schema is True:
            return _Anything()
        if not isinstance(schema, dict):
            raise Unsupported("false")
        schema = dict(schema)
        for keyword in list(schema):
            kind = _ANNOTATIONS.get(keyword)
            if kind is not None and isinstance(schema[keyword], kind) or keyword.startswith("x-"):
                del schema[keyword]
        table = self.typed(schema)
        if "const" in schema:
            table = self.enumerated(table, [schema.pop("const")])
        if "enum" in schema:
            table = self.enumerated(table, schema.pop("enum"))
        if schema:
            raise Unsupported(next(iter(schema)))
        return table

    def typed(self, schema: dict[str, Any]) -> Table:
        if "$ref" in schema:
            return self.reference(schema.pop("$ref"))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self.union(schema.pop(keyword), exclusive=keyword == "oneOf")
        names = schema.pop("type", None)
        if names is None:
            return _Anything()
        listed = [names] if isinstance(names, str) else names
        known = isinstance(listed, list) and listed and all(isinstance(n, str) and n in _TYPES for n in listed)
        if not known or len(set(listed)) != len(listed):
            raise Unsupported("type")
        table: Table = {}
        for name in listed:
            if name == "string":
                table[str] = _string(schema)
            elif name == "array":
                table[list] = self.array(schema)
            elif name == "object":
                table[dict] = self.object(schema)
            elif name in ("integer", "number"):
                limits = _range(schema) if int not in table else table[int]
                table[int] = limits
                if name == "number":
                    table[float] = limits
                else:
                    table.setdefault(float, _both(float.is_integer, limits))
            else:
                table[_TYPES[name][0]] = None
        return table

    def enumerated(self, table: Table, values: Any) -> Table:
        if not isinstance(values, list) or not values:
            raise Unsupported("enum")
        groups: dict[type, set[Any]] = {}
        for value in values:
            if type(value) not in (str, int, bool, _NULL) or value in groups.get(type(value), ()):
                raise Unsupported("enum")
            groups.setdefault(type(value), set()).add(value)
        if isinstance(table, _Anything):
            return {kind: group.__contains__ for kind, group in groups.items()}
        return {kind: _both(group.__contains__, table[kind]) for kind, group in groups.items() if kind in table}

    def union(self, branches: Any, exclusive: bool) -> Table:
        if not isinstance(branches, list) or not branches:
            raise Unsupported("anyOf")
        merged: Table = {}
        for table in [self.node(branch) for branch in branches]:
            if isinstance(table, _Anything):
                raise Unsupported("anyOf")
            for kind, test in table.items():
                if kind not in merged:
                    merged[kind] = test
                elif exclusive or kind in (list, dict):
                    # Trying one container against several branches could take exponential time.
                    raise Unsupported("anyOf")
                else:
                    merged[kind] = _either(merged[kind], test)
        return merged

    def array(self, schema: dict[str, Any]) -> Test:
        sizes = _sizes(schema, "Items")
        unique = schema.pop("uniqueItems", False)
        prefix = schema.pop("prefixItems", None)
        table = self.node(schema.pop("items", True))
        if prefix is not None:
            if not self.prefix_items or unique or not isinstance(prefix, list) or not prefix:
                raise Unsupported("prefixItems")
            return _both(sizes, _tuple([self.node(item) for item in prefix], table))
        if unique is not False:
            if unique is not True or not table or not set(table) <= {str, int, float, bool, _NULL}:
                raise Unsupported("uniqueItems")
            # A set takes 1, 1.0 and True for one value: what it calls different is different in JSON too.
            return _both(sizes, _both(_each(table), lambda value: len(set(value)) == len(value)))
        return _both(sizes, _each(table))

    def object(self, schema: dict[str, Any]) -> Test:
        sizes = _sizes(schema, "Properties")
        properties, required = schema.pop("properties", {}), schema.pop("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise Unsupported("properties")
        needed = frozenset(name for name in required if isinstance(name, str))
        if len(needed) != len(required):
            raise Unsupported("required")
        others = schema.pop("additionalProperties", True)
        rest: Table = {} if others is False else self.node(others)
        return _both(sizes, _members({n: self.node(s) for n, s in properties.items()}, needed, rest))


def _either(first: Test, second: Test) -> Test:
    if first is None or second is None:
        return None
    return lambda value: first(value) or second(value)


def _each(table: Table) -> Test:
    if isinstance(table, _Anything):
        return None
    plain = {kind for kind, test in table.items() if test is None}

    def each(value: Any) -> bool:
        if plain.issuperset(map(type, value)):
            return True
        for item in value:
            test = table.get(type(item), never)
            if test is not None and not test(item):
                return False
        return True

    return each


def _tuple(tables: list[Table], rest: Table) -> Test:
    after = _each(rest)

    def items(value: Any) -> bool:
        for table, item in zip(tables, value):
            test = table.get(type(item), never)
            if test is not None and not test(item):
                return False
        return after is None or len(value) <= len(tables) or after(value[len(tables) :])

    return items


def _members(tables: dict[str, Table], needed: frozenset[str], rest: Table) -> Test:
    if not tables and not needed and isinstance(rest, _Anything):
        return None

    def members(value: Any) -> bool:
        for name in needed:
            if name not in value:
                return False
        for name, item in value.items():
            test = tables.get(name, rest).get(type(item), never)
            if test is not None and not test(item):
                return False
        return True

    return members
