"""Budgets: amounts of something scarce, such as bytes or threads, that many parts of a process share."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable


class Budget:
    """An amount of which each taker gives back exactly what it took.

    :ivar used: what is taken at this moment.
    """

    __slots__ = ("_lock", "used")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards used
        self.used = 0

    def take(self, amount: int, limit: float = math.inf) -> bool:
        """Take an amount, and say whether it was there: without a limit it always is."""
        with self._lock:
            if self.used + amount > limit:
                return False
            self.used += amount
            return True

    def give(self, amount: int) -> None:
        """Give back an amount."""
        with self._lock:
            self.used -= amount

    def enter(self, limit: float) -> Callable[[], None] | None:
        """Take one place and return the function that gives it back once, or None where `limit` are taken."""
        if not self.take(1, limit):
            return None
        left: list[bool] = []

        def leave() -> None:
            with self._lock:
                if not left:
                    left.append(True)
                    self.used -= 1

        return leave
