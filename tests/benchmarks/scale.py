"""Prints what several processes behind one address serve, with and without the bus over Redis between them.

Run from the checkout: ``python -m tests.benchmarks.scale``. gunicorn serves with 1, 2 and 4 workers of the kind that
`examples/deploy` has. They share the machine with the load generator and, where there is a bus, with Redis: beside the
calls per second stands the processor time that the workers need for a call, which would be the same on a machine of any
size. Then the time that a legacy client waits for the end of its call once it has answered the call's question, where
it sends the answer to the worker that has asked, and where it sends it to another one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from . import contenders, load, wire
from .contenders import CHECKOUT, PEERS
from .gateway_figures import spent_s
from .gateways import environment, free_port
from .hammer import whole
from .server import print_table
from .task_figures import redis_server

WORKERS = (1, 2, 4)
ERAS = ("modern", "legacy")
CONNECTIONS = 16
START_S = 60.0
SECRET = "a-secret-of-this-benchmark-0123456789"
BOTH = "application/json, text/event-stream"


class Taken:
    """The rates and the processor time of every round, by era, workers and bus, and the times of answers, in ms."""

    def __init__(self) -> None:
        self.rates: Dict[Tuple[str, int, bool], List[float]] = {}
        self.cpu_us: Dict[Tuple[str, int, bool], List[float]] = {}
        self.answers: Dict[str, List[float]] = {"asker": [], "other": []}

    def rate(self, era: str, workers: int, bus: bool) -> Optional[float]:
        """The median of the calls per second."""
        found = self.rates.get((era, workers, bus))
        return statistics.median(found) if found else None

    def cpu(self, era: str, workers: int, bus: bool) -> Optional[float]:
        """The median of the microseconds for one call."""
        found = self.cpu_us.get((era, workers, bus))
        return statistics.median(found) if found else None


def main(argv: Optional[List[str]] = None) -> None:
    """Measure what the command line asks for and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="load of each round (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default 3)")
    parser.add_argument("--answers", type=int, default=300, help="how many questions are answered each way")
    options = parser.parse_args(argv)
    for package in ("gunicorn", "redis"):
        if importlib.util.find_spec(package) is None:
            sys.exit(f"This needs the package {package}")
    begin, taken = time.monotonic(), Taken()
    with redis_server() as redis:
        for _ in range(options.rounds):
            for workers in WORKERS:
                for bus in ("", redis):
                    calls(taken, workers, bus, options.seconds)
        answers(taken, redis, options.answers)
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores for everything; ")
    print(f"load by {load.client_name()} on {CONNECTIONS} connections; median of {options.rounds} rounds, ", end="")
    print(f"{time.monotonic() - begin:.0f} s in all")
    show(taken)


@contextlib.contextmanager
def gunicorn(app: str, workers: int, redis: str, folder: Path = PEERS) -> Iterator[Tuple[int, List[int]]]:
    """The port and the worker processes of gunicorn.

    :raises RuntimeError: when it does not start.
    """
    port = free_port()
    env = {**environment(), "PYTHONPATH": str(CHECKOUT), "MINIMCP_SECRET": SECRET, "MCP_REDIS": redis}
    command = [sys.executable, "-m", "gunicorn", "--workers", str(workers), "--worker-class", "gthread"]
    command += ["--threads", "64", "--keep-alive", "60", "--bind", f"127.0.0.1:{port}", app]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command, cwd=str(folder), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield port, _await(child, log, workers)
        finally:
            contenders.end(child, 40)


def _await(child: subprocess.Popen[bytes], log: Any, workers: int) -> List[int]:
    end = time.monotonic() + START_S
    while time.monotonic() < end and child.poll() is None:
        log.seek(0)
        said = log.read().decode(errors="replace")
        found = [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", said)]
        if len(found) == workers:
            return found
        time.sleep(0.02)
    raise RuntimeError(f"gunicorn did not start: {said.strip()[-300:]}")


def calls(taken: Taken, workers: int, redis: str, seconds: float, warm_s: float = 2.0) -> None:
    """Measure calls of both eras on that many workers; `redis` is the address of the bus, "" for none."""
    with gunicorn("scaled_peer:app", workers, redis) as (port, pids):
        for era in ERAS:
            request = wire.add() if era == "modern" else wire.add(modern=False, session=session(port))
            # So that every worker has loaded what it needs, and knows the session.
            load.run(port, request, 4 * CONNECTIONS, warm_s)
            before = sum(map(spent_s, pids))
            began = time.perf_counter()
            rate = load.run(port, request, CONNECTIONS, seconds).rate
            done = rate * (time.perf_counter() - began)
            key = (era, workers, bool(redis))
            taken.rates.setdefault(key, []).append(rate)
            taken.cpu_us.setdefault(key, []).append((sum(map(spent_s, pids)) - before) / done * 1e6)


def session(port: int, **capabilities: Any) -> str:
    """Open a legacy session and return its id."""
    hello = {**wire.INITIALIZE, "params": {**wire.INITIALIZE["params"], "capabilities": capabilities}}  # type: ignore[dict-item]
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)) as connection:
        connection.request("POST", "/mcp", json.dumps(hello), {"Content-Type": "application/json", "Accept": BOTH})
        with connection.getresponse() as response:
            response.read()
            found = response.getheader("Mcp-Session-Id")
    if not found:
        raise RuntimeError("initialize opened no session")
    connection = Connection(port, found)
    connection.post(wire.INITIALIZED)
    connection.close()
    return found


