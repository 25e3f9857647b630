"""The base of every transport of the client: it carries messages, and has one exchange for each request.

`stdio`, `http`, `http_sse`, `memory` and `wsgi` are transports. A transport parses and frames; it knows no method, and
whatever the protocol means by a message is decided above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...engines.errors import ClientError, ConnectionLost

Message = dict[str, Any]
OnMessage = Callable[[Message], None]
# Called as `record(direction, message, **what the transport knows)`; see `engines.trace`.
Record = Callable[..., None]


class SessionExpired(ConnectionLost):
    """A legacy server no longer knows the session; the request was not run. Spec: TRN-149"""

    retry = "always"


class Exchange:
    """One request on its way: the messages that belong to it, in order, its response last.

    :ivar status: the HTTP status of the reply, once it is known, or None.
    :ivar paused_s: seconds so far in which credentials were fetched, perhaps by asking a person; they do not count.
    :ivar identity: a fingerprint of the credentials the request was sent with, "" for none.
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
        """Let go of the exchange: later messages are dropped, a response stream is closed. Never blocks."""


class Transport:
    """A way to a server. Opened once; after `close` it can be opened again unless the transport says otherwise.

    :ivar kind: "stdio", "http", "sse", "memory" or "wsgi", for traces and messages.
    :ivar closing_cancels: whether closing an exchange is how the server learns that it is cancelled.
    :ivar on_message: takes what belongs to no exchange (legacy requests and notifications of the server); it is called
        on a reader thread and returns at once.
    :ivar on_lost: takes the error when the connection is gone for good; called once, on any thread.
    :ivar record: takes every message for the trace, or None.
    """

    kind = "transport"
    closing_cancels = False
    # Whether an open transport is of use to a forked child; one that is a pipe to a process is not.
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

    def start(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> Exchange:
        """Send a request.

        :param headers: what HTTP is to send beside its own; other transports ignore them.
        :raises ClientError: when it could not be sent; `retry` is "always" if nothing left.
        """
        raise NotImplementedError

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
        """Hang up, end what was started, fail every exchange that is open. From any thread, any number of times."""


def _ignore(*_: Any) -> None:
    pass
