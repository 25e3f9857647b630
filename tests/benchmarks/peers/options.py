"""The command line that every Python peer shares; imports nothing of an implementation under test."""

from __future__ import annotations

import argparse
import time
from typing import Any, Callable, List

BIG = "x" * (1024 * 1024)
ROUNDS = 10_000
WAIT_S = 0.005


def compute() -> str:
    """Compute in Python for about half a millisecond."""
    total = 0
    for number in range(ROUNDS):
        total += number % 7
    return "computed"


def wait() -> str:
    """Wait for 5 ms, as for a database."""
    time.sleep(WAIT_S)
    return "waited"


def parse() -> argparse.Namespace:
    """Read ``stdio`` or ``http PORT`` and the two options from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("door", choices=["stdio", "http"])
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--mode", choices=["json", "session", "sse"], default="json")
    parser.add_argument("--tools", type=int, default=0, help="how many more tools to register")
    return parser.parse_args()


def extra_tools(count: int) -> List[Callable[..., Any]]:
    """Make `count` distinct small functions with the same hints and a docstring."""

    def make(number: int) -> Callable[..., Any]:
        def tool(city: str, days: int = 3, metric: bool = True) -> str:
            return f"{city} {days} {metric}"

        tool.__name__ = f"forecast_{number}"
        tool.__doc__ = f"Forecast number {number} for a city, some days ahead."
        return tool

    return [make(number) for number in range(count)]
