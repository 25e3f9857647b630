"""What the benchmark of the gateway measures, each figure with the load generator in a process of its own."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from . import gateways, load
from .gateways import Gateway, Running

HAMMER = str(Path(__file__).parent / "hammer.py")
CLIENTS = (1, 8, 32)
SERVERS = 10
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
Figures = Dict[str, Any]


class Taken:
    """The figures of every round, and a reason for what could not be taken."""

    def __init__(self) -> None:
        self._rounds: Dict[Tuple[str, str, int], List[Figures]] = {}
        self.reasons: Dict[Tuple[str, str], str] = {}
        self.alone: Dict[Tuple[str, str], Any] = {}

    def add(self, door: str, name: str, clients: int, figures: Figures) -> None:
        """Keep the figures of one round."""
        self._rounds.setdefault((door, name, clients), []).append(figures)

    def get(self, door: str, name: str, clients: int, figure: str) -> Optional[float]:
        """The median over the rounds, None when there are none."""
        found = [each[figure] for each in self._rounds.get((door, name, clients), ()) if each.get(figure) is not None]
        return statistics.median(found) if found else None

    def attempt(self, place: str, name: str, measure: Callable[[], None]) -> bool:
        """Measure, or remember why not, and say which; what failed once is not asked again."""
        if (place, name) in self.reasons:
            return False
        try:
            measure()
            return True
        except (RuntimeError, OSError, subprocess.SubprocessError, KeyError, ValueError) as fault:
            self.reasons[place, name] = f"{type(fault).__name__}: " + " ".join(str(fault).split())[:400]
            return False


def hammer(job: Dict[str, Any], during: Optional[Callable[[], None]] = None) -> Figures:
    """Run one job; `during` is called when its clock has started.

    :raises RuntimeError: when it fails.
    """
    begin = during or (lambda: None)
    command = [sys.executable, HAMMER, json.dumps(job)]
    return load.run_job(command, job.get("seconds", 60) + 90, lambda line: begin() if line == "begun" else None)


def good(job: Dict[str, Any]) -> Figures:
    """Run one job, in which no call may fail.

    :raises RuntimeError: when one does.
    """
    found = hammer(job)
    if found["faults"]:
        raise RuntimeError(f"{found['faults']} {found['first_fault']}")
    return found


def spent_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def calls(taken: Taken, found: List[Gateway], door: str, seconds: float, rounds: int) -> None:
    """Measure calls, direct and through every gateway that takes such an upstream, in turns."""
    found = [gateway for gateway in found if door in gateway.doors]
    with contextlib.ExitStack() as stack:
        upstreams = {"up": gateways.echo()}
        command = [sys.executable, *upstreams["up"]["args"]]
        direct: Figures = {"command": command, "env": upstreams["up"]["env"], "method": "tools/call"}
        direct.update(tool="echo", modern=True)
        if door == "http":
            server = stack.enter_context(gateways.serving())
            upstreams = {"up": {"url": f"http://127.0.0.1:{server.port}/mcp"}}
            direct = server.job()
        running: Dict[str, Running] = {}
        for gateway in found:
            taken.attempt(door, gateway.name, lambda: _open(taken, stack, door, gateway, upstreams, running))  # noqa: B023
        for _ in range(rounds):
            for clients in CLIENTS:
                job = {"clients": clients, "seconds": seconds}
                for name in ("direct", *running):
                    taken.attempt(door, name, lambda: _round(taken, door, name, running, {**direct, **job}))  # noqa: B023


def _open(
    taken: Taken,
    stack: contextlib.ExitStack,
    door: str,
    gateway: Gateway,
    upstreams: gateways.Upstreams,
    running: Dict[str, Running],
) -> None:
    with contextlib.ExitStack() as mine:
        started = mine.enter_context(gateways.starting(gateway, upstreams))
        taken.alone[f"first-{door}", gateway.name] = started.wait()
        taken.alone[f"idle-{door}", gateway.name] = load.memory_kib(started.pid)["VmRSS"] / 1024
        # Everything that is loaded on first use is there, and code that is run often has been specialised.
        good(started.job(clients=2, seconds=1))
        stack.push(mine.pop_all())
        running[gateway.name] = started


def _round(taken: Taken, door: str, name: str, running: Dict[str, Running], direct: Figures) -> None:
    if name == "direct":
        taken.add(door, name, direct["clients"], good(direct))
        return
    started = running[name]
    before = spent_s(started.pid)
    figures = good(started.job(clients=direct["clients"], seconds=direct["seconds"]))
    figures["cpu_us"] = (spent_s(started.pid) - before) / max(1, figures["calls"]) * 1e6
    figures["rss"] = load.memory_kib(started.pid)["VmRSS"] / 1024
    taken.add(door, name, direct["clients"], figures)


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """The URL of a server that takes connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"


