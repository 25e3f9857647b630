"""The base of every transport of the client: it carries messages, and has one exchange for each request.

`stdio`, `http`, `http_sse`, `memory` and `wsgi` are transports. A transport parses and frames; it knows no method, and
whatever the protocol means by a message is decided above it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ...engines.errors import ClientError, ConnectionLost, ProtocolError
from ...protocol import wire

Message = dict[str, Any]
OnMessage = Callable[[Message], None]
# Called as `record(direction, message, **what the transport knows)`; see `engines.trace`.
Record = Callable[..., None]


class SessionExpired(ConnectionLost):
    """A legacy server no longer knows the session; the request was not run. Spec: TRN-149"""

    retry = "always"


class Exchange:
    """An open request: the messages that belong to it, in order, its response last.

    :ivar status: the HTTP status of the reply, once it is known, or None.
    :ivar identity: a fingerprint of all that the caller brought to the request, "" for nothing.
    :ivar paused_s: seconds so far in which credentials were fetched, perhaps by asking a person; they do not count.
    """

    status: int | None = None
    identity = ""
    paused_s = 0.0

    def receive(self, timeout_s: float | None) -> Message:
        """Return the next message: notifications and requests of the server first, the response last.

        :raises Timeout: when nothing came in time; it may be called again.
        :raises ClientError: when no response can come any more.
        """
        raise NotImplementedError

    def abort(self, error: ClientError) -> None:
        """Make `receive` raise this error, now and from then on; called from any thread."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop later messages of the exchange and close a response stream, without blocking."""


class Transport:
    """A connection to a server. It is opened once; after `close` it can be opened again, unless a subclass forbids it.

    :ivar kind: "stdio", "http", "sse", "memory" or "wsgi", for traces and messages.
    :ivar closing_cancels: whether the server takes the closing of an exchange as its cancellation.
    :ivar on_message: takes messages that belong to no exchange (legacy requests and notifications of the server); it
        is called on a reader thread and returns at once.
    :ivar on_lost: takes the error when the connection is gone for good; called once, on any thread.
    :ivar record: takes every message for the trace, or None.
    """

    kind = "transport"
    closing_cancels = False
    # Whether a forked child can use an open transport; it cannot use a pipe to a process.
    survives_fork = False

    def __init__(self) -> None:
        self.on_message: OnMessage = _ignore
        self.on_lost: Callable[[ClientError], None] = _ignore
        self.record: Record | None = None
        self.version: str | None = None

    def open(self, timeout_s: float) -> None:
        """Connect, or start the process; one that is open stays as it is.

        :raises ClientError: when that fails.
        """

    def doubt(self) -> str:
        """Return why what is at the other end may be no server at all, or "", for a message."""
        return ""

    def start(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> Exchange:
        """Send a request.

        :param headers: headers for HTTP beside its own; other transports ignore them.
        :raises ClientError: when it could not be sent; `retry` is "always" if nothing left.
        """
        raise NotImplementedError

    def identity(self) -> str | None:
        """Return a fingerprint of all that the caller would bring to a request now, "" for nothing.

        None before the first request of a connection: until then credentials may not be what they will be.
        """
        return ""

    def send(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> None:
        """Send a notification or a response.

        :raises ClientError: when it could not be sent.
        """
        raise NotImplementedError

    def settle(self, version: str) -> None:
        """Take note of the negotiated revision; legacy HTTP names it in a header from then on. Spec: TRN-156"""
        self.version = version

    def listen(self) -> None:
        """Legacy: make sure that messages of the server's own accord arrive, if that needs a stream of its own."""

    def close(self) -> None:
        """Close the connection and fail every open exchange; any thread may call it, any number of times."""


def written(message: Message) -> bytes:
    """Return a message as one line of JSON.

    :raises ProtocolError: when it has something that JSON has not, such as NaN.
    """
    try:
        return wire.dumps(message)
    except ValueError as problem:
        raise ProtocolError(f"The message cannot be written as JSON: {problem}") from None


def begin(thread: threading.Thread) -> None:
    """Start a thread.

    :raises ConnectionLost: when the system has none to give.
    """
    try:
        thread.start()
    except RuntimeError as problem:
        raise ConnectionLost(f"No thread could be started for the connection: {problem}", "always") from None


def _ignore(*_: Any) -> None:
    pass
