"""What the hostile cases share: a server to attack, a client that sends any bytes, and one look at every reply."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

from minimcp import Context, Server, ToolError
from tests.helpers import http_headers, modern

SECRET = "a secret of this test only, 0123456789"

_LIBRARIES = r"jsonschema|werkzeug|referencing|urllib3|pydantic|simplejson|socketserver|json\.(?:decoder|encoder)"
_PATHS = "|".join(re.escape(path) for path in {os.getcwd(), sys.prefix, sys.base_prefix} if len(path) > 4)
_LEAK = re.compile(
    rf'Traceback|File \\?"|\w\.py\b|\bline [0-9]+|site-packages|minimcp[./]|{_PATHS}|{_LIBRARIES}'.encode(),
    re.IGNORECASE,
)


def clean(data: bytes) -> bytes:
    """Fail when a reply tells of the inside: a traceback, a path, a line number or a library."""
    found = _LEAK.search(data)
    assert found is None, f"a reply tells of the inside: {data[max(0, found.start() - 60) : found.end() + 60]!r}"
    return data


def message_of(data: bytes) -> Any:
    """The JSON-RPC message in a reply, which must be strict JSON."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(data.decode("utf-8"), parse_constant=refuse)
    for message in found if isinstance(found, list) else [found]:
        assert message["jsonrpc"] == "2.0"
        assert len({"method", "result", "error"} & message.keys()) == 1
    return found


class Gate:
    """Lets a test know and steer what handlers do."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.told = threading.Semaphore(0)
        self.go = threading.Event()
        self.ran: list[str] = []


def attacked(gate: Gate, secret: Any = SECRET, **options: Any) -> Server:
    """A server with one tool for every case."""
    server = Server("attacked", "1.0", secret=secret, debug=False, **options)

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    def echo(text: str) -> str:
        gate.ran.append(text[:50])
        return text

    @server.tool
    def double(number: float) -> float:
        return number * 2

    @server.tool
    def total(items: list[int]) -> int:
        return sum(items)

    @server.tool
    def members(value: dict[str, Any]) -> int:
        return len(value)

    @server.tool
    def nested(place: dict[str, dict[str, int]], when: str = "now") -> str:
        return when

    @server.tool
    def region(region: Annotated[str, {"x-mcp-header": "Region"}], zone: int = 0) -> str:
        return region

    @server.tool
    def steps(count: int, ctx: Context) -> str:
        for step in range(count):
            ctx.progress(step + 1, count)
        return "done"

    @server.tool
    def tell(text: str, ctx: Context) -> str:
        """Says the text first in a notification and then in the result."""
        ctx.progress(1, 1, text)
        return text

    @server.tool
    def hold(ctx: Context) -> str:
        gate.entered.release()
        if ctx.cancelled.wait(60):
            gate.told.release()
        return "held"

    @server.tool
    def linger() -> str:
        gate.entered.release()
        gate.go.wait(60)
        return "lingered"

    @server.tool
    def flood(ctx: Context) -> str:
        """Sends notifications until it is told to stop."""
        gate.entered.release()
        try:
            for number in range(10**7):
                ctx.progress(number + 1, None, "x" * 2000)
        finally:
            gate.told.release()
        return "flooded"

    @server.tool
    def fail(how: str) -> Any:
        return _FAILURES[how]()

    @server.tool
    def fail_late(how: str, ctx: Context) -> Any:
        ctx.progress(1)
        return _FAILURES[how]()

    @server.tool
    def whoami(ctx: Context) -> dict[str, Any]:
        who = ctx.principal and ctx.principal.id
        return {"version": ctx.version, "capabilities": ctx.capabilities, "level": ctx._log_level, "who": who}

    @server.tool
    def book(city: str, ctx: Context) -> str:
        answer = ctx.elicit(f"How many nights in {city}?", {"nights": int})
        if not answer:
            return "not booked"
        gate.ran.append(f"booked {answer['nights']}")
        return f"{answer['nights']} nights in {city}"

    @server.tool
    def pester(ctx: Context) -> str:
        number = 0
        while True:
            number += 1
            ctx.elicit(f"Question {number}?", {"answer": str})

    @server.resource("config://app")
    def config() -> str:
        return "config"

    @server.resource("note://{name}")
    def note(name: str) -> str:
        return name

    @server.prompt
    def greet(name: str) -> str:
        return f"Greet {name}"

    return server


def _raise(kind: type[BaseException], *arguments: Any) -> Callable[[], Any]:
    def fail() -> Any:
        # A new one each time: what is raised again keeps its old traceback.
        raise kind(*arguments)

    return fail


def _recurse() -> Any:
    return _recurse()


def _cycle() -> Any:
    found: list[Any] = []
    found.append(found)
    return {"found": found}


# What a handler may do wrong, by name; `fail` and `fail_late` do it.
_FAILURES: dict[str, Callable[[], Any]] = {
    "value": _raise(ValueError, f"secret text {__file__} line 12"),
    "memory": _raise(MemoryError),
    "recursion": _recurse,
    "exit": _raise(SystemExit, 3),
    "tool": _raise(ToolError, "say this"),
    "nan": lambda: {"x": math.nan},
    "nan text": lambda: math.inf,
    "raw nan": lambda: {"content": [], "structuredContent": {"x": math.nan}},
    "surrogate": lambda: "a\ud800z",
    "surrogate name": lambda: {"\udfff": 1},
    "object": object,
    "cycle": _cycle,
    "huge": lambda: 10**5000,
    "keys": lambda: {(1, 2): 3},
}


class Reply:
    """One HTTP response: status, header lines, and a body that was looked through."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = clean(body)

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def message(self) -> Any:
        """The JSON-RPC message that is the body."""
        return message_of(self.body)

    @property
    def code(self) -> Any:
        """The code of the JSON-RPC error that is the body."""
        return self.message["error"]["code"]

    @property
    def events(self) -> list[Any]:
        """The messages of an event stream; priming events and comments are left out."""
        assert self.header("Content-Type") == "text/event-stream"
        found = []
        for event in self.body.split(b"\n\n"):
            data = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
            if data and data != [b""]:
                assert len(data) == 1
                found.append(message_of(data[0]))
        return found

    @property
    def last(self) -> Any:
        """The final message, whether it came as JSON or at the end of a stream."""
        return self.events[-1] if self.header("Content-Type") == "text/event-stream" else self.message


