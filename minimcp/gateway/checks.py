"""Checks of the values of a configuration: an error says where it is, what is wanted there, and what was meant.

A *kind* is a function of a value and its place that returns the value as the gateway uses it.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Optional

from ..client.variables import expand
from ..engines.errors import MinimcpError

Message = dict[str, Any]

_LONGEST = 100
_SHORTEST_SECRET = 4


class Place:
    """A place in a configuration.

    :param text: names it in messages, such as "gateway.rates[0]".
    :param folder: where relative paths begin.
    :ivar values: the values of the variables so far, each with the reference to it.
    """

    def __init__(self, text: str, folder: str = "", values: Optional[dict[str, str]] = None) -> None:
        self.text = text
        self.folder = folder
        self.values: dict[str, str] = {} if values is None else values

    def at(self, key: Any) -> Place:
        """Return the place of a member or an item."""
        if isinstance(key, int):
            return Place(f"{self.text}[{key}]", self.folder, self.values)
        name = key if re.fullmatch(r"[\w-]{1,100}", key) else repr(key[:_LONGEST])
        mark = " " if self.text.endswith(":") else "." if self.text else ""
        return Place(self.text + mark + name, self.folder, self.values)

    def named(self, text: str) -> Place:
        """Return a place with a name of its own."""
        return Place(text, self.folder, self.values)

    def wrong(self, said: str) -> ValueError:
        """Make the error for what is wrong here."""
        return ValueError(f"{self.text} {said}" if self.text else said[:1].upper() + said[1:])

    def expand(self, value: Any) -> Any:
        """Return a value with the variables in its texts replaced.

        :raises ValueError: for one that is not known.
        """
        return expand(value, self.text or "It", self._note)

    def _note(self, reference: str, value: str) -> None:
        self.values[value] = reference

    def redact(self, text: str) -> str:
        """Return a message with references in place of the values of variables, which may be secrets."""
        for value in sorted(self.values, key=len, reverse=True):
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, self.values[value]).replace(repr(value)[1:-1], self.values[value])
        return text

    def make(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function that checks its arguments by itself; its error is one of this place.

        :raises ValueError: with that error.
        """
        try:
            return function(*arguments, **options)
        except (ValueError, TypeError, OSError, ImportError, re.error, MinimcpError) as problem:
            raise ValueError(f"{self.text.rstrip(':')}: {problem}") from None


Kind = Callable[[Any, Place], Any]


class Option(NamedTuple):
    """An option of an object.

    :ivar default: its value when it is not given, or null; None leaves it out where no defaults are wanted.
    :ivar name: under which it is returned; by default its own, such as "public_url" for "publicUrl".
    """

    kind: Kind
    default: Any = None
    required: bool = False
    name: str = ""


def members(value: Any, place: Place, known: Iterable[str], passed: Iterable[str] = ()) -> Message:
    """Return an object, all of whose keys are known.

    :param passed: further keys that are let pass, and never proposed.
    :raises ValueError: naming a key that is not known, and the one that was probably meant.
    """
    if not isinstance(value, dict):
        raise place.wrong(f"must be an object, not {_type(value)}")
    for key in value:
        if key not in known and key not in passed:
            said = f"no option {str(key)[:_LONGEST]!r}"
            raise place.wrong(f"{'has' if place.text else 'there is'} {said}; {hint(str(key), known)}")
    return value


def hint(word: str, known: Iterable[str]) -> str:
    """Propose the word that was probably meant, or name all."""
    words = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word[:_LONGEST].lower(), words, 1, 0.6)
    return f"did you mean {words[near[0]]!r}?" if near else f"there is {', '.join(sorted(words.values())) or 'none'}"


def fields(value: Any, place: Place, options: Mapping[str, Option], defaults: bool = False) -> Message:
    """Return the options of an object that were given, by the names that the code has for them.

    :param defaults: whether those that were not given are returned, too.
    :raises ValueError: for one that is not known, is missing, or has a value of another kind.
    """
    members(value, place, options)
    return known_fields(value, place, options, defaults)


def known_fields(value: Message, place: Place, options: Mapping[str, Option], defaults: bool = False) -> Message:
    """Do what `fields` does for an object that may have further keys."""
    found: Message = {}
    for key, option in options.items():
        name = option.name or re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", key)
        given = value.get(key)
        if given is not None:
            found[name] = option.kind(given, place.at(key))
        elif option.required:
            raise place.wrong(f"needs {key!r}")
        elif defaults:
            found[name] = option.default
    return found


