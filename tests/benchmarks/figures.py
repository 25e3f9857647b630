"""The rows of the server's table, how each is measured, and what the issue asks of it."""

from __future__ import annotations

import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from . import load, wire
from .contenders import Contender, HttpServer
from .pipes import StdioServer

ROUNDS = 3
STREAMS = 200
TOOLS = 1000


class Figure(NamedTuple):
    """One row; each goal is (contender or "" for a plain number, ">=" or "<=", factor or number)."""

    name: str
    title: str
    unit: str
    goals: Tuple[Tuple[str, str, float], ...] = ()


FIGURES = (
    Figure("http-1", "HTTP modern, 1 connection", "/s", (("sdk", ">=", 4), ("bare", ">=", 0.6))),
    Figure("http-8", "HTTP modern, 8 connections", "/s", (("sdk", ">=", 4), ("bare", ">=", 0.6))),
    Figure("http-64", "HTTP modern, 64 connections", "/s", (("sdk", ">=", 3), ("bare", ">=", 0.6))),
    Figure("p99", "p99 at 64 connections", "ms", (("sdk", "<=", 1),)),
    Figure("compute-1", "tool computes 0.5 ms, 1 connection", "/s"),
    Figure("compute-8", "tool computes 0.5 ms, 8 connections", "/s"),
    Figure("compute-64", "tool computes 0.5 ms, 64 connections", "/s"),
    Figure("compute-p99", "its p99 at 64 connections", "ms"),
    Figure("wait-1", "tool waits 5 ms, 1 connection", "/s"),
    Figure("wait-8", "tool waits 5 ms, 8 connections", "/s"),
    Figure("wait-64", "tool waits 5 ms, 64 connections", "/s"),
    Figure("wait-p99", "its p99 at 64 connections", "ms"),
    Figure("mixed-8", "both at once, 4 connections each", "/s"),
    Figure("mixed-64", "both at once, 32 connections each", "/s"),
    Figure("mixed-compute-p99", "p99 of the one that computes", "ms"),
    Figure("mixed-wait-p99", "p99 of the one that waits", "ms"),
    Figure("big", "1 MiB result, 8 connections", "/s", (("sdk", ">=", 1),)),
    Figure("legacy", "HTTP legacy session, 8 connections", "/s", (("sdk", ">=", 4),)),
    Figure("sse", "SSE with 5 progress, 8 connections", "/s", (("sdk", ">=", 2), ("typescript", ">=", 1))),
    Figure("list", "tools/list of 1,000 tools, 8 conn.", "/s", (("sdk", ">=", 15),)),
    Figure("stdio", "stdio, one after the other", "/s", (("sdk", ">=", 6), ("typescript", ">=", 1))),
    Figure("pipelined", "stdio, pipelined", "/s", (("sdk", ">=", 12),)),
    Figure("cold", "cold start to first tool result", "ms", (("sdk", "<=", 0.25), ("typescript", "<=", 1))),
    Figure("memory", "peak memory of a stdio server", "MiB", (("sdk", "<=", 1 / 3),)),
    Figure("import", "import", "ms", (("sdk", "<=", 1 / 8),)),
    Figure("streams", "200 idle listen streams, each", "KiB", (("", "<=", 60),)),
    Figure("kept", "calls kept beside the streams", "%", (("", ">=", 95),)),
    Figure("given", "their memory given back or used again", "%", (("", ">=", 80),)),
    Figure("system", "of that, back at the operating system", "%"),
)
# Figures that come out of the measurement of another one.
TOGETHER = {
    "p99": "http-64",
    "compute-p99": "compute-64",
    "wait-p99": "wait-64",
    "mixed-compute-p99": "mixed-64",
    "mixed-wait-p99": "mixed-64",
    "kept": "streams",
    "given": "streams",
    "system": "streams",
}
HTTP_GROUPS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    ("json", ("http-1", "http-8", "http-64", "big")),
    ("work", (*(f"{work}-{count}" for work in ("compute", "wait") for count in (1, 8, 64)), "mixed-8", "mixed-64")),
    ("session", ("legacy",)),
    ("sse", ("sse",)),
    ("list", ("list",)),
)
# Of a figure's last part; the others have 8.
CONNECTIONS = {"1": 1, "64": 64}