class Http:
    """A client that sends what it is told, byte by byte."""

    def __init__(self, url: str) -> None:
        self.host, port = url.rpartition("/")[2].split(":")
        self.port = int(port)

    def connect(self, timeout_s: float = 20) -> socket.socket:
        """Open a connection."""
        return socket.create_connection((self.host, self.port), timeout_s)

    def head(self, method: str, headers: Any, length: int | None, path: str = "/mcp") -> bytes:
        """A request head; header names and values may be any bytes. A Host is added unless one is given."""
        lines = [f"{method} {path} HTTP/1.1".encode()]
        pairs = [
            (_bytes(name), _bytes(value)) for name, value in (headers.items() if isinstance(headers, dict) else headers)
        ]
        if not any(name.lower() == b"host" for name, _ in pairs):
            lines.append(f"Host: {self.host}:{self.port}".encode())
        lines += [name + b": " + value for name, value in pairs]
        if length is not None:
            lines.append(b"Content-Length: %d" % length)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def send(self, body: Any, headers: Any, method: str = "POST", path: str = "/mcp") -> Reply:
        """Send one request on a connection of its own and read the whole response."""
        with self.connect() as connection:
            return self.send_on(connection, body, headers, method, path)

    def send_on(
        self, connection: socket.socket, body: Any, headers: Any, method: str = "POST", path: str = "/mcp"
    ) -> Reply:
        """Send one request on a connection and read the whole response."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        try:
            connection.sendall(self.head(method, headers, len(data) if method == "POST" else None, path) + data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the body was read; the refusal is there to be read
        return read_reply(connection, method)

    def call(self, message: Any, **headers: str) -> Reply:
        """Send a 2026-07-28 request with the headers that go with it; names have underscores for hyphens."""
        return self.send(message, http_headers(message, **headers))

    def tool(self, name: str, id: Any = 1, capabilities: Any = None, meta: Any = None, **arguments: Any) -> Reply:
        """Call a tool, the modern way."""
        return self.call(modern("tools/call", id, capabilities, meta, name=name, arguments=arguments))

    def open(self, message: Any, method: str = "POST", path: str = "/mcp", **headers: str) -> Stream:
        """Send a request and read the head of the response only.

        Without an Mcp-Session-Id a message goes with the headers of a 2026-07-28 request.
        """
        modern_era = message is not None and "Mcp-Session-Id" not in headers
        fields = http_headers(message, **headers) if modern_era else headers
        data = json.dumps(message).encode() if method == "POST" else b""
        head = self.head(method, fields, len(data) if method == "POST" else None, path)
        return Stream(self.connect(), head + data, method)

    def alive(self) -> None:
        """Fail unless the next call is answered."""
        reply = self.tool("add", a=20, b=22)
        assert reply.status == 200, reply.body
        assert reply.message["result"]["content"] == [{"type": "text", "text": "42"}]

    # The session form

    def initialize(self, version: str = "2025-11-25", capabilities: Any = None, **headers: str) -> str:
        """Open a session and return its id."""
        reply = self.send(handshake(version, capabilities), {**LEGACY, **headers})
        assert reply.status == 200, reply.body
        id = reply.header("Mcp-Session-Id")
        assert id is not None
        self.legacy(id, {"jsonrpc": "2.0", "method": "notifications/initialized"}, **headers)
        return id

    def legacy(self, session: str, message: Any, **headers: str) -> Reply:
        """Send a message in a session."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send(message, {**LEGACY, "Mcp-Session-Id": session, **fields})


LEGACY = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def handshake(version: Any = "2025-11-25", capabilities: Any = None, id: Any = 0) -> dict[str, Any]:
    """An initialize request."""
    params = {
        "protocolVersion": version,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params}


def called(name: str, id: Any = 1, **arguments: Any) -> dict[str, Any]:
    """A tools/call of the session form."""
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def read_reply(connection: socket.socket, method: str = "POST") -> Reply:
    """Read one response to its end."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    with response:
        return Reply(response.status, response.getheaders(), response.read())


class Stream:
    """A response that is still coming, with its connection; closing it is what a client does that leaves."""

    def __init__(self, connection: socket.socket, request: bytes, method: str) -> None:
        self._connection = connection
        self._response = http.client.HTTPResponse(connection, method=method)
        try:
            connection.sendall(request)
            self._response.begin()
        except BaseException:
            self.close()
            raise
        self.status = self._response.status
        self.headers = self._response.headers
        self.read = self._response.read
        self.readline = self._response.readline

    def event(self) -> Any:
        """The next message, or None at the end."""
        for line in iter(self.readline, b""):
            if line.startswith(b"data: ") and len(line) > 7:
                return message_of(clean(line[6:]))
        return None

    def close(self) -> None:
        """Leave."""
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1")
