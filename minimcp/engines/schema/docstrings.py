"""Docstrings in Google, NumPy and Sphinx style: the text, and the description of each parameter."""

from __future__ import annotations

import re
from textwrap import dedent

_PARAMETERS = {"args", "arguments", "parameters", "params", "attributes"}
_PARAMETERS |= {"keyword args", "keyword arguments", "other parameters"}
_DROPPED = {"returns", "return", "yields", "yield", "raises", "raise", "warns", "receives"}
_FIELDS = {"param", "parameter", "arg", "argument", "key", "keyword"}
_DROPPED_FIELDS = _DROPPED | {"type", "rtype", "except"}

_FIELD = re.compile(r":(\w+)(?:\s+([^:]*))?:\s?(.*)$")
_UNDERLINE = re.compile(r"-{3,}\s*$")
_GOOGLE_ITEM = re.compile(r"(\*{0,2}\w+)\s*(?:\([^)]*\)\s*)?:\s?(.*)$")
_NUMPY_ITEM = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?()$")


def parse(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Split a docstring into its text without its sections, and `{parameter: text}`."""
    first, _, rest = (docstring or "").expandtabs().partition("\n")
    lines = [line.rstrip() for line in [first.strip(), *dedent(rest).split("\n")]]
    text: list[str] = []
    found: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line, start = lines[at], at
        title = line.removesuffix(":").lower()
        field = _FIELD.match(line)
        at += 1
        if field and field[1] in _FIELDS | _DROPPED_FIELDS:
            at = _indented(lines, at)
            if field[1] in _FIELDS and field[2]:
                found[field[2].split()[-1].lstrip("*")] = _join([field[3], *lines[start + 1 : at]])
        elif title not in _PARAMETERS | _DROPPED:
            text.append(line)
        elif line.endswith(":") and any(lines[at : _indented(lines, at)]):
            at = _indented(lines, at)
            if title in _PARAMETERS:
                found.update(_items(lines[start + 1 : at], _GOOGLE_ITEM))
        elif at < len(lines) and _UNDERLINE.match(lines[at]):
            at = _numpy_end(lines, at + 1)
            if title in _PARAMETERS:
                found.update(_items(lines[start + 2 : at], _NUMPY_ITEM))
        else:
            text.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(text)).strip(), {name: words for name, words in found.items() if words}


def _indented(lines: list[str], at: int) -> int:
    """Return the end of the indented or empty lines from `at` on."""
    while at < len(lines) and (not lines[at] or lines[at][0] == " "):
        at += 1
    return at


def _numpy_end(lines: list[str], at: int) -> int:
    """Return the end of a NumPy section: the next title, or a paragraph that is not an item."""
    for place in range(at, len(lines)):
        underlined = place + 1 < len(lines) and _UNDERLINE.match(lines[place + 1])
        after_gap = place > at and not lines[place - 1] and lines[place] and lines[place][0] != " "
        if underlined or (after_gap and not _NUMPY_ITEM.match(lines[place])):
            return place
    return len(lines)


def _items(block: list[str], pattern: re.Pattern[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for line in dedent("\n".join(block)).split("\n"):
        item = pattern.match(line)
        if item:
            words = [item[2]]
            found.update((name.strip().lstrip("*"), words) for name in item[1].split(","))
        else:
            words.append(line)
    return {name: _join(lines) for name, lines in found.items()}


def _join(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
