"""Files of configuration as hosts read them: JSON with comments, a comma before the end, a byte order mark."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from .variables import anchored

MOST_BYTES = 4 * 1024 * 1024
# A string, which stays, or what hosts allow beside JSON: a comment, and a comma before the end. What is not closed
# reaches to the end, so that it is searched only once.
_COMMENT = r"//[^\n]*(?=\n|\Z)|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z)"
_BESIDE = re.compile(rf'("(?:[^"\\]|\\(?:.|\Z))*(?:"|\Z))|{_COMMENT}|,(?=(?:\s|{_COMMENT})*[\]}}])', re.DOTALL)


def load(path: Any) -> Any:
    """Read a file; the files that its texts refer to are found beside it.

    :raises ValueError: when it is not JSON, has a key twice in one object, or is too large.
    """
    try:
        raw = read_bytes(path)
        found = parsed(raw.decode(json.detect_encoding(raw)))
        return anchored(found, os.path.dirname(os.path.abspath(path)))
    except RepeatedKey as problem:
        raise ValueError(f"{os.fspath(path)}: {problem}") from None
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"{os.fspath(path)}: This is not JSON: {problem}") from None


def parsed(text: str) -> Any:
    """Return the value of a text.

    :raises ValueError: when it is not JSON, or has a key twice in one object.
    """
    return json.loads(_BESIDE.sub(_plain, text), object_pairs_hook=_once)


def read_bytes(path: Any) -> bytes:
    """Read the bytes of a file of configuration.

    :raises ValueError: when there are more than such a file has.
    """
    with open(path, "rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return raw


class RepeatedKey(ValueError):
    """One object has a key twice, and one of the two values would be lost without a word."""


def _plain(found: re.Match[str]) -> str:
    """Return what a part of a file is in JSON; a comment that is not closed is left, to be refused."""
    is_open = found[0].startswith("/*") and not found[0].endswith("*/")
    return found[1] or (found[0] if is_open else " ")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise RepeatedKey(f"The key {key[:100]!r} stands twice in one object")
        made[key] = value
    return made
