"""The stdio link: a server as a child process, one message a line.

Spec: TRN-009 to TRN-011, TRN-013, TRN-019, TRN-023
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from ..protocol import wire
from ..protocol.errors import ClientError, ConnectionLost, McpError, ProtocolError, UsedAfterFork
from .link import Exchange, Link, Message, Pending
from .process import PATIENCE_S, QUEUE_BYTES, Child, Sink

log = logging.getLogger("minimcp")

LINE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 256
MAX_ELEMENTS = 5_000_000
_MOST_LOGGED = 20
_DRAIN_S = 0.5


class StdioLink(Link):
    """A link to a server that this process starts and ends.

    :param command: the program and its arguments; no shell sees them.
    :param env: variables the server gets beside a few harmless ones of this process.
    :param stderr: takes the lines of the server's standard error: a function, an object with `write`, or None for the
        logger "minimcp.stderr". It is called on a thread of its own.
    :param line_bytes: the longest line a server may send.
    :param queue_bytes: how much may wait for a server that does not read.
    :param patience_s: how long `close` waits after closing the input, and again after asking the process to end.
    """

    kind = "stdio"

    def __init__(
        self,
        command: list[str],
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        *,
        stderr: Sink = None,
        line_bytes: int = LINE_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__()
        if isinstance(command, str) or not command:
            raise ValueError("The command is a list: the program and its arguments")
        self._child_args = list(command), env, cwd, stderr
        self._limits = line_bytes, queue_bytes, patience_s
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards _connection
        self._connection: Connection | None = None

    def open(self, timeout_s: float) -> None:
        """Start the process, unless it runs; one that has ended is started again. Spec: TRN-026"""
        self._check_process()
        with self._lock:
            old, self._connection = self._connection, None
            if old is not None and old.lost is None:
                self._connection = old
                return
            if old is not None:
                old.close()
            self._connection = Connection(self, *self._child_args, *self._limits)

    def start(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> Exchange:
        """Send a request; the server may take its time to read it."""
        connection = self._open()
        if self.record is not None:
            self.record("sent", message)
        return connection.start(message)

    def send(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> None:
        """Send a notification or a response."""
        connection = self._open()
        if self.record is not None:
            self.record("sent", message)
        connection.write(message)

    def close(self) -> None:
        """End the process: close its input, wait, terminate, wait, kill. Spec: TRN-023, BASE-113"""
        if self._pid != os.getpid():
            # The process belongs to the parent; `open` starts one of our own.
            self._reset()
            return
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> Connection:
        self._check_process()
        connection = self._connection
        if connection is None:
            raise ConnectionLost("The connection is not open", "always")
        return connection

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise UsedAfterFork(
                "The server was started before this process was forked, and belongs to the parent: make a client in "
                "this process, or one with restart=True"
            )


class Connection:
    """One run of a server: its process, its open exchanges, and who reads.

    Threads hold on to this and never to the link, so that a link nobody uses any more can go, and its process with it.

    :ivar lost: the error that ended it, or None.
    """

    def __init__(
        self,
        link: StdioLink,
        command: list[str],
        env: dict[str, str] | None,
        cwd: str | None,
        stderr: Sink,
        line_bytes: int,
        queue_bytes: int,
        patience_s: float,
    ) -> None:
        self.lost: ClientError | None = None
        self._link = weakref.ref(link)
        self._pid = os.getpid()
        self._pending = Pending()
        self._lines = Lines(line_bytes)
        self._logged = 0
        self._lock = threading.Lock()  # guards lost
        self._gone = threading.Event()
        self._drained = threading.Event()
        self._child = Child(command, env, cwd, stderr, patience_s, queue_bytes)
        self._reader = threading.Thread(target=self._read, name="minimcp-stdio-read", daemon=True)
        self._child.watch(self._reader, self._exited)
        self._finalizer = weakref.finalize(link, self._abandon)
        self._finalizer.atexit = False

    def start(self, message: Message) -> Exchange:
        try:
            exchange = self._pending.add(message)
        except ConnectionLost as error:
            raise ConnectionLost(error.message, "always") from None
        try:
            self.write(message)
        except BaseException:
            exchange.close()
            raise
        return exchange

    def write(self, message: Message) -> None:
        """Send one line. Spec: TRN-010, TRN-011"""
        try:
            self._child.write(wire.dumps(message) + b"\n")
        except ValueError as error:
            raise ProtocolError(f"The message cannot be written as JSON: {error}") from None
        except OSError:
            # The server's input is closed, so it has not read this. Its end says more, if it comes.
            self._gone.wait(2 * _DRAIN_S)
            lost = self.lost or ConnectionLost(f"The server {self._child.command} has closed its standard input")
            raise type(lost)(lost.message, "always") from None

    def _read(self) -> None:
        try:
            while chunk := self._child.read():
                for line in self._lines.feed(chunk):
                    self._take(line)
            self._drained.set()
            if not self._child.exited.wait(_DRAIN_S):
                self._lose(ConnectionLost(self._child.fate()))
        except ProtocolError as error:
            self._lose(error)
        except BaseException as error:
            log.exception("reading from a server failed")
            self._lose(ConnectionLost(f"Reading from the server {self._child.command} failed: {error!r}"))
        self._drained.set()
        self._child.end()
        self._child.close_output()

    def _exited(self) -> None:
        """The process is gone; what it said before counts. A grandchild may keep the pipe open, so not for ever."""
        self._drained.wait(_DRAIN_S)
        self._lose(ConnectionLost(self._child.fate()))

    def _lose(self, error: ClientError, told: bool = True) -> None:
        with self._lock:
            if self.lost is not None:
                return
            self.lost = error
        self._pending.fail(error)
        self._gone.set()
        link = self._link()
        if told and link is not None:
            try:
                link.on_lost(error)
            except Exception:
                log.exception("the loss of a connection could not be told")

    def _take(self, line: bytes) -> None:
        """Hand out the message or the batch of a line; whatever else a line is, is passed over. Spec: TRN-010"""
        try:
            value = wire.loads(line, MAX_DEPTH, MAX_ELEMENTS)
        except McpError as error:
            self._log("a line that is no message was skipped (%s): %r", error, line[:200])
            return
        for message in value if isinstance(value, list) else [value]:
            self._deliver(message)

    def _deliver(self, message: Any) -> None:
        try:
            wire.check(message)
        except McpError as error:
            self._log("a message was dropped (%s): %.200r", error, message)
            return
        link = self._link()
        try:
            if link is not None and link.record is not None:
                link.record("received", message)
            if not self._pending.take(message) and link is not None:
                link.on_message(message)
        except Exception:
            log.exception("a message could not be handed on")

    def _log(self, text: str, *args: Any) -> None:
        """Log what a server does wrong, a bounded number of times."""
        self._logged += 1
        if self._logged <= _MOST_LOGGED:
            log.warning(f"stdio: {text}", *args)
            if self._logged == _MOST_LOGGED:
                log.warning("stdio: further such lines of this server are not logged")

    def close(self) -> None:
        self._finalizer.detach()
        self._lose(ConnectionLost("The connection was closed"), told=False)
        self._child.end()
        if self._reader is not threading.current_thread():
            self._reader.join(_DRAIN_S)

    def _abandon(self) -> None:
        if self._pid == os.getpid():
            self._child.abandon()


class Lines:
    """Splits what comes in at LF alone; blank lines are left out.

    :raises ProtocolError: for a line of more than `limit` bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that a chunk completes."""
        first, *lines = chunk.split(b"\n")
        self._size += len(first)
        if self._size > self._limit:
            raise self._too_long()
        self._parts.append(first)
        if not lines:
            return
        lines = [b"".join(self._parts), *lines]
        self._parts = [lines.pop()]
        self._size = len(self._parts[0])
        for line in lines:
            if len(line) > self._limit:
                raise self._too_long()
            if line and not line.isspace():
                yield line

    def _too_long(self) -> ProtocolError:
        return ProtocolError(f"The server sent a line of more than {self._limit} bytes")