class Results:
    """Medians of the values taken, and a reason for each figure that could not be."""

    def __init__(self) -> None:
        self._taken: Dict[Tuple[str, str], List[float]] = {}
        self.reasons: Dict[Tuple[str, str], str] = {}
        self.notes: Dict[str, str] = {}

    def add(self, figure: str, contender: str, value: float) -> None:
        """Keep one more value."""
        self._taken.setdefault((figure, contender), []).append(value)

    def get(self, figure: str, contender: str) -> Any:
        """The median, or None when nothing was taken or a later round failed."""
        key = (figure, contender)
        if key not in self._taken or key in self.reasons:
            return None
        return statistics.median(self._taken[key])

    def attempt(self, figure: str, contender: Contender, measure: Callable[[], float]) -> None:
        """Take one value, or remember why not; a contender that failed is not asked again."""
        if (figure, contender.name) in self.reasons:
            return
        try:
            self.add(figure, contender.name, measure())
        except (RuntimeError, OSError, subprocess.SubprocessError) as fault:
            self.reasons[figure, contender.name] = " ".join(str(fault).split())[:180] or type(fault).__name__


def measure(results: Results, contenders: List[Contender], wanted: List[str], seconds: float) -> None:
    """Take every wanted figure of every contender, contender after contender in each round."""
    for group, names in HTTP_GROUPS:
        names = tuple(name for name in names if name in wanted)
        if names:
            _http(results, contenders, group, names, seconds / ROUNDS)
    if {"stdio", "pipelined"} & set(wanted):
        _stdio(results, contenders, wanted, seconds / ROUNDS)
    if "cold" in wanted:
        _cold(results, contenders)
    if "memory" in wanted:
        for contender in contenders:
            results.attempt("memory", contender, lambda: _peak(contender))  # noqa: B023
    if "import" in wanted:
        _imports(results, contenders)
    if "streams" in wanted:
        for contender in contenders:
            if contender.name == "bare":
                results.reasons["streams", "bare"] = "the bare handler has no streams"
            else:
                _streams(results, contender, seconds)


def _checked(server: HttpServer, name: str) -> wire.Request:
    """Return the request of a figure once the server has answered it right; raises RuntimeError otherwise."""
    if name == "legacy":
        request = wire.add(modern=False, session=server.handshake())
    else:
        kind = name.partition("-")[0]
        makers = {"big": wire.big, "sse": wire.steps, "list": wire.listing, "compute": wire.compute, "wait": wire.wait}
        request = makers.get("compute" if kind == "mixed" else kind, wire.add)()
    messages, _, size = server.ask(request.body(1), request.headers)
    result = messages[-1].get("result", {})
    if name == "list":
        right = len(result.get("tools", ())) >= TOOLS and "inputSchema" in result["tools"][TOOLS - 1]
    else:
        text = result.get("content", [{}])[0].get("text", "")
        words = {"sse": "done", "compute": "computed", "mixed": "computed", "wait": "waited"}
        right = text == words.get(name.partition("-")[0], "42")
        if name == "big":
            right = len(text) == 1 << 20 and size < 1.1 * (1 << 20)
    if name == "sse":
        right = right and [m.get("params", {}).get("progress") for m in messages[:-1]] == [1, 2, 3, 4, 5]
    if not right:
        raise RuntimeError(f"wrong answer of {size} bytes: {str(messages[-1])[:150]}")
    return request


def _http(results: Results, contenders: List[Contender], group: str, names: Tuple[str, ...], seconds: float) -> None:
    servers: List[HttpServer] = []
    ready: Dict[Tuple[str, str], wire.Request] = {}
    try:
        for contender in contenders:
            try:
                tools = TOOLS if group == "list" else 0
                server = HttpServer(contender, "json" if group in ("list", "work") else group, tools)
                servers.append(server)
            except (RuntimeError, OSError) as fault:
                results.reasons.update({(name, contender.name): str(fault) for name in names})
                continue
            for name in names:
                try:
                    ready[name, contender.name] = _checked(server, name)
                    load.run(server.port, ready[name, contender.name], 2, 1)
                except RuntimeError as fault:
                    ready.pop((name, contender.name), None)
                    results.reasons[name, contender.name] = str(fault)
        for name in names:
            for _ in range(ROUNDS):
                for server in servers:
                    if (name, server.contender.name) in ready:
                        request = ready[name, server.contender.name]
                        results.attempt(
                            name,
                            server.contender,
                            lambda: _rate(results, server, name, request, seconds),  # noqa: B023
                        )
    finally:
        for server in servers:
            server.close()


