"""State of one process: made on first use and anew in a child after a fork; numbers that tell its objects apart."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Objects by their `id`, each with its number; single operations of a dict, which are atomic.
_numbered: dict[int, tuple[Callable[[], Any], int]] = {}
_numbers = itertools.count(1)


def number_of(thing: Any) -> int:
    """Return a number that no other object of this process has or had, unlike its `id`."""
    place = id(thing)
    found = _numbered.get(place)
    if found is None or found[0]() is not thing:
        refer: Callable[[], Any]
        try:
            refer = weakref.ref(thing, lambda _: _numbered.pop(place, None))
        except TypeError:
            refer = lambda: thing  # noqa: E731  # it is kept, and so is its place
        found = _numbered[place] = (refer, next(_numbers))
    return found[1]


class PerProcess(Generic[T]):
    """A value made on first use in each process.

    A child of a fork has its parent's locks, perhaps held by threads that it does not have, and never uses them. The
    process id is compared, since not every server runs the hooks of `os.register_at_fork` when it forks.

    :param make: returns the value; where threads race for the first use, all get the value that was kept first.
    """

    __slots__ = ("_make", "_made")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        """Return the value of this process."""
        pid = os.getpid()
        made = self._made
        if pid not in made:
            # A new dict, so that the parent's value is let go, and one assignment, so that no lock is needed.
            self._made = made = {pid: made.setdefault(pid, self._make())}
        return made[pid]
