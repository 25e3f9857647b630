"""Regular expressions of a schema: which are safe to run on untrusted text, and on how much of it.

`re` backtracks and cannot be interrupted: `^(a+)+$` takes exponential time. So the ways in which a pattern may
read a text are counted from above. A repetition that leaves its end open multiplies them by the length of the
text, and a pattern that may begin anywhere does so once more; a string is searched up to a length at which the
ways stay below `MAX_WAYS`: 100,000 characters with one such factor, 2,000 with two, 300 with three. Refused are
more than that, back references, and a repetition of something that itself has several ways, unless a separator
says where each round begins or ends, as in `(-[a-z]+)*`. Spec: FEAT-056
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import takewhile
from typing import Any

try:
    from re import _compiler, _parser  # type: ignore[attr-defined]
except ImportError:  # Python 3.10 and older
    import sre_compile as _compiler
    import sre_parse as _parser

MAX_WAYS = 30_000_000  # some tenths of a second
LENGTHS = (100_000, 2_000, 300)

_ONE = ("LITERAL", "NOT_LITERAL", "ANY", "IN")  # what reads one character
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> tuple[Callable[[str], Any], int]:
    """Compile a pattern; return its search function and how many characters a string may have to be searched.

    :raises ValueError: when it is no regular expression here, or could take too long.
    """
    shown = pattern if len(pattern) <= 80 else pattern[:77] + "..."
    try:
        compiled = re.compile(pattern)
        tree = _parser.parse(pattern)
        for length in LENGTHS:
            if _total(tree, length, compiled.flags) <= MAX_WAYS:
                return compiled.search, length
        reason = "it leaves too many choices open"
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {shown!r} is not understood: {error}") from None
    except _Unbounded as error:
        reason = str(error)
    raise ValueError(f"the pattern {shown!r} may take very long: {reason}")


class _Unbounded(Exception):
    """The ways of a pattern to match cannot be counted; the message says why."""


def _total(tree: Any, length: int, flags: int) -> int:
    ways = _ways(tree, length, flags)
    if tree and str(tree[-1][0]) in _REPEATS and _ways(tree[-1][1][2], length, flags) == 1:
        # Nothing is asked for after it, so it is never read a second time.
        ways = _ways(tree[:-1], length, flags)
    return ways if _anchored(tree) else length * max(ways, min(tree.getwidth()[0], length) // 10)


def _anchored(tree: Any) -> bool:
    if not tree:
        return False
    kind, value = str(tree[0][0]), tree[0][1]
    if kind == "BRANCH":
        return all(map(_anchored, value[1]))
    return _anchored(value[3]) if kind == "SUBPATTERN" else kind == "AT" and "BEGINNING" in str(value)


def _ways(items: Any, length: int, flags: int) -> int:
    """Return the most ways that there may be to read some of `length` characters."""
    ways, looks = 1, 0
    for kind, value in items:
        name = str(kind)
        if name == "SUBPATTERN":
            ways *= _ways(value[3], length, flags | value[1])
        elif name == "BRANCH":
            found = [_ways(branch, length, flags) for branch in value[1]]
            ways *= max(found) if _exclusive(value[1], flags) else sum(found)
        elif name in ("ASSERT", "ASSERT_NOT"):
            looks += ways * _ways(value[1], length, flags)  # read again each time, but never in a second way
        elif name in _REPEATS:
            low, high, body = value
            ways *= _repeated(low, high, body, length, flags)
        elif name not in (*_ONE, "AT"):
            raise _Unbounded("it refers back to a group, or does what is not known here")
    return ways + looks


def _exclusive(branches: Any, flags: int) -> bool:
    """Return whether alternatives begin with different literals."""
    heads = [[value for _, value in takewhile(lambda item: str(item[0]) == "LITERAL", branch)] for branch in branches]
    return not flags & re.IGNORECASE and not any(a is not b and b[: len(a)] == a for a in heads for b in heads)


def _repeated(low: int, high: int, body: Any, length: int, flags: int) -> int:
    each = _ways(body, length, flags)
    rounds = min(high, length) - min(low, length) + 1
    if high == 1:
        return each + 1 - low
    if each == 1 or _separated(body, flags):
        return int(max(each, rounds))
    if high > 1000:
        raise _Unbounded("a repetition contains another, and no separator tells their texts apart")
    return int(min(each**high, MAX_WAYS + 1))


def _separated(body: Any, flags: int) -> bool:
    """Return whether a literal at one end marks each round, and the rest can be read in one way only."""
    items = list(body[0][1][3] if len(body) == 1 and str(body[0][0]) == "SUBPATTERN" else body)
    for mark, between in ((items[0], items[1:]), (items[-1], items[:-1])):
        readers = _readers(between) if str(mark[0]) == "LITERAL" else None
        if readers is not None:
            fragments = [_compiler.compile(_parser.SubPattern(body.state, [reader]), flags) for reader in readers]
            return not any(fragment.match(chr(mark[1])) for fragment in fragments)
    return False


def _readers(items: Any) -> list[Any] | None:
    """Return the parts that read one character each, or None if more than one part is of variable length."""
    found = [item for item in items if str(item[0]) in _ONE]
    loose = [item for item in items if str(item[0]) not in _ONE]
    if not loose:
        return found
    if len(loose) > 1 or str(loose[0][0]) not in _REPEATS:
        return None
    _, high, body = loose[0][1]
    inner = _readers(body)
    # What is there or not may contain a repetition, when something else in it is always there.
    simple = all(str(kind) in _ONE for kind, _ in body) or (high == 1 and len(body) > 1)
    return found + inner if inner is not None and simple else None
