"""What the benchmark of tasks measures, and the servers that it measures."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from . import contenders, load
from .contenders import CHECKOUT, PEERS
from .gateway_figures import spent_s
from .gateways import environment, free_port

START_S = 60.0
POLLERS = 64
# At least as often as any server here asks for it.
POLL_MS = 50
# Between two polls of a client; the best of these counts, for each server by itself.
PAUSES_MS = (0, 3, 10, 20, 30)
THREADS = 16
TOLD = 30
Figures = Dict[str, Any]


class Contender(NamedTuple):
    """A server with one of its stores; `place` is what its program is told of that.

    :ivar part: of the tasks over which its memory is measured, as many of them as fit into a few minutes.
    """

    name: str
    label: str
    command: List[str]
    place: str
    part: float = 1.0


def find(peers: Optional[Path], envs: Path) -> Tuple[List[Contender], Dict[str, str]]:
    """Make what is missing under `envs` and not among the `peers`; return the servers, and why others are absent."""
    ours = [sys.executable, str(PEERS / "minimcp_tasks_peer.py")]
    found = [
        Contender("memory", "minimcp, memory", ours, ":memory:"),
        Contender("sqlite", "minimcp, SQLite file", ours, "file"),
    ]
    absent: Dict[str, str] = {}
    if shutil.which("redis-server") is None:
        absent["redis"] = absent["fastmcp-redis"] = "redis-server is not on PATH"
    elif importlib.util.find_spec("minimcp.extensions.tasks.redis_store") is None:
        absent["redis"] = "this checkout keeps no tasks in Redis"
    else:
        found.append(Contender("redis", "minimcp, Redis", ours, "redis"))
    try:
        python = _fastmcp(peers, envs)
        label = contenders.installed(python, "fastmcp-tasks")
        theirs = [python, str(PEERS / "fastmcp_tasks_peer.py")]
        found.append(Contender("fastmcp", f"{label}, memory", theirs, "memory://", 0.1))
        if "fastmcp-redis" not in absent:
            found.append(Contender("fastmcp-redis", f"{label}, Redis", theirs, "redis", 0.1))
    except (OSError, subprocess.SubprocessError, RuntimeError) as fault:
        absent["fastmcp"] = absent["fastmcp-redis"] = f"environment not made: {fault}"
    return found, absent


def _fastmcp(peers: Optional[Path], envs: Path) -> str:
    """The interpreter that has FastMCP and its tasks."""
    if peers is not None:
        python = str(peers / "fastmcp" / "bin" / "python")
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([python, "-c", "import fastmcp_tasks"], check=True, stderr=subprocess.DEVNULL)
            return python
    return contenders.python_environment(envs / "fastmcp-tasks", ["fastmcp[tasks]"])


class Taken:
    """The figures of every round, and a reason for what could not be taken."""

    def __init__(self) -> None:
        self._rounds: Dict[Tuple[str, str], List[float]] = {}
        self.reasons: Dict[Tuple[str, str], str] = {}

    def add(self, name: str, **figures: Optional[float]) -> None:
        """Keep figures of one server."""
        for figure, value in figures.items():
            if value is not None:
                self._rounds.setdefault((figure, name), []).append(value)

    def get(self, figure: str, name: str) -> Optional[float]:
        """The median over the rounds, None when there are none."""
        found = self._rounds.get((figure, name))
        return statistics.median(found) if found else None

    def all(self) -> List[Figures]:
        """Every value, in the order of the rounds."""
        return [{"figure": figure, "server": name, "values": each} for (figure, name), each in self._rounds.items()]

    def attempt(self, figure: str, name: str, measure: Callable[[], None]) -> None:
        """Measure, or remember why not; what failed once is not asked again."""
        if (figure, name) in self.reasons:
            return
        try:
            measure()
        except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as fault:
            self.reasons[figure, name] = f"{type(fault).__name__}: " + " ".join(str(fault).split())[-300:]


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """The address of a Redis that keeps nothing."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _await(port, child)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            child.terminate()
            child.wait()


