"""What a function returned as JSON data."""

from __future__ import annotations

from typing import Any

from . import scalars

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
        return scalars.finite(value)
    return _dump_object(value)


def _key(name: Any) -> str:
    key = _dump(name)
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"a {type(name).__name__} cannot be the name of a JSON member: use a str")


def _dump_object(value: Any) -> Any:
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return _dump(value.model_dump(mode="json", by_alias=True))
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: _dump(getattr(value, name)) for name in _fields(value)}
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return {name: _dump(item) for name, item in zip(value._fields, value)}
        return [_dump(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return _ordered([_dump(item) for item in value])
    if hasattr(type(value), "__members__"):
        return _dump(scalars.dump(value))
    bases: tuple[Any, ...] = (str, int, float, dict, list)
    for base in bases:
        if isinstance(value, base):
            return _dump(base(value))
    return scalars.dump(value)


def _fields(value: Any) -> list[str]:
    import dataclasses

    return [field.name for field in dataclasses.fields(value)]


def _ordered(items: list[Any]) -> list[Any]:
    """The items of a set in an order that does not depend on their hashes."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=repr)
