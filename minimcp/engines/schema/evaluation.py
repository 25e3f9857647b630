"""Evaluation of a value by a checked schema: which keywords apply, where, and what that may cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional, Union

from .dialects import OLD, CheckedSchema, is_absent
from .effort import Effort, TooMuch

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


class Spot(NamedTuple):
    """The schema whose keywords are applied, and the place of the value."""

    schema: dict[str, Any]
    place: Place
    scope: tuple[str, ...]  # the base URIs of the schemas that were entered, the current one last
    marks: Any  # the names and numbers of the members and items that were judged, or None


Keyword = Callable[["Evaluation", Any, Any, Spot], Found]


class Evaluation:
    """One validation of one value by a checked schema.

    :param keywords: the functions of the dialect's keywords. Each returns True when the value fits, False when the
        keyword itself is the problem, or the problems of the parts that it applies; `UNSURE` among them stands for
        what cannot be judged, such as a pattern of ECMA-262 that Python lacks.
    """

    __slots__ = ("schema", "effort", "_keywords")

    def __init__(self, schema: CheckedSchema, keywords: dict[str, Keyword], effort: Effort) -> None:
        self.schema = schema
        self.effort = effort
        self._keywords = keywords

    def run(self, value: Any) -> Problems:
        """Return the first problems of the value, [] when it is valid."""
        return self.problems(self.schema.root, value, None, (self.schema.base,))

    def problems(self, schema: Any, value: Any, place: Place, scope: tuple[str, ...], marks: Any = None) -> Problems:
        """Return the problems of a value with one schema; `marks` gets the members and items that it judges."""
        if isinstance(schema, bool):
            return [] if schema else [Problem("false", schema, value, schema, place)]
        whole, effort = self.schema, self.effort
        effort.spend(1 + len(schema))
        effort.enter()
        if id(schema) in whole.bases:
            scope = (*scope, whole.bases[id(schema)])
        spot = Spot(schema, place, scope, set() if whole.marks else None)
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
        effort.depth -= 1
        return found

    def member(self, schema: Any, step: Any, item: Any, spot: Spot) -> Problems:
        """Return the problems of a member or an item, which counts as judged."""
        if spot.marks is not None:
            spot.marks.add(step)
        return self.problems(schema, item, (spot.place, step), spot.scope)

    def matches(self, pattern: str, text: str) -> bool | None:
        """Search a text for a pattern; None when that cannot be judged.

        :raises TooMuch: when the text is longer than the pattern can be searched in time.
        """
        found = self.schema.patterns[pattern]
        self.effort.spend(50 + len(text))
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
