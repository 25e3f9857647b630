"""What a function returned as JSON data."""

from __future__ import annotations

import math
from typing import Any

from .scalars import enum_values, full_name

_PLAIN = frozenset([str, int, bool, type(None)])


def to_json(value: Any) -> Any:
    """Return a value as JSON data: dataclasses, models, enums, dates and the like taken apart.

    :raises TypeError: when something in it has no JSON form.
    :raises ValueError: for NaN, infinities and values that contain themselves.
    """
    try:
        return _dump(value)
    except RecursionError:
        raise ValueError("the value is nested too deeply or contains itself") from None


def _dump(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {
            name if type(name) is str else _key(name): item if type(item) in _PLAIN else _dump(item)
            for name, item in value.items()
        }
    if kind is list:
        return [item if type(item) in _PLAIN else _dump(item) for item in value]
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a JSON number: return None or a string for it")
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
    bases: tuple[Any, ...] = (str, int, float, dict, list)
    for base in bases:
        if isinstance(value, base):
            return _dump(base(value))
    return _dump_scalar(value)


def _dump_scalar(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        import base64

        return base64.b64encode(value).decode("ascii")
    names = [full_name(cls) for cls in type(value).__mro__]
    if "datetime.date" in names or "datetime.time" in names:
        return str(value.isoformat())
    if "datetime.timedelta" in names:
        return _iso_duration(value)
    if "decimal.Decimal" in names and not value.is_finite():
        raise ValueError(f"{value} is not a JSON number: return None or a string for it")
    if not {"decimal.Decimal", "uuid.UUID", "pathlib.PurePath"}.isdisjoint(names):
        return str(value)
    raise TypeError(
        f"a {type(value).__name__} has no JSON form: return a str, number, list, dict, dataclass "
        "or another type that hints may name"
    )


def _iso_duration(span: Any) -> str:
    sign, span = ("-", -span) if span.days < 0 else ("", span)
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    digits = f"{seconds}.{span.microseconds:06}".rstrip("0").rstrip(".") if span.microseconds else str(seconds)
    parts = [f"{hours}H" * bool(hours), f"{minutes}M" * bool(minutes), f"{digits}S" * (digits != "0")]
    time = "T" + "".join(parts) if any(parts) else ""
    return f"{sign}P{span.days}D{time}" if span.days or not time else f"{sign}P{time}"
