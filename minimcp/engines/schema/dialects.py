"""Dialects of JSON Schema that are known, and schemas without the parts that stand for nothing."""

from __future__ import annotations

from typing import Any

DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"
DRAFT_4 = "http://json-schema.org/draft-04/schema"
# Each with the name of its class in jsonschema.
DIALECTS = {
    DEFAULT_DIALECT: "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    DRAFT_4: "Draft4Validator",
}
_SPELLINGS = {dialect.partition("://")[2]: dialect for dialect in DIALECTS}
_VALUES = ("const", "enum", "default", "examples")
_MEMBERS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_EMPTY: tuple[Any, ...] = (None, "", [])


class NotSupported(ValueError):
    """Nothing can be judged by the schema: its dialect is unknown, it refers to what is not in it, or is too large."""


def dialect_of(schema: dict[str, Any], what: str, foreign: bool = False) -> str:
    """Return the dialect that a schema declares, or the default; null and "" of a foreign schema declare none.

    :raises ValueError: when it is no string, and `NotSupported` when it is unknown.
    """
    declared = schema.get("$schema", DEFAULT_DIALECT)
    if foreign and declared in _EMPTY:
        return DEFAULT_DIALECT
    if not isinstance(declared, str):
        raise ValueError(f"{what}: $schema must be a string, for example {DEFAULT_DIALECT!r}")
    scheme, _, name = declared.partition("://")
    found = _SPELLINGS.get(name[:-1] if name.endswith("#") else name)
    if found is None or scheme not in ("http", "https"):
        known = ", ".join(DIALECTS)
        raise NotSupported(f"{what}: the dialect {declared[:100]!r} is not supported; use one of {known}")
    return found


def plain(schema: dict[str, Any], dialect: str, what: str, foreign: bool) -> Any:
    """Return a schema without `$schema`; a foreign one without keywords that are null or empty, too."""
    if not foreign:
        return {keyword: part for keyword, part in schema.items() if keyword != "$schema"}

    def copy(part: Any, named: bool = False) -> Any:
        if isinstance(part, list):
            return [copy(item) for item in part]
        if not isinstance(part, dict):
            return part
        return {
            key: item if not named and key in _VALUES else copy(item, not named and key in _MEMBERS)
            for key, item in part.items()
            if named or key == "const" or not (item in _EMPTY or (key == "$schema" and declares(part)))
        }

    def declares(part: dict[str, Any]) -> bool:
        return part is schema or dialect_of(part, what, foreign) == dialect

    return copy(schema)
