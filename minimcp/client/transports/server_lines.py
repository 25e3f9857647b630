"""Lines that a server's process writes to its standard error, shown on this one's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ...engines.errors import printable

# The time within which a process follows one that failed, and how many lines are compared.
_REPEATED_S = 10.0
_MOST_KEPT = 500


class ServerLines:
    """Writes the lines of servers to this process's standard error; they can play no tricks on a terminal.

    What a process repeats of one that ended just before it, which is how a legacy server may meet the first message of
    a modern client, is shown once.

    :param clear: called before each line.
    """

    def __init__(self, clear: Callable[[], None] = lambda: None) -> None:
        self._clear = clear
        self._begun = 0.0
        # Lines of this process and of the one before; only the thread of a process's standard error uses them.
        self._lines: list[str] = []
        self._before: list[str] = []

    def begin(self) -> None:
        """Begin with the lines of another process."""
        now = time.monotonic()
        self._before, self._lines = self._lines if now - self._begun < _REPEATED_S else [], []
        self._begun = now

    def __call__(self, line: str) -> None:
        """Show a line."""
        place = len(self._lines)
        if place < _MOST_KEPT:
            self._lines.append(line)
        if place < len(self._before):
            if line == self._before[place]:
                return
            self._before = []
        stream = sys.stderr
        if stream is None:
            return
        self._clear()
        line = "\t".join(map(printable, line.split("\t")))
        try:
            stream.write(line + "\n")
        except UnicodeEncodeError:
            stream.write(ascii(line)[1:-1] + "\n")
