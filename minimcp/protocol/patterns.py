"""Regular expressions of a schema: which are safe to run on a stranger's text, and on how much of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

LONGEST = 1_000


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> tuple[Callable[[str], Any], int]:
    """Compile a pattern; return its search function and how many characters a string may have to be searched.

    :raises ValueError: when it is no regular expression here, or could take exponential time.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {pattern[:80]!r} is not understood: {error}") from None
    return compiled.search, LONGEST
