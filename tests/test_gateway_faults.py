"""What becomes of calls, processes and descriptors when servers behind a gateway die, or it does itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minimcp import Client, RemoteError
from minimcp.engines.errors import ClientError
from tests.embedded import wait_until
from tests.gateway_processes import ROOT, GatewayProcess, python
from tests.helpers import Process, free_port, http_headers, modern, whole_lines
from tests.hostile.support import Http

PROGRAM = str(ROOT / "tests" / "gateway_recorder.py")
THREADS = 8
CALLS = 1000
# The longest that calls fail once a server is back.
RECOVERY_S = 20.0


def recorder(era: str, door: str, file: Path, *port: str) -> list[str]:
    """The command of a server that writes down what it runs."""
    return [sys.executable, PROGRAM, era, door, str(file), *port]


def stdio(era: str, file: Path, **more: Any) -> dict[str, Any]:
    """The entry of such a server over stdio."""
    return python(PROGRAM, era, "stdio", str(file), **more)


@contextlib.contextmanager
def listening(era: str, file: Path, port: int) -> Iterator[Process]:
    """Such a server over HTTP."""
    with Process(recorder(era, "http", file, str(port)), cwd=str(ROOT), PYTHONPATH=str(ROOT)) as process:
        process.wait_for(r"listening on (\S+)")
        yield process


def noted(file: Path, word: str) -> Counter[str]:
    """How often each text was written down with a word."""
    return Counter(text for each, text in map(str.split, whole_lines(file)) if each == word)


def children(pid: int) -> set[int]:
    """The processes below a process."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, path.read_text(encoding="ascii").split()))
    return found.union(*map(children, found)) if found else found


