"""State that belongs to one process: made on first use, and anew in a child after a fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


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
