"""Load on nginx and four gunicorn workers of `examples/deploy`, one of which is restarted every 20 seconds.

Run from the checkout: ``python -m tests.benchmarks.restarts``. Clients of both eras call, ask, listen and make tasks,
and everything that they send is held against what the servers have run. It needs nginx, gunicorn, Redis and the package
of it. Some time without restarts comes first, for the comparison.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import List, Optional

import pytest

from tests.processes import Redis
from tests.test_deploy import DEPLOY, Site

from .restart_load import NOTICES, Load, Report
from .server import print_table

WARM_S = 10.0
SERVED = Path(__file__).parent / "restarted"


def main(argv: Optional[List[str]] = None) -> None:
    """Run the load and print the tables; the process fails when something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.restarts", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="with restarts (default 10)")
    parser.add_argument("--before", type=float, metavar="MINUTES", help="without them (default a fifth of that)")
    parser.add_argument("--every", type=float, default=20.0, metavar="SECONDS", help="between restarts (default 20)")
    options = parser.parse_args(argv)
    before_s = 60 * (options.minutes / 5 if options.before is None else options.before)
    try:
        with tempfile.TemporaryDirectory() as folder:
            restarted, report = run(Path(folder), before_s, 60 * options.minutes, options.every)
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))
    wrong = show(restarted, report, options.minutes)
    if wrong:
        sys.exit("\n".join(wrong))


def run(folder: Path, before_s: float, restarts_s: float, every_s: float) -> tuple[int, Report]:
    """Run the load and return how many workers were restarted, and what became of everything."""
    ran = folder / "ran"
    ran.touch()
    with Redis(DEPLOY / "redis.conf") as redis:
        site = Site(folder, redis, SERVED, MCP_RAN=str(ran), MCP_TASKS=str(folder / "tasks.db"))
        try:
            with Load(site.client) as load:
                threading.Event().wait(min(WARM_S, before_s / 2))
                load.phase = "before"
                threading.Event().wait(before_s)
                load.phase = "restarts"
                restarted = _restart(site, time.monotonic() + restarts_s, every_s)
        finally:
            site.close()
        trouble = [line for line in site.gunicorn.lines if "Traceback" in line or "SIGKILL" in line]
        load.lost.extend(trouble)
    return restarted, Report(load, ran)


def _restart(site: Site, until: float, every_s: float) -> int:
    """Have the oldest worker stop, again and again; gunicorn replaces it."""
    restarted = 0
    while True:
        left_s = until - time.monotonic()
        if left_s > every_s / 2:
            os.kill(min(site.workers()), signal.SIGTERM)
            restarted += 1
        if left_s <= every_s:
            threading.Event().wait(max(0.0, left_s))
            return restarted
        threading.Event().wait(every_s)


def show(restarted: int, report: Report, minutes: float) -> List[str]:
    """Print the tables, and return what went wrong."""
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores for all; nginx and")
    print(f"four gunicorn workers, of which {restarted} were restarted in {minutes:g} minutes\n")
    heads = ["calls", "sent", "answered", "refused", "run twice", "p50 ms", "p99 ms", "with restarts", "p99 ms", "p99"]
    print_table(heads, report.rows(), len(heads) - 1)
    print("\nchanges that were made, each told on the stream that was open, unless that has ended; and what more was\n")
    print_table(["", *NOTICES], report.notice_rows(), len(NOTICES))
    print()
    for line in report.failures():
        print(f"- {line}")
    if report.run_all_the_same:
        print(f"- {len(report.run_all_the_same)} of the calls that were not answered have run")
    ratio = report.slower(report.answered)
    if ratio is not None:
        print(f"- p99 of all calls with restarts: {ratio:.2f}x of that without; to reach: at most 2x")
    return report.wrong()


if __name__ == "__main__":
    main()
