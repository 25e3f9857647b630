"""Arguments as they are typed, `KEY=VALUE`, made into JSON by the schema they have to fit."""

from __future__ import annotations

import json
import math
import re
from typing import Any

Message = dict[str, Any]

_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}\Z")
_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
_MOST_PARTS = 200


def arguments(words: list[str], schema: Message) -> Message:
    """The arguments that words such as `a=1`, `tags=x`, `tags=y` and `where:={"x": 1}` stand for.

    :param schema: the tool's inputSchema.
    :raises ValueError: saying which word is wrong.
    """
    properties = schema.get("properties")
    found: Message = {}
    typed: dict[str, list[str]] = {}
    for word in words:
        name, raw, text = split(word)
        if name in found or (raw and name in typed):
            raise ValueError(f"{name} is given twice")
        if raw:
            found[name] = parse(text, name)
        else:
            typed.setdefault(name, []).append(text)
    for name, texts in typed.items():
        known = properties.get(name) if isinstance(properties, dict) else None
        if len(texts) == 1:
            found[name] = convert(name, texts[0], known, schema)
        elif "array" in allowed(known, schema):
            found[name] = [_item(name, text, known, schema) for text in texts]
        else:
            raise ValueError(f"{name} is given twice")
    return found


def split(word: str) -> tuple[str, bool, str]:
    """Take a word apart: name, whether the value is JSON, and the value.

    :raises ValueError: when it is not of this form.
    """
    name, equals, text = word.partition("=")
    raw = name.endswith(":")
    name = name[:-1] if raw else name
    if not equals or not name:
        raise ValueError(f"an argument is KEY=VALUE or KEY:=JSON, not {word!r}")
    return name, raw, text


def parse(text: str, name: str) -> Any:
    """JSON that was typed.

    :raises ValueError: naming what it was for.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


def convert(name: str, text: str, schema: Any, root: Message) -> Any:
    """Make a value of text by the types its schema allows; text is the last resort, and only if it is allowed.

    :param root: the whole schema, for references within it.
    :raises ValueError: when it fits none.
    """
    for value in schema.get("enum", ()) if isinstance(schema, dict) else ():
        if value == text or (not isinstance(value, str) and json.dumps(value) == text):
            return value
    types = allowed(schema, root)
    for kind in ("boolean", "integer", "number", "array", "object", "null"):
        if kind not in types:
            continue
        value = _as(kind, name, text, schema, root)
        if value is not _NOT:
            return value
    if "string" in types:
        return text
    if "array" in types and not text.lstrip().startswith("["):
        return [_item(name, text, schema, root)]
    if types:
        raise ValueError(f"{name} must be of type {' or '.join(sorted(types))}, not {text!r}")
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


_NOT = object()


def _as(kind: str, name: str, text: str, schema: Message, root: Message) -> Any:
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), _NOT)
    if kind == "null":
        return None if text == "null" else _NOT
    if _INTEGER.match(text) and kind in ("integer", "number"):
        return int(text)
    if kind == "number":
        try:
            number = float(text)
        except ValueError:
            return _NOT
        return number if math.isfinite(number) else _NOT
    if kind in ("array", "object"):
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list if kind == "array" else dict):
            return value
    return _NOT


def _item(name: str, text: str, schema: Any, root: Message) -> Any:
    """One element of a list whose elements are typed one by one."""
    items: Message = next((part["items"] for part in _parts(schema, root) if isinstance(part.get("items"), dict)), {})
    return convert(name, text, items, root)


def allowed(schema: Any, root: Message) -> set[str]:
    """The names of the JSON types a schema allows; none when it does not say."""
    found: set[str] = set()
    for part in _parts(schema, root):
        kind = part.get("type")
        found.update(each for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, str))
        if kind is None:
            values = part.get("enum", [part["const"]] if "const" in part else [])
            found.update(_NAMES.get(type(value), "null") for value in (values if isinstance(values, list) else []))
    return found


def _parts(schema: Any, root: Message) -> list[Message]:
    """A schema and all it is put together from, as far as `_MOST_PARTS` reach."""
    found: list[Message] = []
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
    """What a reference within the schema points to; others are never followed."""
    if not reference.startswith("#/"):
        return root if reference == "#" else None
    for step in reference[2:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        root = root.get(step) if isinstance(root, dict) else None
    return root
