"""Docstrings in Google, NumPy and Sphinx style: the text, and what is said about each parameter."""

from __future__ import annotations

import re

_PARAMETERS = {
    "args",
    "arguments",
    "parameters",
    "params",
    "keyword args",
    "keyword arguments",
    "other parameters",
}
_PARAMETERS |= {"attributes"}
_DROPPED = {"returns", "return", "yields", "yield", "raises", "raise", "warns", "receives"}
_GOOGLE = re.compile(r"([A-Za-z ]+):\s*$")
_GOOGLE_ITEM = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\)\s*)?:\s?(.*)$")
_NUMPY_ITEM = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_SPHINX = re.compile(r":(\w+)(?:\s+([^:]*))?:\s?(.*)$")
_SPHINX_PARAMETERS = {"param", "parameter", "arg", "argument", "key", "keyword"}


def parse(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Split a docstring into its text without its sections, and `{parameter: text}`."""
    lines = _dedent(docstring or "")
    text: list[str] = []
    found: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line = lines[at]
        field = _SPHINX.match(line)
        heading = _GOOGLE.match(line)
        title = line.strip().lower()
        if field and field.group(1) in _SPHINX_PARAMETERS | _DROPPED | {"type", "rtype", "raises", "except"}:
            block, at = _block(lines, at + 1, indent=0)
            if field.group(1) in _SPHINX_PARAMETERS and field.group(2):
                found[field.group(2).split()[-1].lstrip("*")] = _join([field.group(3), *block])
        elif heading and heading.group(1).lower() in _PARAMETERS | _DROPPED and _indent(lines, at + 1) > 0:
            block, at = _block(lines, at + 1, indent=0)
            if heading.group(1).lower() in _PARAMETERS:
                found.update(_google(block))
        elif title in _PARAMETERS | _DROPPED and at + 1 < len(lines) and re.match(r"-{3,}\s*$", lines[at + 1]):
            block, at = _numpy_block(lines, at + 2)
            if title in _PARAMETERS:
                found.update(_numpy(block))
        else:
            text.append(line)
            at += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(text)).strip(), {name: words for name, words in found.items() if words}


def _dedent(docstring: str) -> list[str]:
    lines = [line.rstrip() for line in docstring.expandtabs().split("\n")]
    margins = [len(line) - len(line.lstrip()) for line in lines[1:] if line]
    margin = min(margins, default=0)
    return [lines[0].strip(), *(line[margin:] for line in lines[1:])]


def _indent(lines: list[str], at: int) -> int:
    """The indentation of the first line from `at` on that is not empty, or -1 at the end."""
    for line in lines[at:]:
        if line:
            return len(line) - len(line.lstrip())
    return -1


def _block(lines: list[str], at: int, indent: int) -> tuple[list[str], int]:
    """The lines from `at` on that are indented deeper than `indent`, and where they end."""
    block: list[str] = []
    while at < len(lines) and (not lines[at] or len(lines[at]) - len(lines[at].lstrip()) > indent):
        block.append(lines[at])
        at += 1
    return block, at


def _numpy_block(lines: list[str], at: int) -> tuple[list[str], int]:
    block: list[str] = []
    while at < len(lines):
        underlined = at + 1 < len(lines) and re.match(r"-{3,}\s*$", lines[at + 1])
        after_gap = block and not block[-1] and not lines[at].startswith(" ")
        if underlined or (after_gap and lines[at] and not _NUMPY_ITEM.match(lines[at])):
            break
        block.append(lines[at])
        at += 1
    return block, at


def _google(block: list[str]) -> dict[str, str]:
    margin = _indent(block, 0)
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in block:
        item = _GOOGLE_ITEM.match(line[margin:]) if len(line) - len(line.lstrip()) == margin else None
        if item:
            current = found[item.group(1)] = [item.group(2)]
        else:
            current.append(line)
    return {name: _join(words) for name, words in found.items()}


def _numpy(block: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in block:
        item = _NUMPY_ITEM.match(line) if line and not line.startswith(" ") else None
        if item:
            current = []
            for name in item.group(1).split(","):
                found[name.strip().lstrip("*")] = current
        else:
            current.append(line)
    return {name: _join(words) for name, words in found.items()}


def _join(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
