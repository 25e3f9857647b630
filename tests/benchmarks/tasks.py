"""Prints what tasks cost, beside FastMCP with its tasks package.

Run from the checkout: ``python -m tests.benchmarks.tasks``. Every server is started with a fresh store, in turns, and
gets the same requests from the same load generator, which shares the machine with it, so only ratios count. FastMCP is
looked for in the folder of ``--peers`` (or MINIMCP_PEERS_DIR), and made on first use below ``--envs``; without it, or
without Redis, the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from functools import partial
from pathlib import Path
from typing import List, Optional, Sequence

from . import task_figures as figures
from .server import print_table
from .task_figures import PAUSES_MS, POLL_MS, POLLERS, THREADS, Contender, Taken

PARTS = ("throughput", "creation", "memory")
NAMES = ("memory", "sqlite", "redis", "fastmcp", "fastmcp-redis")


def main(argv: Optional[List[str]] = None) -> None:
    """Measure what the command line asks for and print the tables."""
    options = _options(argv)
    begin = time.monotonic()
    peers = options.peers or os.environ.get("MINIMCP_PEERS_DIR")
    folder = None if peers is None else Path(peers).expanduser().resolve()
    found, absent = figures.find(folder, options.envs.expanduser().resolve())
    found = [contender for contender in found if contender.name not in options.without]
    taken, parts = Taken(), options.only or PARTS
    for part, measure in (("throughput", figures.throughput), ("creation", figures.creation)):
        for contender in found * options.rounds if part in parts else ():
            taken.attempt(part, contender.name, partial(measure, taken, contender, options.seconds))
    for contender in found if "memory" in parts else ():
        count = round(options.tasks * contender.part)
        taken.attempt("memory", contender.name, partial(figures.memory, taken, contender, count))
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores; ",
        end="",
    )
    print(f"median of {options.rounds} rounds, {time.monotonic() - begin:.0f} s in all")
    show(taken, found, parts)
    for name, reason in absent.items():
        print(f"- {name}: {reason}")
    for (place, name), reason in taken.reasons.items():
        print(f"- {name} ({place}): {reason}")
    if options.json:
        options.json.write_text(json.dumps(taken.all(), indent=1) + "\n")


def _options(argv: Optional[List[str]]) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "minimcp-benchmarks"
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tasks", description=__doc__)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="a folder with environments (MINIMCP_PEERS_DIR)")
    parser.add_argument("--envs", type=Path, default=cache, metavar="DIR", help=f"environments (default {cache})")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part, repeatable")
    parser.add_argument("--without", action="append", default=[], choices=NAMES, help="leave one out, repeatable")
    parser.add_argument("--seconds", type=float, default=2.0, help="load of each round (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default 3)")
    parser.add_argument("--tasks", type=int, default=100_000, help="over how many memory is measured (default 100000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values there, too")
    return parser.parse_args(argv)


def show(taken: Taken, found: List[Contender], parts: Sequence[str]) -> None:
    """Print the tables of these parts, and which targets are met."""
    if "throughput" in parts:
        pauses = ", ".join(map(str, PAUSES_MS))
        print(
            "\nTasks made, polled and finished per minute: a client has one task under way and asks for it again after"
        )
        print(
            f"{pauses} ms, whichever is best for the server; {THREADS} bodies run at once. Processor time of the server"
        )
        print("for each. Then ms from the end of a body to its status notification at a client that listens.\n")
        rows = []
        for contender in found:
            names = ("minute-1", "minute-8", "cpu-1", "cpu-8")
            times = [_n(taken.get(f"told-{part}", contender.name), 1) for part in ("p50", "p99")]
            rows.append([contender.label, *(_n(taken.get(name, contender.name)) for name in names), *times])
        print_table(["", "1 client", "8 clients", "CPU us", "with 8", "told p50", "p99"], rows, 6)
    if "creation" in parts:
        print(f"\nThe making of a task, in ms, while {POLLERS} clients poll one each, every {POLL_MS} ms\n")
        rows = []
        for contender in found:
            times = [taken.get(figure, contender.name) for figure in ("create-p50", "create-p99", "poll-p99")]
            rows.append([contender.label, *(_n(each, 2) for each in times), _n(taken.get("made", contender.name))])
        print_table(["", "p50", "p99", "a poll p99", "made/min"], rows, 4)
    if "memory" in parts:
        print("\nResident memory of the server, MiB, while tasks are made and finished, all of which are kept\n")
        rows = []
        for contender in found:
            sizes = [_n(taken.get(figure, contender.name), 1) for figure in ("first", "half", "last")]
            tasks, growth = taken.get("tasks", contender.name), taken.get("growth", contender.name)
            each = None if growth is None or tasks is None else growth * 1024 * 1024 / (tasks * 0.9)
            rows.append([contender.label, _n(tasks), *sizes, _n(each)])
        print_table(["", "tasks", "after 10 %", "50 %", "100 %", "bytes each"], rows, 5)
    print()
    print_table(["to reach", "figure", "met"], [row for row in _targets(taken) if row[1] != "-"], 1)


def _targets(taken: Taken) -> List[List[str]]:
    rows = []
    for name, title in (("memory", "memory"), ("sqlite", "SQLite file"), ("redis", "Redis")):
        other = "fastmcp-redis" if name == "redis" else "fastmcp"
        for clients in (1, 8):
            value, theirs = taken.get(f"minute-{clients}", name), taken.get(f"minute-{clients}", other)
            ratio = value / theirs if value is not None and theirs else None
            rows.append(_goal(f"{title}: tasks a minute to FastMCP's, {clients} clients", ratio, ">=", 5))
    best = max((taken.get(f"minute-{clients}", "sqlite") or 0 for clients in (1, 8)), default=0)
    rows.append(_goal("SQLite file: tasks a minute", best or None, ">=", 40_000))
    rows.append(_goal("SQLite file: creation p99 while 64 poll, ms", taken.get("create-p99", "sqlite"), "<=", 5))
    rows.append(_goal("SQLite file: memory, MiB from a tenth of the tasks on", taken.get("growth", "sqlite"), "<=", 4))
    return rows


def _goal(title: str, value: Optional[float], sign: str, bound: float) -> List[str]:
    met = value is not None and (value >= bound if sign == ">=" else value <= bound)
    return [f"{title} {sign} {bound:,g}", _n(value, 0 if bound > 1000 else 1), "yes" if met else "no"]


def _n(value: Optional[float], digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    main()
