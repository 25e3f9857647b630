"""Bounds of a JSON value: how deep it is nested, how many values and how much text it holds."""

from __future__ import annotations

from typing import Any


def written(raw: bytes, most: int) -> int:
    """Count the members and items in a JSON text without decoding it; above `most` the number is not exact.

    :param raw: JSON; of anything else the number means nothing.
    """
    # An escaped quote is no end of a string; an escaped backslash must not escape a quote.
    text = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 4 * most + 4:
        # Every value has a name and a text at most.
        return most + 1
    outside = b'"'.join(text.split(b'"')[::2]).translate(None, b" \t\r\n")
    containers = outside.count(b"[") + outside.count(b"{") - outside.count(b"[]") - outside.count(b"{}")
    return outside.count(b",") + containers


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
