"""Regular expressions of a schema: which are safe to run on a stranger's text, and on how much of it.

`re` backtracks: a pattern with two ways to read the same repetition, like `^(a+)+$`, takes exponential time,
and nothing can interrupt it. So a pattern is turned into its position automaton (one state per character it
names). It is refused when a loop can read a text in two ways; otherwise the loops that leave their end open
bound the degree of the polynomial that its time follows, and with it how long a searched string may be.
Spec: FEAT-056
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

try:
    from re import _compiler, _parser  # type: ignore[attr-defined]
except ImportError:  # Python 3.10 and older
    import sre_compile as _compiler
    import sre_parse as _parser

MAX_STATES = 400
MAX_STEPS = 50_000_000  # some tenths of a second
_SAMPLE = [chr(code) for code in range(9, 127)] + list("\x85\xa0é²İ中٣\u2028😀")


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> tuple[Callable[[str], Any], int]:
    """Compile a pattern; return its search function and how many characters a string may have to be searched.

    :raises ValueError: when it is no regular expression here, or could take too long.
    """
    shown = pattern if len(pattern) <= 80 else pattern[:77] + "..."
    try:
        compiled = re.compile(pattern)
        longest = _Automaton(_parser.parse(pattern), compiled.flags).longest()
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {shown!r} is not understood: {error}") from None
    except _Slow as reason:
        raise ValueError(f"the pattern {shown!r} may take very long: {reason}") from None
    return compiled.search, longest


class _Slow(Exception):
    """The pattern cannot be bounded; the message says why."""


_Part = tuple[bool, set[int], set[int]]  # may be empty, states it can begin with, states it can end with


class _Automaton:
    """The states of one pattern, the characters each reads, and which may follow which."""

    def __init__(self, tree: Any, flags: int) -> None:
        self.flags = flags
        self.alphabet = [*_SAMPLE, *_literals(tree)]
        self.reads: list[frozenset[str]] = []
        self.follow: list[set[int]] = []
        self.repeating = False
        self.ways = 1
        self.leading: list[_Automaton] = []  # lookarounds that run once, before anything is read
        self.inner: list[_Automaton] = []  # lookarounds that may run at every character
        self.ends = False  # whether something is asked for without reading, after the beginning
        self.anchored = bool(tree) and tree[0][0] is _parser.AT and "BEGINNING" in str(tree[0][1])
        _, self.first, self.last = self.sequence(tree)

    def sequence(self, items: Any) -> _Part:
        empty, first, last = True, set[int](), set[int]()
        for item in items:
            void, begins, ends = self.item(item, items)
            for state in last:
                self.follow[state] |= begins
            first = first | begins if empty else first
            last = last | ends if void else ends
            empty = empty and void
        return empty, first, last

    def item(self, item: Any, around: Any) -> _Part:
        kind, value = item
        name = str(kind)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "RANGE", "CATEGORY"):
            return self.state(item, around)
        if name == "AT":
            self.ends = self.ends or bool(self.reads)
            return True, set(), set()
        if name == "SUBPATTERN":
            self.flags |= value[1]  # a group's own flags, taken for the whole
            return self.sequence(value[3])
        if name == "ATOMIC_GROUP":
            return self.sequence(value)
        if name == "BRANCH":
            parts = [self.sequence(branch) for branch in value[1]]
            self.pass_by(sum(part[0] for part in parts))
            first, last = set().union(*(part[1] for part in parts)), set().union(*(part[2] for part in parts))
            return any(part[0] for part in parts), first, last
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return self.repeat(*value)
        if name in ("ASSERT", "ASSERT_NOT"):
            looks = _Automaton(value[1], self.flags)
            looks.anchored = True
            if self.reads or self.repeating:
                self.inner.append(looks)
                self.ends = True
            else:
                self.leading.append(looks)
            return True, set(), set()
        raise _Slow("it refers back to a group")

    def state(self, item: Any, around: Any) -> _Part:
        if len(self.reads) >= MAX_STATES:
            raise _Slow("it is too long")
        reader = _compiler.compile(_parser.SubPattern(around.state, [item]), self.flags)
        self.reads.append(frozenset(char for char in self.alphabet if reader.match(char)))
        self.follow.append(set())
        new = {len(self.reads) - 1}
        return False, new, new

    def repeat(self, low: int, high: Any, body: Any) -> _Part:
        if low == high and low <= 100 and all(str(kind) in ("LITERAL", "ANY", "IN") for kind, _ in body):
            copies = _parser.SubPattern(body.state, list(body) * low)
            return self.sequence(copies)
        outside, self.repeating = self.repeating, self.repeating or high > 1
        empty, first, last = self.sequence(body)
        self.repeating = outside
        if high == 1 and empty:
            self.pass_by(2)
        if high > 1:
            if empty:
                raise _Slow("it repeats something that may be empty")
            for state in last:
                if self.follow[state] & first:
                    raise _Slow("a repetition contains another that reads the same text")
                self.follow[state] |= first
        return empty or low == 0, first, last

    def pass_by(self, ways: int) -> None:
        """Count the ways to pass by something without reading."""
        if ways > 1 and self.repeating:
            raise _Slow("a repetition can leave out a part in two ways")
        self.ways *= max(ways, 1)

    def longest(self) -> int:
        """How long a string may be so that a search takes at most about `MAX_STEPS`."""
        degree, constant = self.cost()
        longest = int((MAX_STEPS / constant) ** (1 / max(degree, 1)))
        if longest < 16:
            raise _Slow("it leaves too many choices open")
        return min(longest, 1_000_000)

    def cost(self) -> tuple[int, int]:
        """The degree and the factor of the polynomial that bounds the steps of a search.

        A loop that the text does not say when to leave multiplies the ways to go on by the length.
        """
        loops = self.loops()
        for loop in loops:
            self.check_loop(loop)
        # What ends inside of a loop, with nothing asked for afterwards, is a match as soon as it gets there.
        costly = [loop for loop in loops if self.ends or not loop <= self.last]
        degree = (0 if self.anchored else 1) + bool(costly)
        constant = max(map(len, costly), default=1) * self.ways
        for loop in costly:
            if any(self.meet(a, b) for s in loop for a in self.follow[s] & loop for b in self.follow[s] - loop):
                degree += 1
        inside = {state: loop for loop in loops for state in loop}
        for state, following in [(-1, self.first), *enumerate(self.follow)]:
            exits = following - inside.get(state, set())
            constant *= max(1, sum(any(self.meet(a, b) for b in exits if b != a) for a in exits))
        for look in self.inner:
            degree, constant = degree + look.cost()[0], constant * look.cost()[1]
        for look in self.leading:
            degree, constant = max(degree, look.cost()[0]), max(constant, look.cost()[1])
        return degree, constant

    def meet(self, a: int, b: int) -> bool:
        return not self.reads[a].isdisjoint(self.reads[b])

    def loops(self) -> list[set[int]]:
        """The sets of states that can all reach each other."""
        reach = []
        for state in range(len(self.follow)):
            seen, waiting = set[int](), [state]
            while waiting:
                for following in self.follow[waiting.pop()] - seen:
                    seen.add(following)
                    waiting.append(following)
            reach.append(seen)
        found = {frozenset(b for b in seen if a in reach[b]) for a, seen in enumerate(reach) if a in seen}
        return [set(loop) for loop in found]

    def check_loop(self, loop: set[int]) -> None:
        """Refuse a loop through which the same text leads on two ways."""
        edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
        waiting = [(state, state) for state in loop]
        seen = set(waiting)
        while waiting:
            pair = waiting.pop()
            for a in self.follow[pair[0]] & loop:
                for b in self.follow[pair[1]] & loop:
                    if self.meet(a, b):
                        edges.setdefault((a, b), []).append(pair)
                        if (a, b) not in seen:
                            seen.add((a, b))
                            waiting.append((a, b))
            if len(seen) > 20_000:
                raise _Slow("its repetitions are too long")
        # Backwards from the diagonal: different states that lead back to one state are a second way.
        back, waiting = set[tuple[int, int]](), [(state, state) for state in loop]
        while waiting:
            for before in edges.get(waiting.pop(), ()):
                if before not in back:
                    back.add(before)
                    waiting.append(before)
        if any(a != b for a, b in back):
            raise _Slow("a repetition can read the same text in two ways")


def _literals(tree: Any) -> set[str]:
    """The characters that a pattern names beyond ASCII, and their neighbours."""
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, int) and not isinstance(node, bool) and 126 < node < 0x10FFFF:
            found |= {chr(node - 1), chr(node), chr(node + 1)}
        elif isinstance(node, (list, tuple, _parser.SubPattern)):
            waiting.extend(node)
    return found
