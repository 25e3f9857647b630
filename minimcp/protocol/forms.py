"""The forms of elicitation: flat schemas of primitive fields. Spec: FEAT-184 to FEAT-191"""

from __future__ import annotations

import typing
from typing import Any

from .converters import Converters, describe, name_of
from .jsonable import to_json
from .scalars import Schema
from .schema import Validator

_KEYWORDS = {
    "string": {"minLength", "maxLength", "format", "enum", "oneOf", "enumNames", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set(),
    "array": {"minItems", "maxItems", "items"},
}
_COMMON = {"type", "title", "description", "default"}
_FORMATS = ("email", "uri", "date", "date-time")


def form_schema(fields: Any) -> Schema:
    """Return the `requestedSchema` of an elicitation.

    :param fields: a ready schema (a dict with `"type": "object"`), `{name: hint}` or
        `{name: (hint, default)}`, or a dataclass or TypedDict class.
    :raises TypeError: when a field is not a string, number, boolean, choice or list of choices.
    """
    if isinstance(fields, dict) and fields.get("type") == "object" and isinstance(fields.get("properties"), dict):
        for name, schema in fields["properties"].items():
            _check_field(name, schema)
        return fields
    if isinstance(fields, dict):
        return _from_hints(fields)
    if isinstance(fields, type):
        return _from_class(fields)
    raise TypeError("the fields of a form are a dict like {'nights': int}, a dataclass or a TypedDict")


def _from_hints(fields: dict[str, Any]) -> Schema:
    properties: dict[str, Schema] = {}
    required = []
    for name, hint in fields.items():
        if not isinstance(name, str):
            raise TypeError("the names of form fields are strings")
        if isinstance(hint, tuple):
            if len(hint) != 2:
                raise TypeError(f"form field {name}: write (hint, default), for example (bool, False)")
            properties[name] = schema = _field(name, hint[0])
            if hint[1] is not None:
                _add_default(name, schema, to_json(hint[1]))
        else:
            properties[name] = _field(name, hint)
            if not _is_optional(hint):
                required.append(name)
    schema = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _add_default(name: str, schema: Schema, default: Any) -> None:
    if not Validator(schema).is_valid(default):
        raise TypeError(f"form field {name}: the default {default!r} does not fit the field")
    schema["default"] = default


def _from_class(cls: type) -> Schema:
    converters = Converters()
    schema, _ = converters.of(cls)
    schema = converters.document(schema)
    schema.pop("additionalProperties", None)
    if schema.get("type") != "object" or "properties" not in schema:
        raise TypeError(f"{describe(cls)} is no form: write a dataclass, a TypedDict or a dict of fields")
    properties = {}
    for name, field in schema["properties"].items():
        if "$ref" in field:
            raise TypeError(_REFUSAL.format(name))
        properties[name] = _plain(name, field)
        _check_field(name, properties[name])
    return {**{key: schema[key] for key in ("type", "required") if key in schema}, "properties": properties}


_REFUSAL = (
    "form field {}: a form asks for str, int, float, bool, date, datetime, a Literal or Enum of strings, "
    "or a list of such choices; nothing nested"
)


def _is_optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint) and name_of(typing.get_origin(hint)) != "Literal"


def _field(name: str, hint: Any) -> Schema:
    if isinstance(hint, dict):
        schema = dict(hint)
    else:
        converters = Converters()
        try:
            schema, _ = converters.of(hint)
        except TypeError as error:
            raise TypeError(f"{_REFUSAL.format(name)} ({error})") from None
        if converters.defs:
            raise TypeError(_REFUSAL.format(name))
        schema = _plain(name, schema)
    _check_field(name, schema)
    return schema


def _plain(name: str, schema: Schema) -> Schema:
    """Write a field the way forms have it: no null branch, and no keyword for loaders."""
    branches = [branch for branch in schema.get("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) == 1 and len(branches) < len(schema["anyOf"]):
        schema = {**branches[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
        if schema.get("default", 0) is None:
            del schema["default"]
    schema = {key: value for key, value in schema.items() if key != "uniqueItems"}
    if schema.get("format") not in (None, *_FORMATS):
        raise TypeError(f"form field {name}: there is no format {schema['format']!r}; it knows {', '.join(_FORMATS)}")
    return schema


def _check_field(name: str, schema: Any) -> None:
    """Raise TypeError unless a schema is a primitive that forms may ask for."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    allowed = _KEYWORDS.get(kind) if isinstance(kind, str) else None
    if allowed is None:
        raise TypeError(_REFUSAL.format(name))
    extra = [key for key in schema if key not in allowed | _COMMON]
    if extra:
        raise TypeError(
            f"form field {name}: {extra[0]!r} may not stand in a form; allowed: {sorted(allowed | _COMMON)}"
        )
    if kind == "array":
        items = schema.get("items")
        choices = items.get("enum", items.get("anyOf")) if isinstance(items, dict) else None
        if not isinstance(choices, list):
            raise TypeError(_REFUSAL.format(name))
        if "enum" in items and not all(isinstance(choice, str) for choice in choices):
            raise TypeError(_REFUSAL.format(name))
