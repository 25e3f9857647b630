"""Queues and deadlines for the transports of a client."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from ...engines.bounds import weight
from ...engines.errors import ClientError, ConnectionLost, Timeout
from ...protocol import spec
from .transport import Exchange, Message

MOST_WAITING = 1000
MOST_WAITING_BYTES = 16 * 1024 * 1024  # beside the first
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")


class Mailbox:
    """A queue between threads.

    `queue.SimpleQueue.get`, up to Python 3.12, takes a timeout that has just passed for none and waits for ever.
    """

    __slots__ = ("_items", "_signal")

    def __init__(self) -> None:
        self._items: deque[tuple[Any, int]] = deque()  # with the bytes that each takes
        self._signal = threading.Lock()  # released when something was put; guards nothing
        self._signal.acquire()

    def put(self, item: Any) -> None:
        """Add an item; takes no lock that another thread may hold."""
        self._items.append((item, 0))
        self._wake()

    def offer(self, message: Message) -> None:
        """Add a message, unless too many wait, or too many bytes."""
        size = weight(message, MOST_WAITING_BYTES)
        waiting = list(self._items)
        if len(waiting) < MOST_WAITING and (
            not waiting or sum(each for _, each in waiting) + size <= MOST_WAITING_BYTES
        ):
            self._items.append((message, size))
            self._wake()

    def _wake(self) -> None:
        try:
            self._signal.release()
        except RuntimeError:
            pass  # It is released already.

    def get(self, timeout_s: float | None) -> Any:
        """Take the oldest item.

        :raises queue.Empty: when there is no item in time.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                item = self._items.popleft()[0]
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
    """An exchange whose messages are put by a reader thread; their number and bytes are bounded.

    :param forget: called by `close`.
    """

    __slots__ = ("_error", "_forget", "_messages")

    def __init__(self, forget: Callable[[], None]) -> None:
        self._messages = Mailbox()
        self._forget = forget
        self._error: ClientError | None = None

    def put(self, message: Message) -> None:
        """Add a message; beyond the bounds of `Mailbox.offer` all but responses are lost."""
        if "method" in message:
            self._messages.offer(message)
        else:
            self._messages.put(message)

    def ready(self) -> bool:
        """Say whether `receive` returns at once."""
        return len(self._messages) > 0

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

    def abort(self, error: ClientError) -> None:
        """End the exchange with an error; what arrived before is still received."""
        if self._error is None:
            self._error = error
            self._messages.put(None)

    def close(self) -> None:
        """Forget the exchange."""
        self._forget()


class Deadline:
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
        """Return the seconds until the next limit, never below zero; None for no limit."""
        nearest = self._quiet
        if nearest is None or (self._end is not None and self._end < nearest):
            nearest = self._end
        return None if nearest is None else max(0.0, nearest - time.monotonic())

    def restart(self) -> None:
        """Start the shorter time again. Spec: BASE-140"""
        if self.timeout_s is not None:
            self._quiet = time.monotonic() + self.timeout_s

    def can_extend(self) -> bool:
        """Say whether the longer time is not up yet."""
        return self._end is None or time.monotonic() < self._end

    def extend(self, seconds: float) -> None:
        """Add seconds that do not count, since a person was asked."""
        self.restart()
        if self._end is not None:
            self._end += seconds


class Pending:
    """The open exchanges of a transport with one channel, by request id and by progress token."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _open and _streams
        self._open: dict[Any, Queued] = {}
        self._streams: set[Any] = set()  # the keys of listen streams among them
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
            if message["method"] == "subscriptions/listen":
                self._streams.add(key)
        return exchange

    def drop(self, key: Any) -> None:
        """Forget an exchange."""
        with self._lock:
            self._open.pop(key, None)
            self._streams.discard(key)

    def take(self, message: Message, request_id: Any = None) -> bool:
        """Give a message to the exchange it belongs to; False when it belongs to none.

        :param request_id: that of the request on whose stream it came, where the transport knows it.

        A response goes by its id with its JSON type, or by the text of a number where no request has a text for its id;
        progress by its token; what a listen stream says by the subscription. A log message, which names nothing,
        belongs to the only call, and so it comes before that one's response. Spec: BASE-006, TRN-019
        """
        if "method" not in message:
            key = _key(message.get("id"))
        else:
            key = _related(message) if request_id is None else _key(request_id)
        with self._lock:
            if key not in self._open and "method" not in message and all(kind is int for kind, _ in self._open):
                key = _number(key)
            exchange = self._open.get(key) if key is not None else None
            if exchange is None and message.get("method") == "notifications/message":
                calls = self._open.keys() - self._streams
                exchange = self._open[calls.pop()] if len(calls) == 1 else None
            if exchange is None:
                # A response that nobody waits for is late or made up: dropped, never given to another.
                return "method" not in message
            if "method" not in message:
                del self._open[key]
        exchange.put(message)
        return True

    def fail_alone(self, error: ClientError, meant: Callable[[Any], bool]) -> None:
        """End the exchange with an error if it is the only one.

        :param meant: `f(request id)` says whether the error is about it.
        """
        with self._lock:
            found = list(self._open.items())
        if len(found) == 1 and meant(found[0][0][1]):
            found[0][1].abort(error)

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
    """Turn a request id into a dict key that keeps 1, 1.0, true and "1" apart."""
    return (type(id), id) if isinstance(id, (int, str)) and not isinstance(id, bool) else None


def _number(key: Any) -> Any:
    """Turn the key of a text into that of the number it is of, or None."""
    return (int, int(key[1])) if key is not None and key[0] is str and _NUMBER.match(key[1]) else None


def _related(message: Message) -> Any:
    """Return the key of the exchange that a notification names, or None."""
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
