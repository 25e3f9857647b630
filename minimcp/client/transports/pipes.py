"""The pipes to a child process, read and written so that nothing the child does or leaves undone can keep a thread.

They are read and written through the file objects of `subprocess`, which gevent, where patched in, makes cooperative.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import Any

from ...engines.errors import ConnectionLost, ProtocolError

QUEUE_BYTES = 64 * 1024 * 1024
CHUNK = 64 * 1024
# POSIX can wait for several pipes at once; elsewhere each pipe has a thread that blocks in it.
CAN_POLL = hasattr(select, "poll")
_STEP_MS = 100
_WRITER_S = 0.5


class Stop:
    """An order to stop that can be waited for together with a pipe; it is one itself.

    :param users: how many readers there are; the last one that leaves closes it.
    """

    def __init__(self, users: int) -> None:
        self._read, self._write = os.pipe()
        self._left = list(range(users))
        # Guards the pipe. The collector may call `set` in the middle of `close`.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        """The descriptor that is readable once `set` was called."""
        return self._read

    def set(self) -> None:
        """Order all readers to stop; any number of times."""
        # A byte, not the closing of this end, of which a forked process may have a copy.
        with self._lock:
            if self._write >= 0:
                os.write(self._write, b".")

    def leave(self) -> None:
        """Called once by each reader when it is done."""
        if self._left.pop() == 0:
            with self._lock:
                self.close()

    def close(self) -> None:
        """Close the pipe, without its lock, which a forked process may find taken."""
        write, self._write = self._write, -1
        if write >= 0:
            os.close(write)
            os.close(self._read)


class Reader:
    """Reads a pipe until it ends or `stop` is set; one thread at a time."""

    def __init__(self, pipe: Any, stop: Stop) -> None:
        self._pipe = pipe
        self._stop = stop
        self._stop_fd = stop.fileno()
        self._poller: Any = None
        if CAN_POLL:
            self._poller = select.poll()
            self._poller.register(pipe.fileno(), select.POLLIN)
            self._poller.register(self._stop_fd, select.POLLIN)

    def read(self, timeout_s: float | None = None) -> bytes | None:
        """Some bytes, b"" at the end, None when nothing came in time."""
        if self._poller is not None:
            ready = self._poller.poll(None if timeout_s is None else timeout_s * 1000)
            if not ready:
                return None
            if len(ready) > 1 or ready[0][0] == self._stop_fd:
                return b""
        try:
            chunk: bytes = self._pipe.read(CHUNK)
        except (OSError, ValueError):
            return b""
        return chunk

    def close(self) -> None:
        """Let go of the pipe, once, when nothing reads it any more."""
        self._pipe.close()
        self._stop.leave()


class Lines:
    """Splits what comes in at LF alone; blank lines are left out.

    :ivar ready: the whole lines, to be taken from its left.
    """

    def __init__(self, limit: int) -> None:
        self.ready: deque[bytes] = deque()
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Take in some bytes.

        :raises ProtocolError: for a line of more than `limit` bytes.
        """
        *lines, rest = chunk.split(b"\n")
        if lines and self._parts:
            lines[0] = b"".join([*self._parts, lines[0]])
            self._parts.clear()
            self._size = 0
        for line in lines:
            if len(line) > self._limit:
                raise self._too_long()
            if line and not line.isspace():
                self.ready.append(line)
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._limit:
                raise self._too_long()

    def _too_long(self) -> ProtocolError:
        return ProtocolError(f"The server sent a line of more than {self._limit} bytes")


class Writer:
    """Writes to a pipe at once what it has room for; a thread, started when needed, writes the rest.

    :param queue_bytes: how much may wait for a child that does not read.
    """

    def __init__(self, pipe: Any, queue_bytes: int) -> None:
        self._pipe = pipe
        self._queue_bytes = queue_bytes
        self._changed = threading.Condition()  # guards all below, and who may write
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._poller: Any = None
        if CAN_POLL:
            os.set_blocking(pipe.fileno(), False)
            self._poller = self._new_poller()

    def _new_poller(self) -> Any:
        poller = select.poll()
        poller.register(self._pipe.fileno(), select.POLLOUT)
        return poller

    def write(self, data: bytes) -> None:
        """Write, or leave it to the thread; never blocks.

        :raises OSError: when the child does not read any more.
        :raises ConnectionLost: when too much waits already, or no thread is free; nothing of `data` is sent then.
        """
        with self._changed:
            if self._closed:
                raise BrokenPipeError
            view = memoryview(data)
            if not self._queue:
                if self._poller is not None:
                    # The pipe does not block: None when it has no room.
                    view = view[self._pipe.write(view) or 0 :]
                    if not view:
                        return
            elif self._queued + len(view) > self._queue_bytes:
                raise ConnectionLost(f"The server does not read: {self._queued} bytes wait to be sent", "always")
            self._queue.append(view)
            self._queued += len(view)
            try:
                self._start()
            except RuntimeError as error:
                # A line whose beginning is written goes on with the next.
                if len(view) == len(data):
                    self._queued -= len(self._queue.pop())
                    raise ConnectionLost(f"Nothing was sent: {error}", "always") from None
            self._changed.notify()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="minimcp-stdio-write", daemon=True)
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        """Write what is queued, in order, whenever the pipe has room."""
        # Not that of `write`: a poll object serves one thread.
        poller = self._new_poller() if self._poller is not None else None
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                view = self._queue[0]
            try:
                # In steps, since a child that never reads must not keep this thread from the end.
                written = 0 if poller and not poller.poll(_STEP_MS) else self._pipe.write(view) or 0
            except (OSError, ValueError):
                with self._changed:
                    self._closed = True
                return
            with self._changed:
                if self._closed:
                    return
                self._queued -= written
                if written == len(view):
                    self._queue.popleft()
                else:
                    self._queue[0] = view[written:]

    def close(self) -> None:
        """Drop what waits and close the pipe; any number of times.

        Where a thread may block in the pipe it stays open until the child is gone, and `close` is called again.
        """
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_WRITER_S)
        if self._thread is None or not self._thread.is_alive():
            try:
                self._pipe.close()
            except OSError:
                pass
