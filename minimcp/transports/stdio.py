"""The stdio transport of a server: one message a line, answered by the thread that read it unless that takes long.

Handing a message from a reading to a working thread costs as much as a whole call. So the thread that reads a line
also runs its handler, and only when a handler is still running after a tick does another thread take over the reading.
A handler that takes a Context may wait for the client, so it gets a thread of its own at once. The main thread only
waits for the end: a signal, the end of the input or a client that has gone ends the loop whatever a handler does.
Spec: TRN-009 to TRN-028
"""

from __future__ import annotations

import io
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Generic

from ..engines import fork
from ..protocol import wire
from ..protocol.errors import InternalError, InvalidRequest, McpError
from ..protocol.lines import LineSplitter, read_head
from ..protocol.served import Reply, S, Served, ServedCall
from ..protocol.wire import encode
from .workers import Workers

log = logging.getLogger("minimcp")

_CHUNK = 64 * 1024
_TICK_S = 0.01
_QUIET_TICKS = 100
_GRACE_S = 3.0
# The former readers that may be inside a handler; while there are so many, the reader hands every handler to a worker.
_FORMER = 4
# The calls that may wait for a worker, and the bytes of their lines.
_WAITING = 1000
_WAITING_BYTES = 64 * 1024 * 1024
# The bytes that a pipe takes without blocking once it is ready. POSIX calls it PIPE_BUF.
_ATOMIC = 512


def take_pipes() -> tuple[int, int]:
    """Take standard input and output for the protocol and return their new file descriptors.

    From here on file descriptor 1 is standard error and descriptor 0 is empty, so that a handler or a child process
    that prints or reads cannot touch the protocol. Spec: TRN-012
    """
    # A standard descriptor that is closed is opened first, or else a copy made below would take its number.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    pipes = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    if sys.stdout is not None:
        # Not before: what a file printed before it serves is no message either.
        sys.stdout.flush()
    if os.name == "posix":
        errors = io.BufferedWriter(_Overflow())
        sys.stdout = sys.stderr = io.TextIOWrapper(errors, "utf-8", "backslashreplace", line_buffering=True)
    return pipes


class _Overflow(io.RawIOBase):
    """Standard error that neither blocks nor fails; output is lost while its reader leaves no room.

    A client may ignore standard error, and a full pipe would then stop every handler that prints. Spec: TRN-015
    """

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), _ATOMIC):
                if not select.select([], [2], [], 0)[1]:
                    break
                os.write(2, view[start : start + _ATOMIC])
        except OSError:
            pass
        return len(view)


def serve(engine: Served[S], pipes: tuple[int, int] | None = None) -> None:
    """Serve on this process's standard input and output until the input ends, SIGTERM or Ctrl-C.

    :param pipes: from `take_pipes`, when they were taken earlier.
    """
    loop = StdioLoop(engine, *(pipes or take_pipes()))
    try:
        # Within, since the signal may come right after this.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)
            signal.signal(signal.SIGINT, _interrupt)
        engine.start()
        loop.run()
    except KeyboardInterrupt:
        pass
    finally:
        loop.close()


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


