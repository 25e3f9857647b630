"""Prints what the gateway costs, and what FastMCP's proxy, LiteLLM and the stdio proxies of npm cost beside it.

Run from the checkout: ``python -m tests.benchmarks.gateway``. Direct calls and calls through each gateway are taken in
turns on this machine, so only ratios count. The others are looked for in the folder of ``--peers`` (or
MINIMCP_PEERS_DIR), and made on first use, each in its own environment below ``--envs``; what cannot be made is left out
by name.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, List, Optional, Tuple

from . import gateway_figures as figures
from . import gateways
from .gateway_figures import CLIENTS, Taken
from .server import print_table

PARTS = ("http", "stdio", "lists", "killed")
OURS = ("minimcp", "guarded", "legacy")
TITLES = {"http": "HTTP to HTTP", "stdio": "HTTP to stdio"}


def main(argv: Optional[List[str]] = None) -> None:
    """Measure what the command line asks for and print the tables."""
    options = _options(argv)
    begin = time.monotonic()
    peers = options.peers or os.environ.get("MINIMCP_PEERS_DIR")
    folder = None if peers is None else Path(peers).expanduser().resolve()
    found, absent = gateways.find(folder, options.envs.expanduser().resolve(), options.node)
    found = [gateway for gateway in found if gateway.name not in options.without]
    taken = Taken()
    parts = options.only or PARTS
    for door in ("http", "stdio"):
        if door in parts:
            figures.calls(taken, found, door, options.seconds, options.rounds)
    if "lists" in parts:
        figures.lists(taken, [gateway for gateway in found if gateway.name != "legacy"], options.seconds)
    if "killed" in parts:
        figures.killed(taken, [gateway for gateway in found if gateway.name != "legacy"], 6)
    labels = ", ".join(gateway.label for gateway in found if gateway.name not in OURS)
    print(f"beside {labels or 'nobody'}; {platform.python_implementation()} {platform.python_version()}, ", end="")
    print(f"{os.cpu_count()} cores, {options.rounds} rounds, {time.monotonic() - begin:.0f} s in all")
    for door in ("http", "stdio"):
        if door in parts:
            _calls(taken, found, door)
    if "lists" in parts:
        _lists(taken, found)
    if "killed" in parts:
        _killed(taken, found)
    print()
    print_table(["to reach", "figure", "met"], [row for row in _targets(taken) if row[1] != "-"], 1)
    for name, reason in absent.items():
        print(f"- {name}: {reason}")
    for (place, name), reason in taken.reasons.items():
        print(f"- {name} ({place}): {reason}")
    if options.json:
        rows = [{"door": d, "gateway": n, "clients": c, "rounds": r} for (d, n, c), r in taken._rounds.items()]
        alone = [{"figure": figure, "gateway": name, "value": value} for (figure, name), value in taken.alone.items()]
        options.json.write_text(json.dumps({"calls": rows, "alone": alone}, indent=1) + "\n")


def _options(argv: Optional[List[str]]) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "minimcp-benchmarks"
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gateway", description=__doc__)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="a folder with environments (MINIMCP_PEERS_DIR)")
    parser.add_argument("--envs", type=Path, default=cache, metavar="DIR", help=f"environments (default {cache})")
    parser.add_argument("--node", metavar="PROGRAM", help="the node to run the proxies of npm with")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part, repeatable")
    names = [*OURS, "fastmcp", "litellm", "mcp-proxy", "supergateway"]
    parser.add_argument("--without", action="append", default=[], choices=names, help="leave a gateway out, repeatable")
    parser.add_argument("--seconds", type=float, default=2.0, help="load of each round (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values there, too")
    return parser.parse_args(argv)


def _calls(taken: Taken, found: List[gateways.Gateway], door: str) -> None:
    named = [("direct", "direct"), *((gateway.name, gateway.label) for gateway in found if door in gateway.doors)]
    for clients in CLIENTS:
        rows = []
        for name, label in named:
            value = {key: taken.get(door, name, clients, key) for key in ("p50", "p99", "rate", "cpu_us", "rss")}
            if value["rate"] is None:
                continue
            base = {key: taken.get(door, "direct", clients, key) for key in ("p50", "rate")}
            own = taken.get(door, "minimcp", clients, "rate")
            row = [label, _n(value["p50"], 2)]
            row.append("" if name == "direct" else _n(_minus(value["p50"], base["p50"]), 2))
            row += [_n(value["p99"], 2), _n(value["rate"]), _ratio(value["rate"], base["rate"])]
            row += [_ratio(own, value["rate"]), _n(value["cpu_us"]), _n(value["rss"])]
            rows.append(row)
        print(f"\n{TITLES[door]}, {clients} client{'s' if clients > 1 else ''}\n")
        heads = ["", "p50 ms", "added", "p99 ms", "calls/s", "of direct", "ours is", "CPU us", "RSS MiB"]
        print_table(heads, rows, len(heads))


def _lists(taken: Taken, found: List[gateways.Gateway]) -> None:
    rows = []
    for gateway in found:
        if ("lists-http", gateway.name) not in taken.alone:
            continue
        row = [gateway.label]
        for place in ("lists", "hanging"):
            row += [_n(taken.alone.get((f"{place}-{key}", gateway.name))) for key in ("http", "greeting")]
            row += [_n(taken.alone.get((f"{place}-{key}", gateway.name)), 2) for key in ("first", "p50", "p99")]
        rows.append([*row, _n(taken.alone.get(("idle-http", gateway.name)), 1)])
    print(f"\n{figures.SERVERS} servers of 11 tools: the first HTTP answer and the greeting after the start, and")
    print("tools/list, in ms; then with one of the servers hanging\n")
    heads = ["", *(["serves", "greets", "first", "p50", "p99"] * 2), "idle MiB"]
    print_table(heads, rows, len(heads))


def _killed(taken: Taken, found: List[gateways.Gateway]) -> None:
    rows = []
    for door in ("http", "stdio"):
        for gateway in found:
            seen = taken.alone.get((f"killed-{door}", gateway.name))
            if seen is not None:
                keys = ("calls", "failed", "duplicates", "unexecuted", "uncertain", "down_ms", "recovery_ms")
                rows.append([f"{gateway.label}, {door}", *(_n(seen[key]) for key in keys)])
    print("\nThe upstream killed under 8 clients, and started again where the gateway does not do so itself\n")
    heads = ["", "calls", "failed", "run twice", "not run", "failed but run", "down ms", "then ms"]
    print_table(heads, rows, len(heads))


def _targets(taken: Taken) -> List[List[str]]:
    def rate(door: str, name: str, clients: int) -> Optional[float]:
        return taken.get(door, name, clients, "rate")

    def added(door: str, key: str) -> Optional[float]:
        return _minus(taken.get(door, "minimcp", 1, key), taken.get(door, "direct", 1, key))

    def part(value: Optional[float], base: Optional[float]) -> Optional[float]:
        return value / base if value is not None and base else None

    goals: List[Tuple[str, Optional[float], str, float]] = []
    for door, title in TITLES.items():
        goals += [
            (f"{title}: added p50, 1 client, ms", added(door, "p50"), "<=", 0.5),
            (f"{title}: p99, 1 client, ms", taken.get(door, "minimcp", 1, "p99"), "<=", 5),
            (f"{title}: calls/s, 32 clients", rate(door, "minimcp", 32), ">=", 2000),
            (f"{title}: to LiteLLM, 8 clients", part(rate(door, "minimcp", 8), rate(door, "litellm", 8)), ">=", 20),
            (f"{title}: to FastMCP, 8 clients", part(rate(door, "minimcp", 8), rate(door, "fastmcp", 8)), ">=", 50),
        ]
        goals += [
            (
                f"{title}: every policy to minimal, {clients} clients",
                part(rate(door, "guarded", clients), rate(door, "minimcp", clients)),
                ">=",
                0.85,
            )
            for clients in CLIENTS
        ]
    goals += [
        (
            f"HTTP to stdio: to npm mcp-proxy, {clients} clients",
            part(rate("stdio", "minimcp", clients), rate("stdio", "mcp-proxy", clients)),
            ">=",
            1,
        )
        for clients in CLIENTS
    ]
    for title, key, bound in (
        ("list over ten servers, from cache, p50 ms", "lists-p50", 2),
        ("the first list with one hanging, ms (deadline 1,000)", "hanging-first", 1200),
        ("further lists with one hanging, longest, ms", "hanging-longest", 1200),
        ("ready, ten servers and one hanging, ms", "hanging-http", 300),
        ("idle, MiB", "idle-http", 50),
    ):
        goals.append((title, taken.alone.get((key, "minimcp")), "<=", bound))
    rows = []
    for title, value, sign, bound in goals:
        met = value is not None and (value >= bound if sign == ">=" else value <= bound)
        rows.append([f"{title} {sign} {bound:g}", _n(value, 2), "yes" if met else "no"])
    return rows


def _n(value: Any, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _minus(value: Optional[float], other: Optional[float]) -> Optional[float]:
    return None if value is None or other is None else value - other


def _ratio(value: Optional[float], other: Optional[float]) -> str:
    return f"{value / other:.2f}x" if value is not None and other else "-"


if __name__ == "__main__":
    main()
