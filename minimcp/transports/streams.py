"""What flows out of a running call, and the WSGI iterables that carry it to the client as server-sent events."""

from __future__ import annotations

import errno
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ..protocol import sse
from ..protocol.wire import encode

Message = dict[str, Any]
# An encoded event, and whether it is the last one.
Event = tuple[bytes, bool]

# What a slow reader may leave unread before the sender waits, and what a legacy stream keeps for Last-Event-ID.
_QUEUE_LIMIT = 1000
_BYTES_LIMIT = 4 * 1024 * 1024


def gone(environ: Message) -> bool:
    """Say whether the client of a request has hung up, by a look at the socket that its server exposes.

    A client that only closed its sending side looks the same, and is taken as gone.
    """
    left = environ.get("waitress.client_disconnected")
    if left is not None:
        # Turns true only with waitress's channel_request_lookahead; otherwise a failed write tells.
        return bool(left())
    connection = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
    except (BlockingIOError, InterruptedError):
        return False
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK)
    except (AttributeError, ValueError):
        # TLS sockets cannot peek, and other servers expose other things: a failed write will tell.
        return False


class Exchange:
    """The messages of one call or stream: once, in order, to one reader.

    :param event: the name each event carries, if any.
    """

    def __init__(self, cancelled: threading.Event, event: str | None = None) -> None:
        self._event = event
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancelled = cancelled
        # Bytes put in and taken out; each side writes its own, so their difference needs no lock.
        self._put = 0
        self._taken = 0
        self.reply: Any = None

    def send(self, message: Message) -> None:
        """Pass a message on; a reader that is far behind makes the sender wait.

        :raises ValueError: when the message is not JSON.
        """
        data = sse.encode(encode(message), self._event)
        while self._full() and not self._cancelled.wait(0.01):
            pass
        self._put += len(data)
        self._queue.put((data, False))

    def offer(self, message: Message) -> None:
        """Pass a message on that may be lost: for a reader that is far behind it is dropped."""
        if not self._full():
            self.send(message)

    def _full(self) -> bool:
        return self._queue.qsize() >= _QUEUE_LIMIT or self._put - self._taken >= _BYTES_LIMIT

    def finish(self, reply: Any) -> None:
        """Pass the reply on, None when there is none."""
        self.reply = reply
        self._queue.put((b"", True))

    def take(self, timeout_s: float) -> list[Event]:
        """What has come since the last time, after waiting at most `timeout_s` seconds for something."""
        try:
            events = [self._queue.get(timeout=timeout_s)]
        except queue.Empty:
            return []
        while not self._queue.empty():
            events.append(self._queue.get())
        self._taken += sum(len(data) for data, _ in events)
        return events


class Log:
    """The events of one legacy stream, numbered and kept, so that a client can come back to where it left off.

    Spec: TRN-128 to TRN-136
    """

    def __init__(self, number: int, limit: int) -> None:
        self.number = number
        self._changed = threading.Condition()  # guards everything below
        self._events: deque[tuple[int, bytes]] = deque()
        self._limit = limit
        self._held = 0
        self._next = 1
        self.done = False
        # Raised to make whoever reads the log leave: the client has been told to come back.
        self._readers = 0
        self._retry_ms: int | None = None
        self.reply: Any = None
        # The number of the newest event that was handed to a reader.
        self.delivered = 0

    @property
    def newest(self) -> int:
        """The number of the newest event, 0 when there is none."""
        return self._next - 1

    def alone(self, ticket: int, timeout_s: float) -> bool:
        """Wait for something to happen, and say whether it was the end, with nothing before the reply."""
        with self._changed:
            self._changed.wait_for(lambda: self._left(ticket) or self._next > 1, timeout_s)
            return self.done and self._next - 1 == (self.reply is not None) and ticket == self._readers

    def send(self, message: Any) -> None:
        """Append a message."""
        data = encode(message)
        with self._changed:
            event = sse.encode(data, id=f"{self.number}-{self._next}")
            self._events.append((self._next, event))
            self._held += len(event)
            while len(self._events) > self._limit or (self._held > _BYTES_LIMIT and len(self._events) > 1):
                self._held -= len(self._events.popleft()[1])
            self._next += 1
            self._changed.notify_all()

    def finish(self, reply: Any = None) -> None:
        """Append the reply, if there is one, and end the stream."""
        with self._changed:
            if reply is not None:
                self.reply = reply
                self.send(reply)
            self.done = True
            self._changed.notify_all()

    def attach(self) -> int:
        """Become the reader; whoever read before leaves. Returns the ticket to `take` with."""
        with self._changed:
            self._readers += 1
            self._retry_ms = None
            self._changed.notify_all()
            return self._readers

    def detach(self, retry_ms: int | None = None) -> None:
        """Make the reader leave without ending the stream, telling it when to come back."""
        with self._changed:
            self._readers += 1
            self._retry_ms = retry_ms
            self._changed.notify_all()

    def take(self, ticket: int, after: int, timeout_s: float) -> tuple[list[tuple[int, bytes]], bool]:
        """The events after number `after`, and whether the reader must leave then."""
        with self._changed:
            if not self._left(ticket) and self._next - 1 <= after:
                self._changed.wait(timeout_s)
            events = [event for event in self._events if event[0] > after]
            if events:
                self.delivered = max(self.delivered, events[-1][0])
            if ticket != self._readers and self._retry_ms is not None:
                events.append((after, b"retry: %d\n\n" % self._retry_ms))
            return events, self._left(ticket)

    def _left(self, ticket: int) -> bool:
        return self.done or ticket != self._readers


class EventStream:
    """A WSGI iterable over a call's events; closing it early means that the client has gone.

    :param batches: yields bytes to send, empty bytes when it is time for a comment.
    :param on_close: called once, with whether the stream was sent to its end.
    """

    def __init__(self, batches: Iterator[bytes], environ: Message, on_close: Callable[[bool], None]) -> None:
        self._batches = batches
        self._environ = environ
        self._on_close: Callable[[bool], None] | None = on_close
        self._ended = False

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> bytes:
        try:
            data = next(self._batches)
        except StopIteration:
            self._ended = True
            self.close()
            raise
        if data:
            return data
        if gone(self._environ):
            self.close()
            raise StopIteration
        return sse.COMMENT

    def close(self) -> None:
        """Release what the stream holds; WSGI servers call it however the response ended."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self._ended)


def exchange_batches(exchange: Exchange, first: list[Event], keepalive_s: float) -> Iterator[bytes]:
    """The bytes of a modern stream, several events at a time when they come fast."""
    events = first
    while True:
        yield b"".join(event for event, _ in events)
        if events and events[-1][1]:
            if exchange.reply is not None:
                yield sse.encode(encode(exchange.reply))
            return
        events = exchange.take(keepalive_s)


def log_batches(
    log: Log, after: int, keepalive_s: float, until: float, prime: bytes = b"", ticket: int | None = None
) -> Iterator[bytes]:
    """The bytes of a legacy stream from event `after` on, until it ends, another reader comes or it is `until`."""
    ticket = log.attach() if ticket is None else ticket
    if prime:
        yield prime
    while True:
        left_s = until - time.monotonic()
        events, leave = log.take(ticket, after, max(0.0, min(keepalive_s, left_s)))
        if events:
            after = events[-1][0]
        if events or not leave:
            yield b"".join(data for _, data in events)
        if leave or left_s <= 0:
            return
