"""Effort of one check: the time and the nesting that a schema and a value may use up."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MAX_SECONDS = 0.5  # of one check, the schema's own included
MAX_NESTING = 200  # keywords within each other
FRAMES = 4  # that one takes, at most
STEPS = 300  # of about a microsecond, between two looks at the clock
running = threading.local()  # its `effort` is that of the check that runs in this thread


class TooMuch(Exception):
    """The effort is used up; the message is a sentence for the user."""


class Effort:
    """Counts the steps and the nesting of one check.

    :param foreign: whether the schema comes from another program: then time is that which passes for the caller, not
        processor time of the thread, and `unsure` counts the texts that no pattern could be held against.
    :ivar kept: compiled patterns and the identities of the values of `enum`, of one schema.
    :ivar marks: the members and items that keywords have judged, while that is what is asked.
    """

    __slots__ = ("foreign", "unsure", "kept", "marks", "_room", "_clock", "_deadline", "_left")

    def __init__(self, foreign: bool = False) -> None:
        self.foreign = foreign
        self.unsure = 0
        self.kept: dict[Any, Any] = {}
        self.marks: set[Any] | None = None
        self._room = min(MAX_NESTING, (sys.getrecursionlimit() - _depth()) // FRAMES - 15)
        self._clock: Callable[[], float] = time.monotonic if foreign else time.thread_time
        self._deadline = self._clock() + MAX_SECONDS
        self._left = STEPS

    def spend(self, steps: int) -> None:
        """Count steps.

        :raises TooMuch: when the time is over.
        """
        self._left -= steps
        if self._left <= 0:
            self._left = STEPS
            if self._clock() > self._deadline:
                raise TooMuch("The value takes too long to validate: send less, or simplify the schema")

    def enter(self) -> None:
        """Count one keyword within another.

        :raises RecursionError: when there are too many, far from the end of the stack, where Rust would panic.
        """
        self._room -= 1
        if self._room < 0:
            raise RecursionError

    def leave(self) -> None:
        """End what was entered."""
        self._room += 1


def _depth() -> int:
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    return depth
