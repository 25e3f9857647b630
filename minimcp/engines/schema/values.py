"""Python values as JSON: scalar types with their schemas in both directions, and `to_json`.

Classes are recognised by name, so that no module is imported for a type that nobody uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Optional

Schema = dict[str, Any]
Load = Optional[Callable[[Any], Any]]
Converter = tuple[Schema, Load]


# The JSON types: the class of a parsed value, and the words for it in messages.
KINDS: dict[str, tuple[type, str]] = {
    "string": (str, "a string"),
    "boolean": (bool, "true or false"),
    "integer": (int, "an integer"),
    "number": (float, "a number"),
    "null": (type(None), "null"),
    "array": (list, "an array"),
    "object": (dict, "an object"),
}
NAMES = {kind: name for name, (kind, _) in KINDS.items()}


def is_of(value: Any, name: str) -> bool:
    """Say whether a value has the class of a JSON type; every value does for a name that is none."""
    kind = KINDS[name][0] if name in KINDS else type(value)
    # JSON has one kind of number.
    return type(value) is kind or (kind in (int, float) and type(value) in (int, float))


def is_number(value: Any) -> bool:
    """Say whether a value is a number of JSON, where NaN and infinities are none."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    )


class ConversionError(ValueError):
    """A value fits its schema but not its type; the message continues a sentence that begins with its place."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[int | str] = []


def full_name(cls: type) -> str:
    """Return the top-level module and the name of a class; pathlib is a package in some Pythons."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def converter(cls: Any) -> Converter | None:
    """Return the schema and loader of a scalar class or an Enum, or None when it is neither."""
    if hasattr(cls, "__members__"):
        values = enum_values(cls)
        return {**type_of(values), "enum": values}, lookup(zip(values, cls))
    if cls in _LOADS:
        return {"type": NAMES[cls]}, _LOADS[cls]
    if full_name(cls) not in _TEXTS:
        return None
    text, make, _, words = _TEXTS[full_name(cls)]

    def load(value: Any) -> Any:
        try:
            return make(cls, value)
        except (ValueError, ArithmeticError):
            raise ConversionError(f"is not a valid {words}") from None

    return {"type": "string", **text} if text else {"anyOf": [{"type": "number"}, {"type": "string"}]}, load


def to_int(value: Any) -> int:
    """Load an integer; for JSON Schema 5.0 is one, too."""
    return int(value)


def to_float(value: Any) -> float:
    """Load a number."""
    try:
        return float(value)
    except OverflowError:
        raise ConversionError("is too large for a number") from None


def _date(cls: Any, value: str) -> Any:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError
    return cls.fromisoformat(value)


def _time(cls: Any, value: str) -> Any:
    """Convert a time, or a date and time; Python 3.10 and older lack Z and fractions but those of 3 and 6 digits."""
    text = value[:-1] + "+00:00" if value[-1:] in ("Z", "z") else value
    return cls.fromisoformat(re.sub(r"\.(\d{1,6})\d*", lambda found: "." + found.group(1).ljust(6, "0"), text))


def _iso(value: Any) -> str:
    return str(value.isoformat())


_DURATION = re.compile(r"([+-])?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d{1,6})?)S)?)?", re.ASCII)


