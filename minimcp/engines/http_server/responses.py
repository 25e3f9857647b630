"""Responses: checks what a WSGI application returns and sends it.

Spec: PEP 3333, RFC 9112 section 6
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any

from .framing import BadRequest, Head

log = logging.getLogger("minimcp")

_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
# Headers of one connection, which the server decides on and not the application.
_OURS = frozenset(["connection", "date", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade"])
_JOINED = 65_536  # bytes of a body up to which copying it behind its head is cheaper than sending twice
# A second, and the headers made in it; replaced whole.
_dated: tuple[int, str] = (0, "")


def _server_and_date() -> str:
    global _dated
    now = int(time.time())
    second, text = _dated
    if second != now:
        text = f"Server: minimcp\r\nDate: {formatdate(now, usegmt=True)}\r\n"
        _dated = (now, text)
    return text


def refusal(status: int, message: str, with_body: bool = True) -> bytes:
    """Return an error response, which ends the connection."""
    body = message.encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{_server_and_date()}Connection: close\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + (body if with_body else b"")


class Gone(Exception):
    """Sending failed; a class of its own, since an application may raise OSError, too."""


class ResponseWriter:
    """Sends the response to one request.

    :param send: sends bytes, or raises OSError.
    :param returned: called when the application has returned; it may refuse the request with BadRequest.
    :param before_stream: called before a response of unknown length is sent, which may take any time.
    :ivar close: whether the connection ends with this response.
    """

    __slots__ = (
        "close",
        "_before_stream",
        "_chunked",
        "_fields",
        "_left",
        "_request",
        "_returned",
        "_send",
        "_sent",
        "_status",
    )

    def __init__(
        self,
        request: Head,
        close: bool,
        send: Callable[[bytes], Any],
        returned: Callable[[], None],
        before_stream: Callable[[], None],
    ) -> None:
        self.close = close
        self._request = request
        self._send = send
        self._returned = returned
        self._before_stream = before_stream
        self._status: str | None = None
        self._fields: list[tuple[str, str]] = []
        self._left: int | None = None  # how much of a declared length is still to be sent
        self._chunked = False
        self._sent = False  # whether the head is sent

    def start(self, status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """Implement `start_response` of PEP 3333."""
        if exc_info is not None:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._status is not None:
            raise RuntimeError("start_response was called twice")
        self._status, self._fields = status, fields
        return self._write

    def run(self, application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call the application and send its response.

        :raises Gone: when the client has closed the connection.
        """
        result: Any = None
        try:
            result = application(environ, self.start)
            self._returned()
            if type(result) is list and not self._sent:
                self._send_whole(result[0] if len(result) == 1 else b"".join(result))
            else:
                self._send_parts(result)
        except Gone:
            raise
        except BaseException as error:
            self._fail(error)
        finally:
            if type(result) is not list and hasattr(result, "close"):
                try:
                    result.close()
                except BaseException as error:
                    self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Send an error for a body that is refused or an application that raised, or cut off what has begun."""
        status, message = 500, "The server failed to answer"
        if isinstance(error, BadRequest):
            status, message = error.status, str(error)
        else:
            log.exception("%s %.200r failed", self._request.method, self._request.environ["PATH_INFO"])
        self.close = True
        if not self._sent:
            self._sent = True
            self._deliver(refusal(status, message, self._request.method != "HEAD"))

    def _head(self, length: int | None) -> bytes:
        """Return the head.

        :param length: the length of the body in bytes, if it is known.
        """
        status = self._status
        if status is None:
            raise RuntimeError("the application did not call start_response")
        lines = [f"HTTP/1.1 {status}\r\n"]
        declared: str | None = None
        for name, value in self._fields:
            low = name.lower()
            if low == "content-length":
                declared = value
            elif low not in _OURS:
                lines.append(f"{name}: {value}\r\n")
            elif low == "connection" and value.lower() == "close":
                self.close = True
        if declared is not None:
            if not (declared.isascii() and declared.isdigit()):
                raise ValueError(f"Content-Length is {declared!r}")
            if length not in (None, int(declared)) and self._request.method != "HEAD":
                raise ValueError(f"the body has {length} bytes, its Content-Length is {declared}")
            length = int(declared)
        if status.startswith(("1", "204", "304")):
            self._left = 0
        elif length is not None:
            self._left = length
            lines.append(f"Content-Length: {length}\r\n")
        elif self._request.environ["SERVER_PROTOCOL"] == "HTTP/1.1":
            self._chunked = self._request.method != "HEAD"
            lines.append("Transfer-Encoding: chunked\r\n")
        else:
            self.close = True
        if self.close:
            lines.append("Connection: close\r\n")
        text = "".join(lines)
        # Nothing in a status or a header may end its line early, and so begin another header.
        if not len(lines) == text.count("\r") == text.count("\n") or "\0" in text:
            raise ValueError("a status or header holds a line break or NUL")
        if not (status[:3].isdigit() and status[3:4] in (" ", "")):
            raise ValueError("the status is not a three-digit code and a reason")
        return f"{text}{_server_and_date()}\r\n".encode("latin-1")

    def _send_whole(self, body: bytes) -> None:
        head = self._head(len(body))
        self._sent = True
        if self._request.method == "HEAD" or not self._left:
            self._deliver(head)
        elif len(body) <= _JOINED:
            self._deliver(head + body)
        else:
            self._deliver(head)
            self._deliver(body)

    def _send_parts(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            self._write(part)
        if not self._sent:
            self._send_whole(b"")
        elif self._chunked:
            self._deliver(b"0\r\n\r\n")
        elif self._left and self._request.method != "HEAD":
            log.error("a response ended before its Content-Length")
            self.close = True

    def _write(self, data: bytes) -> None:
        """Send a part of the body, after the head if that is not sent yet."""
        head = b""
        if not self._sent:
            if not data:
                return
            head = self._head(None)
            self._sent = True
            if self._left is None:
                self._before_stream()
        if self._request.method == "HEAD":
            data = b""
        elif self._left is not None:
            if len(data) > self._left:
                log.error("a response goes on after its Content-Length")
                self.close = True
                data = data[: self._left]
            self._left -= len(data)
        elif self._chunked and data:
            head, data = b"", b"%b%x\r\n%b\r\n" % (head, len(data), data)
        if head or data:
            self._deliver(head + data)

    def _deliver(self, data: bytes) -> None:
        try:
            self._send(data)
        except OSError as error:
            raise Gone from error
