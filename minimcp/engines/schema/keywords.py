"""Keywords of JSON Schema as functions of a rule and a value; none recurses or compares outside of the effort."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .dialects import CHECKS, DEFAULT_DIALECT, DRAFT_4, DRAFT_2019, OLD, identity
from .evaluation import UNSURE, Evaluation, Found, Keyword, Problem, Problems, Spot, enough, verdict
from .values import is_number

# Rules for values of one kind


def _of(kinds: Any, test: Callable[[Any, Any], bool]) -> Keyword:
    def keyword(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
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


def _type(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    return any(_TYPES[name](value) for name in ([rule] if isinstance(rule, str) else rule))


def _type_4(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    names = [rule] if isinstance(rule, str) else rule
    return any(_TYPES[name](value) and (name != "integer" or not isinstance(value, float)) for name in names)


def _limit_4(strict: str, test: Callable[[Any, Any], bool]) -> Keyword:
    def keyword(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
        if not isinstance(value, _NUMBER) or isinstance(value, bool):
            return True
        return test(value, rule) and not (spot.schema.get(strict) and value == rule)

    return keyword


def _const(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    return bool(identity(value, run.effort) == identity(rule, run.effort))


def _enum(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    choices = run.schema.choices.get(id(rule))
    if choices is None:
        choices = run.schema.choices[id(rule)] = frozenset([identity(item, run.effort) for item in rule])
    return identity(value, run.effort) in choices


def _unique_items(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    if not rule or not isinstance(value, list):
        return True
    return len({identity(item, run.effort) for item in value}) == len(value)


def _pattern(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    found = run.matches(rule, value) if isinstance(value, str) else True
    return [UNSURE] if found is None else found


def _required(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    run.effort.spend(len(rule))
    return not isinstance(value, dict) or all(name in value for name in rule)


def _dependent_required(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    if not isinstance(value, dict):
        return True
    run.effort.spend(sum(map(len, rule.values())))
    return all(name in value for key, names in rule.items() if key in value for name in names)


# Schemas for the value itself


def _all_of(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    found: Problems = []
    for part in rule:
        found += run.problems(part, value, spot.place, spot.scope, spot.marks)
        if enough(found):
            break
    return found


def _any_of(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
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


def _one_of(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    branches = [run.problems(part, value, spot.place, spot.scope, spot.marks) for part in rule]
    verdicts = [verdict(found) for found in branches]
    if verdicts.count(True) <= 1 and None in verdicts:
        return [UNSURE]
    if verdicts.count(True) == 1:
        return True
    return [Problem("oneOf", rule, value, spot.schema, spot.place, [] if True in verdicts else branches)]


def _not(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    fits = verdict(run.problems(rule, value, spot.place, spot.scope))
    return [UNSURE] if fits is None else not fits


def _if(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    fits = verdict(run.problems(rule, value, spot.place, spot.scope, spot.marks))
    if fits is None:
        return [UNSURE]
    branch = spot.schema.get("then" if fits else "else", True)
    return run.problems(branch, value, spot.place, spot.scope, spot.marks) if branch is not None else True


def _dependent_schemas(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    if not isinstance(value, dict):
        return True
    run.effort.spend(len(rule))
    return _all_of(run, [part for name, part in rule.items() if name in value], value, spot)


def _dependencies(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    needs = {name: part for name, part in rule.items() if isinstance(part, list)}
    if _dependent_required(run, needs, value, spot) is False:
        return False
    return _dependent_schemas(run, {name: part for name, part in rule.items() if name not in needs}, value, spot)


def _ref(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    return _refer(run, *run.schema.resolve(spot.scope[-1], rule), value, spot)


def _dynamic_ref(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    target, base = run.schema.resolve(spot.scope[-1], rule)
    name = rule.partition("#")[2]
    if isinstance(target, dict) and target.get("$dynamicAnchor") == name:
        for uri in spot.scope:
            if (uri, name) in run.schema.dynamic:
                return _refer(run, run.schema.dynamic[uri, name], uri, value, spot)
    return _refer(run, target, base, value, spot)


def _recursive_ref(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    target, base = run.schema.resolve(spot.scope[-1], rule)
    if isinstance(target, dict) and target.get("$recursiveAnchor") is True:
        for uri in reversed(spot.scope):
            outer = run.schema.anchors[uri, ""]
            if outer.get("$recursiveAnchor") is not True:
                break
            target, base = outer, uri
    return _refer(run, target, base, value, spot)


def _refer(run: Evaluation, target: Any, base: str, value: Any, spot: Spot) -> Found:
    scope = spot.scope if base == spot.scope[-1] else (*spot.scope, base)
    return run.problems(target, value, spot.place, scope, spot.marks)


# Schemas for members


def _properties(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    found: Problems = []
    if isinstance(value, dict):
        run.effort.spend(len(rule))
        for name, part in rule.items():
            if name in value:
                found += run.member(part, name, value[name], spot)
                if enough(found):
                    break
    return found


def _pattern_properties(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
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


def _additional_properties(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    found: Problems = []
    if not isinstance(value, dict):
        return True
    run.effort.spend(len(value))
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


def _property_names(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    found: Problems = []
    for name in value if isinstance(value, dict) else ():
        found += run.problems(rule, name, spot.place, spot.scope)
        if enough(found):
            break
    return found


def _unevaluated_properties(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    names = [name for name in value if name not in spot.marks] if isinstance(value, dict) else []
    return _rest(run, rule, [(name, value[name]) for name in names], spot)


# Schemas for items


def _rest(run: Evaluation, rule: Any, items: list[tuple[Any, Any]], spot: Spot) -> Found:
    found: Problems = []
    run.effort.spend(len(items))
    for step, item in items:
        problems = run.member(rule, step, item, spot)
        if problems and rule is False:
            return False
        found += problems
        if enough(found):
            break
    return found


def _items(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    if not isinstance(value, list):
        return True
    if isinstance(rule, list):
        return _prefix_items(run, rule, value, spot)
    first = len(spot.schema.get("prefixItems") or ()) if run.schema.dialect == DEFAULT_DIALECT else 0
    return _rest(run, rule, list(enumerate(value))[first:], spot)


def _prefix_items(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    found: Problems = []
    for number, (part, item) in enumerate(zip(rule, value)) if isinstance(value, list) else ():
        found += run.member(part, number, item, spot)
    return found


def _additional_items(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
    first = spot.schema.get("items")
    if not isinstance(value, list) or not isinstance(first, list):
        return True
    return _rest(run, rule, list(enumerate(value))[len(first) :], spot)


def _contains(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
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


def _unevaluated_items(run: Evaluation, rule: Any, value: Any, spot: Spot) -> Found:
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
KEYWORDS: dict[str, dict[str, Keyword]] = {
    dialect: {
        keyword: apply
        for keyword, apply in _ALL.items()
        if keyword in checks and keyword not in _LEFT_OUT.get(dialect, ())
    }
    for dialect, checks in CHECKS.items()
}
KEYWORDS[DRAFT_4].update(
    type=_type_4,
    minimum=_limit_4("exclusiveMinimum", lambda value, rule: value >= rule),
    maximum=_limit_4("exclusiveMaximum", lambda value, rule: value <= rule),
)
for _strict in ("exclusiveMinimum", "exclusiveMaximum"):
    del KEYWORDS[DRAFT_4][_strict]