def alive(pid: int) -> bool:
    """Say whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Load:
    """Threads that call `record`, each time with another text, and how every call ended.

    :ivar told: the outcome by text: "ok", "not run", "may have run" or "lost".
    """

    def __init__(self, url: str, mode: str = "modern") -> None:
        self.url, self.mode = url, mode
        self.told: dict[str, str] = {}
        self.good: list[float] = []
        self._lock = threading.Lock()  # guards told, good and _next
        self._next = 0
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS)
        self._running = [self._pool.submit(self._work) for _ in range(THREADS)]

    def _work(self) -> None:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(Client(self.url, mode=self.mode, timeout=20, restart=True))
            while not self._over.is_set():
                with self._lock:
                    text, self._next = f"{self.mode}{self._next}", self._next + 1
                outcome = self._call(client, text)
                with self._lock:
                    assert text not in self.told
                    self.told[text] = outcome
                    if outcome == "ok":
                        self.good.append(time.monotonic())
                if outcome != "ok":
                    self._over.wait(0.02)

    def _call(self, client: Client, text: str) -> str:
        try:
            result = client.call_tool("record", text=text)
        except RemoteError as problem:
            assert isinstance(problem.data, dict), problem
            return "may have run" if problem.data["mayHaveRun"] else "not run"
        except ClientError:
            return "lost"
        assert result.text == text, "the answer to another call"
        return "ok"

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._pool.shutdown()

    def after(self, count: int) -> None:
        """Wait until so many calls were good."""
        wait_until(lambda: len(self.good) >= count, 120)

    def finish(self, file: Path, outcomes: set[str]) -> None:
        """Have at least a thousand calls, and hold what the callers were told against what the servers did."""
        wait_until(lambda: len(self.told) >= CALLS, 300)
        self._over.set()
        for each in self._running:
            each.result(120)
        ran = noted(file, "ran")
        assert len(self.told) == self._next
        assert set(self.told.values()) <= outcomes
        assert [text for text, count in ran.items() if count > 1] == []
        assert {text for text, outcome in self.told.items() if outcome == "ok"} <= ran.keys()
        assert {text for text, outcome in self.told.items() if outcome == "not run"}.isdisjoint(ran)


@pytest.mark.parametrize("front", ["modern", "legacy"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_server_over_http_is_killed_in_the_middle_of_a_thousand_calls(era: str, front: str, tmp_path: Path) -> None:
    file, port = tmp_path / "ran", free_port()
    entry = {"url": f"http://127.0.0.1:{port}/mcp", "prefix": "", "probe": 1}
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(listening(era, file, port))
        gateway = stack.enter_context(GatewayProcess({"up": entry}, tmp_path))
        load = stack.enter_context(Load(gateway.url, front))
        load.after(CALLS // 4)
        first.child.kill()
        first.child.wait(10)
        stack.enter_context(listening(era, file, port))
        back = time.monotonic()
        wait_until(lambda: load.good[-1] > back, RECOVERY_S)
        load.finish(file, {"ok", "not run", "may have run"})
        assert gateway.terminate() == 0
        assert gateway.violations == ""


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_server_over_stdio_is_killed_in_the_middle_of_a_thousand_calls(era: str, tmp_path: Path) -> None:
    file = tmp_path / "ran"
    servers = {"up": stdio(era, file, prefix="")}
    with GatewayProcess(servers, tmp_path) as gateway, Load(gateway.url) as load:
        load.after(CALLS // 4)
        for pid in children(gateway.child.pid):
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: load.good[-1] > killed, RECOVERY_S)
        load.finish(file, {"ok", "not run", "may have run"})
        # What was in flight may have run; all calls that came later waited for the new process.
        assert sum(outcome != "ok" for outcome in load.told.values()) <= THREADS
        started = children(gateway.child.pid)
        assert gateway.terminate() == 0
        assert not any(map(alive, started))


def test_the_gateway_is_started_again_under_load(tmp_path: Path) -> None:
    file, port, up = tmp_path / "ran", free_port(), free_port()
    servers = {"up": {"url": f"http://127.0.0.1:{up}/mcp", "prefix": ""}}
    options: dict[str, Any] = {"port": port, "secret": "a secret of this test only, 0123456789"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening("both", file, up))
        first = stack.enter_context(GatewayProcess(servers, tmp_path, **options))
        loads = [stack.enter_context(Load(first.url, mode)) for mode in ("modern", "legacy")]
        for load in loads:
            load.after(CALLS // 4)
        assert first.terminate() == 0
        stack.enter_context(GatewayProcess(servers, tmp_path, **options))
        back = time.monotonic()
        for load in loads:
            wait_until(lambda: load.good[-1] > back, RECOVERY_S)  # noqa: B023
        for load in loads:
            load.finish(file, {"ok", "not run", "may have run", "lost"})


def test_a_gateway_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    file = tmp_path / "ran"
    shell = {"command": "sh", "args": ["-c", f"{' '.join(recorder('legacy', 'stdio', file))}; true"]}
    env = {"PYTHONPATH": str(ROOT)}
    servers = {"one": stdio("modern", file), "two": stdio("legacy", file), "shell": {**shell, "env": env}}
    with GatewayProcess(servers, tmp_path) as gateway:
        with Client(gateway.url, mode="legacy") as client:
            for name in ("one", "two", "shell"):
                assert client.call_tool(f"{name}_record", text="x").text == "x"
            started = children(gateway.child.pid)
            assert len(started) >= 5
            gateway.child.kill()
            gateway.child.wait(10)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not any(map(alive, started)), 30)
            left = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in started if alive(pid)]
            for pid in filter(alive, started):
                os.kill(pid, signal.SIGKILL)
            assert left == []


class Counted:
    """The children, threads and descriptors of a process."""

    def __init__(self, pid: int) -> None:
        self.children = len(children(pid))
        self.threads = len(os.listdir(f"/proc/{pid}/task"))
        self.files = len(os.listdir(f"/proc/{pid}/fd"))

    def within(self, other: Counted) -> bool:
        """Say whether there is nothing more than at another time, but for a connection that is kept for each thread."""
        files = other.files + THREADS
        return self.children <= other.children and self.threads <= other.threads and self.files <= files

    def __repr__(self) -> str:
        return f"{self.children} children, {self.threads} threads, {self.files} descriptors"


def held(url: str, tool: str, text: str) -> socket.socket:
    """A connection on which a call is under way."""
    http = Http(url[: -len("/mcp")])
    message = modern("tools/call", text, name=tool, arguments={"text": text})
    connection = http.connect()
    body = json.dumps(message).encode()
    connection.sendall(http.head("POST", http_headers(message), len(body)) + body)
    return connection


def test_calls_that_are_aborted_leave_nothing_behind(tmp_path: Path) -> None:
    file, port = tmp_path / "ran", free_port()
    servers = {
        "http": {"url": f"http://127.0.0.1:{port}/mcp", "probe": 0},
        "old": stdio("legacy", file, probe=0),
        "new": stdio("modern", file, probe=0),
    }
    with listening("legacy", file, port), GatewayProcess(servers, tmp_path) as gateway:
        with ThreadPoolExecutor(THREADS) as threads, Client(gateway.url, mode="modern", timeout=20) as client:

            def call(number: int) -> None:
                name = ("http", "old", "new")[number % 3]
                assert client.call_tool(f"{name}_record", text=f"n{number}").text == f"n{number}"

            def abort(number: int) -> None:
                text, name = f"a{number}", ("http", "old", "new")[number % 3]
                with held(gateway.url, f"{name}_hold", text):
                    wait_until(lambda: text in noted(file, "began"), 60)

            list(threads.map(call, range(60)))
            list(threads.map(abort, range(60, 84)))
            wait_until(lambda: len(noted(file, "gave-up")) == 24, 60)
            before = Counted(gateway.child.pid)
            for part in range(4):
                list(threads.map(call, range(1000 + part * 100, 1075 + part * 100)))
                list(threads.map(abort, range(2000 + part * 100, 2050 + part * 100)))
        wait_until(lambda: len(noted(file, "gave-up")) == 224, 60)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: Counted(gateway.child.pid).within(before), 60)
        after = Counted(gateway.child.pid)
        assert after.within(before), f"before: {before}; after: {after}"


def test_a_gateway_that_is_told_to_end_ends_every_call_and_every_process(tmp_path: Path) -> None:
    file = tmp_path / "ran"
    servers = {f"s{number}": stdio("modern" if number % 2 else "legacy", file) for number in range(5)}
    with GatewayProcess(servers, tmp_path) as gateway, contextlib.ExitStack() as stack:
        texts = [f"t{number}" for number in range(100)]
        calls = [held(gateway.url, f"s{number % 5}_hold", text) for number, text in enumerate(texts)]
        for call in calls:
            stack.enter_context(call)
        wait_until(lambda: len(noted(file, "began")) == 100, 60)
        started = children(gateway.child.pid)
        begun = time.monotonic()
        assert gateway.terminate(30) == 0
        assert time.monotonic() - begun < 25
        assert not any(map(alive, started))
        ends = Counter(call.recv(12) for call in calls)
        assert set(ends) <= {b"HTTP/1.1 200", b""}, ends
        assert not any("Traceback" in line for line in gateway.lines), "\n".join(gateway.lines)
