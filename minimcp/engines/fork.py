"""State of one process: made on first use and anew in a child after a fork; numbers that tell its objects apart."""

from __future__ import annotations

import itertools
import os
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# How many forks of Python's lie between the first process that imported this and the running one.
generation = 0


def _count_fork() -> None:
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def end_child(since: int, error: BaseException | None) -> None:
    """End this process as a script ends, if it is a child that was forked since `generation` was `since`.

    A handler that forks leaves a copy of its caller in the child, which must not answer its parent's calls.

    :param error: the exception that ended the work of the child, if one did.
    """
    if generation == since:
        return
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1 if error.code else 0
        if isinstance(error.code, str):
            sys.stderr.write(error.code + "\n")
    elif error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    os._exit(code & 0xFF)


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
