"""The request handler of the embedded server: serves one connection on its own thread until one side ends it."""

from __future__ import annotations

import io
import os
import select
import socket
import struct
import time
from typing import Any, Optional

from werkzeug.serving import WSGIRequestHandler

from . import framing
from .framing import BadRequest, Head
from .gate import Ticket
from .responses import Gone, ResponseWriter, refusal

_CHUNK = 64 * 1024
_LINGER_S = 2.0
_LINGER_BYTES = 16 * 1024 * 1024
_KERNEL_TIMEOUTS = os.name == "posix"


class RawPeek:
    """A read-only view of a TLS connection, with which an application detects that the client has hung up."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def recv(self, size: int, flags: int) -> bytes:
        """Return bytes, still encrypted, without consuming them or waiting for them.

        :raises BlockingIOError: when there are none.
        :raises ValueError: for flags without MSG_PEEK.
        """
        if not flags & socket.MSG_PEEK:
            raise ValueError("The bytes of a TLS connection can only be peeked at")
        # MSG_DONTWAIT alone would not do: a socket with a timeout waits before it asks the system.
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        if not poll.poll(0):
            raise BlockingIOError("There are no bytes to look at")
        return socket.socket.recv(self._connection, size, flags)


class ConnectionHandler(WSGIRequestHandler):
    """Serves the requests of one connection, on a thread of its own.

    :ivar server: the `WsgiServer`.
    :ivar waiting_since: when the wait for a request began, 0 while one is being served.
    :ivar requests: how many have been served.
    """

    server: Any

    def setup(self) -> None:
        """Do nothing, since no file objects are used."""

    def finish(self) -> None:
        """Close the socket, which is not the accepted one under TLS."""
        self.request.close()

    def handle(self) -> None:
        """Serve requests until the client, a limit or an error ends the connection."""
        self._buffer = b""
        self._deadline = 0.0
        self._ticket = Ticket(self.server.gate)
        self._tls = False
        self.requests = 0
        self.waiting_since = time.monotonic()
        if not self.server.add(self):
            self._refuse(BadRequest(503, "There are too many connections; try again later"))
            return
        try:
            self._open()
            while self._serve_one():
                pass
        except (OSError, Gone):
            pass  # The client is gone, or too slow.
        finally:
            self.server.gate.leave(self._ticket)
            self.server.remove(self)

    def _open(self) -> None:
        limits, context = self.server.limits, self.server.ssl_context
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exposed: Any = self.request
        if context is not None:
            self.request.settimeout(limits["head_s"])
            self.request = context.wrap_socket(self.request, server_side=True)
            self._tls = True
            exposed = RawPeek(self.request)
        elif _KERNEL_TIMEOUTS:
            self._set_timeout(socket.SO_SNDTIMEO, limits["send_s"])
        self._set_timeout(socket.SO_RCVTIMEO, limits["idle_s"])
        self._base = {
            **self.server.base_environ,
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_PORT": str(self.client_address[1]),
            "werkzeug.socket": exposed,
            "minimcp.work": self._ticket,
        }

    def _set_timeout(self, which: int, seconds: float) -> None:
        if self._tls or not _KERNEL_TIMEOUTS:
            self.request.settimeout(seconds)
        else:
            # The kernel's own timeouts: Python's would cost a poll, and a turn of the interpreter lock, at every call.
            timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
            self.request.setsockopt(socket.SOL_SOCKET, which, timeval)

    def _receive(self, size: int) -> bytes:
        """Receive bytes without holding a permit, within `_deadline`, or the idle timeout if there is none."""
        gate, ticket = self.server.gate, self._ticket
        gate.leave(ticket)
        if self._deadline:
            self._set_timeout(socket.SO_RCVTIMEO, max(self._deadline - time.monotonic(), 0.001))
        try:
            data: bytes = self.request.recv(size)
        except (BlockingIOError, TimeoutError, socket.timeout):
            if not self._deadline:
                raise
            raise BadRequest(408, "The request took too long to arrive") from None
        gate.enter(ticket)
        return data

    def _serve_one(self) -> bool:
        """Serve one request; return whether another may follow."""
        server = self.server
        try:
            head = self._read_head()
            if head is None:
                return False
            body = self._read_body(head)
        except BadRequest as problem:
            self._refuse(problem)
            return False
        if self._deadline:
            self._deadline = 0.0
            self._set_timeout(socket.SO_RCVTIMEO, server.limits["idle_s"])
        self.requests += 1
        if self._tls or not _KERNEL_TIMEOUTS:
            self._set_timeout(socket.SO_SNDTIMEO, server.limits["send_s"])
        environ = {**self._base, **head.environ, "wsgi.input": io.BytesIO(body)}
        if head.length is None:
            environ["CONTENT_LENGTH"] = str(len(body))
        close = head.close or server.stopping or self.requests >= server.limits["requests"]
        ticket = self._ticket
        response = ResponseWriter(head, close, self.request.sendall, ticket.end, self._before_stream)
        ticket.begin(environ["PATH_INFO"])
        response.run(server.app, environ)
        if self._tls or not _KERNEL_TIMEOUTS:
            self._set_timeout(socket.SO_RCVTIMEO, server.limits["idle_s"])
        # From here on the connection may be given up for a newer one.
        self.waiting_since = time.monotonic()
        if not response.close and not server.stopping:
            return True
        if self._buffer:
            self._linger()
        return False

    def _before_stream(self) -> None:
        self.server.gate.leave(self._ticket)

    def _read_head(self) -> Optional[Head]:
        """Read the next head; return None when the client ends the connection between two requests."""
        limits = self.server.limits
        limit = int(limits["head_bytes"])
        buffer = self._buffer or self._receive(_CHUNK)
        while True:
            end = buffer.find(b"\r\n\r\n", 0, limit) + 4
            if end > 3:
                self.waiting_since = 0.0
                self._buffer = buffer[end:]
                return framing.take_head(buffer[:end], limits, self.server.known_heads)
            if not buffer:
                return None
            framing.check_part(buffer, limits)
            if not self._deadline:
                self._deadline = time.monotonic() + limits["head_s"]
            part = self._receive(_CHUNK)
            if not part:
                return None
            buffer += part

    def _read_body(self, head: Head) -> bytes:
        length, limits = head.length, self.server.limits
        if length is not None and len(self._buffer) >= length:
            body, self._buffer = self._buffer[:length], self._buffer[length:]
            return body
        self._deadline = time.monotonic() + limits["body_s"]
        if head.expects and not self._buffer:
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length is None:
            body, self._buffer = framing.read_chunked(self._buffer, int(limits["body_bytes"]), self._receive)
        else:
            body, self._buffer = framing.read_exactly(self._buffer, length, self._receive)
        return body

    def _refuse(self, problem: BadRequest) -> None:
        """Send an error response for a request that cannot be served."""
        try:
            self.request.sendall(refusal(problem.status, str(problem)))
        except OSError:
            return
        self._linger()

    def _linger(self) -> None:
        """Wait until the client has read the response: closing with input unread would reset the connection."""
        self.server.gate.leave(self._ticket)
        until, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
        try:
            if self._tls:
                self.request = self.request.unwrap()
                self._tls = False
            self.request.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < until:
                self._set_timeout(socket.SO_RCVTIMEO, max(until - time.monotonic(), 0.001))
                part = self.request.recv(_CHUNK)
                if not part:
                    break
                left -= len(part)
        except (OSError, ValueError):
            pass

    def give_up(self) -> None:
        """End the connection, from any thread."""
        try:
            # Not through a TLS socket, whose thread may be using it.
            socket.socket.shutdown(self.request, socket.SHUT_RDWR)
        except OSError:
            pass
