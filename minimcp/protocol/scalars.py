"""The scalar types of Python that travel as JSON strings or numbers: their schemas, and how they are loaded.

Classes are recognised by name, so that no module is imported for a type that nobody uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Optional

Schema = dict[str, Any]
Load = Optional[Callable[[Any], Any]]
Converter = tuple[Schema, Load]


class Misfit(ValueError):
    """A value fits its schema but not its type; the message follows the name of its place."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[int | str] = []


def full_name(cls: type) -> str:
    """The module (without its parts) and name of a class; pathlib is a package in some Pythons."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def converter(cls: Any) -> Converter | None:
    """Return the schema and loader of a scalar class or an Enum, or None when it is neither."""
    if hasattr(cls, "__members__"):
        values = enum_values(cls)
        return {**type_of(values), "enum": values}, lookup(zip(values, cls))
    if full_name(cls) in _PLAIN:
        name, plain = _PLAIN[full_name(cls)]
        return {"type": name}, plain
    if full_name(cls) not in _TEXTS:
        return None
    text, make, words = _TEXTS[full_name(cls)]

    def load(value: Any) -> Any:
        try:
            return make(cls, value)
        except (ValueError, ArithmeticError):
            raise Misfit(f"is not a valid {words}") from None

    return {"type": "string", **text} if text else {"anyOf": [{"type": "number"}, {"type": "string"}]}, load


def to_int(value: Any) -> int:
    """Load an integer; JSON Schema calls 5.0 one too."""
    return int(value)


def to_float(value: Any) -> float:
    """Load a number."""
    try:
        return float(value)
    except OverflowError:
        raise Misfit("is too large for a number") from None


def _date(cls: Any, value: str) -> Any:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError
    return cls.fromisoformat(value)


def _time(cls: Any, value: str) -> Any:
    """A time, or a date and time; Python 3.10 and older know no Z, and fractions of 3 and 6 digits only."""
    text = value[:-1] + "+00:00" if value[-1:] in ("Z", "z") else value
    return cls.fromisoformat(re.sub(r"\.(\d{1,6})\d*", lambda found: "." + found.group(1).ljust(6, "0"), text))


_DURATION = re.compile(r"([+-])?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d{1,6})?)S)?)?", re.ASCII)


def _duration(cls: Any, value: str) -> Any:
    found = _DURATION.fullmatch(value)
    if found is None or not any(found.groups()[1:]):
        raise ValueError
    weeks, days, hours, minutes, seconds = found.groups("0")[1:]
    span = cls(weeks=int(weeks), days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    return -span if found.group(1) == "-" else span


def _decimal(cls: Any, value: Any) -> Any:
    number = cls(value if isinstance(value, int) else str(value))
    if not number.is_finite():
        raise ValueError
    return number


def _construct(cls: Any, value: str) -> Any:
    return cls(value)


def _path(cls: Any, value: str) -> Any:
    if "\0" in value:
        raise ValueError
    return cls(value)


def _bytes(cls: Any, value: str) -> Any:
    import base64

    return cls(base64.b64decode(value, validate=True))


_PLAIN: dict[str, tuple[str, Load]] = {
    "builtins.str": ("string", None),
    "builtins.bool": ("boolean", None),
    "builtins.int": ("integer", to_int),
    "builtins.float": ("number", to_float),
}
_PATH = ({"format": "path"}, _path, "path: it contains a NUL character")
_TEXTS: dict[str, tuple[Schema, Callable[[Any, Any], Any], str]] = {
    "builtins.bytes": ({"contentEncoding": "base64"}, _bytes, "base64 text"),
    "datetime.datetime": ({"format": "date-time"}, _time, "date and time: write it like 2026-07-28T09:30:00Z"),
    "datetime.date": ({"format": "date"}, _date, "date: write it like 2026-07-28"),
    "datetime.time": ({"format": "time"}, _time, "time: write it like 09:30:00"),
    "datetime.timedelta": ({"format": "duration"}, _duration, "duration: write it like P1DT2H30M"),
    "uuid.UUID": ({"format": "uuid"}, _construct, "UUID: write it like 123e4567-e89b-12d3-a456-426614174000"),
    "decimal.Decimal": ({}, _decimal, "decimal number: write it like 12.50"),
    "pathlib.Path": _PATH,
    "pathlib.PurePath": _PATH,
}


def enum_values(cls: Any) -> list[Any]:
    """What stands for the members of an Enum: their values, or their names when some value is no scalar."""
    values = [member.value for member in cls]
    if not values:
        raise TypeError(f"the Enum {cls.__name__} has no members")
    return values if all(type(v) in (str, int, float, bool) for v in values) else [m.name for m in cls]


def type_of(values: Iterable[Any]) -> Schema:
    """`{"type": ...}` when all values have one JSON type, else nothing."""
    names = {str: "string", int: "integer", bool: "boolean"}
    kinds = {type(value) for value in values}
    return {"type": names[kinds.pop()]} if len(kinds) == 1 and kinds <= set(names) else {}


def lookup(pairs: Iterable[tuple[Any, Any]]) -> Callable[[Any], Any]:
    """A loader that maps JSON values to what they stand for."""
    table = {(isinstance(value, bool), value): meaning for value, meaning in pairs}
    return lambda value: table[isinstance(value, bool), value]
