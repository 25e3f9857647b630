"""The scalar types of Python that travel as JSON strings or numbers: their schemas, loaders and JSON forms.

Classes are recognised by name, so that no module is imported for a type that nobody uses.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Optional

Schema = dict[str, Any]
Load = Optional[Callable[[Any], Any]]


class Misfit(ValueError):
    """A value fits its schema but not its type; the message follows the name of its place."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[int | str] = []


def to_int(value: Any) -> int:
    """Load an integer; JSON Schema calls 5.0 one too."""
    return int(value)


def to_float(value: Any) -> float:
    """Load a number."""
    try:
        return float(value)
    except OverflowError:
        raise Misfit("is too large for a number") from None


def _date_time(cls: Any) -> Callable[[str], Any]:
    def load(value: str) -> Any:
        text = value[:-1] + "+00:00" if value[-1:] in ("Z", "z") else value
        # Python 3.10 and older know fractions of 3 and 6 digits only.
        text = re.sub(r"\.(\d{1,6})\d*", lambda found: "." + found.group(1).ljust(6, "0"), text)
        try:
            return cls.fromisoformat(text)
        except ValueError:
            raise Misfit(f"is not a valid {_EXAMPLES[cls.__name__]}") from None

    return load


_EXAMPLES = {
    "datetime": "date and time: write it like 2026-07-28T09:30:00Z",
    "date": "date: write it like 2026-07-28",
    "time": "time: write it like 09:30:00",
}


def _date(cls: Any) -> Callable[[str], Any]:
    load = _date_time(cls)

    def strict(value: str) -> Any:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            raise Misfit(f"is not a valid {_EXAMPLES['date']}")
        return load(value)

    return strict


_DURATION = re.compile(
    r"([+-])?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,6}))?S)?)?", re.ASCII
)


def _duration(cls: Any) -> Callable[[str], Any]:
    def load(value: str) -> Any:
        found = _DURATION.fullmatch(value)
        if found is None or not any(found.groups()[1:]):
            raise Misfit("is not a valid duration: write it like P1DT2H30M")
        weeks, days, hours, minutes, seconds, fraction = found.groups("0")[1:]
        try:
            span = cls(
                weeks=int(weeks),
                days=int(days),
                hours=int(hours),
                minutes=int(minutes),
                seconds=int(seconds),
                microseconds=int(fraction.ljust(6, "0")),
            )
            return -span if found.group(1) == "-" else span
        except (OverflowError, ValueError):
            raise Misfit("is too long for a duration") from None

    return load


def _uuid(cls: Any) -> Callable[[str], Any]:
    def load(value: str) -> Any:
        try:
            return cls(value)
        except ValueError:
            raise Misfit("is not a valid UUID: write it like 123e4567-e89b-12d3-a456-426614174000") from None

    return load


def _decimal(cls: Any) -> Callable[[Any], Any]:
    def load(value: Any) -> Any:
        try:
            number = cls(value if isinstance(value, int) else str(value))
            if number.is_finite():
                return number
        except (ArithmeticError, ValueError):
            pass
        raise Misfit("is not a valid decimal number: write it like 12.50")

    return load


def _path(cls: Any) -> Callable[[str], Any]:
    def load(value: str) -> Any:
        if "\0" in value:
            raise Misfit("is not a valid path: it contains a NUL character")
        return cls(value)

    return load


