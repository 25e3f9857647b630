"""Keywords of JSON Schema as functions of a rule and a value; none recurses or searches outside of the budget.

A keyword returns True when the value fits, False when the keyword itself is the problem, or the problems of the
parts that it applies. `UNSURE` among them stands for what cannot be judged: a pattern of ECMA-262 that Python lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple, Optional, Union

from .budget import Budget, TooMuch
from .dialects import CHECKS, DEFAULT_DIALECT, DRAFT_4, DRAFT_2019, OLD, CheckedSchema, identity, is_absent
from .values import is_number

MOST = 3  # problems that are told
FOREIGN_TEXT = 4_000  # characters up to which the patterns of another program are searched

Place = Optional[tuple[Any, Any]]  # of the container, and the step from there


class Problem(NamedTuple):
    """One keyword that a value does not fit."""

    keyword: str  # "" for `UNSURE`
    rule: Any  # the keyword's value
    value: Any
    schema: Any  # with the keyword in it
    place: Place
    branches: Any = ()  # of `anyOf` and `oneOf`: the problems of each


UNSURE = Problem("", None, None, None, None)
Problems = list[Problem]
Found = Union[bool, Problems]


class _Spot(NamedTuple):
    """The schema whose keywords are applied, and the place of the value."""

    schema: dict[str, Any]
    place: Place
    scope: tuple[str, ...]  # the base URIs of the schemas that were entered, the current one last
    marks: Any  # the names and numbers of the members and items that were judged, or None


Keyword = Callable[["Evaluation", Any, Any, _Spot], Found]


class Evaluation:
    """One validation of one value by a checked schema."""

    __slots__ = ("schema", "budget", "_keywords")

    def __init__(self, schema: CheckedSchema, budget: Budget) -> None:
        self.schema = schema
        self.budget = budget
        self._keywords = _KEYWORDS[schema.dialect]

    def run(self, value: Any) -> Problems:
        """Return the first problems of the value, [] when it is valid."""
        return self.problems(self.schema.root, value, None, (self.schema.base,))

    def problems(self, schema: Any, value: Any, place: Place, scope: tuple[str, ...], marks: Any = None) -> Problems:
        """Return the problems of a value with one schema; `marks` gets the members and items that it judges."""
        if isinstance(schema, bool):
            return [] if schema else [Problem("false", schema, value, schema, place)]
        whole, budget = self.schema, self.budget
        budget.spend(1 + len(schema))
        budget.enter()
        if id(schema) in whole.bases:
            scope = (*scope, whole.bases[id(schema)])
        spot = _Spot(schema, place, scope, set() if whole.marks else None)
        found: Problems = []
        alone = "$ref" in schema and whole.dialect in OLD
        for keyword, rule in (
            [("$ref", schema["$ref"])] if alone else _in_order(schema) if whole.marks else schema.items()
        ):
            apply = self._keywords.get(keyword)
            if apply is None or (whole.foreign and is_absent(keyword, rule)):
                continue
            outcome = apply(self, rule, value, spot)
            if outcome is False:
                found.append(Problem(keyword, rule, value, schema, place))
            elif outcome is not True:
                found += outcome
            if enough(found):
                break
        if marks is not None and verdict(found) is not False:
            marks |= spot.marks
        budget.depth -= 1
        return found

    def member(self, schema: Any, step: Any, item: Any, spot: _Spot) -> Problems:
        """Return the problems of a member or an item, which counts as judged."""
        if spot.marks is not None:
            spot.marks.add(step)
        return self.problems(schema, item, (spot.place, step), spot.scope)

    def matches(self, pattern: str, text: str) -> bool | None:
        """Search a text for a pattern; None when that cannot be judged.

        :raises TooMuch: when the text is longer than the pattern can be searched in time.
        """
        found = self.schema.patterns[pattern]
        self.budget.spend(50 + len(text))
        if found is None or (self.schema.foreign and len(text) > min(found[1], FOREIGN_TEXT)):
            return None
        search, longest = found
        if len(text) > longest:
            raise TooMuch(f"A string that must match a pattern is longer than {longest} characters")
        return search(text) is not None


def _in_order(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the keywords with those last that ask what the others have judged."""
    return sorted(schema.items(), key=lambda item: item[0].startswith("unevaluated"))


