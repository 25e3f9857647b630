"""Docstrings in Google, NumPy and Sphinx style: the text, and the description of each parameter."""

from __future__ import annotations

import re
from collections.abc import Container
from textwrap import dedent

_PARAMETERS = {"args", "arguments", "parameters", "params", "attributes"}
_PARAMETERS |= {"keyword args", "keyword arguments", "other parameters"}
_DROPPED = {"returns", "return", "yields", "yield", "raises", "raise", "warns", "receives"}
_FIELDS = {"param", "parameter", "arg", "argument", "key", "keyword"}
_DROPPED_FIELDS = _DROPPED | {"type", "rtype", "except"}

_FIELD = re.compile(r":(\w+)(?:\s+([^:]*))?:\s?(.*)$")
_UNDERLINE = re.compile(r"-{3,}\s*$")
_BULLET = re.compile(r"[-*+•]\s+\S")
_GOOGLE_ITEM = re.compile(
    r"(?:[-*+•]\s+)?[`*]{0,2}(\*{0,2}\w+)[`*]{0,2}\s*(?:\((?:[^()]|\([^()]*\))*\)\s*)?(?::|\s[-–—](?=\s))[`*]{0,2}\s*(.*)$"
)
_NUMPY_ITEM = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?()$")


def parse(docstring: str | None, known: Container[str] | None = None) -> tuple[str, dict[str, str]]:
    """Split a docstring into its text without its sections, and `{parameter: text}`.

    :param known: the names of the parameters; what a section says of others, or cannot be read, stays in the text.
    """
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
        elif line.endswith(":") and any(lines[at : _indented(lines, at, title in _PARAMETERS)]):
            at = _indented(lines, at, title in _PARAMETERS)
            if title in _PARAMETERS:
                items, left = _items(lines[start + 1 : at], _GOOGLE_ITEM, known)
                found.update(items)
                text += [line, *left] if left else []
        elif at < len(lines) and _UNDERLINE.match(lines[at]):
            at = _numpy_end(lines, at + 1)
            if title in _PARAMETERS:
                items, left = _items(lines[start + 2 : at], _NUMPY_ITEM, known)
                found.update(items)
                text += [*lines[start : start + 2], *left] if left else []
        else:
            text.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(text)).strip(), {name: words for name, words in found.items() if words}


def _indented(lines: list[str], at: int, bullets: bool = False) -> int:
    """Return the end of the lines from `at` on that are indented, empty or, where these count, bullets."""
    while at < len(lines) and (not lines[at] or lines[at][0] == " " or (bullets and _BULLET.match(lines[at]))):
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


def _items(
    block: list[str], pattern: re.Pattern[str], known: Container[str] | None
) -> tuple[dict[str, str], list[str]]:
    """Return the texts of a section's items, and the lines that belong to none."""
    found: dict[str, list[str]] = {}
    left: list[str] = []
    words = left
    for line in dedent("\n".join(block)).split("\n"):
        item = pattern.match(line)
        names = [name.strip().lstrip("*") for name in item[1].split(",")] if item else []
        if item and (known is None or any(name in known for name in names)):
            words = [item[2]]
            found.update((name, words) for name in names)
            continue
        if item:
            words = left
        if line or words is not left:
            words.append("    " + line if words is left else line)
    return {name: _join(lines) for name, lines in found.items()}, left


def _join(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
