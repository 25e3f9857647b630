"""An HTTP server that says, byte for byte, what a test wants, and remembers what it was sent."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from minimcp.client.transports.http import HttpTransport

# A client may leave at any moment.
_OVER = (OSError, ValueError)


class Request:
    """What a client sent: `method`, `path`, `headers` by lower-case name, `body`, and which connection it came on."""

    def __init__(self, head: bytes, body: bytes, connection: int) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = lines[0].split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        self.body = body
        self.connection = connection

    @property
    def message(self) -> Any:
        """The JSON of the body."""
        return json.loads(self.body)


class Peer:
    """The connection that a request came on, to answer it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def send(self, data: bytes) -> Peer:
        """Send bytes."""
        self._socket.sendall(data)
        return self

    def head(self, status: int = 200, **headers: str) -> Peer:
        """Send a status and headers, whose names have underscores for hyphens."""
        lines = [
            f"HTTP/1.1 {status} Whatever",
            *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items()),
        ]
        return self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def json(self, message: Any, status: int = 200, **headers: str) -> Peer:
        """Answer with JSON."""
        return self.body(json.dumps(message).encode(), status, Content_Type="application/json", **headers)

    def body(self, data: bytes = b"", status: int = 200, **headers: str) -> Peer:
        """Answer with anything."""
        return self.head(status, Content_Length=str(len(data)), **headers).send(data)

    def stream(self, **headers: str) -> Peer:
        """Begin a chunked event stream."""
        return self.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked", **headers)

    def chunk(self, data: bytes) -> Peer:
        """Send a chunk."""
        return self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, message: Any, *lines: str) -> Peer:
        """Send an event in a chunk of its own; `lines` come before its data."""
        data = message if isinstance(message, str) else json.dumps(message)
        return self.chunk("\n".join([*lines, f"data: {data}", "", ""]).encode())

    def end(self) -> Peer:
        """End a chunked body."""
        return self.send(b"0\r\n\r\n")

    def hang_up(self) -> None:
        """Close the connection."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Close the connection at once and drop what is on its way."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def left(self) -> bool:
        """Wait for the client to close the connection; False when it sends something instead."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionError:
            return True

    def request(self, number: int) -> Request | None:
        """The next request on the connection, or None at its end."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        request = Request(head, b"", number)
        length = int(request.headers.get("content-length", "0"))
        while len(self._buffer) < length:
            if not self._more():
                return None
        request.body, self._buffer = self._buffer[:length], self._buffer[length:]
        return request

    def _more(self) -> bool:
        data = self._socket.recv(65536)
        self._buffer += data
        return bool(data)


class Scripted:
    """The server; `url` is its address, `requests` what it was sent so far."""

    def __init__(self, answer: Callable[[Request, Peer], Any], tls: Any = None) -> None:
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self._answer = answer
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.url = self.origin + "/mcp"
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(20)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, len(self._open)))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(*_OVER), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                stack.callback(connection.close)
            peer = Peer(connection)
            while (request := peer.request(number)) is not None:
                self.requests.append(request)
                try:
                    self._answer(request, peer)
                except _OVER:
                    raise
                except BaseException as error:
                    self.errors.append(error)
                    raise

    def stop_listening(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        """End everything."""
        self.stop_listening()
        self._threads[0].join(10)
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        assert not self.errors, self.errors


@contextlib.contextmanager
def scripted(answer: Callable[[Request, Peer], Any], tls: Any = None) -> Iterator[Scripted]:
    """Serve `answer(request, peer)` on a free port; nothing of it is left afterwards."""
    server = Scripted(answer, tls)
    try:
        yield server
    finally:
        server.close()


PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}


def result(id: Any = 1, **members: Any) -> dict[str, Any]:
    """A response."""
    return {"jsonrpc": "2.0", "id": id, "result": members}


class Linked:
    """A link to a scripted server; both end with the test.

    :param version: the revision the link is to think was negotiated.
    :param options: of the link.
    """

    def __init__(self, answer: Callable[[Request, Peer], Any], version: str | None = None, **options: Any) -> None:
        self._scripted = scripted(answer)
        self.server = self._scripted.__enter__()
        self.transport = HttpTransport(self.server.url, **options)
        self.transport.open(5)
        if version:
            self.transport.settle(version)

    def call(self, message: Any = PING, timeout_s: float = 10, headers: Any = None) -> list[Any]:
        """All that comes for a request."""
        exchange = self.transport.start(message, headers or {}, timeout_s)
        try:
            return received(exchange, timeout_s)
        finally:
            exchange.close()

    def __enter__(self) -> Linked:
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self.transport.close()
        finally:
            self._scripted.__exit__(None, None, None)


def received(exchange: Any, timeout_s: float = 10) -> list[Any]:
    """All that comes in an exchange."""
    found = [exchange.receive(timeout_s)]
    while "method" in found[-1]:
        found.append(exchange.receive(timeout_s))
    return found
