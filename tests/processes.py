"""Several processes behind one address, for tests: Redis, workers, and a proxy that gives each request to the next."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.held import HELLO
from tests.helpers import BOTH, Process, exchange, free_port

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a secret of this test only, 0123456789"
NOTE = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def tree(pid: int) -> Iterator[int]:
    """A process's children, theirs, and so on, where the system tells."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            yield from tree(child)


def kill_tree(pid: int) -> list[int]:
    """Kill a process and all below it, and return which those were; all are stopped first, so that none makes more."""
    pids = [pid]
    for each in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGSTOP)
        pids += [below for below in tree(each) if below not in pids]
    for each in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    return pids


class Redis:
    """A Redis that can be killed and started again on its port, empty unless it has a folder.

    :param config: a file with its settings.
    :param folder: keeps what it writes by these settings.
    """

    def __init__(self, config: Path | None = None, folder: Path | None = None) -> None:
        pytest.importorskip("redis", reason="a bus over Redis needs the package redis")
        self._program = shutil.which("redis-server")
        if self._program is None:
            pytest.skip("there is no redis-server here")
        self._config = [] if config is None else [str(config)]
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._running = contextlib.ExitStack()
        self.process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        assert self._program is not None
        folder = self._folder or self._running.enter_context(tempfile.TemporaryDirectory())
        command = [self._program, *self._config, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(folder)]
        self.process = self._running.enter_context(Process(command))
        self.process.wait_for("Ready to accept connections")

    def kill(self) -> None:
        """Kill it; what it had is lost, unless it has a folder."""
        assert self.process is not None
        self.process.child.kill()
        self.process.child.wait(10)
        self._running.close()

    def client(self) -> Any:
        """A client to look inside with."""
        import redis

        return redis.Redis(port=self.port)

    def __enter__(self) -> Redis:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._running.close()


class Worker(Process):
    """A process that serves.

    :ivar url: its endpoint.
    """

    def __init__(self, redis: str) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        super().__init__([sys.executable, str(ROOT / "tests/shared_server.py"), redis, SECRET], PYTHONPATH=path)
        try:
            self.url = self.wait_for(r"(http://[\w.:\[\]]+/mcp)")[1]
        except BaseException:
            self.__exit__()
            raise

    def kill(self) -> None:
        """End it as a crash does."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(10)


class RoundRobin:
    """A proxy that gives each request to the next worker, on a connection of its own.

    :ivar urls: the endpoints of the workers; those that are gone are passed over.
    """

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self._turn = itertools.count()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/mcp"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                self._open.add(connection)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            head, _, body = self._read(connection).partition(b"\r\n\r\n")
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:"))
            with self._connect() as worker:
                self._open.add(worker)
                worker.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
                watcher = threading.Thread(target=self._watch, args=(connection, worker))
                watcher.start()
                try:
                    while data := worker.recv(65536):
                        connection.sendall(data)
                finally:
                    for each in (connection, worker):
                        with contextlib.suppress(OSError):
                            each.shutdown(socket.SHUT_RDWR)
                    watcher.join(10)
                    self._open -= {worker, connection}

    def _watch(self, connection: socket.socket, worker: socket.socket) -> None:
        """Hang up when the client does."""
        with contextlib.suppress(OSError):
            if connection.recv(1) == b"":
                worker.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536) or b"\r\n\r\n"
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                while len(body) < int(line[15:]):
                    part = connection.recv(65536)
                    if not part:
                        raise OSError("the client has gone")
                    body += part
        return head + b"\r\n\r\n" + body

    def _connect(self) -> socket.socket:
        for _ in range(2 * len(self.urls)):
            parts = urlsplit(self.urls[next(self._turn) % len(self.urls)])
            with contextlib.suppress(OSError):
                found = socket.create_connection((parts.hostname, parts.port), 10)
                found.settimeout(None)  # a worker may be silent for as long as the client waits
                return found
        raise OSError("no worker is left")

    def __enter__(self) -> RoundRobin:
        return self

    def __exit__(self, *_: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(10)
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def exchange_at(url: str, message: Any, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """Send a message to a URL with a query, and give the response, still unread."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", f"{parts.path}?{parts.query}", json.dumps(message).encode(), headers)
        with connection.getresponse() as response:
            yield response


_MOST_COMMENTS = 20


@contextlib.contextmanager
def streaming(
    url: str, message: Any, headers: dict[str, str], method: str = "POST"
) -> Iterator[tuple[http.client.HTTPResponse, Callable[[], Any]]]:
    """A response that is still coming, and a function that reads its next event; it fails after a long silence."""
    with exchange(url, message, headers, method) as response:

        def event() -> Any:
            fields: dict[str, str] = {}
            comments = 0
            for line in response:
                name, _, value = line.decode().strip().partition(":")
                if line.startswith(b":"):
                    comments += 1
                    assert comments < _MOST_COMMENTS, "nothing came on the stream"
                elif name:
                    fields[name] = value.strip()
                elif fields:
                    return fields
            return None

        yield response, event


class Client:
    """A legacy client that says which worker gets each request.

    :param urls: the endpoints of the workers.
    """

    def __init__(self, urls: list[str], version: str = "2025-11-25", at: int = 0, user: str = "", **capabilities: Any):
        self.urls = urls
        self.version = version
        self.headers = {"Content-Type": "application/json", "Accept": BOTH}
        if user:
            self.headers["X-User"] = user
        hello = {**HELLO, "protocolVersion": version, "capabilities": capabilities}
        status, headers, body = self.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, at)
        assert status == 200, body
        self.headers.update({"Mcp-Session-Id": headers["Mcp-Session-Id"], "MCP-Protocol-Version": version})

    def send(self, message: Any, at: int = 0, method: str = "POST", **more: str) -> tuple[int, Any, bytes]:
        """Send a message to a worker, and return the status, the headers and the body of its answer."""
        headers = {**self.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        with exchange(self.urls[at], message, headers, method) as response:
            return response.status, response.headers, response.read()

    def begin(self, at: int = 0) -> Client:
        """Say that the session may begin."""
        assert self.send(NOTE, at)[0] == 202
        return self

    def request(self, method: str, at: int = 0, id: Any = 1, **params: Any) -> Any:
        """Send a request and return the reply."""
        status, _, body = self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params}, at)
        assert status == 200, (status, body)
        return json.loads(body)

    def call(self, name: str, at: int = 0, id: Any = 1, **arguments: Any) -> Any:
        """A `tools/call`, whose response is read event by event."""
        params = {"name": name, "arguments": arguments, "_meta": {"progressToken": id}}
        return streaming(
            self.urls[at], {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}, self.headers
        )

    def listen(self, at: int = 0, last: str | None = None) -> Any:
        """The session's own stream, or the rest of another one."""
        headers = {**self.headers, "Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        return streaming(self.urls[at], None, headers, "GET")


def message_of(event: Any) -> Any:
    """The message of an event."""
    return json.loads(event["data"])


def rest_of(event: Any) -> list[Any]:
    """The messages of a stream from here to its end."""
    return [message_of(each) for each in iter(event, None) if each.get("data")]
