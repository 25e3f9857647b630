"""What test files share: messages as a client writes them, an HTTP exchange, and servers that surely end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.official import check_emitted

BOTH = "application/json, text/event-stream"
_dice = random.SystemRandom()


def modern(method: str, id: Any = 1, capabilities: Any = None, meta: Any = None, **params: Any) -> dict[str, Any]:
    """A 2026-07-28 request; further arguments are its params."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} if capabilities is None else capabilities,
        **(meta or {}),
    }
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": meta}}


def http_headers(message: dict[str, Any], **more: str) -> dict[str, str]:
    """The headers that go with a 2026-07-28 request over HTTP; `more` has underscores for hyphens."""
    found = {
        "Content-Type": "application/json",
        "Accept": BOTH,
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": message["method"],
    }
    name = message["params"].get("name") or message["params"].get("uri")
    if name is not None:
        found["Mcp-Name"] = name
    found.update({key.replace("_", "-"): value for key, value in more.items()})
    return found


@contextlib.contextmanager
def exchange(
    url: str, message: Any, headers: dict[str, str], method: str = "POST", timeout_s: float = 20
) -> Iterator[http.client.HTTPResponse]:
    """Send a message and give the response, still unread, with its connection closed at the end."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        body = None if message is None else json.dumps(message).encode()
        connection.request(method, parts.path, body, headers)
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def post(url: str, message: dict[str, Any], **headers: str) -> tuple[int, Any]:
    """Send a 2026-07-28 request and return the status and the reply, which may be the last event of a stream."""
    with exchange(url, message, http_headers(message, **headers)) as response:
        body = response.read()
        if response.headers.get("Content-Type") == "text/event-stream":
            said = list(events(body.splitlines(keepends=True)))
        else:
            said = [json.loads(body)] if body else [None]
        for each in said:
            if isinstance(each, dict) and "jsonrpc" in each:
                check_emitted("2026-07-28", message["method"], each)
        return response.status, said[-1]


def events(lines: Any) -> Iterator[Any]:
    """The JSON of each event in an iterable of lines; an event without data, which only has an id, is left out."""
    for line in lines:
        if line.startswith((b"data: {", b"data: [")):
            yield json.loads(line[6:])


def free_port() -> int:
    """A port that is free, for servers that cannot say which one they took.

    It is below those that systems give away by themselves, to a connection or to who asks for any port, so that no
    other test gets it before the server does, or while that is down.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", _dice.randrange(10_000, 32_000)))
            return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(app: Any, threaded: bool = True) -> Iterator[str]:
    """Serve a WSGI application with Werkzeug's own server and give its address, without a trailing slash."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, app, threaded=threaded, request_handler=Quiet)
    if threaded:
        server.daemon_threads = False  # so that closing the server waits for its requests
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class Clock:
    """A clock that stands still until a test sets it, in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def whole_lines(path: Path) -> list[str]:
    """The lines of a file to which others append; one that is seen while it is written is none yet."""
    return path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines() if path.exists() else []


class Process:
    """A child process, the lines it has written to either output, and the promise that nothing of it is left.

    :param command: what to run, in a process group of its own.
    """

    def __init__(self, command: list[str], cwd: str | None = None, **env: str) -> None:
        self.lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()  # guards lines and _ended
        self.child = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """The first line that matches; an assertion fails when none comes in time."""
        find = re.compile(pattern).search

        def found() -> Any:
            return next((match for match in map(find, self.lines) if match), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout_s)
            match = found()
            assert match, f"no {pattern!r} in:\n" + "\n".join(self.lines)
            return match

    def terminate(self, timeout_s: float = 30) -> int:
        """Send SIGTERM to the process alone and wait for its end."""
        self.child.terminate()
        return self.child.wait(timeout_s)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self.terminate(10)
        except subprocess.TimeoutExpired:
            pass
        try:
            # Whoever is left of the group.
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait(10)
        self._reader.join(10)
        assert self.child.stdout is not None
        self.child.stdout.close()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process from running for a while, so that what it would do falls to others."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + 10
        while _runs(pid) and time.monotonic() < until:
            pass
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _runs(pid: int) -> bool:
    """Say whether a thread of a process may still run, where the system tells: a signal takes its time."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # of a thread that has ended meanwhile
            if path.read_text().rpartition(")")[2].split()[0] not in "Tt":
                return True
    return False


def result(server: Any, method: str, **params: Any) -> Any:
    """The result of a 2026-07-28 request in memory."""
    reply = server.handle(modern(method, **params))
    assert "result" in reply, reply
    return reply["result"]


def problem(server: Any, method: str, **params: Any) -> Any:
    """The error of a 2026-07-28 request in memory."""
    reply = server.handle(modern(method, **params))
    assert "error" in reply, reply
    return reply["error"]


class Legacy:
    """A legacy session in memory.

    :ivar sent: what the server sent beside its replies.
    """

    def __init__(self, server: Any, version: str = "2025-11-25", **capabilities: Any) -> None:
        self.sent: list[Any] = []
        self.server = server
        self.session = server.engine.open_session(self.sent.append)
        info = {"name": "client", "version": "1"}
        self.hello = self.result("initialize", protocolVersion=version, capabilities=capabilities, clientInfo=info)
        self.notify("notifications/initialized")

    def reply(self, method: str, id: Any = 1, **params: Any) -> Any:
        """The whole reply to a request."""
        request = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        return self.server.handle(request, self.sent.append, self.session)

    def result(self, method: str, **params: Any) -> Any:
        """The result of a request."""
        reply = self.reply(method, **params)
        assert "result" in reply, reply
        return reply["result"]

    def problem(self, method: str, **params: Any) -> Any:
        """The error of a request."""
        reply = self.reply(method, **params)
        assert "error" in reply, reply
        return reply["error"]

    def notify(self, method: str, **params: Any) -> None:
        """Send a notification, to which there must be no reply."""
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        assert self.server.handle(message, self.sent.append, self.session) is None
