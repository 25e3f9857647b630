"""The outbox: the messages of a running call or a session, until its reader has sent them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator

from ..engines.budget import Budget
from ..protocol import sse
from ..protocol.served import Message, Reply
from ..protocol.wire import encode

# The events and bytes that a slow reader may leave unread before the sender waits; the bytes that a numbered stream
# keeps for Last-Event-ID.
_QUEUE_LIMIT = 1000
_BYTES_LIMIT = 4 * 1024 * 1024
# The silence after which a client is watched, so that a call that is answered at once costs nothing.
BRIEF_S = 0.1
# A stream that runs takes the bytes that it keeps from their budget in steps of this many: most streams are short.
_COUNTED = 4096


def _held_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


class Outbox:
    """The messages of one call or session, on their way to the one reader that sends them as server-sent events.

    Without a number each event is read once, and a sender waits while the reader is far behind. With a number the
    events carry ids and are kept, so that a client can come back to where it left off; the oldest are dropped.
    Spec: TRN-128 to TRN-136

    :param event: the name that each event carries, if any.
    :param number: the stream's number.
    :param label: the beginning of the ids of its events, by default the number.
    :param limit: how many events are held.
    :param kept: the bytes that all numbered streams keep, and `kept_bytes` how many they may be.
    """

    # fmt: off
    __slots__ = (
        "__weakref__", "_begun", "_counted", "_event", "_events", "_kept", "_kept_bytes", "_left", "_limit", "_lock",
        "_notes", "_nudged", "_reader", "_retry_ms", "_room", "_signal", "delivered", "done", "held", "label", "newest",
        "number", "reply",
    )
    # fmt: on

    def __init__(
        self,
        event: str | None = None,
        number: int | None = None,
        limit: int = _QUEUE_LIMIT,
        kept: Budget | None = None,
        kept_bytes: float = math.inf,
        label: str | None = None,
    ) -> None:
        self.number = number
        self.label = str(number) if label is None else label
        self._event = event
        self._limit = limit
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._lock = threading.Lock()  # guards everything below
        self._room = threading.Condition(self._lock)  # notified when a sender need not wait any more
        self._events: deque[tuple[int, bytes]] = deque()
        self.held = 0  # the bytes of _events; others read it without the lock
        self._counted = 0  # those of them that were taken from _kept
        # Encoded notices that no reader has taken, by what they are about: a newer one takes the place of an older.
        self._notes: dict[object, bytes] = {}
        # The numbers of the newest event and of the newest that was handed to a reader; 0 stands for none.
        self.newest = 0
        self.delivered = 0
        self.done = False
        self.reply: Reply | None = None
        # The newest reader; those before it leave. A stream without a number has one, which need not attach.
        self._reader = 0
        self._left: float | None = None  # when the newest reader left
        self._begun = self._nudged = False
        self._signal = _held_lock()  # released when something has happened; waiting for it takes no other lock
        self._retry_ms: int | None = None

    def send(self, message: Reply) -> None:
        """Append a message; without a number, wait for room first, and drop it once the stream has ended.

        :raises ValueError: when the message is not JSON.
        """
        data = encode(message)
        with self._lock:
            if self.number is None and self._full():
                self._room.wait_for(lambda: self.done or not self._full())
            self._append(data)
        self._wake()

    def offer(self, message: Message) -> None:
        """Append a message that may be lost: it is dropped while the reader is far behind."""
        data = encode(message)
        with self._lock:
            if not self._full():
                self._append(data)
        self._wake()

    def note(self, key: object, data: bytes) -> None:
        """Tell the next reader an encoded message, unless a newer one under the same key comes before it."""
        with self._lock:
            if not self.done:
                self._notes[key] = data
        self._wake()

    def finish(self, reply: Reply | None = None) -> None:
        """End the stream with the reply, if there is one; a waiting sender returns."""
        with self._lock:
            if self.done:
                return
            self._append_notes()
            if self.number is None or self.newest == 0:
                # Where other events precede it, a numbered stream has it among its events alone.
                self.reply = reply
            if reply is not None and self.number is not None:
                self._append(encode(reply))
            self._count()
            self.done = True
            self._room.notify_all()
        self._wake()

    def _append_notes(self) -> None:
        for data in self._notes.values():
            self._append(data)
        self._notes.clear()

    def _append(self, data: bytes) -> None:
        if self.done:
            return
        self.newest += 1
        if self.number is None:
            event = sse.encode(data, self._event)
        else:
            event = sse.encode(data, self._event, f"{self.label}-{self.newest}")
        self._events.append((self.newest, event))
        if self._kept is None:
            self.held += len(event)
        else:
            self._hold(len(event))
        if self.number is not None:
            while len(self._events) > 1 and (
                len(self._events) > self._limit
                or self.held > _BYTES_LIMIT
                or (self._kept is not None and self._kept.used + self.held - self._counted > self._kept_bytes)
            ):
                self._hold(-len(self._events.popleft()[1]))

    def _hold(self, size: int) -> None:
        self.held += size
        if abs(self.held - self._counted) > _COUNTED:
            self._count()

    def _count(self) -> None:
        if self._kept is not None and self.held != self._counted:
            self._kept.take(self.held - self._counted)
            self._counted = self.held

    def forget(self) -> int:
        """Drop what is kept of a stream that has ended, and return its bytes."""
        with self._lock:
            size = self.held
            self._events.clear()
            self._hold(-size)
            self._count()
            self.reply = None
            return size

    def _full(self) -> bool:
        return len(self._events) >= self._limit or self.held >= _BYTES_LIMIT

    def attach(self) -> int:
        """Begin to read: return the reader's number for `take` and `batches`, and make the reader before leave."""
        with self._lock:
            before = self._signal
            # In this order: whoever sees the new signal sees that it must leave.
            self._reader += 1
            self._signal = _held_lock()
            self._retry_ms = self._left = None
            reader = self._reader
        if reader > 1:
            self._wake(before)
        return reader

    def detach(self, retry_ms: int | None = None) -> None:
        """Make the reader leave without ending the stream, and tell it when to come back."""
        with self._lock:
            self._reader += 1
            self._retry_ms = retry_ms
            self._left = time.monotonic()
        self._wake()

    def events(self) -> list[tuple[int, bytes]]:
        """Return the numbered events that are kept."""
        with self._lock:
            return list(self._events)

    def resume(self, reader: int) -> None:
        """Note that a reader that had left is back."""
        with self._lock:
            if reader == self._reader:
                self._left = None

    def hand_over(self, after: int | None) -> tuple[list[bytes], dict[object, bytes]]:
        """Make the reader leave, and return what it has not got, to be sent elsewhere: events and notices.

        :param after: the number of the newest event that it has got, where that is known.
        """
        with self._lock:
            after = self.delivered if after is None else after
            events = [event for number, event in self._events if number > after]
            notes, self._notes = self._notes, {}
            self.delivered = self.newest
            self._reader += 1
            self._retry_ms = self._left = None
        self._wake()
        return events, notes

    def leave(self, reader: int) -> bool:
        """Note that a reader has left, and say whether that leaves the stream without one."""
        with self._lock:
            if reader == self._reader:
                self._left = time.monotonic()
            return self._left is not None

    @property
    def read(self) -> bool:
        """Whether it has a reader, which may not have got to its end."""
        return self._left is None

    def unread_s(self) -> float:
        """Return for how many seconds nobody has read the stream."""
        left = self._left
        return 0.0 if left is None else time.monotonic() - left

    def wait(self, timeout_s: float) -> bool:
        """Wait until something has happened, and say whether it has; a nudge ends the wait, too."""
        if not self._begun:
            self._signal.acquire(timeout=timeout_s)
        return self._begun

    def nudge(self) -> None:
        """Make the reader look whether its client is still there, as it does after a silence."""
        self._nudged = True
        self._wake(begun=False)

    def _wake(self, signal: threading.Lock | None = None, begun: bool = True) -> None:
        # Not under the lock, which the reader takes as soon as it wakes.
        if begun:
            self._begun = True
        signal = signal or self._signal
        if signal.locked():
            try:
                signal.release()
            except RuntimeError:
                pass  # Another sender released it first.

    def only_reply(self, reader: int = 0) -> bool:
        """Say whether the stream has ended, with nothing before the reply."""
        with self._lock:
            before = self.newest if self.number is None or self.reply is None else self.newest - 1
            return self.done and before == 0 and not self._notes and reader == self._reader

    def take(self, after: int, timeout_s: float, reader: int = 0) -> tuple[list[tuple[int, bytes]], bool]:
        """Return the events after number `after`, and whether the reader must leave then."""
        signal, until = self._signal, time.monotonic() + timeout_s
        # Released before there was something new, the signal is waited for again.
        while self.newest <= after and not self._notes and not self._nudged and not self._over(reader):
            if not signal.acquire(timeout=max(0.0, until - time.monotonic())):
                break
        self._nudged = False
        with self._lock:
            if reader != self._reader and self._left is None:
                # Another reader has come, and has what this one did not take.
                return [], True
            self._append_notes()
            events = [event for event in self._events if event[0] > after]
            if events:
                self.delivered = max(self.delivered, events[-1][0])
                if self.number is not None:
                    self.reply = None
                else:
                    if self._full():
                        self._room.notify_all()
                    self._events.clear()
                    self._hold(-self.held)
            if reader != self._reader and self._retry_ms is not None:
                events.append((after, b"retry: %d\n\n" % self._retry_ms))
            return events, self._over(reader)

    def _over(self, reader: int) -> bool:
        return self.done or reader != self._reader

    def batches(
        self,
        after: int,
        keepalive_s: float,
        until: float = math.inf,
        first: bytes = b"",
        reader: int = 0,
        late: Reply | None = None,
    ) -> Iterator[bytes]:
        """Yield the bytes from event `after` on, until the stream ends, another reader comes or it is `until`.

        Several events that come fast are one piece; an empty piece stands for `keepalive_s` seconds of silence, the
        first one for a moment of it.

        :param late: the reply with which the stream ends at `until`, where it has none by then.
        """
        if first:
            yield first
        idle_s = min(BRIEF_S, keepalive_s)
        while True:
            left_s = until - time.monotonic()
            events, over = self.take(after, max(0.0, min(idle_s, left_s)), reader)
            if events:
                after = events[-1][0]
            else:
                idle_s = keepalive_s
            parts = [data for _, data in events]
            if over and self.number is None and self.reply is not None:
                # With what came just before, since each piece is a packet of its own.
                parts.append(sse.encode(encode(self.reply), self._event))
            if parts or not over:
                piece = b"".join(parts)
                # Not held while they are sent once more.
                parts.clear()
                events.clear()
                yield piece
            if over or (left_s <= 0 and late is None):
                break
            if left_s <= 0:
                # Unless the reply has come meanwhile; the next turn sends either.
                self.finish(late)
