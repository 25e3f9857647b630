"""The request handler of the embedded server: serves one connection on its own thread until one side ends it."""

from __future__ import annotations

import functools
import io
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional

from werkzeug.serving import WSGIRequestHandler

from . import framing
from .certificates import client_environ
from .framing import BadRequest, Head
from .gate import Ticket
from .responses import Gone, ResponseWriter, refusal

_CHUNK = 64 * 1024
_PIECE = 256 * 1024  # sent at once to a client that is slow to read
_PART_BYTES = 64  # what a part of a body costs beside its bytes
_LINGER_S = 2.0
_LINGER_BYTES = 16 * 1024 * 1024
_KERNEL_TIMEOUTS = os.name == "posix"
_CLOSED: int = getattr(select, "POLLRDHUP", 0)


class RawPeek:
    """A read-only view of a TLS connection, with which an application detects that the client has hung up."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._connection.fileno()

    def recv(self, size: int, flags: int) -> bytes:
        """Return bytes, still encrypted, without consuming them or waiting for them.

        :raises BlockingIOError: when there are none.
        :raises ValueError: for flags without MSG_PEEK.
        """
        if not flags & socket.MSG_PEEK:
            raise ValueError("The bytes of a TLS connection can only be peeked at")
        # MSG_DONTWAIT alone would not do: a socket with a timeout waits before it asks the system.
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN | _CLOSED)
        found = poll.poll(0)
        if not found:
            raise BlockingIOError("There are no bytes to look at")
        if found[0][1] & _CLOSED:
            # The bytes that are left end the TLS session.
            return b""
        return socket.socket.recv(self._connection, size, flags)


class LateBody:
    """The body of a request that has not arrived with its head: a file that is filled when it is first used.

    So an application that refuses a request for its head refuses it before its body costs anything.

    :param read: returns the whole body.
    :param skippable: whether it is small enough to be read and dropped where nobody asks for it.
    :ivar problem: the reason why it could not be read.
    """

    def __init__(self, read: Callable[[], bytes], skippable: bool) -> None:
        self._read = read
        self.skippable = skippable
        self._file: Optional[io.BytesIO] = None
        self.problem: Optional[BadRequest] = None

    @property
    def has_arrived(self) -> bool:
        """Say whether the whole body was read."""
        return self._file is not None

    def _open(self) -> io.BytesIO:
        if self.problem is not None:
            raise self.problem
        if self._file is None:
            try:
                self._file = io.BytesIO(self._read())
            except BadRequest as problem:
                self.problem = problem
                raise
        return self._file

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._open(), name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._open())

    def forget(self) -> bool:
        """Let go of a body that was read to its end, and say whether it was."""
        file = self._file
        if file is None or file.tell() < len(file.getbuffer()):
            return False
        self._file = io.BytesIO()
        return True


class ConnectionHandler(WSGIRequestHandler):
    """Serves the requests of one connection, on a thread of its own.

    :ivar server: the `WsgiServer`.
    :ivar arrived: when the connection came.
    :ivar sending_since: when the sending of a part of an answer began, 0 while none is sent.
    :ivar waiting_since: when the wait for the client began, 0 while the application runs.
    :ivar busy: whether a request has begun that is not answered yet.
    :ivar requests: how many have been answered.
    :ivar held: the bytes of its body that count, guarded by the lock of `Admission`.
    :ivar given_up: whether the connection was ended from another thread.
    """

    server: Any

    def setup(self) -> None:
        """Do nothing, since no file objects are used."""

    def finish(self) -> None:
        """Close the socket, which is not the accepted one under TLS, and make room for another connection."""
        self.request.close()
        self.server.admission.remove(self)

    def handle(self) -> None:
        """Serve requests until the client, a limit or an error ends the connection."""
        self._buffer = b""
        self._deadline = 0.0
        self._ticket = Ticket(self.server.gate)
        self._tls = False
        self._body: Optional[LateBody] = None
        self._response: Optional[ResponseWriter] = None
        self.requests = self.held = 0
        self.busy = self.given_up = False
        self.sending_since = 0.0
        self.arrived = self.waiting_since = time.monotonic()
        if not self.server.admission.add(self):
            self._turn_away()
            return
        try:
            self._open()
            while self._serve_one():
                pass
        except (OSError, Gone):
            pass  # The client is gone, or too slow.
        finally:
            self.server.gate.leave(self._ticket)

    def _open(self) -> None:
        limits, certificates = self.server.limits, self.server.certificates
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exposed: Any = self.request
        secured: dict[str, Any] = {}
        if certificates is not None:
            self.request.settimeout(limits["head_s"])
            self.request = certificates.context.wrap_socket(
                self.request, server_side=True, do_handshake_on_connect=False
            )
            self._tls = True
            if self.given_up:
                # Through the socket that was the connection's before.
                raise Gone
            self.request.do_handshake()
            exposed, secured = RawPeek(self.request), client_environ(self.request)
        elif _KERNEL_TIMEOUTS:
            self._set_timeout(socket.SO_SNDTIMEO, limits["send_s"])
        self._set_timeout(socket.SO_RCVTIMEO, limits["idle_s"])
        self._base = {
            **self.server.base_environ,
            **secured,
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
        server, ticket = self.server, self._ticket
        returned = ticket.end
        try:
            head = self._read_head()
            if head is None:
                return False
            length = head.length
            if length is not None and len(self._buffer) >= length:
                body: Any = io.BytesIO(self._buffer[:length])
                self._buffer = self._buffer[length:]
                if self._deadline:
                    self._end_deadline()
            elif length is None and not server.judges_heads:
                body = io.BytesIO(self._read_body(head))
            else:
                skippable = length is not None and length <= _CHUNK and not head.expects
                body = self._body = LateBody(functools.partial(self._read_body, head), skippable)
                returned = self._judge_body
        except BadRequest as problem:
            self._refuse(problem)
            return False
        if self._tls or not _KERNEL_TIMEOUTS:
            self._set_timeout(socket.SO_SNDTIMEO, server.limits["send_s"])
        environ = {**self._base, **head.environ, "wsgi.input": body}
        if length is None and type(body) is io.BytesIO:
            environ["CONTENT_LENGTH"] = str(len(body.getbuffer()))
        close = head.close or server.stopping or self.requests + 1 >= server.limits["requests"]
        response = self._response = ResponseWriter(head, close, self._send, returned, self._before_stream)
        ticket.begin(environ["PATH_INFO"])
        response.run(server.app, environ)
        self.requests += 1
        # From here on the connection is given up for a newer one before those that are being answered.
        self.busy = False
        self.waiting_since = time.monotonic()
        if self.held:
            server.admission.release(self)
        if self._body is not None:
            return self._end_body(head, response.close or server.stopping)
        if self._tls or not _KERNEL_TIMEOUTS:
            self._set_timeout(socket.SO_RCVTIMEO, server.limits["idle_s"])
        if not response.close and not server.stopping:
            return True
        if self._buffer:
            self._linger()
        return False

    def _before_stream(self) -> None:
        self.server.gate.leave(self._ticket)
        if self.held and self._body is not None and self._body.forget():
            self.server.admission.release(self)

    def _judge_body(self) -> None:
        """Decide, when the application has returned, what becomes of a body that had not arrived when it began.

        :raises BadRequest: when the application asked for it in vain, whatever it made of that.
        """
        self._ticket.end()
        body, response = self._body, self._response
        assert body is not None and response is not None
        if body.problem is not None:
            raise body.problem
        if not (body.has_arrived or body.skippable):
            response.close = True

    def _end_body(self, head: Head, close: bool) -> bool:
        """Drop a body that arrived late, or read a small one that nobody has asked for; return whether to go on."""
        body, self._body, self._response = self._body, None, None
        assert body is not None
        if close:
            if self._buffer or not body.has_arrived:
                self._linger()
            return False
        try:
            if not body.has_arrived:
                self._read_body(head)
        except BadRequest:
            return False
        self.waiting_since = time.monotonic()
        if self._tls or not _KERNEL_TIMEOUTS:
            self._set_timeout(socket.SO_RCVTIMEO, self.server.limits["idle_s"])
        return True

    def _read_head(self) -> Optional[Head]:
        """Read the next head; return None when the client ends the connection between two requests."""
        limits = self.server.limits
        limit = int(limits["head_bytes"])
        buffer = self._buffer or self._receive(_CHUNK)
        while True:
            end = buffer.find(b"\r\n\r\n", 0, limit) + 4
            if end > 3:
                self.busy = True
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
        """Read a body that has not arrived with its head; meanwhile the connection may be given up.

        :raises BadRequest: when it is malformed, too large or does not arrive.
        """
        length, limits = head.length, self.server.limits
        self.waiting_since = began = time.monotonic()
        self._deadline = began + limits["body_s"]
        try:
            if head.expects and not self._buffer:
                self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if length is None:
                limit = int(limits["body_bytes"])
                body, self._buffer = framing.read_chunked(self._buffer, limit, self._receive_held)
            else:
                receive = self._receive if length <= _CHUNK else self._receive_held
                body, self._buffer = framing.read_exactly(self._buffer, length, receive)
            return body
        except OSError:
            raise BadRequest(400, "The body ends early") from None
        finally:
            self._end_deadline()
            if self._tls or not _KERNEL_TIMEOUTS:
                self._set_timeout(socket.SO_SNDTIMEO, limits["send_s"])
            self._ticket.leave_out(time.monotonic() - began)
            self.waiting_since = 0.0

    def _receive_held(self, size: int) -> bytes:
        """Receive a part of a body that counts with the large ones."""
        data = self._receive(size)
        self.server.admission.hold(self, len(data) + _PART_BYTES, self._deadline)
        return data

    def _end_deadline(self) -> None:
        self._deadline = 0.0
        self._set_timeout(socket.SO_RCVTIMEO, self.server.limits["idle_s"])

    def _send(self, data: bytes) -> None:
        """Send bytes; while the client does not read them the connection may be given up.

        :raises OSError: when the client has gone, or reads too slowly.
        """
        self.sending_since = self.waiting_since = began = time.monotonic()
        sent = self.request.send(data)
        if sent < len(data):
            limits, rest = self.server.limits, memoryview(data)[sent:]
            until = began + limits["send_s"] + len(data) / limits["send_rate"]
            while rest:
                if time.monotonic() > until:
                    raise TimeoutError("The client reads too slowly")
                rest = rest[self.request.send(rest[:_PIECE]) :]
        self.sending_since = self.waiting_since = 0.0

    def _refuse(self, problem: BadRequest) -> None:
        """Send an error response for a request that cannot be served."""
        try:
            self.request.sendall(refusal(problem.status, str(problem)))
        except OSError:
            return
        self._linger()

    def _turn_away(self) -> None:
        """Refuse a connection for which there is no place, and keep few such until the client has read why."""
        try:
            if self.server.certificates is None:
                self.request.sendall(refusal(503, "There are too many connections; try again later"))
                if self.server.refusals.acquire(blocking=False):
                    try:
                        self._linger()
                    finally:
                        self.server.refusals.release()
        except OSError:
            pass

    def _linger(self) -> None:
        """Wait until the client has read the response: closing with input unread would reset the connection."""
        self.server.gate.leave(self._ticket)
        self.busy = False
        self.waiting_since = time.monotonic()
        until, left = self.waiting_since + _LINGER_S, _LINGER_BYTES
        try:
            if self._tls:
                self.request.settimeout(_LINGER_S)
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
        self.given_up = True
        try:
            # Not through a TLS socket, whose thread may be using it.
            socket.socket.shutdown(self.request, socket.SHUT_RDWR)
        except OSError:
            pass
