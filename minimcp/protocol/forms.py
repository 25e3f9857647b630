"""Forms of elicitation: flat schemas of primitive fields. Spec: FEAT-184 to FEAT-191"""

from __future__ import annotations

import functools
import typing
from typing import Annotated, Any

from ..engines.errors import InvalidArguments
from ..engines.schema.converters import Converters, Member, members_of, name_of
from ..engines.schema.hints import Bind, binder
from ..engines.schema.models import is_theirs
from ..engines.schema.validator import Validator
from ..engines.schema.values import Schema

_KEYWORDS = {
    "string": {"minLength", "maxLength", "format", "enum", "oneOf", "enumNames", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set(),
    "array": {"minItems", "maxItems", "items"},
}
_COMMON = {"type", "title", "description", "default"}
_FORMATS = ("email", "uri", "date", "date-time")
_TEXTS = {"type": "array", "items": {"type": "string"}}
_TITLED = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"const": {"type": "string"}, "title": {"type": "string"}},
        "required": ["const", "title"],
    },
}
# The values that keywords of a field may have.
_VALUES = {
    **{name: {"type": "string"} for name in ("title", "description", "pattern")},
    **{name: {"type": "integer", "minimum": 0} for name in ("minLength", "maxLength", "minItems", "maxItems")},
    **{name: {"type": "number"} for name in ("minimum", "maximum")},
    "enum": _TEXTS,
    "enumNames": _TEXTS,
    "oneOf": _TITLED,
    "items": {
        "properties": {"type": {"const": "string"}, "enum": _TEXTS, "anyOf": _TITLED},
        "anyOf": [{"required": ["anyOf"]}, {"required": ["enum", "type"]}],
    },
}
_REFUSAL = (
    "form field {}: a form asks for str, int, float, bool, date, datetime, a Literal or Enum of strings, "
    "or a list of such choices; nothing nested"
)


def form(fields: Any) -> tuple[Schema, Bind]:
    """Return the `requestedSchema` of an elicitation, and the function that converts a valid answer.

    :param fields: a ready schema (a dict with `"type": "object"`), `{name: hint}` or
        `{name: (hint, default)}`, or a dataclass or TypedDict class.
    :raises TypeError: when a field is not a string, number, boolean, choice or list of choices.
    """
    if isinstance(fields, dict) and fields.get("type") == "object" and isinstance(fields.get("properties"), dict):
        check(fields)
        return fields, binder({})
    if isinstance(fields, dict):
        members = [_member(name, hint) for name, hint in fields.items()]
    elif isinstance(fields, type) and not is_theirs(fields):
        members = members_of(fields, inputs=True)
    else:
        raise TypeError("the fields of a form are a dict like {'nights': int}, a dataclass or a TypedDict")
    schema, loads = Converters().members(members, {}, "form field {}")
    del schema["additionalProperties"]
    schema["properties"] = {name: _field(name, field) for name, field in schema.get("properties", {}).items()}
    return schema, binder(loads)


def _member(name: Any, hint: Any) -> Member:
    if not isinstance(name, str):
        raise TypeError("the names of form fields are strings")
    if isinstance(hint, dict):
        return name, Annotated[Any, hint], True, None
    if not isinstance(hint, tuple):
        optional = type(None) in typing.get_args(hint) and name_of(typing.get_origin(hint)) != "Literal"
        return name, hint, not optional, None
    if len(hint) != 2:
        raise TypeError(f"form field {name}: write (hint, default), for example (bool, False)")
    return name, hint[0], False, hint[1]


def _field(name: str, schema: Schema) -> Schema:
    """Write a field the way forms have it: no null branch, no default of null, and no keyword for loaders."""
    branches = [branch for branch in schema.get("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) == 1 and len(branches) < len(schema["anyOf"]):
        schema = {**branches[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    left_out = ("uniqueItems", "default") if schema.get("default") is None else ("uniqueItems",)
    schema = {key: value for key, value in schema.items() if key not in left_out}
    _check_field(name, schema)
    return schema


def check(schema: Any) -> None:
    """Check a ready schema of a form. Spec: FEAT-184

    :raises TypeError: with what is wrong.
    """
    fields = schema.get("properties") if isinstance(schema, dict) and schema.get("type") == "object" else None
    if not isinstance(fields, dict):
        raise TypeError('the schema of a form has "type": "object" and "properties"')
    for name, field in fields.items():
        _check_field(name, field)
    required = schema.get("required", [])
    if not isinstance(required, list) or any(name not in fields for name in required):
        raise TypeError(f"the required fields of a form are a list of its fields, unlike {required!r}")


def _check_field(name: Any, schema: Any) -> None:
    """Raise TypeError unless a schema is a primitive that forms may ask for."""
    if not isinstance(name, str):
        raise TypeError("the names of form fields are strings")
    kind = schema.get("type") if isinstance(schema, dict) else None
    allowed = _KEYWORDS.get(kind) if isinstance(kind, str) else None
    if allowed is None:
        raise TypeError(_REFUSAL.format(name))
    extra = [key for key in schema if key not in allowed | _COMMON]
    if extra:
        raise TypeError(
            f"form field {name}: {extra[0]!r} is not allowed in a form; allowed are {sorted(allowed | _COMMON)}"
        )
    if schema.get("format") not in (None, *_FORMATS):
        raise TypeError(f"form field {name}: there is no format {schema['format']!r}; it knows {', '.join(_FORMATS)}")
    if kind == "array" and not isinstance(schema.get("items"), dict):
        raise TypeError(_REFUSAL.format(name))
    try:
        _keywords().check(schema)
    except InvalidArguments as error:
        raise TypeError(f"{_REFUSAL.format(name)}: {error}") from None
    if "default" in schema and not Validator(schema).is_valid(schema["default"]):
        raise TypeError(f"form field {name}: the default {schema['default']!r} does not fit the field")


@functools.cache
def _keywords() -> Validator:
    return Validator({"properties": _VALUES})