def _rate(results: Results, server: HttpServer, name: str, request: wire.Request, seconds: float) -> float:
    work, _, last = name.rpartition("-")
    connections = CONNECTIONS.get(last, 8)
    if work == "mixed":
        return _mixed(results, server, connections // 2, seconds)
    done = load.run(server.port, request, connections, seconds)
    if connections == 64:
        results.add("p99" if work == "http" else f"{work}-p99", server.contender.name, done.p99_ms)
    return done.rate


def _mixed(results: Results, server: HttpServer, connections: int, seconds: float) -> float:
    """Call the tool that computes and the one that waits at once, on this many connections each."""
    makers = {"compute": wire.compute, "wait": wire.wait}
    with ThreadPoolExecutor() as pool:
        running = {
            work: pool.submit(load.run, server.port, make(), connections, seconds) for work, make in makers.items()
        }
        done = {work: future.result() for work, future in running.items()}
    if connections == 32:
        for work, each in done.items():
            results.add(f"mixed-{work}-p99", server.contender.name, each.p99_ms)
    return sum(each.rate for each in done.values())


def _command(contender: Contender) -> List[str]:
    return [*contender.stdio, "stdio"]


def _spawn(contender: Contender) -> StdioServer:
    """Start in the modern era, or in the legacy one where the modern one is not served on stdio."""
    try:
        return StdioServer(_command(contender), contender.env)
    except RuntimeError:
        return StdioServer(_command(contender), contender.env, modern=False)


def _stdio(results: Results, contenders: List[Contender], wanted: List[str], seconds: float) -> None:
    servers: List[Tuple[Contender, StdioServer]] = []
    try:
        for contender in contenders:
            try:
                servers.append((contender, _spawn(contender)))
                if not servers[-1][1].modern:
                    results.notes[contender.name] = "served the legacy era on stdio"
            except RuntimeError as fault:
                results.reasons.update({(name, contender.name): str(fault) for name in ("stdio", "pipelined")})
        for name in ("stdio", "pipelined"):
            for turn in range(ROUNDS + 1):
                for contender, server in servers:
                    drive = server.one_by_one if name == "stdio" else server.pipelined
                    if name not in wanted:
                        continue
                    if turn:
                        results.attempt(name, contender, lambda: drive(seconds))  # noqa: B023
                    else:
                        drive(0.3)
    finally:
        for _, server in servers:
            server.close()


def _cold(results: Results, contenders: List[Contender]) -> None:
    for _ in range(2 * ROUNDS):
        for contender in contenders:
            # The first start may write compiled files; the median forgets it.
            results.attempt("cold", contender, lambda: _first_answer(contender))  # noqa: B023


def _first_answer(contender: Contender) -> float:
    with _spawn(contender) as server:
        return server.cold_ms


def _peak(contender: Contender) -> float:
    with _spawn(contender) as server:
        return server.peak_mib()


def _imports(results: Results, contenders: List[Contender]) -> None:
    for _ in range(2 * ROUNDS + 1):
        for contender in contenders:
            if contender.python is None:
                results.reasons["import", contender.name] = "not Python"
            else:
                results.attempt("import", contender, lambda: _import_ms(contender))  # noqa: B023


def _import_ms(contender: Contender) -> float:
    return _run(contender, contender.imports or "pass") - _run(contender, "pass")


def _run(contender: Contender, code: str) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [str(contender.python), "-c", code], env=contender.env, stderr=subprocess.PIPE, timeout=60, check=True
    )
    return (time.perf_counter() - begin) * 1000


def _streams(results: Results, contender: Contender, seconds: float) -> None:
    """Measure memory and calls with idle streams, and calls without before and after, on an own server."""
    try:
        server = HttpServer(contender, "json")
    except (RuntimeError, OSError) as fault:
        results.reasons["streams", contender.name] = str(fault)
        return
    try:
        request = _checked(server, "http-8")
        load.run(server.port, request, 64, 1)
        alone, beside, opened = [load.run(server.port, request, 8, seconds).rate], [], []
        before = load.memory_kib(server.pid)["VmRSS"]
        for _ in range(2):
            streams = load.open_streams(server.port, STREAMS)
            try:
                time.sleep(0.5)
                opened.append(load.memory_kib(server.pid)["VmRSS"])
                beside.append(load.run(server.port, request, 8, seconds).rate)
            finally:
                for stream in streams:
                    stream.close()
            back = _given_back(server.pid, before, opened[-1])
            alone.append(load.run(server.port, request, 8, seconds).rate)
        growth = opened[0] - before
        results.add("streams", contender.name, growth / STREAMS)
        results.add("kept", contender.name, statistics.mean(beside) / statistics.mean(alone) * 100)
        if growth > 0:
            # What the second set of streams takes beyond the first is what the first left unusable.
            results.add("given", contender.name, min(100.0, 100 - (opened[1] - opened[0]) / growth * 100))
            results.add("system", contender.name, back)
    except RuntimeError as fault:
        results.reasons["streams", contender.name] = str(fault)
    finally:
        server.close()


def _given_back(pid: int, before: int, opened: int, patience_s: float = 15.0) -> float:
    """Percent of the growth gone within `patience_s`; servers notice a closed peer at different times."""
    end = time.monotonic() + patience_s
    least = opened
    while time.monotonic() < end and least > before + 0.1 * (opened - before):
        time.sleep(0.25)
        least = min(least, load.memory_kib(pid)["VmRSS"])
    return 100.0 if opened <= before else min(100.0, (opened - least) / (opened - before) * 100)
