"""The base of every transport of the client: it carries messages, and has one exchange for each request.

`stdio`, `http`, `http_sse`, `memory` and `wsgi` are transports. A transport parses and frames; it knows no method, and
whatever the protocol means by a message is decided above it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Optional

from ...engines.errors import ClientError, ConnectionLost, Timeout
from ...protocol import spec

Message = dict[str, Any]
# Yields what arrives before the result, and returns the result.
Steps = Generator[Message, None, Any]
OnMessage = Callable[[Message], None]
# Called as `record(direction, message, **what the transport knows)`; see `engines.trace`.
Record = Callable[..., None]

MOST_WAITING = 1000


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


class Mailbox:
    """A queue between threads. That of the standard library may wait for ever where there is little time left.

    `queue.SimpleQueue.get`, up to Python 3.12, takes a timeout that has just passed for none at all.
    """

    __slots__ = ("_items", "_signal")

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._signal = threading.Lock()  # released when something was put; guards nothing
        self._signal.acquire()

    def put(self, item: Any) -> None:
        """Add something."""
        self._items.append(item)
        self._wake()

    def _wake(self) -> None:
        try:
            self._signal.release()
        except RuntimeError:
            pass  # It is released already.

    def get(self, timeout_s: float | None) -> Any:
        """Take the oldest thing in it.

        :raises queue.Empty: when there is none in time.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                left = -1 if end is None else end - time.monotonic()
                if end is not None and left <= 0:
                    raise queue.Empty from None
                self._signal.acquire(timeout=left)
                continue
            if self._items:
                self._wake()  # for the next one that waits
            return item

    def __len__(self) -> int:
        return len(self._items)


class Queued(Exchange):
    """An exchange whose messages are put by a reader thread; at most `MOST_WAITING` of them wait.

    :param forget: called by `close`.
    """

    __slots__ = ("_error", "_forget", "_messages")

    def __init__(self, forget: Callable[[], None]) -> None:
        self._messages = Mailbox()
        self._forget = forget
        self._error: ClientError | None = None

    def put(self, message: Message) -> None:
        """Give the exchange a message; a flood of notifications loses those that nobody takes in time."""
        if "method" not in message or "id" in message or len(self._messages) < MOST_WAITING:
            self._messages.put(message)

    def receive(self, timeout_s: float | None) -> Message:
        """Return the next message, or raise; see `Exchange`."""
        try:
            message: Optional[Message] = self._messages.get(timeout_s)
        except queue.Empty:
            raise Timeout("The server did not answer in time") from None
        if message is None:
            self._messages.put(None)
            raise self._error or ConnectionLost("The connection is closed")
        return message

    def ready(self) -> bool:
        """Whether `receive` returns or raises at once."""
        return len(self._messages) > 0

    def abort(self, error: ClientError) -> None:
        """End the exchange with an error; what arrived before is still received."""
        if self._error is None:
            self._error = error
            self._messages.put(None)

    def close(self) -> None:
        """Forget the exchange."""
        self._forget()


class Clock:
    """The time a request has left: `timeout_s` since the last sign of life, `max_timeout_s` in all.

    Spec: BASE-138, BASE-141
    """

    __slots__ = ("_end", "_quiet", "timeout_s")

    def __init__(self, timeout_s: float | None, max_timeout_s: float | None) -> None:
        now = time.monotonic()
        self.timeout_s = timeout_s
        self._quiet = None if timeout_s is None else now + timeout_s
        self._end = None if max_timeout_s is None else now + max_timeout_s

    def left(self) -> float | None:
        """Seconds until the next limit, never below zero; None for no limit."""
        nearest = self._quiet
        if nearest is None or (self._end is not None and self._end < nearest):
            nearest = self._end
        return None if nearest is None else max(0.0, nearest - time.monotonic())

    def progress(self) -> None:
        """Start the shorter time anew. Spec: BASE-140"""
        if self.timeout_s is not None:
            self._quiet = time.monotonic() + self.timeout_s

    def extendable(self) -> bool:
        """Whether the longer time is not up yet."""
        return self._end is None or time.monotonic() < self._end

    def stop(self, seconds: float) -> None:
        """Do not count these seconds, in which a person was asked."""
        self.progress()
        if self._end is not None:
            self._end += seconds


class Pending:
    """The open exchanges of a transport with one channel, by request id and by progress token."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _open
        self._open: dict[Any, Queued] = {}
        self._gone: ClientError | None = None

    def add(self, message: Message) -> Queued:
        """Make the exchange of a request that is about to be sent.

        :raises ClientError: when the connection is already gone.
        """
        key = _key(message["id"])
        exchange = Queued(lambda: self.drop(key))
        with self._lock:
            if self._gone is not None:
                raise self._gone
            self._open[key] = exchange
        return exchange

    def drop(self, key: Any) -> None:
        """Forget an exchange."""
        with self._lock:
            self._open.pop(key, None)

    def take(self, message: Message) -> bool:
        """Give a message to the exchange it belongs to; False when it belongs to none.

        A response goes by its id with its JSON type; progress by its token; what a listen stream says by the
        subscription. Spec: BASE-006, TRN-019
        """
        if "method" not in message:
            key = _key(message.get("id"))
        else:
            key = _related(message)
        with self._lock:
            exchange = self._open.get(key) if key is not None else None
            if exchange is None:
                # A response that nobody waits for is late or made up: dropped, never given to another.
                return "method" not in message
            if "method" not in message:
                del self._open[key]
        exchange.put(message)
        return True

    def fail(self, error: ClientError, for_good: bool = True) -> None:
        """End every exchange with an error, and with `for_good` refuse new ones."""
        with self._lock:
            waiting, self._open = list(self._open.values()), {}
            if for_good:
                self._gone = error
        for exchange in waiting:
            exchange.abort(error)

    def __len__(self) -> int:
        return len(self._open)


def _key(id: Any) -> Any:
    """A request id as a dict key that keeps 1, 1.0, true and "1" apart."""
    return (type(id), id) if isinstance(id, (int, str)) and not isinstance(id, bool) else None


def _related(message: Message) -> Any:
    """The key of the exchange a notification belongs to, if it says so."""
    params = message.get("params")
    if not isinstance(params, dict) or "id" in message:
        return None
    if message["method"] == "notifications/progress":
        return _key(params.get("progressToken"))
    meta = params.get("_meta")
    if isinstance(meta, dict) and spec.META_SUBSCRIPTION in meta:
        return _key(meta[spec.META_SUBSCRIPTION])
    if message["method"] == "notifications/cancelled":
        # A server ends a listen stream with it.
        return _key(params.get("requestId"))
    return None


def drain(steps: Steps, take: Callable[[Message], Any]) -> Any:
    """Exhaust an exchange, giving what arrives before the result to `take`, and return the result."""
    while True:
        try:
            take(next(steps))
        except StopIteration as stop:
            return stop.value