def obj(options: Mapping[str, Option], defaults: bool = False) -> Kind:
    """Make the kind of an object with these options."""
    return lambda value, place: fields(value, place, options, defaults)


def mapping(kind: Kind) -> Kind:
    """Make the kind of an object with any keys, whose values are of one kind."""

    def read(value: Any, place: Place) -> Message:
        if not isinstance(value, dict):
            raise place.wrong(f"must be an object, not {_type(value)}")
        return {key: kind(item, place.at(key)) for key, item in value.items()}

    return read


def many(kind: Kind) -> Kind:
    """Make the kind of a list."""

    def read(value: Any, place: Place) -> list[Any]:
        if not isinstance(value, list):
            raise place.wrong(f"must be a list, not {_type(value)}")
        return [kind(item, place.at(number)) for number, item in enumerate(value)]

    return read


def text(value: Any, place: Place) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str):
        raise place.wrong(f"must be a string, not {_type(value)}")
    found: str = place.expand(value)
    if not found:
        raise place.wrong("is empty")
    return found


def texts(value: Any, place: Place) -> tuple[str, ...]:
    """Read a list of texts; one text stands for itself."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list):
        raise place.wrong(f"must be a list of strings, not {_type(value)}")
    return tuple(text(item, place.at(number) if given is value else place) for number, item in enumerate(given))


def anything(value: Any, place: Place) -> Any:
    """Read a value of JSON, with the variables in its texts."""
    return place.expand(value)


def json_object(value: Any, place: Place) -> Message:
    """Read an object whose members somebody else checks."""
    if not isinstance(value, dict):
        raise place.wrong(f"must be an object, not {_type(value)}")
    found: Message = place.expand(value)
    return found


def path(value: Any, place: Place) -> str:
    """Read the path of a file, which begins at the folder of the configuration."""
    return os.path.join(place.folder, os.path.expanduser(text(value, place)))


def url(*schemes: str) -> Kind:
    """Make the kind of a URL with one of these schemes."""

    def read(value: Any, place: Place) -> str:
        found = text(value, place)
        begin, mark, rest = found.partition("://")
        if begin.lower() not in schemes or not mark or not rest or re.search(r"[\s\x00-\x1f]", found):
            raise place.wrong(f"must be a URL that begins with {' or '.join(f'{each}://' for each in schemes)}")
        return found

    return read


def flag(value: Any, place: Place) -> bool:
    """Read true or false."""
    value = _typed(value, place)
    if not isinstance(value, bool):
        raise place.wrong(f"must be true or false, not {_type(value)}")
    return value


def number(low: float, high: float, unit: str = "seconds") -> Kind:
    """Make the kind of a number between two others."""

    def read(value: Any, place: Place) -> float:
        found = _number(value, place, f"a number of {unit}")
        if not low <= found <= high:
            said = f"must be a number of {unit} from {low:g} to {high:g}, not {found:g}"
            looks = unit == "seconds" and found > high and found % 1000 == 0 and low <= found / 1000 <= high
            raise place.wrong(said + (f"; if it is milliseconds, write {found / 1000:g}" if looks else ""))
        return found

    return read


def whole(low: int, high: int) -> Kind:
    """Make the kind of a whole number between two others."""

    def read(value: Any, place: Place) -> int:
        found = _number(value, place, "a whole number")
        if found != int(found) or not low <= found <= high:
            raise place.wrong(f"must be a whole number from {low} to {high}, not {found:g}")
        return int(found)

    return read


def _number(value: Any, place: Place, wanted: str) -> float:
    value = _typed(value, place)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise place.wrong(f"must be {wanted}, not {_type(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise place.wrong(f"must be {wanted}, not {'one that large' if found == found else 'NaN'}")
    return found


def _typed(value: Any, place: Place) -> Any:
    """Return the number or boolean that variables make of a text; other texts are none."""
    if not isinstance(value, str) or "${" not in value:
        return value
    try:
        return json.loads(place.expand(value))
    except json.JSONDecodeError:
        return value


def one_of(*words: str) -> Kind:
    """Make the kind of a word among some."""

    def read(value: Any, place: Place) -> str:
        found = text(value, place)
        if found not in words:
            near = difflib.get_close_matches(value.lower(), words, 1, 0.6)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise place.wrong(f"must be one of {', '.join(words)}, not {value[:_LONGEST]!r}{meant}")
        return found

    return read


def _type(value: Any) -> str:
    """Name the type of a value as JSON does."""
    if value is None:
        return "null"
    for kind, name in ((bool, "a boolean"), ((int, float), "a number"), (str, "a string"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
