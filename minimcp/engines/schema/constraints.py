"""Constraints in `Annotated`, as keywords of a schema or, where JSON Schema cannot say them, as checks of the value."""

from __future__ import annotations

import operator
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from . import models
from .values import ConversionError, Converter, Schema

# Attribute of a constraint -> keyword, comparison, words.
_COMPARED: dict[str, tuple[str, Callable[[Any, Any], Any], str]] = {
    "ge": ("minimum", operator.ge, "at least"),
    "gt": ("exclusiveMinimum", operator.gt, "greater than"),
    "le": ("maximum", operator.le, "at most"),
    "lt": ("exclusiveMaximum", operator.lt, "less than"),
    "multiple_of": ("multipleOf", lambda value, unit: value % unit == value - value, "a multiple of"),
}
_SIZED: dict[str, tuple[str, Callable[[Any, Any], Any], str]] = {
    "min_length": ("min", operator.ge, "at least"),
    "max_length": ("max", operator.le, "at most"),
}
_NOUNS = {"array": "Items", "string": "Length", "object": "Properties"}
Check = tuple[str, Any]  # the name of an attribute above, "pattern" or "func", and its value


def describe(schema: Schema, extras: tuple[Any, ...]) -> Schema:
    """Return a schema with the texts and the raw keywords that `Annotated` gives."""
    schema = dict(schema)
    for extra in extras:
        if isinstance(extra, str):
            schema["description"] = extra
        elif isinstance(extra, dict):
            schema.update(extra)
        else:
            for attribute, keyword in (("title",) * 2, ("description",) * 2, ("documentation", "description")):
                if isinstance(getattr(extra, attribute, None), str):
                    schema[keyword] = getattr(extra, attribute)
    return schema


def flatten(extras: tuple[Any, ...]) -> list[Check]:
    """Return the constraints in `Annotated`; objects of other libraries are read by their attributes.

    :raises TypeError: for one that looks like a check and is not known.
    """
    return [check for extra in extras if not isinstance(extra, (str, dict)) for check in _checks(extra)]


def _checks(extra: Any) -> Iterator[Check]:
    models.check_extra(extra)
    found = [
        (name, getattr(extra, name))
        for name in (*_COMPARED, *_SIZED, "pattern")
        if getattr(extra, name, None) is not None
    ]
    yield from found
    if isinstance(extra, re.Pattern) and extra.flags != re.compile("").flags:
        raise TypeError("the flags of a pattern have no JSON form: write them into the pattern")
    if type(extra).__module__.partition(".")[0] != "annotated_types" or isinstance(extra, type):
        return
    if callable(getattr(extra, "func", None)):
        yield "func", extra.func
    elif not any(hasattr(extra, name) for name in (*_COMPARED, *_SIZED, "unit", "documentation")):
        raise TypeError(f"the constraint {extra!r} is not known here: write annotated_types.Predicate")


def apply(hint: Any, converter: Converter, checks: list[Check]) -> Converter:
    """Return a converter that holds values to constraints.

    :raises TypeError: for one that cannot be held against values of the hint.
    """
    for check in checks:
        converter = _apply(hint, converter, check)
    return converter


def _apply(hint: Any, converter: Converter, check: Check) -> Converter:
    (schema, load), (name, limit) = converter, check
    kind, plain = schema.get("type", ""), not {"format", "contentEncoding"} & schema.keys()
    unfit = TypeError(f"the constraint {name}={limit!r} cannot be held against {getattr(hint, '__name__', hint)}")
    if name == "pattern":
        if kind != "string" or not plain or not isinstance(limit, str):
            raise unfit
        return {**schema, "pattern": limit}, load
    if name == "func":
        words = f"does not satisfy {getattr(limit, '__name__', 'its predicate')[:60]}"
        return schema, _checked(load, limit, words)
    keyword, compare, words = _COMPARED.get(name) or _SIZED.get(name)  # type: ignore[misc]
    if name in _COMPARED:
        if kind in ("integer", "number"):
            if isinstance(limit, bool) or not isinstance(limit, (int, float)):
                raise unfit
            return {**schema, keyword: limit}, load
        if hint is not Any and not _comparable(hint, limit):
            raise unfit
        return schema, _checked(load, lambda value: compare(value, limit), f"must be {words} {limit}")
    if type(limit) is not int or limit < 0:
        raise unfit
    if kind in _NOUNS and plain:
        return {**schema, keyword + _NOUNS[kind]: limit}, load
    cls = typing.get_origin(hint) or hint
    if hint is not Any and not hasattr(cls, "__len__") or "$ref" in schema:
        raise unfit
    return schema, _checked(load, lambda value: compare(len(value), limit), f"must have {words} {limit} items")


def _comparable(hint: Any, limit: Any) -> bool:
    if not isinstance(hint, type):
        return False
    numbers = (int, float) if hint.__name__ == "Decimal" else ()
    return isinstance(limit, (hint, *numbers)) and not isinstance(limit, bool)


def _checked(load: Any, fits: Callable[[Any], Any], words: str) -> Callable[[Any], Any]:
    """Return a loader that refuses the values that do not fit."""

    def checked(value: Any) -> Any:
        value = value if load is None else load(value)
        try:
            good = fits(value)
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
            good = False
        if not good:
            raise ConversionError(words)
        return value

    return checked
