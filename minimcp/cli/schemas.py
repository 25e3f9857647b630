"""Schemas of arguments in a form that a call can be typed from."""

from __future__ import annotations

import json
from typing import Any, Optional

from ..engines.errors import printable
from ..engines.schema import text as texts

Message = dict[str, Any]

_MOST_CHOICES = 20
_MOST_SCHEMAS = 300
_DEPTH = 3


def shape(schema: Any, root: Message, depth: int = _DEPTH, room: Optional[list[int]] = None) -> str:
    """Return the values that a schema allows, such as `red|green`, `date`, `integer 1..9` or `{name: string}`.

    :param root: the whole schema, for references within it.
    :param depth: how many levels of members are shown.
    :param room: the number of schemas that may still be looked at, which all calls for one tool share.
    """
    room = [_MOST_SCHEMAS] if room is None else room
    room[0] -= 1
    if not isinstance(schema, dict) or room[0] < 0:
        return "any"
    if isinstance(schema.get("$ref"), str):
        found = texts._local(schema["$ref"], root)
        return shape(found, root, depth, room) if found is not None else "object"
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list) and choices:
        more = "|..." if len(choices) > _MOST_CHOICES else ""
        return "|".join(_value(choice) for choice in choices[:_MOST_CHOICES]) + more
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            branches = schema[word][:_MOST_CHOICES]
            return " or ".join(dict.fromkeys(shape(branch, root, depth, room) for branch in branches))
    members = schema.get("properties")
    if isinstance(members, dict) and members and depth:
        return "{" + ", ".join(parts(schema, root, depth - 1, room)) + "}"
    if isinstance(schema.get("items"), dict) and depth:
        return f"[{shape(schema['items'], root, depth - 1, room)}]"
    kinds = sorted(texts.allowed(schema, root))
    if kinds == ["string"] and isinstance(schema.get("format"), str):
        return printable(schema["format"], 50)
    return (" or ".join(printable(kind, 50) for kind in kinds) or "any") + _bounds(schema)


def parts(schema: Message, root: Message, depth: int = _DEPTH, room: Optional[list[int]] = None) -> list[str]:
    """Return the members of an object's schema, such as `["color: red|green", "prio: integer = 1"]`; see `shape`."""
    room = [_MOST_SCHEMAS] if room is None else room
    members, required = schema.get("properties"), schema.get("required")
    found: list[str] = []
    for name, member in members.items() if isinstance(members, dict) else ():
        if room[0] < 0:
            return [*found, "..."]
        default = f" = {printable(json.dumps(member['default']), 300)}" if _has_default(member) else ""
        needed = isinstance(required, list) and name in required
        mark = "" if needed or default else "?"
        found.append(f"{printable(name, 300)}{mark}: {shape(member, root, depth, room)}{default}")
    return found


def example(schema: Any, root: Message, depth: int = _DEPTH) -> Any:
    """Return a value that fits a schema as far as that is simple, for a call to copy."""
    if not isinstance(schema, dict):
        return "..."
    if _has_default(schema):
        return schema["default"]
    if isinstance(schema.get("$ref"), str) and depth:
        return example(texts._local(schema["$ref"], root), root, depth - 1)
    for word in ("enum", "examples"):
        if isinstance(schema.get(word), list) and schema[word]:
            return schema[word][0]
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return example(schema[word][0], root, depth)
    kinds = texts.allowed(schema, root)
    if "object" in kinds and isinstance(schema.get("properties"), dict) and depth:
        required = schema.get("required")
        wanted = required if isinstance(required, list) else []
        return {name: example(schema["properties"].get(name), root, depth - 1) for name in wanted}
    if "array" in kinds:
        return [example(schema.get("items"), root, depth - 1)] if depth else []
    if kinds & {"integer", "number"}:
        return schema.get("minimum", 1)
    if "boolean" in kinds:
        return True
    formats = {
        "date": "2026-01-31",
        "date-time": "2026-01-31T12:00:00Z",
        "time": "12:00:00",
        "email": "ada@example.org",
    }
    return schema.get("const", formats.get(str(schema.get("format")), "..."))


def _has_default(schema: Any) -> bool:
    return isinstance(schema, dict) and "default" in schema


def _value(value: Any) -> str:
    plain = isinstance(value, str) and value and value.isprintable() and not set(value) & set('|,"{}[] ')
    return printable(str(value) if plain else json.dumps(value), 100)


def _bounds(schema: Message) -> str:
    least, most = schema.get("minimum", schema.get("minLength")), schema.get("maximum", schema.get("maxLength"))
    if least is None and most is None:
        pattern = schema.get("pattern")
        return f" matching {printable(pattern, 100)}" if isinstance(pattern, str) else ""
    unit = " long" if "minLength" in schema or "maxLength" in schema else ""
    return f" {'' if least is None else least}..{'' if most is None else most}{unit}"
