"""Responses as they come in over a socket: heads and bodies, bounded and by a deadline.

Every read takes a deadline, a `time.monotonic()` or None. One that has passed raises Timeout and loses nothing: the
same read can be made again.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from typing import Optional

from ..errors import ClientError, ConnectionLost, ProtocolError, Timeout

Headers = dict[str, str]
# By lower-case name: the name to send and the value.
Fields = dict[str, tuple[str, str]]

# What a client accepts by default.
LIMITS: dict[str, float] = {
    "head_bytes": 64 * 1024,  # status line and headers of a response
    "connect_s": 30,
    "idle_connections": 64,
    "idle_s": 60,  # after which a kept connection is not used again
}

_PIECE = 65536
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: |\Z)")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")
_LINE_BYTES = 4096  # a chunk's size with its extensions, or a trailer
_TRAILERS = 100
# How long to wait for the end of a stream whose last event was read, before its connection is given up.
_END_S = 0.01


class AnyResponse:
    """A response, whatever it is read from; read by one thread, shut down by any.

    :ivar status: 0 until `head` has returned.
    :ivar headers: by lower-case name.
    :ivar cookies: the values of Set-Cookie that are for the client to keep.
    :ivar finished: whether the body was read to its end.
    :ivar sent: the headers that were sent, where something may have changed those that were given, or None.
    :ivar paused_s: seconds that hooks took before the head was there.
    """

    status = 0
    headers: Headers
    cookies: Sequence[str] = ()
    finished = False
    sent: Optional[Fields] = None
    paused_s = 0.0

    def head(self, deadline: float | None) -> None:
        """Read the status and the headers, unless they are there already."""

    def read(self, deadline: float | None) -> bytes:
        """Return the next bytes of the body as soon as there are any, or b"" at its end."""
        raise NotImplementedError

    def drain(self) -> None:
        """Read what is left of the body, if it comes at once, so that its connection can be used again."""
        end = time.monotonic() + _END_S
        try:
            while not self.finished and self.read(end):
                pass
        except ClientError:
            pass

    def shutdown(self) -> None:
        """Make a thread that is reading come back at once, if that is possible."""

    def close(self) -> None:
        """Close the connection; nobody reads any more."""


class Response(AnyResponse):
    """A response as it comes in on a socket."""

    def __init__(self, sock: socket.socket, head_bytes: int, sent_method: str) -> None:
        self.sock = sock
        self.headers = {}
        self.cookies: list[str] = []
        self.kept_at = 0.0
        self._limit = self._left_bytes = head_bytes
        self._bodyless = sent_method == "HEAD"
        self._buffer = b""
        self._at = 0
        self._keep = False
        self._chunked = False
        # Bytes left of the body, or of the chunk; None until the connection ends.
        self._left: Optional[int] = 0
        self._after_chunk = False
        self._trailers = 0

    @property
    def reusable(self) -> bool:
        """Whether the connection is ready for another request."""
        return self.finished and self._keep and self._at == len(self._buffer)

    def head(self, deadline: float | None) -> None:
        """Read the status and the headers.

        :raises ConnectionLost: when the server closes the connection instead.
        :raises ProtocolError: for what is not HTTP/1, or is longer than the limit.
        """
        while not self.status:
            end = _HEAD_END.search(self._buffer)
            if end is None and len(self._buffer) <= self._left_bytes:
                if not self._fill(deadline):
                    raise ConnectionLost("The server closed the connection before it answered")
                continue
            if end is None or end.end() > self._left_bytes:
                raise ProtocolError(f"The head of the server's response is longer than {self._limit} bytes")
            self._left_bytes -= end.end()
            head, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
            self._parse(head)

    def _parse(self, head: bytes) -> None:
        lines = head.split(b"\n")
        found = _STATUS.match(lines[0].rstrip(b"\r"))
        if found is None:
            raise ProtocolError("The server does not answer in HTTP/1.1; is this the right port, and http or https?")
        status = int(found.group(2))
        if status < 200 and status != 101:
            return
        for line in lines[1:]:
            name, colon, value = line.decode("latin-1").partition(":")
            name, value = name.lower(), value.strip(" \t\r")
            if not colon or name != name.strip():
                raise ProtocolError("The server sent a malformed header line")
            if name == "set-cookie":
                self.cookies.append(value)
            elif name in self.headers:
                self.headers[name] += ", " + value
            else:
                self.headers[name] = value
        self._frame(status, found.group(1) == b"1")
        self.status = status

    def _frame(self, status: int, persistent: bool) -> None:
        """Find the end of the body."""
        tokens = {token.strip().lower() for token in self.headers.get("connection", "").split(",")}
        self._keep = "close" not in tokens if persistent else "keep-alive" in tokens
        coding = self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        if self._bodyless or status in (204, 304):
            self.finished = True
        elif coding:
            if coding != "chunked":
                raise ProtocolError(f"The server sent an unknown transfer encoding, {coding[:80]!r}")
            self._chunked = True
        elif length is not None:
            sizes = {part.strip() for part in length.split(",")}
            size = sizes.pop()
            if sizes or not (size.isascii() and size.isdigit()):
                raise ProtocolError(f"The server sent a malformed Content-Length, {length[:80]!r}")
            # A number of thousands of digits is no less refused, as too long.
            digits = size.lstrip("0")[:19] or "0"
            self._left = int(digits)
            self.finished = self._left == 0
        else:
            self._left = None
            self._keep = False

    def read(self, deadline: float | None) -> bytes:
        """Return the next bytes of the body as soon as there are any, or b"" at its end.

        :raises ConnectionLost: when the connection ends before the body does.
        """
        if self._chunked and not self._left and not self.finished:
            self._next_chunk(deadline)
        if self.finished:
            return b""
        if self._at == len(self._buffer) and not self._fill(deadline):
            if self._left is not None:
                raise ConnectionLost("The server closed the connection in the middle of its answer")
            self.finished = True
            return b""
        end = len(self._buffer) if self._left is None else min(len(self._buffer), self._at + self._left)
        data = self._buffer[self._at : end]
        self._at = end
        if self._left is not None:
            self._left -= len(data)
            if self._left == 0:
                self._after_chunk = self._chunked
                self.finished = not self._chunked
        return data

    def _next_chunk(self, deadline: float | None) -> None:
        """Read up to where the next chunk's data begin, or to the end of the body."""
        while not self._left and not self.finished:
            line = self._line(deadline)
            if self._trailers:
                self.finished = not line
                self._trailers += 1
                if self._trailers > _TRAILERS:
                    raise ProtocolError("The server sent too many trailers")
            elif self._after_chunk:
                if line:
                    raise ProtocolError("The server sent a chunk that is longer than it said")
                self._after_chunk = False
            else:
                size = line.partition(b";")[0].strip()
                if not _SIZE.match(size):
                    raise ProtocolError("The server sent a malformed chunk")
                self._left = int(size, 16)
                self._trailers = 0 if self._left else 1

    def _line(self, deadline: float | None) -> bytes:
        while True:
            end = self._buffer.find(b"\n", self._at)
            if end >= 0:
                line = self._buffer[self._at : end].rstrip(b"\r")
                self._at = end + 1
                return line
            if len(self._buffer) - self._at > _LINE_BYTES:
                raise ProtocolError("The server sent a malformed chunk")
            if not self._fill(deadline):
                raise ConnectionLost("The server closed the connection in the middle of its answer")

    def _fill(self, deadline: float | None) -> bool:
        """Wait for bytes and add them to the buffer; False at the end of the connection."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise Timeout("The server did not answer in time")
        try:
            self.sock.settimeout(left)
            data = self.sock.recv(_PIECE)
        except socket.timeout:
            raise Timeout("The server did not answer in time") from None
        except (OSError, ValueError, AttributeError) as problem:
            # The latter two are those of a TLS socket that another thread has shut down.
            raise ConnectionLost(f"The connection to the server broke: {problem}") from None
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        return bool(data)

    def shutdown(self) -> None:
        """Make a thread that is reading come back at once."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError):
            pass

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


def deadline_of(timeout_s: float | None) -> float | None:
    """Return when a timeout ends; what has already arrived is read even when there is no time."""
    return None if timeout_s is None else time.monotonic() + max(timeout_s, 0.001)


def seconds_left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, a little even when it has passed."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)