def enough(found: Problems) -> bool:
    """Say whether there are as many problems as are told."""
    return len(found) >= MOST and found[-1] is not UNSURE


def verdict(found: Problems) -> bool | None:
    """Return whether a value fits; None when that cannot be judged."""
    if not found:
        return True
    return None if all(problem is UNSURE for problem in found) else False


# Rules for values of one kind


def _of(kinds: Any, test: Callable[[Any, Any], bool]) -> Keyword:
    def keyword(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
        return not isinstance(value, kinds) or isinstance(value, bool) or test(value, rule)

    return keyword


_NUMBER = (int, float)


def _is_multiple(value: Any, rule: Any) -> bool:
    try:
        return bool(int(value / rule) == value / rule) if isinstance(rule, float) else not value % rule
    except OverflowError:
        return is_number(value) and not Fraction(value) % Fraction(rule)
    except ValueError:  # NaN
        return False


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_integer(value) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, _NUMBER) and not isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _type(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    return any(_TYPES[name](value) for name in ([rule] if isinstance(rule, str) else rule))


def _type_4(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    names = [rule] if isinstance(rule, str) else rule
    return any(_TYPES[name](value) and (name != "integer" or not isinstance(value, float)) for name in names)


def _limit_4(strict: str, test: Callable[[Any, Any], bool]) -> Keyword:
    def keyword(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
        if not isinstance(value, _NUMBER) or isinstance(value, bool):
            return True
        return test(value, rule) and not (spot.schema.get(strict) and value == rule)

    return keyword


def _const(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    return bool(identity(value, run.budget) == identity(rule, run.budget))


def _enum(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    choices = run.schema.choices.get(id(rule))
    if choices is None:
        choices = run.schema.choices[id(rule)] = frozenset([identity(item, run.budget) for item in rule])
    return identity(value, run.budget) in choices


def _unique_items(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    if not rule or not isinstance(value, list):
        return True
    return len({identity(item, run.budget) for item in value}) == len(value)


def _pattern(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    found = run.matches(rule, value) if isinstance(value, str) else True
    return [UNSURE] if found is None else found


def _required(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    run.budget.spend(len(rule))
    return not isinstance(value, dict) or all(name in value for name in rule)


def _dependent_required(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    if not isinstance(value, dict):
        return True
    run.budget.spend(sum(map(len, rule.values())))
    return all(name in value for key, names in rule.items() if key in value for name in names)


# Schemas for the value itself


def _all_of(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    found: Problems = []
    for part in rule:
        found += run.problems(part, value, spot.place, spot.scope, spot.marks)
        if enough(found):
            break
    return found


def _any_of(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    branches = []
    for part in rule:
        found = run.problems(part, value, spot.place, spot.scope, spot.marks)
        if not found and spot.marks is None:
            return True
        branches.append(found)
    if [] in branches:
        return True
    if None in map(verdict, branches):
        return [UNSURE]
    return [Problem("anyOf", rule, value, spot.schema, spot.place, branches)]


def _one_of(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    branches = [run.problems(part, value, spot.place, spot.scope, spot.marks) for part in rule]
    verdicts = [verdict(found) for found in branches]
    if verdicts.count(True) <= 1 and None in verdicts:
        return [UNSURE]
    if verdicts.count(True) == 1:
        return True
    return [Problem("oneOf", rule, value, spot.schema, spot.place, [] if True in verdicts else branches)]


def _not(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    fits = verdict(run.problems(rule, value, spot.place, spot.scope))
    return [UNSURE] if fits is None else not fits


def _if(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    fits = verdict(run.problems(rule, value, spot.place, spot.scope, spot.marks))
    if fits is None:
        return [UNSURE]
    branch = spot.schema.get("then" if fits else "else", True)
    return run.problems(branch, value, spot.place, spot.scope, spot.marks) if branch is not None else True


def _dependent_schemas(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    if not isinstance(value, dict):
        return True
    run.budget.spend(len(rule))
    return _all_of(run, [part for name, part in rule.items() if name in value], value, spot)


def _dependencies(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    needs = {name: part for name, part in rule.items() if isinstance(part, list)}
    if _dependent_required(run, needs, value, spot) is False:
        return False
    return _dependent_schemas(run, {name: part for name, part in rule.items() if name not in needs}, value, spot)


def _ref(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    return _refer(run, *run.schema.resolve(spot.scope[-1], rule), value, spot)


def _dynamic_ref(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    target, base = run.schema.resolve(spot.scope[-1], rule)
    name = rule.partition("#")[2]
    if isinstance(target, dict) and target.get("$dynamicAnchor") == name:
        for uri in spot.scope:
            if (uri, name) in run.schema.dynamic:
                return _refer(run, run.schema.dynamic[uri, name], uri, value, spot)
    return _refer(run, target, base, value, spot)


def _recursive_ref(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    target, base = run.schema.resolve(spot.scope[-1], rule)
    if isinstance(target, dict) and target.get("$recursiveAnchor") is True:
        for uri in reversed(spot.scope):
            outer = run.schema.anchors[uri, ""]
            if outer.get("$recursiveAnchor") is not True:
                break
            target, base = outer, uri
    return _refer(run, target, base, value, spot)


def _refer(run: Evaluation, target: Any, base: str, value: Any, spot: _Spot) -> Found:
    scope = spot.scope if base == spot.scope[-1] else (*spot.scope, base)
    return run.problems(target, value, spot.place, scope, spot.marks)


# Schemas for members


def _properties(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    found: Problems = []
    if isinstance(value, dict):
        run.budget.spend(len(rule))
        for name, part in rule.items():
            if name in value:
                found += run.member(part, name, value[name], spot)
                if enough(found):
                    break
    return found


def _pattern_properties(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    found: Problems = []
    for name, item in value.items() if isinstance(value, dict) else ():
        for pattern, part in rule.items():
            fits = run.matches(pattern, name)
            if fits is not False:
                problems = run.member(part, name, item, spot)
                found += problems if fits or not problems else [UNSURE]
        if enough(found):
            break
    return found


def _additional_properties(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    found: Problems = []
    if not isinstance(value, dict):
        return True
    run.budget.spend(len(value))
    known, patterns = spot.schema.get("properties") or (), spot.schema.get("patternProperties") or ()
    for name, item in value.items():
        matches = [] if name in known else [run.matches(pattern, name) for pattern in patterns]
        if name not in known and True not in matches:
            problems = run.member(rule, name, item, spot)
            if problems and None in matches:
                found.append(UNSURE)
            elif problems and rule is False:
                return False
            else:
                found += problems
            if enough(found):
                break
    return found


def _property_names(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    found: Problems = []
    for name in value if isinstance(value, dict) else ():
        found += run.problems(rule, name, spot.place, spot.scope)
        if enough(found):
            break
    return found


def _unevaluated_properties(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    names = [name for name in value if name not in spot.marks] if isinstance(value, dict) else []
    return _rest(run, rule, [(name, value[name]) for name in names], spot)


# Schemas for items


def _rest(run: Evaluation, rule: Any, items: list[tuple[Any, Any]], spot: _Spot) -> Found:
    found: Problems = []
    run.budget.spend(len(items))
    for step, item in items:
        problems = run.member(rule, step, item, spot)
        if problems and rule is False:
            return False
        found += problems
        if enough(found):
            break
    return found


def _items(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    if not isinstance(value, list):
        return True
    if isinstance(rule, list):
        return _prefix_items(run, rule, value, spot)
    first = len(spot.schema.get("prefixItems") or ()) if run.schema.dialect == DEFAULT_DIALECT else 0
    return _rest(run, rule, list(enumerate(value))[first:], spot)


def _prefix_items(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    found: Problems = []
    for number, (part, item) in enumerate(zip(rule, value)) if isinstance(value, list) else ():
        found += run.member(part, number, item, spot)
    return found


def _additional_items(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    first = spot.schema.get("items")
    if not isinstance(value, list) or not isinstance(first, list):
        return True
    return _rest(run, rule, list(enumerate(value))[len(first) :], spot)


def _contains(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    if not isinstance(value, list):
        return True
    least: float = 1
    most: float = len(value)
    if run.schema.dialect not in OLD:
        given = [spot.schema.get(keyword) for keyword in ("minContains", "maxContains")]
        least, most = [asked if isinstance(asked, _NUMBER) else usual for asked, usual in zip(given, (least, most))]
    sure = unsure = 0
    for number, item in enumerate(value):
        fits = verdict(run.problems(rule, item, (spot.place, number), spot.scope))
        sure, unsure = sure + (fits is True), unsure + (fits is None)
        if fits is not False and spot.marks is not None and run.schema.dialect == DEFAULT_DIALECT:
            spot.marks.add(number)
    if sure > most:
        return [Problem("maxContains", most, value, spot.schema, spot.place)]
    if sure + unsure < least:
        return [Problem("minContains", least, value, spot.schema, spot.place)] if sure else False
    return [UNSURE] if unsure and (sure < least or sure + unsure > most) else True


def _unevaluated_items(run: Evaluation, rule: Any, value: Any, spot: _Spot) -> Found:
    items = list(enumerate(value)) if isinstance(value, list) else []
    return _rest(run, rule, [(number, item) for number, item in items if number not in spot.marks], spot)


_ALL: dict[str, Keyword] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "multipleOf": _of(_NUMBER, _is_multiple),
    "minimum": _of(_NUMBER, lambda value, rule: value >= rule),
    "maximum": _of(_NUMBER, lambda value, rule: value <= rule),
    "exclusiveMinimum": _of(_NUMBER, lambda value, rule: value > rule),
    "exclusiveMaximum": _of(_NUMBER, lambda value, rule: value < rule),
    "minLength": _of(str, lambda value, rule: len(value) >= rule),
    "maxLength": _of(str, lambda value, rule: len(value) <= rule),
    "minItems": _of(list, lambda value, rule: len(value) >= rule),
    "maxItems": _of(list, lambda value, rule: len(value) <= rule),
    "minProperties": _of(dict, lambda value, rule: len(value) >= rule),
    "maxProperties": _of(dict, lambda value, rule: len(value) <= rule),
    "uniqueItems": _unique_items,
    "pattern": _pattern,
    "required": _required,
    "dependentRequired": _dependent_required,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "dependentSchemas": _dependent_schemas,
    "dependencies": _dependencies,
    "$ref": _ref,
    "$dynamicRef": _dynamic_ref,
    "$recursiveRef": _recursive_ref,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "prefixItems": _prefix_items,
    "items": _items,
    "additionalItems": _additional_items,
    "contains": _contains,
    "unevaluatedItems": _unevaluated_items,
    "unevaluatedProperties": _unevaluated_properties,
}
# A keyword is applied where its dialect has a check for it; what a dialect only still allows is left out.
_LEFT_OUT = {DEFAULT_DIALECT: ("dependencies", "$recursiveRef"), DRAFT_2019: ("dependencies",)}
_KEYWORDS: dict[str, dict[str, Keyword]] = {
    dialect: {
        keyword: apply
        for keyword, apply in _ALL.items()
        if keyword in checks and keyword not in _LEFT_OUT.get(dialect, ())
    }
    for dialect, checks in CHECKS.items()
}
_KEYWORDS[DRAFT_4].update(
    type=_type_4,
    minimum=_limit_4("exclusiveMinimum", lambda value, rule: value >= rule),
    maximum=_limit_4("exclusiveMaximum", lambda value, rule: value <= rule),
)
for _strict in ("exclusiveMinimum", "exclusiveMaximum"):
    del _KEYWORDS[DRAFT_4][_strict]
