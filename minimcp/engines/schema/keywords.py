"""Keywords of JSON Schema: those of jsonschema, counted, and in place of some that have no bounds there, others.

jsonschema searches with `re`, compares each item with each, and collects what was judged in lists. The module stands
on jsonschema, so it is imported on first use.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any

from jsonschema import ValidationError

from .effort import STEPS, Effort, TooMuch, running
from .patterns import compile_pattern
from .values import is_number

MOST = 3  # problems that are told
FOREIGN_TEXT = 4_000  # characters up to which the patterns of another program are searched
UNSURE = "unsure"  # as the keyword of a problem: it cannot be judged, such as a pattern of ECMA-262 that Python lacks


def counted_items(schema: Any) -> Any:
    """Return the keywords of a schema that apply, and count it."""
    running.effort.spend(1 + len(schema))
    return schema.items()


def reference_or_items(schema: Any) -> Any:
    """Return the keywords that apply in a draft in which a reference stands alone."""
    return [("$ref", schema["$ref"])] if "$ref" in schema else counted_items(schema)


def counted(name: str, function: Any) -> Any:
    """Return a keyword that counts, and collects as many problems as are told."""

    def keyword(validator: Any, rule: Any, value: Any, schema: Any) -> Any:
        effort: Effort = running.effort
        effort.enter()
        effort.spend(STEPS if "Ref" in name or name == "$ref" else 1 + _size(rule) + _size(value))
        before = effort.unsure
        if effort.marks is not None:
            _mark(effort.marks, name, function, validator, rule, value, schema)
            found = []
        else:
            if name in ("anyOf", "oneOf"):
                rule = [_NOTHING if part is False else part for part in rule]
            elif name == "contains" and rule is False:
                rule = _NOTHING
            unsure = list[Any]()
            found = list(first(function(validator, rule, value, schema) or (), unsure)) or unsure[:1]
        if found:
            effort.spend(STEPS)  # jsonschema has written the value into a message
        if effort.unsure > before and name in _CHOICES:
            found = _decided(name, found)
        effort.leave()
        return found

    return keyword


_NOTHING: dict[str, Any] = {"not": {}}  # as false, but counted
_CHOICES = ("anyOf", "oneOf", "not", "if", "contains", "unevaluatedItems", "unevaluatedProperties")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (list, dict)) else 0


def first(errors: Any, unsure: list[Any]) -> Iterator[Any]:
    """Return an iterator over as many problems as are told, which moves those of `UNSURE` into a list.

    It has no frame of its own: keywords lie deep within each other.
    """

    def told(error: Any) -> bool:
        if error.validator == UNSURE:
            unsure.append(error)
        return bool(error.validator != UNSURE)

    return islice(filter(told, errors), MOST)


def _decided(name: str, found: list[Any]) -> list[Any]:
    """Return the problems of a choice, in which something could not be judged."""
    if name == "anyOf" and not found:
        return []
    if name in ("anyOf", "oneOf") and found and found[0].context:
        known = [error for error in found[0].context if error.validator != UNSURE]
        of_all, of_known = [{error.relative_schema_path[0] for error in each} for each in (found[0].context, known)]
        if of_all == of_known:  # no branch fails by that alone
            found[0].context = known
            return found
    return [ValidationError("", validator=UNSURE)]


# Keywords of their own


def _search(pattern: str, text: str) -> bool | None:
    """Search a text for a pattern; None when that cannot be judged.

    :raises TooMuch: when the text is longer than the pattern can be searched in time.
    """
    effort: Effort = running.effort
    effort.spend(50 + len(text))
    found = effort.kept[pattern] if pattern in effort.kept else compile_pattern(pattern)
    if found is None or (effort.foreign and len(text) > min(found[1], FOREIGN_TEXT)):
        effort.unsure += 1
        return None
    if len(text) > found[1]:
        raise TooMuch(f"A string that must match a pattern is longer than {found[1]} characters")
    return found[0](text) is not None


def _pattern(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    fits = _search(rule, value) if isinstance(value, str) else True
    if not fits:
        yield ValidationError("it does not match") if fits is False else ValidationError("", validator=UNSURE)


def _pattern_properties(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    for name, item in value.items() if isinstance(value, dict) else ():
        for pattern, part in rule.items():
            fits = _search(pattern, name)
            if fits is not False:
                yield from _if_sure(fits, validator.descend(item, part, path=name))


def _additional_properties(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    known, patterns = schema.get("properties", ()), schema.get("patternProperties", ())
    for name, item in value.items() if isinstance(value, dict) else ():
        matches = [True] if name in known else [_search(pattern, name) for pattern in patterns]
        if rule is False and True not in matches and None not in matches:
            yield ValidationError("it is not allowed")
            return
        if True not in matches:
            yield from _if_sure(None not in matches, validator.descend(item, rule, path=name))


def _if_sure(sure: bool | None, errors: Iterator[Any]) -> Iterator[Any]:
    """Yield the problems of a member that a schema may apply to."""
    if sure:
        yield from errors
    elif next(errors, None) is not None:
        yield ValidationError("", validator=UNSURE)


def _unevaluated(kind: type, validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    """Apply a schema to the members or items that no other keyword has judged."""
    if not issubclass(type(value), kind):
        return
    effort: Effort = running.effort
    effort.marks = set()
    others = {keyword: part for keyword, part in schema.items() if keyword[:11] != "unevaluated" and keyword != "$id"}
    list(validator.descend(value, others))
    marks, effort.marks = effort.marks, None
    for step, item in value.items() if isinstance(value, dict) else enumerate(value):
        if step not in marks and rule is False:
            yield ValidationError("it is not allowed")
            return
        if step not in marks:
            yield from validator.descend(item, rule, path=step)


def _mark(marks: set[Any], name: str, function: Any, validator: Any, rule: Any, value: Any, schema: Any) -> None:
    """Add the members or items of a value that a keyword judges."""
    effort: Effort = running.effort

    def fits(part: Any, item: Any) -> bool:
        effort.marks = None
        found = part is not False and next(validator.descend(item, part), None) is None
        effort.marks = marks
        return found

    if name in ("$ref", "$dynamicRef", "$recursiveRef"):
        list(function(validator, rule, value, schema))
    elif name in ("allOf", "anyOf", "oneOf"):
        for part in rule:
            if fits(part, value):
                list(validator.descend(value, part))
    elif name == "if":
        fit = fits(rule, value)
        for part in (rule, schema.get("then", True)) if fit else (schema.get("else", True),):
            list(validator.descend(value, part))
    elif isinstance(value, dict):
        if name in ("properties", "additionalProperties", "unevaluatedProperties"):
            marks.update(rule.keys() & value.keys() if name == "properties" else value)
        elif name == "patternProperties":
            marks.update(member for member in value for pattern in rule if _search(pattern, member) is not False)
        elif name == "dependentSchemas":
            for member in rule.keys() & value.keys():
                list(validator.descend(value, rule[member]))
    elif isinstance(value, list):
        if name == "contains":
            marks.update(number for number, item in enumerate(value) if fits(rule, item))
        elif name in ("items", "prefixItems", "unevaluatedItems") or (
            name == "additionalItems" and isinstance(schema.get("items"), list)
        ):
            marks.update(range(len(rule) if isinstance(rule, list) else len(value)))


def _multiple_of(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _is_multiple(value, rule):
        yield ValidationError("it is no multiple")


def _is_multiple(value: Any, rule: Any) -> bool:
    try:
        return bool(int(value / rule) == value / rule) if isinstance(rule, float) else not value % rule
    except OverflowError:
        return is_number(value) and not Fraction(value) % Fraction(rule)
    except ValueError:  # NaN
        return False


def _enum(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    kept = running.effort.kept
    if id(rule) not in kept:
        kept[id(rule)] = frozenset([_identity(item) for item in rule])
    if _identity(value) not in kept[id(rule)]:
        yield ValidationError("it is none of them")


def _const(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    if _identity(value) != _identity(rule):
        yield ValidationError("it is another value")


def _unique_items(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
    if rule and isinstance(value, list) and len({_identity(item) for item in value}) != len(value):
        yield ValidationError("it has the same item twice")


def _identity(value: Any) -> Any:
    """Return a hashable key, equal for values that JSON Schema calls equal: 1 and 1.0, but not 1 and true."""
    running.effort.spend(1 + (len(value) // 1000 if isinstance(value, str) else 0))
    if isinstance(value, dict):
        return dict, frozenset([(key, _identity(item)) for key, item in value.items()])
    if isinstance(value, list):
        return list, tuple([_identity(item) for item in value])
    if is_number(value) and abs(value) >= 2**53:
        return int, hex(int(value))  # as numbers, chosen ones could all have the same hash
    return (bool, value) if isinstance(value, bool) else value


OWN = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "unevaluatedProperties": partial(_unevaluated, dict),
    "unevaluatedItems": partial(_unevaluated, list),
    "multipleOf": _multiple_of,
    "enum": _enum,
    "const": _const,
    "uniqueItems": _unique_items,
}
