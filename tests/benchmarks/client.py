"""Prints one table: minimcp's client beside the official SDKs', FastMCP's, the TypeScript SDK's and a bare limit.

Run from the checkout: ``python -m tests.benchmarks.client``. All clients call the same servers and share this machine
in turns, so only ratios count. The other implementations are installed on first use, each into its own environment
below ``--envs``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from . import callers
from .callers import Caller
from .contenders import Contender, HttpServer
from .figures import Figure, Results
from .server import met, number, print_table, ratio, target

COLUMNS = ("minimcp", "sdk", "sdk1", "fastmcp", "typescript", "bare")
HEADINGS = ("minimcp", "SDK 2", "SDK 1", "FastMCP", "TypeScript", "bare")
CALLS = 1000
TURNS = 3
HALF = ("sdk", "<=", 0.5)
QUARTER = ("sdk", "<=", 0.25)
THIRD = ("sdk", "<=", 1 / 3)
ABREAST = ("typescript", "<=", 1)

# The name says the job and the door; a third part the server, where it is not minimcp's.
FIGURES = (
    Figure("calls-http", "HTTP, a call of many", "ms", (HALF,)),
    Figure("calls-stdio", "stdio, a call of many", "ms", (HALF, ABREAST)),
    Figure("calls-http-sdk", "HTTP, the SDK's server", "ms"),
    Figure("calls-stdio-sdk", "stdio, the SDK's server", "ms"),
    Figure("first-http", "start to first result, HTTP", "ms", (QUARTER,)),
    Figure("first-stdio", "start to first result, stdio", "ms"),
    Figure("shared-http", "8 threads or tasks, HTTP", "/s", (("sdk", ">=", 1),)),
    Figure("shared-stdio", "8 threads or tasks, stdio", "/s", (("sdk", ">=", 1),)),
    Figure("peak-http", "peak memory after them, HTTP", "MiB", (THIRD,)),
    Figure("peak-stdio", "peak memory after them, stdio", "MiB", (THIRD,)),
    Figure("huge-http", "an SSE event of 2 MiB", "MiB", (("", ">=", 2),)),
)
# What the report of a job has that makes the figure, and by how much it is multiplied.
VALUES = {"calls": ("ms", 1.0), "first": ("first_ms", 1.0), "shared": ("rate", 1.0), "huge": ("size", 2.0**-20)}


def main(argv: Optional[List[str]] = None) -> None:
    """Measure what the command line asks for and print the table."""
    options = _options(argv)
    begin = time.monotonic()
    found, servers, absent = callers.find(options.envs.expanduser().resolve(), options.node)
    found = [caller for caller in found if caller.name not in options.without]
    results = Results()
    wanted = [figure for figure in FIGURES if not options.only or figure.name in options.only]
    measure(results, found, servers, wanted, options.calls, options.turns)
    labels = ", ".join(caller.label for caller in found)
    print(f"{labels}; {platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{options.calls} calls, median of {options.turns} turns; {time.monotonic() - begin:.0f} s in all\n")
    rows = [_row(results, figure) for figure in wanted]
    print_table(["figure", *HEADINGS, "to SDK 2", "to bare", "target", "met"], rows, len(COLUMNS) + 2)
    for name, reason in [*absent.items(), *results.notes.items()]:
        print(f"- {name}: {reason}")
    for (figure, name), reason in results.reasons.items():
        print(f"- {name} ({figure}): {reason}")
    if options.json:
        taken = {figure.name: {c: results.get(figure.name, c) for c in COLUMNS} for figure in wanted}
        options.json.write_text(json.dumps({"figures": taken, "clients": labels}, indent=1) + "\n")


def _options(argv: Optional[List[str]]) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "minimcp-benchmarks"
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.client", description=__doc__)
    parser.add_argument("--envs", type=Path, default=cache, metavar="DIR", help=f"environments (default {cache})")
    parser.add_argument("--node", metavar="PROGRAM", help="the node to run the TypeScript SDK with")
    parser.add_argument("--only", action="append", default=[], choices=names, help="one figure, repeatable")
    parser.add_argument("--without", action="append", default=[], choices=COLUMNS, help="leave a client out")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"calls in a row (default {CALLS})")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"turns of each client (default {TURNS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values there, too")
    return parser.parse_args(argv)


def measure(
    results: Results, found: List[Caller], servers: List[Contender], wanted: List[Figure], calls: int, turns: int
) -> None:
    """Take every wanted figure of every client, client after client in each turn."""
    for server in servers:
        for door in ("http", "stdio"):
            suffix = door if server.name == "minimcp" else f"{door}-{server.name}"
            jobs = [job for job in VALUES if any(figure.name == f"{job}-{suffix}" for figure in wanted)]
            if any(figure.name == f"peak-{suffix}" for figure in wanted) and "calls" not in jobs:
                jobs.append("calls")
            with _target(server, door) if jobs else contextlib.nullcontext([]) as there:
                for job in jobs:
                    for _ in range(1 if job == "huge" else turns):
                        for caller in found:
                            _take(results, caller, job, suffix, calls, there)


@contextlib.contextmanager
def _target(server: Contender, door: str) -> Iterator[List[str]]:
    """What clients are pointed at."""
    if door == "stdio":
        yield server.stdio
        return
    running = HttpServer(server, "json")
    try:
        yield [f"http://127.0.0.1:{running.port}/mcp"]
    finally:
        running.close()


def _take(results: Results, caller: Caller, job: str, suffix: str, calls: int, there: List[str]) -> None:
    figure = f"{job}-{suffix}"
    key, factor = VALUES[job]
    report: Dict[str, Any] = {}

    def value() -> float:
        report.update(callers.run(caller, job, calls // 4 if job == "shared" else calls, there))
        if report.get("errors"):
            raise RuntimeError(f"{report['errors']} calls failed")
        if key not in report:
            raise RuntimeError(str(report.get("error")))
        return float(report[key]) * factor

    if caller.name == "bare" and job == "shared":
        results.reasons[figure, "bare"] = "a bare connection is not shared"
    results.attempt(figure, caller, value)
    if "peak_kib" in report:
        results.add(f"peak-{suffix}", caller.name, report["peak_kib"] / 1024)
    if "version" in report and suffix == "http":
        results.notes[caller.name] = f"spoke {report['version']}"


def _row(results: Results, figure: Figure) -> List[str]:
    values = {name: results.get(figure.name, name) for name in COLUMNS}
    return [
        f"{figure.title} ({figure.unit})",
        *(number(values[name], figure.unit) for name in COLUMNS),
        ratio(values["minimcp"], values["sdk"]),
        ratio(values["minimcp"], values["bare"]),
        target(figure),
        met(values, figure),
    ]


if __name__ == "__main__":
    main()
