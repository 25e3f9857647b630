"""Regular expressions of a schema: which are safe to run on untrusted text, and on how much of it.

`re` backtracks and cannot be interrupted: `^(a+)+$` takes exponential time. So the ways in which a pattern may
read a text are counted from above. A repetition that leaves its end open multiplies them by the length of the
text, and a pattern that may begin anywhere does so once more; a string is searched up to a length at which the
ways stay below `MAX_WAYS`: 100,000 characters with one such factor, 2,000 with two, 300 with three. Refused are
more than that, back references, and a repetition of something that itself has several ways, unless a separator
says where each round begins or ends, as in `(-[a-z]+)*`. To compile takes time too: what a pattern may spell out is
bounded, and the ways are counted before. Spec: FEAT-056
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
MAX_LENGTH = 20_000  # of a pattern
MAX_SETS = 100  # of characters beyond Latin-1, which take milliseconds each to compile
LENGTHS = (100_000, 2_000, 300)

_ONE = ("LITERAL", "NOT_LITERAL", "ANY", "IN")  # what reads one character
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_CAP = MAX_WAYS + 1
_TYPES = re.ASCII | re.LOCALE | re.UNICODE
# A name as ECMA-262 writes it; what is escaped, or stands in a class, is passed over.
_NAMED = re.compile(r"(\\.|\[(?:\\.|[^\]\\])*\])|\(\?<(?![=!])", re.DOTALL)


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> tuple[Callable[[str], Any], int]:
    """Compile a pattern; return its search function and how many characters a string may have to be searched.

    :raises ValueError: when it is no regular expression here, or could take too long.
    """
    shown = pattern if len(pattern) <= 80 else pattern[:77] + "..."
    try:
        if len(pattern) > MAX_LENGTH:
            raise ValueError(f"it is longer than {MAX_LENGTH} characters")
        try:
            tree = _parser.parse(pattern)
        except re.error:
            pattern = _NAMED.sub(lambda found: found.group(1) or "(?P<", pattern)
            tree = _parser.parse(pattern)
        if _wide_sets(tree) > MAX_SETS:
            raise ValueError(f"it has more than {MAX_SETS} sets of characters beyond Latin-1")
        for length in LENGTHS:
            if _total(tree, length, tree.state.flags) <= MAX_WAYS:
                return re.compile(pattern).search, length
        reason = "it leaves too many choices open"
    except _Unbounded as error:
        reason = str(error)
    except (re.error, ValueError, RecursionError, OverflowError, Warning) as error:
        raise ValueError(f"the pattern {shown!r} is not understood: {error}") from None
    raise ValueError(f"the pattern {shown!r} may take very long: {reason}")


def _wide_sets(part: Any) -> int:
    """Count the sets that hold characters beyond Latin-1."""
    if isinstance(part, tuple) and str(part[0]) == "IN":
        ends = [codes[-1] if isinstance(codes, tuple) else codes for _, codes in part[1]]
        return any(isinstance(end, int) and end > 255 for end in ends)
    return sum(map(_wide_sets, part)) if isinstance(part, (tuple, list, _parser.SubPattern)) else 0


class _Unbounded(Exception):
    """The ways of a pattern to match cannot be counted; the message says why."""


def _total(tree: Any, length: int, flags: int) -> int:
    ways = _ways(tree, length, flags)
    if tree and str(tree[-1][0]) in _REPEATS and _ways(tree[-1][1][2], length, flags) == 1:
        # Nothing is asked for after it, so it is never read a second time.
        ways = _ways(tree[:-1], length, flags)
    return ways if _anchored(tree, flags) else length * max(ways, min(tree.getwidth()[0], length) // 10)


def _anchored(tree: Any, flags: int) -> bool:
    """Return whether a pattern can begin at the start of the text only."""
    if not tree:
        return False
    kind, value = str(tree[0][0]), tree[0][1]
    if kind == "BRANCH":
        return all(_anchored(branch, flags) for branch in value[1])
    if kind == "SUBPATTERN":
        return _anchored(value[3], _combined(flags, value))
    return kind == "AT" and ("BEGINNING_STRING" in str(value) or ("BEGINNING" in str(value) and not flags & re.M))


def _combined(flags: int, group: Any) -> int:
    """Return the flags that hold inside a group."""
    _, added, dropped, _ = group
    kept: int = flags & ~_TYPES if added & _TYPES else flags
    return (kept | int(added)) & ~int(dropped)


def _ways(items: Any, length: int, flags: int) -> int:
    """Return the most ways that there may be to read some of `length` characters."""
    ways, looks = 1, 0
    for kind, value in items:
        name = str(kind)
        if name == "SUBPATTERN":
            ways *= _ways(value[3], length, _combined(flags, value))
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
        ways = min(ways, _CAP)
    return min(ways + looks, _CAP)


def _exclusive(branches: Any, flags: int) -> bool:
    """Return whether alternatives begin with different literals."""
    heads = sorted(
        [value for _, value in takewhile(lambda item: str(item[0]) == "LITERAL", branch)] for branch in branches
    )
    # What begins with another head comes right after it in this order.
    return not flags & re.IGNORECASE and not any(b[: len(a)] == a for a, b in zip(heads, heads[1:]))


def _repeated(low: int, high: int, body: Any, length: int, flags: int) -> int:
    each = _ways(body, length, flags)
    rounds = min(high, length) - min(low, length) + 1
    if high == 1:
        return each + 1 - low
    if each == 1 or _separated(body, flags):
        return int(max(each, rounds))
    if high > 1000:
        raise _Unbounded("a repetition contains another, and no separator tells their texts apart")
    return int(min(each**high, _CAP))


def _separated(body: Any, flags: int) -> bool:
    """Return whether a literal at one end marks each round, and the rest can be read in one way only."""
    items = list(body)
    while len(items) == 1 and str(items[0][0]) == "SUBPATTERN":
        flags, items = _combined(flags, items[0][1]), list(items[0][1][3])
    for mark, between in ((items[0], items[1:]), (items[-1], items[:-1])) if items else ():
        readers = _readers(between) if str(mark[0]) == "LITERAL" else None
        if readers is not None:
            state = _parser.State()
            state.flags = flags
            fragments = [_compiler.compile(_parser.SubPattern(state, [reader])) for reader in readers]
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
