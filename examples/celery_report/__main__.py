"""Asks for a report about each city that is named, all at once, and prints them."""

from __future__ import annotations

import sys

from celery import group

from .tasks import report


def main() -> None:
    """Run the command that the docstring of the package shows."""
    asked = group(report.s(city, 3) for city in sys.argv[1:]).apply_async()
    for text in asked.get(timeout=60):
        print(text, end="\n\n")


if __name__ == "__main__":
    main()