def _bytes(cls: Any) -> Callable[[str], Any]:
    def load(value: str) -> Any:
        try:
            return cls(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise Misfit("is not valid base64") from None

    return load


_SCALARS: dict[str, tuple[Schema, Callable[[Any], Load]]] = {
    "builtins.str": ({"type": "string"}, lambda cls: None),
    "builtins.bool": ({"type": "boolean"}, lambda cls: None),
    "builtins.int": ({"type": "integer"}, lambda cls: to_int),
    "builtins.float": ({"type": "number"}, lambda cls: to_float),
    "builtins.bytes": ({"type": "string", "contentEncoding": "base64"}, _bytes),
    "builtins.bytearray": ({"type": "string", "contentEncoding": "base64"}, _bytes),
    "datetime.datetime": ({"type": "string", "format": "date-time"}, _date_time),
    "datetime.date": ({"type": "string", "format": "date"}, _date),
    "datetime.time": ({"type": "string", "format": "time"}, _date_time),
    "datetime.timedelta": ({"type": "string", "format": "duration"}, _duration),
    "uuid.UUID": ({"type": "string", "format": "uuid"}, _uuid),
    "decimal.Decimal": ({"anyOf": [{"type": "number"}, {"type": "string"}]}, _decimal),
    "pathlib.Path": ({"type": "string", "format": "path"}, _path),
    "pathlib.PurePath": ({"type": "string", "format": "path"}, _path),
    "pathlib.PosixPath": ({"type": "string", "format": "path"}, _path),
    "pathlib.PurePosixPath": ({"type": "string", "format": "path"}, _path),
    "pathlib.PureWindowsPath": ({"type": "string", "format": "path"}, _path),
}


def full_name(cls: type) -> str:
    """The module (without its parts) and name of a class; pathlib is a package in some Pythons."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def shape(cls: Any) -> tuple[Schema, Load] | None:
    """Return the schema and loader of a scalar class or an Enum, or None when it is neither."""
    known = _SCALARS.get(full_name(cls))
    if known is not None:
        return dict(known[0]), known[1](cls)
    enum = getattr(type(cls), "__members__", None) is not None and issubclass(cls, _enum())
    return _members(cls) if enum else None


def _enum() -> Any:
    from enum import Enum

    return Enum


def enum_values(cls: Any) -> list[Any]:
    """What stands for the members of an Enum: their values, or their names when some value is no scalar."""
    values = [member.value for member in cls]
    return values if all(type(v) in (str, int, float, bool) for v in values) else [m.name for m in cls]


def _members(cls: Any) -> tuple[Schema, Load]:
    values = enum_values(cls)
    if not values:
        raise TypeError(f"the Enum {cls.__name__} has no members")
    return {**type_of(values), "enum": values}, lookup(zip(values, cls))


def type_of(values: Iterable[Any]) -> Schema:
    """`{"type": ...}` when all values have one JSON type, else nothing."""
    names = {str: "string", int: "integer", bool: "boolean"}
    kinds = {type(value) for value in values}
    return {"type": names[kinds.pop()]} if len(kinds) == 1 and kinds <= set(names) else {}


def lookup(pairs: Iterable[tuple[Any, Any]]) -> Callable[[Any], Any]:
    """A loader that maps JSON values to what they stand for."""
    table = {(isinstance(value, bool), value): meaning for value, meaning in pairs}

    def load(value: Any) -> Any:
        return table[isinstance(value, bool), value]

    return load


def dump(value: Any) -> Any:
    """Return the JSON form of a scalar object.

    :raises TypeError: when it has none.
    :raises ValueError: for a decimal that is no number.
    """
    enum = getattr(type(value), "__members__", None)
    if enum is not None and isinstance(value, _enum()):
        values = enum_values(type(value))
        return value.value if value.value in values or not isinstance(value.name, str) else value.name
    names = [full_name(cls) for cls in type(value).__mro__]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if "datetime.date" in names or "datetime.time" in names:
        return value.isoformat()
    if "datetime.timedelta" in names:
        return _iso_duration(value)
    if "decimal.Decimal" in names:
        if not value.is_finite():
            raise ValueError(f"{value} is not a JSON number")
        return str(value)
    if "uuid.UUID" in names or "pathlib.PurePath" in names:
        return str(value)
    raise TypeError(
        f"a {type(value).__name__} has no JSON form: return a str, number, list, dict, dataclass "
        "or another type that hints may name"
    )


def _iso_duration(span: Any) -> str:
    sign = "-" if span.days < 0 else ""
    span = abs(span)
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{span.microseconds:06}".rstrip("0") if span.microseconds else ""
    time = "".join([f"{hours}H" * bool(hours), f"{minutes}M" * bool(minutes)])
    if seconds or fraction:
        time += f"{seconds}{fraction}S"
    day = f"{span.days}D" if span.days else ""
    return f"{sign}P{day}T{time}" if time else f"{sign}P{day or '0D'}"


def finite(value: float) -> float:
    """Return a float as it is.

    :raises ValueError: for NaN and infinities, which JSON does not have.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number: return None or a string for it")
    return value
