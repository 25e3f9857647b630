"""Budget of one check: the time and the nesting that a schema and a value may use up."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_SECONDS = 0.5  # of one check, the schema's own included
MAX_NESTING = 256  # schemas within each other while a value is validated: half the frames of the interpreter's limit
STEPS = 300  # of about a microsecond, between two looks at the clock


class TooMuch(Exception):
    """The budget is used up; the message is a sentence for the user."""


class Budget:
    """Counts the steps and the nesting of one check.

    :param clock: processor time of the thread, or time as it passes for somebody who waits.
    """

    __slots__ = ("depth", "_clock", "_deadline", "_left")

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self.depth = 0
        self._clock = clock
        self._deadline = clock() + MAX_SECONDS
        self._left = STEPS

    def spend(self, steps: int) -> None:
        """Count steps.

        :raises TooMuch: when the time is over.
        """
        self._left -= steps
        if self._left < 0:
            self._left = STEPS
            if self._clock() > self._deadline:
                raise TooMuch("The value takes too long to validate: send less, or simplify the schema")

    def enter(self) -> None:
        """Count one schema within another.

        :raises TooMuch: when there are too many.
        """
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise TooMuch("The value is nested too deeply, or its schema refers to itself without end")
