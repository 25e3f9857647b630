"""Load on a server's tasks from a process of its own: `python -m tests.benchmarks.task_load JOB`, a JSON object.

All clients live on one thread, each with a connection of its own and one request under way. The job has `port`, `kind`
and `clients`:

- "finish": each client makes a task, polls it until it has ended, and makes the next, for `seconds` or `count` tasks.
- "create": one client makes tasks for `seconds`, while each of the others polls a task that goes on, every `poll_ms`.
- "told": one client listens to each of `count` tasks, and learns how long ago its body ended.

It prints one line of figures, with times in milliseconds; before that the number of every `mark`-th task that ended.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
import select
import socket
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from .hammer import whole
from .wire import META, MODERN

ANSWER_S = 30.0
EXTENSION = "io.modelcontextprotocol/tasks"
ENDED = ("completed", "failed", "cancelled")
TASKS_META = {**META, "io.modelcontextprotocol/clientCapabilities": {"extensions": {EXTENSION: {}}}}
TASK_ID, STATUS = re.compile(rb'"taskId": ?"([\w-]+)"'), re.compile(rb'"status": ?"(\w+)"')


class Client:
    """One client: its connection, and the request under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count(1)
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""
        self.begun = 0.0
        self.task = ""
        self.next: Callable[[Client, bytes], None] = _ignore

    def send(self, method: str, name: str, params: Dict[str, Any]) -> None:
        """Send a request; `name` is what its header says."""
        params = {**params, "_meta": TASKS_META}
        message = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
        body = json.dumps(message).encode()
        named = f"Mcp-Name: {name}\r\n" if name else ""
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {MODERN}\r\n"
            f"Mcp-Method: {method}\r\n{named}Content-Length: {len(body)}\r\n\r\n"
        )
        self.data = b""
        self.begun = time.perf_counter()
        self.connection.sendall(head.encode() + body)

    def make(self, tool: str, **arguments: Any) -> None:
        """Ask for a task."""
        self.send("tools/call", tool, {"name": tool, "arguments": arguments})

    def poll(self) -> None:
        """Ask for the state of the task."""
        self.send("tasks/get", self.task, {"taskId": self.task})

    def took(self, data: bytes) -> None:
        """Take note of the task that an answer tells of.

        :raises RuntimeError: when it tells of none.
        """
        self.task = _found(TASK_ID, data)

    def answer(self) -> bytes:
        """Wait for the answer to the request under way."""
        while not whole(self.data):
            self.take()
        return self.data

    def take(self) -> None:
        """Read what has come.

        :raises RuntimeError: when the connection was closed.
        """
        more = self.connection.recv(1 << 18)
        if not more:
            raise RuntimeError(f"the connection was closed after {self.data[-200:]!r}")
        self.data += more


def _ignore(client: Client, data: bytes) -> None:
    pass


def _found(pattern: re.Pattern[bytes], data: bytes) -> str:
    match = pattern.search(data) if data.startswith(b"HTTP/1.1 200") else None
    if match is None:
        raise RuntimeError(f"no answer of a task: {data[:20]!r} {data[-300:]!r}")
    return match[1].decode()


