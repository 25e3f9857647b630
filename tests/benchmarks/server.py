"""Prints one table: minimcp's server beside the official SDK, FastMCP, the TypeScript SDK and bare limits.

Run from the checkout: ``python -m tests.benchmarks.server``. All servers share this machine in turns, so
only ratios count.
The other implementations are installed on first use, each into its own environment below ``--envs``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from . import contenders, figures, load

COLUMNS = ("minimcp", "sdk", "fastmcp", "typescript", "bare")
HEADINGS = ("minimcp", "SDK", "FastMCP", "TypeScript", "bare")
NAMES = {"sdk": "the SDK", "typescript": "TypeScript", "bare": "the limit"}


def main(argv: Optional[List[str]] = None) -> None:
    """Measure what the command line asks for and print the table."""
    options = _options(argv)
    begin = time.monotonic()
    found, absent = contenders.find(options.envs.expanduser().resolve(), options.node)
    found = [contender for contender in found if contender.name not in options.without]
    results = figures.Results()
    wanted = _wanted(options.only)
    figures.measure(results, found, wanted, options.seconds)
    rows = [_row(results, figure) for figure in figures.FIGURES if _asked(figure.name, wanted)]
    labels = ", ".join(contender.label for contender in found)
    took = f"{time.monotonic() - begin:.0f} s in all"
    print(f"{labels}; {platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores")
    print(f"HTTP load by {load.client_name()}; median of {figures.ROUNDS} turns; {took}\n")
    print_table(["figure", *HEADINGS, "to SDK", "to bare", "target", "met"], rows, len(COLUMNS) + 2)
    for name, reason in absent.items():
        print(f"- {name}: {reason}")
    for name, note in results.notes.items():
        print(f"- {name}: {note}")
    together: Dict[Tuple[str, str], List[str]] = {}
    for (figure, name), reason in results.reasons.items():
        together.setdefault((name, reason), []).append(figure)
    for (name, reason), names in together.items():
        print(f"- {name} ({', '.join(names)}): {reason}")
    if options.json:
        taken = {figure.name: {c: results.get(figure.name, c) for c in COLUMNS} for figure in figures.FIGURES}
        options.json.write_text(json.dumps({"figures": taken, "contenders": labels}, indent=1) + "\n")


def _options(argv: Optional[List[str]]) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "minimcp-benchmarks"
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.server", description=__doc__)
    parser.add_argument("--envs", type=Path, default=cache, metavar="DIR", help=f"environments (default {cache})")
    parser.add_argument("--node", metavar="PROGRAM", help="the node to run the TypeScript SDK with")
    names = ", ".join(figure.name for figure in figures.FIGURES)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one figure, repeatable: {names}")
    parser.add_argument("--without", action="append", default=[], choices=COLUMNS, help="leave a contender out")
    parser.add_argument("--seconds", type=float, default=3.0, help="load per figure and contender (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values there, too")
    options = parser.parse_args(argv)
    known = {figure.name for figure in figures.FIGURES}
    for name in options.only:
        if name not in known:
            parser.error(f"no figure is called {name!r}; there are {names}")
    return options


def _wanted(only: List[str]) -> List[str]:
    names = only or [figure.name for figure in figures.FIGURES]
    return list(dict.fromkeys(figures.TOGETHER.get(name, name) for name in names))


def _asked(name: str, wanted: List[str]) -> bool:
    return figures.TOGETHER.get(name, name) in wanted


def _row(results: figures.Results, figure: figures.Figure) -> List[str]:
    values = {name: results.get(figure.name, name) for name in COLUMNS}
    return [
        f"{figure.title} ({figure.unit})",
        *(number(values[name]) for name in COLUMNS),
        ratio(values["minimcp"], values["sdk"]),
        ratio(values["minimcp"], values["bare"]),
        target(figure),
        met(values, figure),
    ]


def number(value: Optional[float], unit: str = "") -> str:
    """A value of the table; single milliseconds have two more digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.{3 if unit == 'ms' and value < 10 else 1}f}"


def ratio(value: Optional[float], other: Optional[float]) -> str:
    """How often the other value goes into a value."""
    return f"{value / other:.2f}x" if value is not None and other else "-"


def target(figure: figures.Figure) -> str:
    """What is asked of a figure."""
    return ", ".join(_goal(figure, *goal) for goal in figure.goals)


def _goal(figure: figures.Figure, name: str, sign: str, number: float) -> str:
    return f"{sign} {number:.4g}x {NAMES[name]}" if name else f"{sign} {number:g} {figure.unit}"


def met(values: Dict[str, Any], figure: figures.Figure) -> str:
    """Whether all that is asked of a figure is so."""
    if values["minimcp"] is None:
        return "-"
    verdicts = []
    for name, sign, number in figure.goals:
        if name and values[name] is None:
            continue
        bound = number * (values[name] if name else 1)
        verdicts.append(values["minimcp"] >= bound if sign == ">=" else values["minimcp"] <= bound)
    return "-" if not verdicts else "yes" if all(verdicts) else "no"


def print_table(headings: List[str], rows: List[List[str]], numbers: int) -> None:
    """Print rows under headings; this many columns after the first are flush right."""
    table = [headings, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    table.insert(1, ["-" * width for width in widths])
    for row in table:
        cells = [
            cell.rjust(width) if 0 < column <= numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    main()
