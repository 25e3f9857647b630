"""The embedded server under test, and a client that writes and reads bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from minimcp.engines.http_server.wsgi_server import WsgiServer, make_server

calls: list[str] = []


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the body, or the path, and remember that it was called."""
    calls.append(environ["PATH_INFO"])
    body = environ["wsgi.input"].read() or environ["PATH_INFO"].encode("latin-1")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


@contextlib.contextmanager
def embedded(app: Any, **options: Any) -> Iterator[WsgiServer]:
    """Serve an application on a free port, with `limits` as further arguments; nothing of it is left afterwards."""
    tls, ca = options.pop("tls", None), options.pop("ca", None)
    server = make_server(app, "127.0.0.1", 0, tls=tls, ca=ca, limits=options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.close(grace_s=0.5)
        thread.join(10)
        assert not thread.is_alive()


class Wire:
    """A connection to a server, over which a test says exactly what it wants."""

    def __init__(self, server: WsgiServer, timeout_s: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout_s)
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        """Send bytes; a server that has closed the connection does not mind."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)
        return self

    def get(self, path: str, *lines: str) -> Wire:
        """Send a GET request."""
        return self.send("".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: x", *lines, "")).encode())

    def post(self, body: bytes, *lines: str) -> Wire:
        """Send a POST request; without `lines` it has a Content-Length."""
        fields = lines or (f"Content-Length: {len(body)}",)
        head = "".join(f"{line}\r\n" for line in ("POST /mcp HTTP/1.1", "Host: x", *fields, ""))
        return self.send(head.encode() + body)

    def until(self, end: bytes) -> bytes:
        """What comes up to and with these bytes, or as much as there is before the end of the stream."""
        while end not in self._buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                found, self._buffer = self._buffer, b""
                return found
            self._buffer += data
        at = self._buffer.index(end) + len(end)
        found, self._buffer = self._buffer[:at], self._buffer[at:]
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers of the next response; status 0 when the server closed the connection instead."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
        return int(lines[0].split(" ")[1]) if lines[0] else 0, fields

    def answer(self) -> tuple[int, bytes]:
        """The status and body of the next response, which has a length."""
        status, fields = self.head()
        length = int(fields.get("content-length", "0"))
        while len(self._buffer) < length:
            data = self.socket.recv(65536)
            assert data, "the body ended early"
            self._buffer += data
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return status, found

    def closed(self) -> bool:
        """Whether the server ends the connection, having sent nothing more."""
        return self.until(b"\0 never sent") == b""


def wait_until(condition: Any, timeout_s: float = 30) -> None:
    """Wait for something to become true; an assertion fails when it does not in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.01)