class StdioLoop(Generic[S]):
    """Serves one client over two file descriptors."""

    def __init__(self, engine: Served[S], fd_in: int, fd_out: int) -> None:
        self._engine = engine
        self._limits = engine.limits
        self._lines = _read_lines(fd_in, int(self._limits["body_bytes"]))  # used by the thread whose turn it is
        self._fd_out = fd_out
        self._write_lock = threading.Lock()  # held while one line is written
        self._session = engine.open_session(self._send)
        self._session.transport, self._session.local = "stdio", True
        streams = int(self._limits["streams"])
        self._workers = Workers(int(self._limits["calls"]), _WAITING, _WAITING_BYTES)
        self._listeners = Workers(streams, streams, _WAITING_BYTES)
        self._ended = threading.Event()
        # Released at the end. The main thread waits for it and not for the event: a signal amid a function of the event
        # would leave the lock of that one held, which the end needs.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._generation = fork.generation
        self._answered = threading.Condition()  # notified when a line or a call has been answered after the end
        # Calls whose answer is not written yet. The session forgets a call before, since its id may be used again then.
        self._unanswered: set[ServedCall] = set()
        self._turn_lock = threading.Lock()  # guards _turn, _busy, and _inside when it is cleared
        self._turn = 0  # the number of the thread that may read
        self._busy = 0  # the number of former readers that are still inside a handler
        self._inside: object | None = None  # the line that the reader handles
        self._seen = 0
        self._watching = threading.Event()

    def run(self) -> None:
        """Serve until the input ends or the client has gone, then let running calls finish for a moment."""
        threading.Thread(target=self._watch, name="minimcp-stdio-watch", daemon=True).start()
        threading.Thread(target=self._read, args=(0,), name="minimcp-stdio-read", daemon=True).start()
        # In steps, since not every system lets a signal interrupt an endless wait.
        while not self._ended.is_set():
            self._bell.acquire(timeout=1.0)
        self._drain()

    def _end(self) -> None:
        self._ended.set()
        try:
            self._bell.release()
        except RuntimeError:
            pass  # It is released already.

    def _drain(self) -> None:
        """Wait a bounded time for the calls in progress, and for lines of which none has been made yet."""
        with self._answered:
            self._answered.wait_for(self._drained, _GRACE_S)

    def _drained(self) -> bool:
        with self._turn_lock:
            return not self._busy and all(call.streams for call in list(self._unanswered))

    def close(self) -> None:
        """End the session; running handlers are told."""
        self._end()
        self._watching.set()
        self._session.close()

    def _read(self, turn: int) -> None:
        """Read and handle lines while it is this thread's turn."""
        for line in self._lines:
            self._inside = line
            self._seen += 1
            if not self._watching.is_set():
                self._watching.set()
            self._take(line)
            with self._turn_lock:
                relieved = self._turn != turn
                if relieved:
                    self._busy -= 1
                else:
                    self._inside = None
            if self._ended.is_set():
                self._note_answer()
                return
            if relieved:
                return
        self._end()

    def _note_answer(self) -> None:
        """Wake who waits for the end, after which something has been answered."""
        with self._answered:
            self._answered.notify_all()

    def _watch(self) -> None:
        """Give the reading to another thread whenever the reader is inside one handler for a whole tick."""
        while not self._ended.is_set():
            self._watching.wait()
            quiet = 0
            while quiet < _QUIET_TICKS and not self._ended.is_set():
                inside, seen = self._inside, self._seen
                self._ended.wait(_TICK_S)
                quiet = quiet + 1 if self._seen == seen and inside is None else 0
                if inside is not None and self._inside is inside:
                    self._relieve(inside)
            self._watching.clear()
            if self._inside is not None:
                # A line was taken between the last look and the clearing, by a reader that saw us awake.
                self._watching.set()

    def _relieve(self, inside: object) -> None:
        with self._turn_lock:
            if self._inside is not inside or self._busy >= self._limits["calls"] + _FORMER:
                return
            turn = self._turn + 1
            reader = threading.Thread(target=self._read, args=(turn,), name="minimcp-stdio-read", daemon=True)
            self._inside = None
            try:
                reader.start()
            except RuntimeError:
                # No thread is free: the reader goes on when its handler ends, or is relieved then.
                self._inside = inside
                return
            self._turn = turn
            self._busy += 1

    def _take(self, line: bytes) -> None:
        message: Any = None
        try:
            if isinstance(line, _Cut):
                self._refuse_cut(line)
                return
            message = wire.loads(line, int(self._limits["depth"]), int(self._limits["elements"]))
            call = self._engine.call(message, session=self._session)
        except McpError as problem:
            reply = self._engine.refuse(message, problem)
            if not wire.is_notification(message):
                self._send(reply)
            return
        except BaseException:
            log.exception("a message could not be taken")
            self._send(wire.error(wire.readable_id(message), InternalError("Internal error")))
            return
        if call is None:
            return
        self._session.add_call(call)
        self._unanswered.add(call)
        if call.quick or (not call.interactive and self._busy < _FORMER):
            self._answer(call)
            return
        if call.streams and sum(other.streams for other in list(self._unanswered)) > self._limits["streams"]:
            # No room for another stream: an expired one is acknowledged empty and ended.
            call.deadline = 0.0
            self._answer(call)
            return
        workers = self._listeners if call.streams else self._workers
        try:
            workers.submit(lambda: self._answer(call), len(line))
        except RuntimeError:
            self._session.remove_call(call)
            self._unanswered.discard(call)
            self._send(wire.error(call.id, InternalError("Too many calls are in progress; try again")))

    def _refuse_cut(self, line: _Cut) -> None:
        """Refuse a line of which only the beginning was kept, and let a question that it answers go on."""
        found = read_head(line)
        text = f"The line is longer than {int(self._limits['body_bytes'])} bytes"
        if found.keys() & {"result", "error"} and wire.is_id(found.get("id")):
            self._session.resolve({"jsonrpc": "2.0", "id": found["id"], "error": {"message": text}})
        else:
            self._send(self._engine.refuse(found, InvalidRequest(text)))

    def _answer(self, call: ServedCall) -> None:
        try:
            try:
                reply = call.run(self._send)
            finally:
                self._session.remove_call(call)
            if reply is not None:
                self._send(reply)
        finally:
            self._unanswered.discard(call)
            if self._ended.is_set():
                self._note_answer()

    def _send(self, message: Reply) -> None:
        """Write a message; when the client has gone, the loop ends, and running handlers are told.

        A child that a handler forked writes nothing: the client is its parent's.
        """
        if fork.generation != self._generation:
            return
        data = memoryview(encode(message) + b"\n")
        try:
            with self._write_lock:
                while data:
                    data = data[os.write(self._fd_out, data) :]
        except OSError:
            self.close()


class _Cut(bytes):
    """The beginning of a line that is too long."""


def _read_lines(fd: int, limit: int) -> Iterator[bytes]:
    """Yield the lines of a file descriptor, and a `_Cut` for one longer than `limit` bytes.

    A last line that no LF ends was cut off and is not a message.
    """
    splitter = LineSplitter(limit)
    try:
        while chunk := os.read(fd, _CHUNK):
            for line in splitter.feed(chunk):
                yield _Cut(splitter.heads.pop(0)) if line is None else line
    except OSError:
        pass