class Connection:
    """A kept connection to one worker, on which a legacy session goes on."""

    def __init__(self, port: int, session: str) -> None:
        self._head = load.head_of(port, wire.request("ping", {}, modern=False, session=session))
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=START_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Dict[str, Any]) -> None:
        """Send a message."""
        self._socket.sendall(load.framed(self._head, json.dumps(message).encode()))

    def read(self, mark: bytes) -> bytes:
        """Read on until there is a mark, and return what has come since.

        :raises RuntimeError: when the connection was closed.
        """
        data = b""
        while mark not in data:
            more = self._socket.recv(1 << 16)
            if not more:
                raise RuntimeError(f"the connection was closed after {data[-300:]!r}")
            data += more
        return data

    def post(self, message: Dict[str, Any]) -> bytes:
        """Send a message and return the whole response."""
        self.send(message)
        data = b""
        while not whole(data):
            data += self._socket.recv(1 << 16)
        return data

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def answers(taken: Taken, redis: str, count: int) -> None:
    """Measure the time from the answer to a question to the end of the call, by way of either worker."""
    with gunicorn("scaled_peer:app", 1, redis) as (asker, _), gunicorn("scaled_peer:app", 1, redis) as (other, _):
        id = session(asker, elicitation={})
        ports = {"asker": asker, "other": other}
        senders = {name: Connection(port, id) for name, port in ports.items()}
        for number in range(10 + 2 * count):
            name = ("asker", "other")[number % 2]
            took_s = _answer(Connection(asker, id), senders[name], number)
            if number >= 10:
                taken.answers[name].append(took_s * 1000)
        for sender in senders.values():
            sender.close()


def _answer(caller: Connection, sender: Connection, number: int) -> float:
    """Make a call that asks, answer it, and return the seconds from there to its end."""
    params = {"name": "ask", "arguments": {}}
    caller.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    said = caller.read(b'"elicitation/create"')
    while not said.endswith(b"\n\r\n"):
        said += caller.read(b"\n")
    asked = re.search(rb'"id": ?("[^"]+"|\d+)', said)
    if asked is None:
        raise RuntimeError(f"no question: {said[-300:]!r}")
    began = time.perf_counter()
    sender.send({"jsonrpc": "2.0", "id": json.loads(asked[1]), "result": {"action": "accept", "content": {"n": 42}}})
    caller.read(b'"42"')
    took_s = time.perf_counter() - began
    sender.read(b"\r\n\r\n")
    caller.close()
    return took_s


def show(taken: Taken) -> None:
    """Print the tables, and which targets are met."""
    rows = []
    for era in ERAS:
        for bus in (False, True):
            row = [f"{era}, {'bus over Redis' if bus else 'no bus'}"]
            for workers in WORKERS:
                row += [_n(taken.rate(era, workers, bus)), _n(taken.cpu(era, workers, bus))]
            rows.append([*row, *(_ratio(taken.rate(era, workers, bus), taken.rate(era, 1, bus)) for workers in (2, 4))])
    print()
    heads = ["calls per second", "1 worker", "CPU us", "2 workers", "CPU us", "4 workers", "CPU us", "2 to 1", "4 to 1"]
    print_table(heads, rows, len(heads))
    print("\nms from the answer to a legacy question to the end of the call\n")
    print_table(["by way of", "p50", "p99"], [[name, *_times(taken.answers[name])] for name in taken.answers], 2)
    print()
    print_table(["to reach", "figure", "met"], _targets(taken), 1)


def _targets(taken: Taken) -> List[List[str]]:
    rows = []
    for era in ERAS:
        one, two = taken.rate(era, 1, True), taken.rate(era, 2, True)
        rows.append(_goal(f"{era}: two workers to one, with the bus", two / one if one and two else None, ">=", 1.7))
        without, with_bus = taken.cpu(era, 1, False), taken.cpu(era, 1, True)
        costs = with_bus / without if without and with_bus else None
        rows.append(_goal(f"{era}: processor time of a call with the bus to without", costs, "<=", 1.05))
    if taken.answers["other"]:
        direct, routed = (statistics.median(taken.answers[name]) for name in ("asker", "other"))
        rows.append(_goal("what the way through another worker adds, p50 ms", routed - direct, "<=", 3))
    return rows


def _goal(title: str, value: Optional[float], sign: str, bound: float) -> List[str]:
    met = value is not None and (value >= bound if sign == ">=" else value <= bound)
    return [f"{title} {sign} {bound:g}", _n(value, 2), "yes" if met else "no"]


def _times(found: Sequence[float]) -> List[str]:
    ordered = sorted(found)
    if not ordered:
        return ["-", "-"]
    return [_n(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2) for share in (0.5, 0.99)]


def _ratio(value: Optional[float], other: Optional[float]) -> str:
    return f"{value / other:.2f}x" if value is not None and other else "-"


def _n(value: Optional[float], digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    main()
