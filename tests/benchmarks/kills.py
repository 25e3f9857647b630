"""Prints what becomes of tasks whose processes are killed: {threads, own workers, Celery, RQ} x {who is killed}.

Run from the checkout: ``python -m tests.benchmarks.kills``. In each cell a web process makes tasks over HTTP while one
kind of process, with all that is below it, is killed at random moments and started again. The bus and the brokers are
in a Redis, which loses all when it is killed, and the records in a file of SQLite; with ``--store redis`` they are in
that Redis, which then writes what it has to a disk. It needs redis-server and the package redis; of celery and rq, what
is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import List, Optional

from .killing import CARRIERS, HEARTBEAT_S, VICTIMS, Cell, Outcome
from .server import print_table

STORES = {"file": "SQLite", "redis": "Redis"}
HEADS = ["carried by: killed", "kills", "tasks", "told", "completed", "interrupted", "ran again"]
HEADS += ["lost", "twice", "wrong", "said after"]
MOST_HEARTBEATS = 2.0
# The end of the processes of a cell, and the start of those of the next one.
_AROUND_S = 8.0


def main(argv: Optional[List[str]] = None) -> None:
    """Run the matrix and print the table; the process fails when a task was lost, or ran twice, or spoke up late."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kills", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all cells together (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which processes are killed (default 1)")
    parser.add_argument("--carrier", action="append", choices=CARRIERS, help="one of the carriers, repeatable")
    parser.add_argument("--victim", action="append", choices=VICTIMS, help="one of those that are killed, repeatable")
    parser.add_argument("--store", choices=STORES, default="file", help="of the records (default file)")
    options = parser.parse_args(argv)
    if shutil.which("redis-server") is None or importlib.util.find_spec("redis") is None:
        sys.exit("This needs redis-server and the package redis")
    absent = [name for name in ("celery", "rq") if importlib.util.find_spec(name) is None]
    carriers = [name for name in options.carrier or CARRIERS if name not in absent]
    cells = [(carrier, victim) for carrier in carriers for victim in options.victim or VICTIMS]
    begin = time.monotonic()
    rows, wrong = [], []
    for number, (carrier, victim) in enumerate(cells):
        left_s = 60 * options.minutes - (time.monotonic() - begin)
        with tempfile.TemporaryDirectory() as folder:
            cell = Cell(carrier, victim, Path(folder), options.seed, options.store)
            outcome = cell.run(left_s / (len(cells) - number) - _AROUND_S)
        rows.append(row(carrier, victim, outcome))
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
        wrong += [f"{CARRIERS[carrier]}, {VICTIMS[victim]} killed: {each}" for each in problems(outcome)]
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores for all; ", end="")
    print(f"records in {STORES[options.store]}, a heartbeat each {HEARTBEAT_S:g} s; seed {options.seed}, ", end="")
    print(f"{time.monotonic() - begin:.0f} s in all\n")
    print_table(HEADS, rows, len(HEADS) - 1)
    print()
    for name in absent:
        print(f"- {CARRIERS[name]}: the package {name} is not installed")
    if wrong:
        sys.exit("\n".join(wrong))


def row(carrier: str, victim: str, outcome: Outcome) -> List[str]:
    """Return the row of a cell in the table."""
    counts = (outcome.kills, outcome.made, outcome.told, outcome.completed, outcome.interrupted, outcome.rerun)
    bad = (outcome.lost, outcome.twice, outcome.wrong)
    slowest = f"{outcome.slowest:.2f}" if outcome.slowest else "-"
    return [f"{CARRIERS[carrier]}: {VICTIMS[victim]}", *(f"{each:,}" for each in (*counts, *bad)), slowest]


def problems(outcome: Outcome) -> List[str]:
    """Return what must not be."""
    found = []
    if outcome.lost:
        found.append(f"{outcome.lost} tasks are lost")
    if outcome.twice:
        found.append(f"{outcome.twice} bodies ran twice")
    if outcome.wrong:
        found.append(f"{outcome.wrong} tasks failed for another reason")
    if outcome.slowest > MOST_HEARTBEATS:
        found.append(f"a task said that it was interrupted only after {outcome.slowest:.2f} heartbeats")
    return found


if __name__ == "__main__":
    main()
