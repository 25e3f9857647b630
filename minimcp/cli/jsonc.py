"""Changes of one member in JSON as people write it, with comments; everything else in the text stays as it is."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, Optional

_COMMENT = r"//[^\r\n]*|/\*(?:[^*]|\*(?!/))*\*/"
_STRING = r'"(?:[^"\\]|\\.)*"'
_GAP = re.compile(rf"(?:\s|{_COMMENT})*")
_SCALAR = re.compile(rf"{_STRING}|[^\s,\]}}/]+")
_MARK = re.compile(rf"{_STRING}|{_COMMENT}|[\[\]{{}}]")
# What follows a member on its line: a comment that is about it.
_REST = re.compile(r"[ \t]*(?:/\*(?:[^*\n]|\*(?!/))*\*/[ \t]*)?(?://[^\r\n]*)?(?=\r?\n)")
_SPACES = re.compile(r"[ \t]*")
_INDENT = re.compile(r'^([ \t]+)"', re.MULTILINE)


class Member(NamedTuple):
    """A member of an object, as positions: of its name, of its value, and behind that."""

    name: str
    start: int
    value: int
    end: int


class JsonObject(NamedTuple):
    """An object in a text: the positions of its braces, and its members."""

    opening: int
    closing: int
    members: list[Member]

    def get(self, name: str) -> Optional[Member]:
        """Return the member of a name, or None."""
        return next((member for member in self.members if member.name == name), None)


def put(text: str, path: list[str], value: Any) -> str:
    """Return a text of valid JSON with one member set, which is put at the end of its object when it is new.

    :param path: the names of the objects it is in, and its own; an object that is not there is made.
    :raises ValueError: when something else than an object is there.
    """
    if not text.strip():
        text = "{}\n"
    found, missing = _holder(text, path[:-1])
    if missing is not None:
        for each in reversed(path[missing + 1 :]):
            value = {each: value}
        return _insert(text, found, path[missing], value)
    member = found.get(path[-1])
    if member is None:
        return _insert(text, found, path[-1], value)
    return text[: member.value] + _dump(text, value, _indent(text, member.start)) + text[member.end :]


def take(text: str, path: list[str]) -> str:
    """Return a text of valid JSON without one member, and without what is said of it on its line."""
    found, missing = _holder(text, path[:-1])
    member = found.get(path[-1]) if missing is None else None
    if member is None:
        return text
    comma = _comma(text, member.end)
    start, end = member.start, comma or member.end
    line = text.rfind("\n", 0, start)
    rest = _REST.match(text, end)
    if line >= 0 and not text[line:start].strip() and rest is not None:
        start, end = line - (text[line - 1 : line] == "\r"), rest.end()
    elif comma:
        end = _after(_SPACES, text, end)
    else:
        start = len(text[:start].rstrip(" \t"))
    head, tail = text[:start], text[end:]
    place = found.members.index(member)
    if comma is None and place:
        behind = _comma(text, found.members[place - 1].end)
        if behind is not None:
            head = text[: behind - 1] + text[behind:start]
    left = _object(head + tail, found.opening)
    text = head + tail
    if not text[left.opening + 1 : left.closing].strip():
        text = text[: left.opening + 1] + text[left.closing :]
    return text


def _holder(text: str, above: list[str]) -> tuple[JsonObject, Optional[int]]:
    """Return the object at a path, or the last one there is and the place of the first name that is missing."""
    found = _object(text, _after(_GAP, text, 0))
    for place, name in enumerate(above):
        member = found.get(name)
        if member is None:
            return found, place
        found = _object(text, member.value, name)
    return found, None


def _object(text: str, at: int, name: str = "") -> JsonObject:
    """Return the object that begins at a position."""
    if text[at : at + 1] != "{":
        raise ValueError(f"{name!r} is not an object" if name else "it is not a JSON object")
    opening = at
    members: list[Member] = []
    at += 1
    while True:
        at = _after(_GAP, text, at)
        if text[at] == "}":
            return JsonObject(opening, at, members)
        if text[at] == ",":
            at += 1
            continue
        start, at = at, _after(_SCALAR, text, at)
        key = json.loads(text[start:at])
        value = _after(_GAP, text, _after(_GAP, text, at) + 1)
        at = _end(text, value)
        members.append(Member(key, start, value, at))


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None  # The text is valid JSON.
    return found.end()


def _end(text: str, at: int) -> int:
    """Return the position behind the value that begins at another."""
    if text[at] not in "{[":
        return _after(_SCALAR, text, at)
    depth = 0
    for found in _MARK.finditer(text, at):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
        if not depth:
            return found.end()
    raise AssertionError("the text is not valid JSON")


def _comma(text: str, at: int) -> Optional[int]:
    """Return the position behind the comma that follows a value, None without one."""
    at = _after(_GAP, text, at)
    return at + 1 if text[at] == "," else None


def _insert(text: str, found: JsonObject, name: str, value: Any) -> str:
    key = json.dumps(name, ensure_ascii=False)
    newline = "\r\n" if "\r\n" in text else "\n"
    outer = _indent(text, found.opening)
    inside = text[found.opening + 1 : found.closing]
    if not found.members:
        indent = outer + _unit(text)
        kept = text[: found.opening + 1] + inside.rstrip()
        return f"{kept}{newline}{indent}{key}: {_dump(text, value, indent)}{newline}{outer}{text[found.closing :]}"
    last = found.members[-1]
    comma = _comma(text, last.end)
    if "\n" not in inside:
        at = comma or last.end
        return f"{text[:at]}{'' if comma else ','} {key}: {json.dumps(value, ensure_ascii=False)}{text[at:]}"
    indent = _indent(text, last.start)
    piece = f"{newline}{indent}{key}: {_dump(text, value, indent)}"
    rest = _REST.match(text, comma or last.end)
    at = rest.end() if rest is not None else comma or last.end
    if comma:
        return f"{text[:at]}{piece},{text[at:]}"
    return f"{text[: last.end]},{text[last.end : at]}{piece}{text[at:]}"


def _indent(text: str, at: int) -> str:
    """Return the white space at the beginning of the line of a position."""
    line = text.rfind("\n", 0, at) + 1
    return text[line : _after(_SPACES, text, line)]


def _unit(text: str) -> str:
    """Return how much deeper each level stands in a text."""
    return min((found[1] for found in _INDENT.finditer(text)), key=len, default="  ")


def _dump(text: str, value: Any, indent: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    return json.dumps(value, indent=_unit(text), ensure_ascii=False).replace("\n", newline + indent)