def _duration(cls: Any, value: str) -> Any:
    found = _DURATION.fullmatch(value)
    if found is None or not any(found.groups()[1:]):
        raise ValueError
    weeks, days, hours, minutes, seconds = found.groups("0")[1:]
    span = cls(weeks=int(weeks), days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    return -span if found.group(1) == "-" else span


def _iso_duration(span: Any) -> str:
    sign, span = ("-", -span) if span.days < 0 else ("", span)
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    digits = f"{seconds}.{span.microseconds:06}".rstrip("0").rstrip(".") if span.microseconds else str(seconds)
    parts = [f"{hours}H" * bool(hours), f"{minutes}M" * bool(minutes), f"{digits}S" * (digits != "0")]
    time = "T" + "".join(parts) if any(parts) else ""
    return f"{sign}P{span.days}D{time}" if span.days or not time else f"{sign}P{time}"


def _decimal(cls: Any, value: Any) -> Any:
    number = cls(value if isinstance(value, int) else str(value))
    if not number.is_finite():
        raise ValueError
    return number


def _decimal_text(value: Any) -> str:
    if not value.is_finite():
        raise ValueError(_NO_NUMBER.format(value))
    return str(value)


def _path(cls: Any, value: str) -> Any:
    if "\0" in value:
        raise ValueError
    return cls(value)


def _bytes(cls: Any, value: str) -> Any:
    import base64

    return cls(base64.b64decode(value, validate=True))


def _base64(value: Any) -> str:
    import base64

    return base64.b64encode(value).decode("ascii")


_LOADS: dict[Any, Load] = {str: None, bool: None, int: to_int, float: to_float}
_PATH = ({"format": "path"}, _path, str, "path: it contains a NUL character")
_UUID = "UUID: write it like 123e4567-e89b-12d3-a456-426614174000"
_TEXTS: dict[str, tuple[Schema, Callable[[Any, Any], Any], Callable[[Any], str], str]] = {
    "builtins.bytes": ({"contentEncoding": "base64"}, _bytes, _base64, "base64 text"),
    "datetime.datetime": ({"format": "date-time"}, _time, _iso, "date and time: write it like 2026-07-28T09:30:00Z"),
    "datetime.date": ({"format": "date"}, _date, _iso, "date: write it like 2026-07-28"),
    "datetime.time": ({"format": "time"}, _time, _iso, "time: write it like 09:30:00"),
    "datetime.timedelta": ({"format": "duration"}, _duration, _iso_duration, "duration: write it like P1DT2H30M"),
    "uuid.UUID": ({"format": "uuid"}, lambda cls, value: cls(value), str, _UUID),
    "decimal.Decimal": ({}, _decimal, _decimal_text, "decimal number: write it like 12.50"),
    "pathlib.Path": _PATH,
    "pathlib.PurePath": _PATH,
}


def enum_values(cls: Any) -> list[Any]:
    """Return the JSON values for the members of an Enum: their values, or their names when a value is not a scalar."""
    values = [member.value for member in cls]
    if not values:
        raise TypeError(f"the Enum {cls.__name__} has no members")
    return values if all(type(v) in (str, int, float, bool) for v in values) else [m.name for m in cls]


def type_of(values: Iterable[Any]) -> Schema:
    """Return `{"type": ...}` if all values have one JSON type, otherwise an empty schema."""
    kinds = {type(value) for value in values}
    return {"type": NAMES[kinds.pop()]} if len(kinds) == 1 and kinds <= {str, int, bool} else {}


def lookup(pairs: Iterable[tuple[Any, Any]]) -> Callable[[Any], Any]:
    """Return a loader that maps JSON values to the values that they represent."""
    table = {(isinstance(value, bool), value): meaning for value, meaning in pairs}
    return lambda value: table[isinstance(value, bool), value]


_NO_NUMBER = "{} is not a JSON number: return None or a string for it"
_JSON = frozenset([str, int, bool, type(None)])  # types whose values are JSON as they are


def to_json(value: Any) -> Any:
    """Convert a value to JSON data, including dataclasses, models, enums and dates.

    :raises TypeError: when something in it has no JSON form.
    :raises ValueError: for NaN, infinities and values that contain themselves.
    """
    try:
        return _dump(value)
    except RecursionError:
        raise ValueError("the value is nested too deeply or contains itself") from None


def _dump(value: Any) -> Any:
    kind = type(value)
    if kind in _JSON:
        return value
    if kind is dict:
        return {
            name if type(name) is str else _key(name): item if type(item) in _JSON else _dump(item)
            for name, item in value.items()
        }
    if kind is list:
        return [item if type(item) in _JSON else _dump(item) for item in value]
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(_NO_NUMBER.format(value))
        return value
    return _dump_object(value)


def _key(name: Any) -> str:
    key = _dump(name)
    if type(key) in (str, int):
        return str(key)
    raise TypeError(f"a {type(name).__name__} cannot be the name of a JSON member: use a str")


def _dump_object(value: Any) -> Any:
    cls = type(value)
    if hasattr(cls, "__members__"):
        return value.value if value.value in enum_values(cls) else value.name or value.value
    if hasattr(cls, "model_dump"):
        return _dump(value.model_dump(mode="json", by_alias=True))
    if hasattr(cls, "__dataclass_fields__"):
        import dataclasses

        return {field.name: _dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return _dump(dict(zip(value._fields, value)) if hasattr(value, "_fields") else list(value))
    if isinstance(value, (set, frozenset)):
        items = [_dump(item) for item in value]
        try:
            return sorted(items)  # their own order depends on their hashes
        except TypeError:
            return sorted(items, key=repr)
    if isinstance(value, (bytearray, memoryview)):
        return _base64(value)
    bases: tuple[Any, ...] = (str, int, float, dict, list)
    for base in bases:
        if isinstance(value, base):
            return _dump(base(value))
    for base in cls.__mro__:
        if full_name(base) in _TEXTS:
            return _TEXTS[full_name(base)][2](value)
    raise TypeError(
        f"a {cls.__name__} has no JSON form: return a str, number, list, dict, dataclass "
        "or another type that hints may name"
    )