@contextlib.contextmanager
def serving(contender: Contender, threads: int) -> Iterator[Tuple[int, int]]:
    """The port and the process id of a server with a fresh store.

    :raises RuntimeError: when it does not start.
    """
    with contextlib.ExitStack() as stack:
        folder, port, place = stack.enter_context(tempfile.TemporaryDirectory()), free_port(), contender.place
        if place == "redis":
            place = stack.enter_context(redis_server())
        elif place == "file":
            place = str(Path(folder, "tasks.db"))
        env = (
            {**environment(), "PYTHONPATH": str(CHECKOUT)} if contender.command[0] == sys.executable else environment()
        )
        with open(Path(folder, "log"), "wb") as log:
            child = subprocess.Popen(
                [*contender.command, str(port), place, str(threads)],
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            try:
                _await(port, child)
            except RuntimeError as fault:
                said = Path(folder, "log").read_text(encoding="utf-8", errors="replace").strip()
                raise RuntimeError(f"{fault}: {said[-300:]}") from None
            yield port, child.pid
        finally:
            contenders.end(child)


def _await(port: int, child: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if child.poll() is not None:
            raise RuntimeError("it ended at its start")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise RuntimeError("it did not listen in time")


def run(job: Figures, on_mark: Callable[[int], None] = lambda count: None) -> Figures:
    """Run a job of the load generator; `on_mark` is called with how many tasks have ended.

    :raises RuntimeError: when it fails.
    """
    command = [sys.executable, "-m", "tests.benchmarks.task_load", json.dumps(job)]
    return load.run_job(command, job.get("seconds", 1200) + 120, lambda line: on_mark(int(line)), cwd=str(CHECKOUT))


def throughput(
    taken: Taken,
    contender: Contender,
    seconds: float,
    told: int = TOLD,
    pauses_ms: Sequence[int] = PAUSES_MS,
) -> None:
    """Measure how many tasks are made, polled and finished, and how soon their end is told."""
    with serving(contender, THREADS) as (port, pid):
        job: Figures = {"port": port, "kind": "finish"}
        run({**job, "clients": 8, "seconds": seconds / 4})
        for clients in (1, 8):
            found = []
            for pause in pauses_ms:
                before = spent_s(pid)
                figures = run({**job, "clients": clients, "seconds": seconds, "pause_ms": pause})
                figures["cpu_us"] = (spent_s(pid) - before) / max(1, figures["finished"]) * 1e6
                found.append(figures)
            best = max(found, key=lambda figures: float(figures["minute"]))
            taken.add(contender.name, **{f"minute-{clients}": best["minute"], f"cpu-{clients}": best["cpu_us"]})
        taken.attempt("told", contender.name, lambda: _told(taken, contender, port, told))


def _told(taken: Taken, contender: Contender, port: int, count: int) -> None:
    found = run({"port": port, "kind": "told", "clients": 1, "count": count, "wait_s": 0.1})
    taken.add(contender.name, **{"told-p50": found["told_p50"], "told-p99": found["told_p99"]})


def creation(taken: Taken, contender: Contender, seconds: float) -> None:
    """Measure how long the making of a task takes while others are polled."""
    with serving(contender, POLLERS + THREADS) as (port, _):
        run({"port": port, "kind": "finish", "clients": 8, "seconds": seconds / 4})
        job = {"port": port, "kind": "create", "clients": POLLERS + 1, "seconds": seconds, "poll_ms": POLL_MS}
        found = run(job)
        taken.add(contender.name, **{f"create-{part}": found[f"create_{part}"] for part in ("p50", "p99")})
        taken.add(contender.name, **{"poll-p99": found["poll_p99"], "made": found["minute"]})


def memory(taken: Taken, contender: Contender, count: int) -> None:
    """Measure the memory of the server while many tasks are made and finished, all of which it keeps."""
    marks: List[int] = []
    with serving(contender, THREADS) as (port, pid):

        def on_mark(ended: int) -> None:
            marks.append(load.memory_kib(pid)["VmRSS"])

        job = {"port": port, "kind": "finish", "clients": 8, "count": count, "mark": count // 10}
        found = run(job, on_mark)
    if len(marks) < 10:
        raise RuntimeError(f"{found['finished']} tasks of {count} were finished")
    taken.add(contender.name, tasks=count, first=marks[0] / 1024, half=marks[4] / 1024, last=marks[9] / 1024)
    taken.add(contender.name, growth=(marks[9] - marks[0]) / 1024)