def lists(taken: Taken, found: List[Gateway], seconds: float) -> None:
    """Measure the time to the first answer and lists over ten servers, all there, and with one that hangs."""
    found = [gateway for gateway in found if gateway.federates and "http" in gateway.doors]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(gateways.serving(0, "--tools", "10"))
        silent = stack.enter_context(hanging())
        url = f"http://127.0.0.1:{server.port}/mcp"
        there = {f"s{number}": {"url": url} for number in range(SERVERS)}
        for gateway in found:
            for place, upstreams in (("lists", there), ("hanging", {**there, "s9": {"url": silent}})):
                taken.attempt(place, gateway.name, lambda: _list(taken, gateway, place, upstreams, seconds))  # noqa: B023


def _list(taken: Taken, gateway: Gateway, place: str, upstreams: gateways.Upstreams, seconds: float) -> None:
    with gateways.starting(gateway, upstreams) as started:
        for step in ("http", "greeting"):
            taken.alone[f"{place}-{step}", gateway.name] = started.wait(step) * 1000
        first = good(started.job(method="tools/list", clients=1, calls=1, warm=0))
        taken.alone[f"{place}-first", gateway.name] = first["p50"]
        figures = good(started.job(method="tools/list", clients=1, seconds=seconds))
        for figure in ("p50", "p99", "longest"):
            taken.alone[f"{place}-{figure}", gateway.name] = figures[figure]


def killed(taken: Taken, found: List[Gateway], seconds: float) -> None:
    """Kill the upstream in the middle of the calls of eight clients, and see what became of each call."""
    for gateway in found:
        for door in gateway.doors:
            taken.attempt(f"killed-{door}", gateway.name, lambda: _killed(taken, gateway, door, seconds))  # noqa: B023


def _killed(taken: Taken, gateway: Gateway, door: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ran, log = Path(folder, "ran"), Path(folder, "log")
        upstreams = {"up": gateways.echo("--count", str(ran))}
        servers: List[Running] = []
        if door == "http":
            servers.append(stack.enter_context(gateways.serving(0, "--count", str(ran))))
            upstreams = {"up": {"url": f"http://127.0.0.1:{servers[0].port}/mcp"}}
        started = stack.enter_context(gateways.starting(gateway, upstreams))
        started.wait()
        times: List[float] = []

        def kill() -> None:
            time.sleep(0.7)
            times.append(time.perf_counter())
            if door == "stdio":
                # Only one of them serves the calls, where a gateway keeps a spare one.
                for child in _children(started.pid):
                    os.kill(child, signal.SIGKILL)
                return
            servers[0].kill()
            servers.append(stack.enter_context(gateways.serving(servers[0].port, "--count", str(ran))))
            times.append(time.perf_counter())

        hammer(started.job(clients=8, seconds=seconds, log=str(log)), kill)
        taken.alone[f"killed-{door}", gateway.name] = _outcomes(ran, log, times)


def _children(pid: int) -> List[int]:
    """The processes that run the echo server below a process."""
    found: List[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text(encoding="ascii").split()):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            found += [child] if b"echo_peer.py" in command and b"/bin/sh" not in command[:9] else _children(child)
    return found


def _outcomes(ran: Path, log: Path, times: List[float]) -> Figures:
    """Hold what the callers were told against what the servers did."""
    executed = collections.Counter(ran.read_text(encoding="ascii").split())
    told: Dict[str, Tuple[float, str]] = {}
    for line in log.read_text(encoding="ascii").splitlines():
        text, at, outcome = line.split(" ", 2)
        told[text] = (float(at), outcome)
    fine = {text for text, (_, outcome) in told.items() if outcome == "ok"}
    again = [at for text, (at, outcome) in told.items() if outcome == "ok" and at > times[-1]]
    return {
        "calls": len(told),
        "failed": len(told) - len(fine),
        "duplicates": sum(1 for text in told if executed[text] > 1),
        "unexecuted": sum(1 for text in fine if text not in executed),
        "uncertain": sum(1 for text in told if text not in fine and text in executed),
        "down_ms": (times[-1] - times[0]) * 1000,
        "recovery_ms": (min(again) - times[-1]) * 1000 if again else None,
    }
