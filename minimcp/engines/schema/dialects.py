"""Dialects of JSON Schema: the keywords of each, the values that these may have, and the parts that are schemas.

A schema is checked in one walk. It also collects what references name, so that none is ever fetched.
Spec: FEAT-048 to FEAT-056
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Optional
from urllib.parse import unquote, urldefrag, urljoin

from .budget import Budget
from .patterns import compile_pattern
from .values import KINDS, is_number

DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Search = Optional[tuple[Callable[[str], Any], int]]  # as `compile_pattern` returns it; None: not understood
_Check = tuple[Callable[[Any], bool], str]  # whether a keyword may have a value, and what it must be


class NotSupported(ValueError):
    """The schema is of an unknown dialect, or refers to what is not in it: nothing can be judged by it."""


def _is_count(value: Any) -> bool:
    return is_number(value) and value >= 0 and value == int(value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _are_types(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return _are_names(names) and bool(names) and all(name in KINDS for name in names)


def _matches(pattern: str) -> Callable[[Any], bool]:
    found = re.compile(pattern)
    return lambda value: isinstance(value, str) and found.fullmatch(value) is not None


def identity(value: Any, budget: Budget | None = None) -> Any:
    """Return a hashable key, equal for values that JSON Schema calls equal: 1 and 1.0, but not 1 and true."""
    if budget is not None:
        budget.spend(1 + (len(value) // 1000 if isinstance(value, str) else 0))
    if isinstance(value, dict):
        return dict, frozenset([(key, identity(item, budget)) for key, item in value.items()])
    if isinstance(value, list):
        return list, tuple([identity(item, budget) for item in value])
    if is_number(value) and abs(value) >= 2**53:
        return int, hex(int(value))  # as numbers, chosen ones could all have the same hash
    return (bool, value) if isinstance(value, bool) else value


_TEXT: _Check = (lambda value: isinstance(value, str), "a string")
_FLAG: _Check = (lambda value: isinstance(value, bool), "true or false")
_STRICT: _Check = (lambda value: isinstance(value, bool), "true or false")
_LIST: _Check = (lambda value: isinstance(value, list), "an array")
_NUMBER: _Check = (is_number, "a number")
_COUNT: _Check = (_is_count, "an integer that is not negative")
_PLAIN_COUNT: _Check = (lambda value: isinstance(value, int) and _is_count(value), _COUNT[1])
_COUNTS = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")
_NAMES: _Check = (_are_names, "an array of different strings")
_TYPES: _Check = (_are_types, f"one of {', '.join(KINDS)}, or an array of different ones")
_FLAGS: _Check = (lambda value: isinstance(value, dict) and all(map(_FLAG[0], value.values())), "an object of booleans")
_NEEDS: _Check = (lambda value: isinstance(value, dict) and all(map(_are_names, value.values())), "an object of arrays")

# Keywords whose values are schemas, or hold some.
_SCHEMA, _SCHEMAS, _MEMBERS, _EITHER, _DEPENDENCIES = "schema", "schemas", "members", "either", "dependencies"
_WORDS = {
    _SCHEMAS: "an array of schemas that is not empty",
    _MEMBERS: "an object of schemas",
    _EITHER: "a schema or an array of schemas that is not empty",
    _DEPENDENCIES: "an object of schemas and arrays of strings",
}

_DRAFT_4: dict[str, Any] = {
    **dict.fromkeys(["id", "$schema", "$ref", "title", "description", "format", "pattern"], _TEXT),
    "multipleOf": (lambda value: is_number(value) and value > 0, "a number above 0"),
    **dict.fromkeys(["maximum", "minimum"], _NUMBER),
    **dict.fromkeys(["exclusiveMaximum", "exclusiveMinimum"], _STRICT),
    "uniqueItems": _FLAG,
    **dict.fromkeys(_COUNTS, _PLAIN_COUNT),
    **dict.fromkeys(["additionalItems", "additionalProperties", "not"], _SCHEMA),
    **dict.fromkeys(["definitions", "properties", "patternProperties"], _MEMBERS),
    **dict.fromkeys(["allOf", "anyOf", "oneOf"], _SCHEMAS),
    "items": _EITHER,
    "dependencies": _DEPENDENCIES,
    "required": (lambda value: _are_names(value) and bool(value), "an array of different strings that is not empty"),
    "enum": (
        lambda value: isinstance(value, list) and 0 < len(value) == len({identity(item) for item in value}),
        "an array of different values that is not empty",
    ),
    "type": _TYPES,
}
_DRAFT_6: dict[str, Any] = {
    **{keyword: check for keyword, check in _DRAFT_4.items() if keyword != "id"},
    "$id": _TEXT,
    "const": (lambda value: True, "any value"),
    **dict.fromkeys(_COUNTS, _COUNT),
    **dict.fromkeys(["exclusiveMaximum", "exclusiveMinimum"], _NUMBER),
    **dict.fromkeys(["contains", "propertyNames"], _SCHEMA),
    **dict.fromkeys(["examples", "enum"], _LIST),
    "required": _NAMES,
}
_DRAFT_7: dict[str, Any] = {
    **_DRAFT_6,
    **dict.fromkeys(["$comment", "contentMediaType", "contentEncoding"], _TEXT),
    **dict.fromkeys(["if", "then", "else"], _SCHEMA),
    "readOnly": _FLAG,
}
_DRAFT_2019: dict[str, Any] = {
    **_DRAFT_7,
    "$id": (_matches("[^#]*#?"), "a URI without a fragment"),
    "$anchor": (_matches("[A-Za-z][-A-Za-z0-9.:_]*"), "a plain name"),
    "$recursiveRef": _TEXT,
    **dict.fromkeys(["$recursiveAnchor", "deprecated", "writeOnly"], _FLAG),
    "$vocabulary": _FLAGS,
    **dict.fromkeys(["$defs", "dependentSchemas"], _MEMBERS),
    **dict.fromkeys(["unevaluatedItems", "unevaluatedProperties", "contentSchema"], _SCHEMA),
    **dict.fromkeys(["maxContains", "minContains"], _COUNT),
    "dependentRequired": _NEEDS,
}
_ANCHOR: _Check = (_matches("[A-Za-z_][-A-Za-z0-9._]*"), "a plain name")
_DRAFT_2020: dict[str, Any] = {
    **{keyword: check for keyword, check in _DRAFT_2019.items() if keyword != "additionalItems"},
    **dict.fromkeys(["$anchor", "$dynamicAnchor", "$recursiveAnchor"], _ANCHOR),
    "$dynamicRef": _TEXT,
    "items": _SCHEMA,
    "prefixItems": _SCHEMAS,
}

CHECKS = {
    DEFAULT_DIALECT: _DRAFT_2020,
    "https://json-schema.org/draft/2019-09/schema": _DRAFT_2019,
    "http://json-schema.org/draft-07/schema": _DRAFT_7,
    "http://json-schema.org/draft-06/schema": _DRAFT_6,
    "http://json-schema.org/draft-04/schema": _DRAFT_4,
}
_SPELLINGS = {dialect.partition("://")[2]: dialect for dialect in CHECKS}
DRAFT_4, DRAFT_2019 = list(CHECKS)[-1], list(CHECKS)[1]
OLD = list(CHECKS)[2:]  # where a reference stands alone: what is beside it does not count


def dialect_of(schema: dict[str, Any], what: str, foreign: bool = False) -> str:
    """Return the dialect that a schema declares, or the default; null and "" of a foreign schema declare none.

    :raises ValueError: when it is no string, and `NotSupported` when it is unknown.
    """
    declared = schema.get("$schema", DEFAULT_DIALECT)
    if foreign and is_absent("$schema", declared):
        return DEFAULT_DIALECT
    if not isinstance(declared, str):
        raise ValueError(f"{what}: $schema must be a string, for example {DEFAULT_DIALECT!r}")
    scheme, _, name = declared.partition("://")
    found = _SPELLINGS.get(name[:-1] if name.endswith("#") else name)
    if found is None or scheme not in ("http", "https"):
        known = ", ".join(CHECKS)
        raise NotSupported(f"{what}: the dialect {declared[:100]!r} is not supported; use one of {known}")
    return found


class CheckedSchema:
    """A schema that its dialect allows, and the parts of it that references and anchors name.

    :ivar bases: the base URI of each schema that has one of its own, by its `id()`.
    :ivar anchors: schemas by base URI and fragment; `dynamic` are those that `$dynamicAnchor` names.
    :ivar patterns: the compiled patterns.
    :ivar marks: whether a keyword asks which members and items others have judged.
    :ivar choices: the identities of the values of an `enum`, by its `id()`.
    :param foreign: whether it comes from another program: then null and empty values count as absent, and patterns
        that are not understood are kept as unknown.
    :raises ValueError: when it is not valid, with a sentence that says where.
    """

    def __init__(self, schema: dict[str, Any], dialect: str, what: str, foreign: bool, budget: Budget) -> None:
        self.root = schema
        self.dialect = dialect
        self.foreign = foreign
        self.bases: dict[int, str] = {}
        self.anchors: dict[tuple[str, str], Any] = {}
        self.dynamic: dict[tuple[str, str], Any] = {}
        self.patterns: dict[str, Search] = {}
        self.marks = False
        self.choices: dict[int, frozenset[Any]] = {}
        self._what = what
        self._budget = budget
        self._checks = CHECKS[dialect]
        self._id = "id" if dialect == DRAFT_4 else "$id"
        self._seen: set[int] = set()
        self._targets: dict[tuple[str, str], tuple[Any, str]] = {}
        self._references: list[tuple[str, str, str]] = []
        self._walk(schema, "", ())
        self.base = self.bases.get(id(schema), "")
        while self._references:
            base, keyword, reference = self._references.pop()
            try:
                target, base = self._find(base, reference)
            except (ValueError, LookupError, TypeError):
                raise NotSupported(
                    f"{what}: {keyword} {reference[:100]!r} leads nowhere inside the schema; "
                    "references are not fetched, so put the target under $defs"
                ) from None
            self._walk(target, base, (reference,))

    def resolve(self, base: str, reference: str) -> tuple[Any, str]:
        """Return the schema that a reference names, and its base URI."""
        key = (base, reference)
        if key not in self._targets:
            self._targets[key] = self._find(base, reference)
        return self._targets[key]

    def _find(self, base: str, reference: str) -> tuple[Any, str]:
        if reference.startswith("#"):
            uri, fragment = base, reference[1:]
        else:
            uri, fragment = urldefrag(urljoin(base, reference))
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self.anchors[uri, fragment], uri
        node = self.anchors[uri, ""]
        for step in fragment.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            node = node[int(step) if isinstance(node, list) and re.fullmatch("[0-9]{1,6}", step) else step]
            uri = self.bases.get(id(node), uri)
        return node, uri

    def _walk(self, root: Any, base: str, place: Any) -> None:
        waiting = [(root, base, place)]
        while waiting:
            node, base, place = waiting.pop()
            if isinstance(node, bool) and (self.dialect != DRAFT_4 or (place and place[-1] in _MAY_BE_FLAGS)):
                continue
            if not isinstance(node, dict):
                raise self._wrong(place, "a schema must be an object" + " or a boolean" * (self.dialect != DRAFT_4))
            if id(node) in self._seen:
                continue
            self._seen.add(id(node))
            base = self._name(node, base)
            self.anchors.setdefault((base, ""), node)
            for keyword, value in node.items():
                self._budget.spend(1)
                check = self._checks.get(keyword)
                if check is None or (self.foreign and is_absent(keyword, value)):
                    continue
                if isinstance(check, tuple):
                    self._plain(node, keyword, value, check, base, place)
                else:
                    for step, part in self._parts(check, keyword, value, place):
                        waiting.append((part, base, (*place, keyword, *step)))

    def _name(self, node: dict[str, Any], base: str) -> str:
        """Take note of the names of a schema and return its base URI."""
        name = node.get(self._id)
        if isinstance(name, str) and name and not ("$ref" in node and self.dialect in OLD):
            if name.startswith("#") and self.dialect in OLD:
                self.anchors[base, name[1:]] = node
            else:
                try:
                    base = urljoin(base, name).rstrip("#")
                except ValueError:
                    raise ValueError(f"{self._what}: {self._id} {name[:100]!r} is not a URI") from None
                self.bases[id(node)] = base
                self.anchors[base, ""] = node
        for keyword in ("$anchor", "$dynamicAnchor"):
            name = node.get(keyword)
            if isinstance(name, str) and keyword in self._checks:
                self.anchors[base, name] = node
                if keyword == "$dynamicAnchor":
                    self.dynamic[base, name] = node
        return base

    def _plain(self, node: Any, keyword: str, value: Any, check: _Check, base: str, place: Any) -> None:
        inside = keyword == "$schema" and node is not self.root
        if inside and not (self.foreign and dialect_of(node, self._what) == self.dialect):
            raise NotSupported(f"{self._what}: $schema belongs at the root only, where it holds for the whole schema")
        fits, words = check
        if not fits(value):
            raise self._wrong((*place, keyword), f"it must be {words}")
        if keyword == "pattern":
            self._compile(value, (*place, keyword))
        elif keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            self._references.append((base, keyword, value))
        elif check is _STRICT and keyword[9:].lower() not in node:
            raise self._wrong((*place, keyword), f"it stands beside {keyword[9:].lower()!r} only")

    def _parts(self, shape: str, keyword: str, value: Any, place: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the steps to each part of a keyword's value that is a schema, and the part."""
        self.marks = self.marks or keyword.startswith("unevaluated")
        if shape == _SCHEMA or (shape == _EITHER and not isinstance(value, list)):
            yield (), value
        elif shape in (_SCHEMAS, _EITHER) and isinstance(value, list) and value:
            yield from (((number,), part) for number, part in enumerate(value))
        elif shape in (_MEMBERS, _DEPENDENCIES) and isinstance(value, dict):
            for name, part in value.items():
                if keyword == "patternProperties":
                    self._compile(name, (*place, keyword))
                if shape == _MEMBERS or not isinstance(part, list):
                    yield (name,), part
                elif not _are_names(part) or not (part or self.dialect != DRAFT_4):
                    raise self._wrong((*place, keyword, name), "it must be an array of different strings")
        else:
            raise self._wrong((*place, keyword), f"it must be {_WORDS[shape]}")

    def _compile(self, pattern: str, place: Any) -> None:
        self._budget.spend(len(pattern))
        try:
            self.patterns[pattern] = compile_pattern(pattern)
        except ValueError as error:
            if not self.foreign:
                raise self._wrong(place, str(error)) from None
            self.patterns[pattern] = None

    def _wrong(self, place: Any, reason: str) -> ValueError:
        where = "/".join(map(str, place))[:200]
        return ValueError(f"{self._what} is not valid JSON Schema{where and f' at {where!r}'}: {reason}")


_MAY_BE_FLAGS = ("additionalItems", "additionalProperties")
_EMPTY: tuple[Any, ...] = (None, "", [])


def is_absent(keyword: str, value: Any) -> bool:
    """Say whether a keyword's value stands for none, as some programs write it."""
    return value in _EMPTY and keyword != "const"
