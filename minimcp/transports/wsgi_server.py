"""The embedded HTTP server: Werkzeug's threaded server, one thread per connection, with connections kept alive.

Werkzeug closes a connection after each answer, because the standard library's parser cannot be trusted with a second
request. Here the head and body are read by `framing`, completely and strictly, before the application runs.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any, Optional

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from .framing import BadRequest, Head, parse_head, read_chunked, read_exactly
from .gate import Gate

log = logging.getLogger("minimcp")

LIMITS: dict[str, float] = {
    "head_bytes": 32 * 1024,
    "line_bytes": 8 * 1024,
    "headers": 100,
    "body_bytes": 4 * 1024 * 1024,
    "head_s": 10,  # from the first byte of a head to its last
    "body_s": 30,
    "idle_s": 30,  # before the first byte of the next head
    "send_s": 30,  # for a client that does not read
    "connections": 1500,
    "running": 2,  # handlers that run at once; see gate
}

_BACKLOG = 1024
_LINGER_S = 1.0
_CHUNK = 64 * 1024


class ClientGone(Exception):
    """Sending failed; kept apart from an OSError that the application raised."""


class Handler(WSGIRequestHandler):
    """One connection, on its own thread."""

    server: EmbeddedServer

    def setup(self) -> None:
        """Make nothing: there are no file objects here."""

    def finish(self) -> None:
        """Flush nothing."""

    def handle(self) -> None:
        """Answer requests until the client, a limit or a mistake ends the connection."""
        self._buffer = b""
        self._deadline = 0.0
        # When the wait for a request began, 0 while one is being served.
        self.waiting_since = time.monotonic()
        if not self.server.enter(self):
            self._refuse(BadRequest("503 Service Unavailable", "Too many connections"))
            return
        try:
            self._open()
            while self._serve_one():
                pass
        except (OSError, ClientGone):
            pass  # the client is gone, or too slow
        finally:
            self.server.leave(self)

    def _open(self) -> None:
        limits, tls = self.server.limits, self.server.tls
        self._set_timeout(socket.SO_SNDTIMEO, limits["send_s"])
        self._set_timeout(socket.SO_RCVTIMEO, limits["idle_s"])
        if tls is not None:
            self.request = tls.wrap_socket(self.request, server_side=True)
        self._base = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http" if tls is None else "https",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "werkzeug.socket": self.request,
            "SCRIPT_NAME": "",
            "SERVER_NAME": self.server.host,
            "SERVER_PORT": str(self.server.port),
            "SERVER_SOFTWARE": "minimcp",
            "REMOTE_ADDR": self.client_address[0],
        }

    def _set_timeout(self, which: int, seconds: float) -> None:
        # The kernel's own timeouts: Python's would cost a poll, and a turn of the interpreter lock, at every call.
        timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
        self.request.setsockopt(socket.SOL_SOCKET, which, timeval)

    def _receive(self, size: int) -> bytes:
        """Receive within `_deadline`, or within the idle timeout when there is none."""
        if self._deadline:
            left_s = self._deadline - time.monotonic()
            self._set_timeout(socket.SO_RCVTIMEO, max(left_s, 0.001))
        try:
            data: bytes = self.request.recv(size)
            return data
        except (BlockingIOError, ssl.SSLWantReadError):
            if not self._deadline:
                raise
            raise BadRequest("408 Request Timeout", "The request took too long to arrive") from None

    def _serve_one(self) -> bool:
        """Answer one request, and say whether another may follow."""
        try:
            raw = self._read_head()
            if raw is None:
                return False
            limits = self.server.limits
            head = parse_head(raw, int(limits["line_bytes"]), int(limits["headers"]))
            body = self._read_body(head)
        except BadRequest as problem:
            self._refuse(problem)
            return False
        if self._deadline:
            self._deadline = 0.0
            self._set_timeout(socket.SO_RCVTIMEO, self.server.limits["idle_s"])
        environ = {**self._base, **head.environ, "wsgi.input": io.BytesIO(body)}
        if head.length is None:
            environ["CONTENT_LENGTH"] = str(len(body))
        goes_on = _Response(self.request, head, self.server).run(environ)
        # From here on the connection may be given up for a newer one.
        self.waiting_since = time.monotonic()
        return goes_on and not self.server.closing

    def _read_head(self) -> bytes | None:
        """The bytes of the next head, or None when the client ends the connection between two requests."""
        limit = int(self.server.limits["head_bytes"])
        buffer = self._buffer or self._receive(_CHUNK)
        if buffer[:2] == b"\r\n":
            # An empty line before a request is skipped, one. RFC 9112, 2.2
            buffer = buffer[2:]
        while True:
            end = buffer.find(b"\r\n\r\n", 0, limit)
            if end >= 0:
                self.waiting_since = 0.0
                self._buffer = buffer[end + 4 :]
                return buffer[:end]
            if len(buffer) >= limit:
                raise BadRequest("431 Request Header Fields Too Large", f"The head is larger than {limit} bytes")
            if not self._deadline:
                self._deadline = time.monotonic() + self.server.limits["head_s"]
            part = self._receive(_CHUNK)
            if not part:
                if buffer.strip():
                    raise BadRequest("400 Bad Request", "The head ends early")
                return None
            buffer += part

    def _read_body(self, head: Head) -> bytes:
        if head.length == 0:
            return b""
        limit = int(self.server.limits["body_bytes"])
        if head.length is not None and head.length > limit:
            raise BadRequest("413 Content Too Large", f"The body is larger than {limit} bytes")
        if head.length is None or len(self._buffer) < head.length:
            self._deadline = time.monotonic() + self.server.limits["body_s"]
            if head.continues:
                self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.length is None:
            body, self._buffer = read_chunked(self._buffer, limit, self._receive)
        else:
            body, self._buffer = read_exactly(self._buffer, head.length, self._receive)
        return body

    def _refuse(self, problem: BadRequest) -> None:
        """Answer a request that cannot be served, and let the client read the answer before the connection closes."""
        text = str(problem).encode("ascii", "replace")
        head = (
            f"HTTP/1.1 {problem.status}\r\nServer: minimcp\r\nDate: {_date()}\r\nConnection: close\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        try:
            self.request.sendall(head.encode("ascii") + text)
            self.request.shutdown(socket.SHUT_WR)
            # Closing with input unread would reset the connection, and could take the answer away.
            self._set_timeout(socket.SO_RCVTIMEO, _LINGER_S / 2)
            until, read = time.monotonic() + _LINGER_S, 0
            while read < (1 << 20) and time.monotonic() < until:
                part = self.request.recv(_CHUNK)
                if not part:
                    break
                read += len(part)
        except OSError:
            pass

    def give_up(self) -> None:
        """End the connection, from any thread."""
        try:
            self.request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class _Response:
    """The application's answer to one request."""

    def __init__(self, connection: socket.socket, head: Head, server: EmbeddedServer) -> None:
        self._connection = connection
        self._server = server
        self._head_only = head.environ["REQUEST_METHOD"] == "HEAD"
        self._may_chunk = head.environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        self._keep_alive = head.keep_alive
        self._status = ""
        self._fields: list[tuple[str, str]] = []
        self._sent = False

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """The `start_response` of PEP 3333."""
        if exc_info is not None and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._fields = status, headers
        return self._write

    def _write(self, data: bytes) -> None:
        raise NotImplementedError("return the body as an iterable; write() is not offered")

    def run(self, environ: dict[str, Any]) -> bool:
        """Call the application, send what it returns, and say whether the connection can go on."""
        body: Optional[Iterable[bytes]] = None
        try:
            ticket = self._server.gate.enter()
            try:
                body = self._server.app(environ, self._start)
                if isinstance(body, list):
                    self._send_whole(b"".join(body) if len(body) > 1 else body[0] if body else b"")
                    return self._keep_alive
            finally:
                self._server.gate.leave(ticket)
            self._send_parts(body)
        except ClientGone:
            return False
        except Exception:
            # What is out already can only be cut off.
            log.exception("the application failed")
            self._keep_alive = False
            if not self._sent:
                self._status, self._fields = "500 Internal Server Error", []
                self._send_whole(b"")
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        return self._keep_alive

    def _send_whole(self, data: bytes) -> None:
        self._sized(len(data))
        if self._head_only:
            data = b""
        if len(data) < _CHUNK:
            self._send(self._head() + data)
        else:
            self._send(self._head())
            self._send(data)

    def _sized(self, length: int) -> None:
        """Add the Content-Length where there is none; an application's wrong one is its failure."""
        declared = [value for name, value in self._fields if name.lower() == "content-length"]
        if declared and declared != [str(length)] and not self._head_only:
            raise ValueError(f"the body has {length} bytes and its Content-Length is {declared}")
        if not declared and self._status[:3] not in ("204", "304"):
            self._fields = [*self._fields, ("Content-Length", str(length))]

    def _send_parts(self, body: Iterable[bytes]) -> None:
        """Send a body of unknown length, each part as it comes."""
        if any(name.lower() == "content-length" for name, _ in self._fields):
            self._send_whole(b"".join(body))
            return
        if self._may_chunk:
            self._fields = [*self._fields, ("Transfer-Encoding", "chunked")]
        else:
            self._keep_alive = False
        for data in body:
            head = b"" if self._sent else self._head()
            if self._head_only or not data:
                data = b""
            elif self._may_chunk:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            self._send(head + data)
        ending = b"0\r\n\r\n" if self._may_chunk and not self._head_only else b""
        self._send((b"" if self._sent else self._head()) + ending)

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            raise ClientGone from None

    def _head(self) -> bytes:
        """Write the head; what could forge another header is a failure of the application."""
        if self._server.closing:
            self._keep_alive = False
        lines = [f"HTTP/1.1 {self._status}\r\nServer: minimcp\r\nDate: {_date()}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in self._fields]
        if not self._keep_alive:
            lines.append("Connection: close\r\n")
        text = "".join(lines)
        if not self._status or text.count("\n") != len(lines) + 2 or text.count("\r") != len(lines) + 2:
            raise ValueError("start_response was not called, or a header holds a line break")
        self._sent = True
        return f"{text}\r\n".encode("latin-1")


_dates: tuple[int, str] = (0, "")


def _date() -> str:
    """The value of the Date header, made once a second."""
    global _dates
    second, text = _dates
    now = int(time.time())
    if now != second:
        text = formatdate(now, usegmt=True)
        _dates = (now, text)
    return text


class EmbeddedServer(ThreadedWSGIServer):
    """The listening socket and its connections.

    :ivar port: the port it listens on, also when 0 was asked for.
    :ivar on_shutdown: functions to call when the server begins to close, so that streams end.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        tls: tuple[str, str] | None = None,
        limits: dict[str, float] | None = None,
    ) -> None:
        self.limits = {**LIMITS, **(limits or {})}
        self.tls: ssl.SSLContext | None = None
        if tls is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*tls)
        listening = _listen(host, port)
        try:
            super().__init__(host, listening.getsockname()[1], app, Handler, fd=listening.fileno())
        finally:
            listening.close()
        self.socket.listen(_BACKLOG)
        self.gate = Gate(int(self.limits["running"]))
        self.closing = False
        self.on_shutdown: list[Callable[[], None]] = []
        self._changed = threading.Condition()  # guards _connections
        self._connections: set[Handler] = set()
        self._complained = False

    @property
    def url(self) -> str:
        """The address as a URL without a path."""
        scheme = "http" if self.tls is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    def enter(self, connection: Handler) -> bool:
        """Count a connection; at the cap the one that has waited longest for a request makes room."""
        with self._changed:
            if len(self._connections) >= self.limits["connections"]:
                waiting = [other for other in self._connections if other.waiting_since]
                if not waiting:
                    return False
                oldest = min(waiting, key=lambda other: other.waiting_since)
                self._connections.discard(oldest)
                oldest.give_up()
            self._connections.add(connection)
            return True

    def leave(self, connection: Handler) -> None:
        """Stop counting a connection."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def get_request(self) -> Any:
        """Accept a connection; when the process has no descriptor left, pause instead of spinning."""
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                if not self._complained:
                    log.error("no file descriptor is left for another connection")
                self._complained = True
                time.sleep(0.1)
            raise
        self._complained = False
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            log.error("no thread is left for another connection")
            try:
                request.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except OSError:
                pass
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what ended a connection's thread."""
        log.error("a connection failed", exc_info=True)

    def close(self, grace_s: float = 5.0) -> None:
        """Stop accepting, end streams, let running requests finish for `grace_s` seconds, and close everything."""
        self.closing = True
        self.socket.close()
        for callback in self.on_shutdown:
            callback()
        until = time.monotonic() + grace_s
        with self._changed:
            while self._connections and time.monotonic() < until:
                for connection in self._connections:
                    if connection.waiting_since:
                        connection.give_up()
                self._changed.wait(0.2)
            for connection in self._connections:
                connection.give_up()


def _listen(host: str, port: int) -> socket.socket:
    """Make the listening socket.

    :raises OSError: with a sentence when the address cannot be had.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = "is in use; choose another" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise OSError(f"Port {port} on {host} {reason}") from None
    return listening


class _Stop(BaseException):
    """A signal asked the server to stop."""


def _stop(*_: Any) -> None:
    raise _Stop


def serve(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    tls: tuple[str, str] | None = None,
    limits: dict[str, float] | None = None,
    ready: Callable[[EmbeddedServer], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what runs; a second signal ends at once.

    :param tls: the paths of a certificate chain and its key.
    :param limits: overrides of `LIMITS`.
    :param ready: called once the server listens.
    """
    server = EmbeddedServer(app, host, port, tls, limits)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
    try:
        if ready is not None:
            ready(server)
        server.serve_forever()
    except (_Stop, KeyboardInterrupt):
        pass
    finally:
        try:
            server.close()
        except (_Stop, KeyboardInterrupt):
            os._exit(1)