class Loop:
    """Waits for answers, and for the times at which a client shall go on."""

    def __init__(self, clients: List[Client]) -> None:
        self._poller = select.poll()
        self._clients = {client.connection.fileno(): client for client in clients}
        for number in self._clients:
            self._poller.register(number, select.POLLIN)
        self._later: List[Tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.running = 0

    def later(self, at: float, act: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._later, (at, next(self._order), act))

    def run(self) -> None:
        """Run until no client does."""
        while self.running:
            now = time.perf_counter()
            while self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            wait_s = max(0.0, self._later[0][0] - time.perf_counter()) if self._later else ANSWER_S
            ready = self._poller.poll(wait_s * 1000)
            if not ready and not self._later:
                raise RuntimeError(f"no answer within {ANSWER_S:.0f} s")
            for number, _ in ready:
                client = self._clients[number]
                client.take()
                if whole(client.data):
                    client.next(client, client.data)


class Figures:
    """What was measured; times are kept in seconds and told in milliseconds."""

    def __init__(self, job: Dict[str, Any]) -> None:
        self._mark = job.get("mark")
        self.made: List[float] = []
        self.polls: List[float] = []
        self.told: List[float] = []
        self.finished = 0

    def finish(self, data: bytes) -> None:
        """Count a task that has ended.

        :raises RuntimeError: when it did not as it should.
        """
        if b'"42"' not in data:
            raise RuntimeError(f"a task ended otherwise: {data[-300:]!r}")
        self.finished += 1
        if self._mark and self.finished % self._mark == 0:
            print(self.finished, flush=True)

    def report(self, passed: float) -> Dict[str, Any]:
        """All figures."""
        found: Dict[str, Any] = {"seconds": passed, "finished": self.finished, "minute": self.finished / passed * 60}
        found["polls"] = len(self.polls)
        for name, times in (("create", self.made), ("poll", self.polls), ("told", self.told)):
            for part, share in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
                found[f"{name}_{part}"] = _at(times, share)
        return found


def _at(times: List[float], share: float) -> Optional[float]:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else None


def finish(job: Dict[str, Any], figures: Figures) -> None:
    """Make tasks and poll each until it has ended."""
    clients = [Client(job["port"]) for _ in range(job["clients"])]
    loop, left = Loop(clients), job.get("count", 1 << 60)
    pause_s, end = job.get("pause_ms", 0) / 1000, time.perf_counter() + job.get("seconds", 1e9)

    def begin(client: Client) -> None:
        nonlocal left
        if left <= 0 or time.perf_counter() >= end:
            loop.running -= 1
            return
        left -= 1
        client.next = made
        client.make("add", a=20, b=22)

    def poll(client: Client) -> None:
        if pause_s:
            loop.later(time.perf_counter() + pause_s, client.poll)
        else:
            client.poll()

    def made(client: Client, data: bytes) -> None:
        figures.made.append(time.perf_counter() - client.begun)
        client.took(data)
        client.next = polled
        poll(client)

    def polled(client: Client, data: bytes) -> None:
        figures.polls.append(time.perf_counter() - client.begun)
        if _found(STATUS, data) in ENDED:
            figures.finish(data)
            begin(client)
        else:
            poll(client)

    loop.running = len(clients)
    for client in clients:
        begin(client)
    loop.run()


def create(job: Dict[str, Any], figures: Figures) -> None:
    """Make tasks with one client while the others poll, each at a pace of its own, whatever becomes of the others."""
    creator, *pollers = [Client(job["port"]) for _ in range(job["clients"])]
    loop, every_s = Loop([creator, *pollers]), job["poll_ms"] / 1000
    for client in pollers:
        client.make("late", wait_s=job["seconds"] + 60)
        client.took(client.answer())
    begun = time.perf_counter()
    end, due = begun + job["seconds"], {}

    def make() -> None:
        if time.perf_counter() >= end:
            loop.running -= 1
        else:
            creator.make("add", a=20, b=22)

    def made(client: Client, data: bytes) -> None:
        figures.made.append(time.perf_counter() - client.begun)
        client.took(data)
        figures.finished += 1
        make()

    def polled(client: Client, data: bytes) -> None:
        figures.polls.append(time.perf_counter() - client.begun)
        if _found(STATUS, data) in ENDED:
            raise RuntimeError(f"a task that goes on has ended: {data[-300:]!r}")
        due[client] += every_s
        if due[client] >= end:
            loop.running -= 1
        else:
            loop.later(due[client], client.poll)

    loop.running = len(pollers) + 1
    for number, client in enumerate(pollers):
        client.next = polled
        due[client] = begun + every_s * number / len(pollers)
        loop.later(due[client], client.poll)
    creator.next = made
    make()
    loop.run()


def told(job: Dict[str, Any], figures: Figures) -> None:
    """Listen to tasks one after the other, each from before its end until that is told."""
    client = Client(job["port"])
    for _ in range(job["count"]):
        client.make("late", wait_s=job["wait_s"])
        client.took(client.answer())
        listener = Client(job["port"])
        listener.send("subscriptions/listen", "", {"notifications": {"taskIds": [client.task]}})
        while True:
            listener.take()
            now = time.time()
            found = re.search(rb'"method": ?"notifications/tasks".*"text": ?"([\d.]+)"', listener.data)
            if found is not None:
                break
            if whole(listener.data) or (b"acknowledged" in listener.data and client.task.encode() not in listener.data):
                raise RuntimeError(f"no status notifications: {listener.data[-300:]!r}")
        figures.told.append(now - float(found[1]))
        figures.finished += 1
        listener.connection.close()


def main(job: Dict[str, Any]) -> None:
    """Do a job and print its figures."""
    figures = Figures(job)
    begin = time.perf_counter()
    {"finish": finish, "create": create, "told": told}[job["kind"]](job, figures)
    print(json.dumps(figures.report(time.perf_counter() - begin)))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except (OSError, RuntimeError) as trouble:
        sys.exit(f"{type(trouble).__name__}: {trouble}")
