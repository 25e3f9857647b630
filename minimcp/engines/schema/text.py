"""Text to JSON values by a schema: for arguments of prompts and URIs, and for those typed on a command line."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .values import NAMES, ConversionError, Schema

_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}\Z")
_MOST_PARTS = 200
_LIMITING = {"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"}
_NOT = object()


def from_texts(schema: Schema, arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert the arguments that are text, by the schema of all arguments.

    A text stays as it is where the schema takes text, and where it cannot be converted: validation refuses it then.
    """
    properties = schema.get("properties", {})
    result = dict(arguments)
    for name, value in arguments.items():
        part = properties.get(name, {})
        if isinstance(value, str) and not _takes_text(part, schema):
            try:
                result[name] = convert(value, part, schema)
            except ConversionError:
                pass
    return result


def convert(text: str, schema: Any, root: Schema) -> Any:
    """Convert a text by the types that a schema allows; it stays text only if no other type fits and text does.

    :param root: the whole schema, for references within it.
    :raises ConversionError: when it fits none; the message follows the name of the argument.
    """
    choices = schema.get("enum", ()) if isinstance(schema, dict) else ()
    for value in choices:
        if value == text or (not isinstance(value, str) and json.dumps(value) == text):
            return value
    types = allowed(schema, root)
    for kind in ("boolean", "integer", "number", "array", "object", "null"):
        if kind in types:
            value = _read(kind, text)
            if value is not _NOT:
                return value
    if "string" in types:
        return text
    if "array" in types and not text.lstrip().startswith("["):
        return [convert_item(text, schema, root)]
    if types:
        raise ConversionError(f"must be of type {' or '.join(sorted(types))}, not {text!r}")
    try:
        return parse(text)
    except ValueError:
        return text


def convert_item(text: str, schema: Any, root: Schema) -> Any:
    """Convert a text to one element of an array, by the schema of the array.

    :raises ConversionError: when it does not fit.
    """
    items: Schema = next((part["items"] for part in _parts(schema, root) if isinstance(part.get("items"), dict)), {})
    return convert(text, items, root)


def parse(text: str) -> Any:
    """Parse JSON without NaN and infinities.

    :raises ValueError: when it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON value")


def allowed(schema: Any, root: Schema) -> set[str]:
    """The names of the JSON types that a schema allows; empty when it does not say."""
    found: set[str] = set()
    for part in _parts(schema, root):
        kind = part.get("type")
        found.update(each for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, str))
        if kind is None:
            values = part.get("enum", [part["const"]] if "const" in part else [])
            found.update(NAMES.get(type(value), "null") for value in (values if isinstance(values, list) else []))
    return found


def _takes_text(schema: Any, root: Schema) -> bool:
    types = allowed(schema, root)
    # A branch that says nothing takes text too.
    return not types or "string" in types or any(not part.keys() & _LIMITING for part in _parts(schema, root))


def _read(kind: str, text: str) -> Any:
    """The value of a JSON type that a text stands for, or `_NOT`."""
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), _NOT)
    if kind == "null":
        return None if text == "null" else _NOT
    if kind in ("array", "object"):
        try:
            value = parse(text)
        except ValueError:
            return _NOT
        return value if NAMES.get(type(value)) == kind else _NOT
    if _INTEGER.match(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return _NOT
    if kind == "integer":
        # JSON Schema calls 5.0 an integer.
        return int(number) if number.is_integer() else _NOT
    return number if math.isfinite(number) else _NOT


def _parts(schema: Any, root: Schema) -> list[Schema]:
    """A schema and the schemas it is composed of, at most `_MOST_PARTS`."""
    found: list[Schema] = []
    waiting = [schema]
    while waiting and len(found) < _MOST_PARTS:
        part = waiting.pop(0)
        if not isinstance(part, dict) or any(part is each for each in found):
            continue
        found.append(part)
        if isinstance(part.get("$ref"), str):
            waiting.append(_local(part["$ref"], root))
        for word in ("anyOf", "oneOf", "allOf"):
            branches = part.get(word)
            waiting += branches if isinstance(branches, list) else []
    return found


def _local(reference: str, root: Any) -> Any:
    """The schema that a reference within the document points to, or None; others are never followed."""
    if not reference.startswith("#/"):
        return root if reference == "#" else None
    for step in reference[2:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        root = root.get(step) if isinstance(root, dict) else None
    return root
