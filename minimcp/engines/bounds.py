"""Bounds of a JSON value: how deep it is nested, how many values and how much text it holds."""

from __future__ import annotations

import re
from typing import Any

# What the structure of a document is made of stays; every other character counts as part of a scalar.
_STRUCTURE = bytes(code if code in b'",[]{}' else ord("0") for code in range(256))
# What an item of a container takes beside its text.
_ITEM_BYTES = 64
_PIECE = 256 * 1024
_STRING = re.compile(rb'"[^"]*"?')


def has_more_values(raw: bytes, most: int) -> bool:
    """Say whether a JSON document has more members and items than `most`, without building any of them.

    It is exact for JSON, and says something for every other text.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") <= most:
        return False
    kept = raw.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_STRUCTURE, b" \t\r\n")
    while b"00" in kept:
        kept = kept.replace(b"00", b"0")
    # Strings without structure in them go fast. Where this joins the end of one string and the beginning of the next,
    # it makes one string of both.
    kept = kept.replace(b'"0"', b"0").replace(b'""', b"0")
    found = at = 0
    while at < len(kept) and found <= most:
        # A piece ends neither within a string nor within an empty container.
        end = at + _PIECE
        end += kept[end - 1 : end + 1] in (b"[]", b"{}")
        if kept.count(b'"', at, end) % 2:
            end = kept.find(b'"', end) + 1 or len(kept)
        piece = _STRING.sub(b"0", kept[at:end])
        found += piece.count(b",") + piece.count(b"[") + piece.count(b"{") - piece.count(b"[]") - piece.count(b"{}")
        at = end
    return found > most


def weight(value: Any, most: int) -> int:
    """Return about how many bytes a value takes, or some number above `most`."""
    total, level = 0, [value]
    while level and total <= most:
        below: list[Any] = []
        for item in level:
            total += _ITEM_BYTES
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, dict):
                total += sum(map(len, item))
                below.extend(item.values())
            elif isinstance(item, (list, tuple)):
                below.extend(item)
            elif isinstance(item, int):
                total += item.bit_length() >> 3
        level = below
    return total


def exceeded(value: Any, max_depth: int, max_values: int, max_text: int | None = None) -> str | None:
    """Return the bound that a value breaks, "depth", "values", "text" or "keys", or None when it keeps them all.

    The walk goes level by level, so neither depth nor a value that contains itself can exhaust the stack.

    :param max_depth: how many containers may lie within each other.
    :param max_values: how many members and items there may be.
    :param max_text: how many characters keys and strings may have together, where this is bounded; then keys must be
        strings too.
    """
    level = [value] if isinstance(value, (dict, list, tuple)) else []
    values = text = 0
    for _ in range(max_depth):
        below: list[Any] = []
        for item in level:
            values += len(item)
            if values > max_values:
                return "values"
            if max_text is not None and isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    return "keys"
                text += sum(map(len, item))
            below.extend(item.values() if isinstance(item, dict) else item)
        if max_text is not None:
            text += sum(len(child) for child in below if isinstance(child, str))
            if text > max_text:
                return "text"
        level = [child for child in below if isinstance(child, (dict, list, tuple))]
        if not level:
            return None
    return "depth"
