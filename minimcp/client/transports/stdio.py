"""The stdio transport: a server as a child process, one message a line.

Spec: TRN-009 to TRN-011, TRN-013, TRN-019, TRN-023
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ...engines.errors import ClientError, ConnectionLost, ProtocolError
from ...protocol import wire
from ...protocol.errors import McpError
from ..errors import UsedAfterFork
from .pipes import CAN_POLL, QUEUE_BYTES, Lines
from .process import PATIENCE_S, Child, Sink
from .transport import Exchange, Message, Transport
from .waiting import Pending, Queued

log = logging.getLogger("minimcp")

LINE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 256
MAX_ELEMENTS = 5_000_000
_MOST_LOGGED = 20
# How long the end of the output is waited for after the end of the process, and the other way round.
_DRAIN_S = 0.5
# How long a caller reads for itself, and how long nobody has to before the reader thread does.
_TICK_S = 0.05


class StdioTransport(Transport):
    """A transport to a server that this process starts and ends.

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
        if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
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
            if self._connection is not None:
                raise _used_after_fork()
            self._reset()


def _used_after_fork() -> UsedAfterFork:
    return UsedAfterFork(
        "The server was started before this process was forked, and belongs to the parent: make a client in this "
        "process, or one with restart=True"
    )


class Connection:
    """One run of a server: its process, its open exchanges, and who reads.

    Handing a message from one thread to another costs more than the message itself. So a caller that waits reads for
    itself, and for all others, but only for a moment: a longer call is left to the reader thread, which also listens
    while nobody calls. It steps back when the last open request is answered, and looks again after a quiet tick.

    Threads hold on to this and never to the transport, so that one nobody uses any more can go, and its process too.

    :ivar lost: the error that ended it, or None.
    """

    def __init__(
        self,
        transport: StdioTransport,
        command: list[str],
        env: dict[str, str] | None,
        cwd: str | None,
        stderr: Sink,
        line_bytes: int,
        queue_bytes: int,
        patience_s: float,
    ) -> None:
        self.lost: ClientError | None = None
        self._transport = weakref.ref(transport)
        self.pid = os.getpid()
        self._pending = Pending()
        self._logged = 0
        self._lost_lock = threading.Lock()  # guards lost
        self._gone = threading.Event()  # set once lost is
        self._turn = threading.Lock()  # held by who reads; guards the five below
        self._lines = Lines(line_bytes)
        self._led = 0
        self._answered = False
        self._over = False
        self._fault: Exception | None = None
        # The callers that wait, the one that reads among them.
        self._waiting: set[Queued] = set()
        self._relief = threading.Event()  # asks the reader thread to read
        self._drained = threading.Event()
        self._child = Child(command, env, cwd, stderr, patience_s, queue_bytes)
        self._reader = threading.Thread(target=self._read, name="minimcp-stdio-read", daemon=True)
        self._child.watch(self._reader, self._exited)
        self._finalizer = weakref.finalize(transport, self._abandon)
        self._finalizer.atexit = False

    def start(self, message: Message) -> Exchange:
        try:
            queued = self._pending.add(message)
        except ConnectionLost as error:
            raise ConnectionLost(error.message, "always") from None
        try:
            self.write(message)
        except BaseException:
            queued.close()
            raise
        return Call(self, queued)

    def write(self, message: Message) -> None:
        """Send one line. Spec: TRN-010, TRN-011"""
        try:
            self._child.input.write(wire.dumps(message) + b"\n")
        except ValueError as error:
            raise ProtocolError(f"The message cannot be written as JSON: {error}") from None
        except OSError:
            # The server's input is closed, so it has not read this. Its end says more, if it comes.
            self._gone.wait(_DRAIN_S)
            lost = self.lost or ConnectionLost(f"The server {self._child.command} has closed its standard input")
            raise type(lost)(lost.message, "always") from None

    def wait(self, queued: Queued, timeout_s: float | None) -> Message:
        """The next message of an exchange; see `Exchange.receive`."""
        if self.pid != os.getpid():
            raise _used_after_fork()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        # Before the turn is tried for: who gives it up looks here for others.
        self._waiting.add(queued)
        try:
            if CAN_POLL and self._turn.acquire(blocking=False):
                self._lead(queued, until)
            return queued.receive(None if until is None else until - time.monotonic())
        finally:
            self._waiting.discard(queued)

    def _lead(self, queued: Queued, until: float | None) -> None:
        """Read on the caller's thread, which has the turn, until something of its own comes, but only for a moment."""
        self._led += 1
        now = time.monotonic()
        enough = now + _TICK_S if until is None else min(until, now + _TICK_S)
        try:
            while now < enough and not self._over and not queued.ready():
                self._pump(enough - now)
                now = time.monotonic()
        finally:
            self._turn.release()
            others = len(self._waiting) - 1
            if others or not queued.ready() or self._over:
                self._relief.set()

    def _read(self) -> None:
        """The reader thread: read while nobody waits, or several do."""
        led = 0
        while not self._over:
            if not self._relief.wait(_TICK_S) and self._led != led:
                led = self._led
                continue
            self._relief.clear()
            if not self._turn.acquire(blocking=False):
                continue
            try:
                while not self._over:
                    self._answered = False
                    self._pump(None)
                    if CAN_POLL and self._answered and not self._pending:
                        break
            finally:
                led = self._led
                self._turn.release()
            if self._pending:
                # A caller came while the turn was still held.
                self._relief.set()
        self._finish()

    def _pump(self, timeout_s: float | None) -> None:
        """Read what is there and hand it out. Only for who has the turn."""
        try:
            # A line is taken off after it was handed out: an interrupt in between must not lose it.
            ready = self._lines.ready
            if not ready:
                chunk = self._child.output.read(timeout_s)
                if chunk is None:
                    return
                if not chunk:
                    self._over = True
                self._lines.feed(chunk)
            while ready:
                self._take(ready[0])
                ready.popleft()
        except Exception as error:
            self._fault = error
            self._over = True

    def _finish(self) -> None:
        """Nothing more can be read: say so, and end the process if it has not ended by itself."""
        self._drained.set()
        if isinstance(self._fault, ClientError):
            self._lose(self._fault)
        elif self._fault is not None:
            log.error("reading from a server failed", exc_info=self._fault)
            self._lose(ConnectionLost(f"Reading from the server {self._child.command} failed: {self._fault!r}"))
        elif self._transport() is not None and not self._child.exited.wait(_DRAIN_S):
            self._lose(ConnectionLost(self._child.fate()))
        self._child.end()
        with self._turn:
            self._child.output.close()

    def _exited(self) -> None:
        """The process is gone; what it said before counts. A grandchild may keep the pipe open, so not for ever."""
        self._relief.set()
        self._drained.wait(_DRAIN_S)
        self._lose(ConnectionLost(self._child.fate()))

    def _lose(self, error: ClientError, told: bool = True) -> None:
        with self._lost_lock:
            if self.lost is not None:
                return
            self.lost = error
        self._pending.fail(error)
        self._gone.set()
        transport = self._transport()
        if told and transport is not None:
            _tell(transport.on_lost, error)

    def _take(self, line: bytes) -> None:
        """Hand out the message or the batch of a line; whatever else a line is, is passed over. Spec: TRN-010"""
        try:
            value = wire.loads(line, MAX_DEPTH, MAX_ELEMENTS)
        except McpError as error:
            self._log(error, line)
            return
        for message in value if isinstance(value, list) else [value]:
            try:
                wire.check(message)
            except McpError as error:
                self._log(error, line)
                if _is_nobodys(message):
                    self._deliver(message)
            else:
                self._deliver(message)

    def _deliver(self, message: Message) -> None:
        transport = self._transport()
        if transport is not None and transport.record is not None:
            _tell(transport.record, "received", message)
        if "method" not in message:
            self._answered = True
        if not self._pending.take(message) and transport is not None:
            _tell(transport.on_message, message)

    def _log(self, error: McpError, line: bytes) -> None:
        """Log what a server does wrong, a bounded number of times."""
        self._logged += 1
        if self._logged <= _MOST_LOGGED:
            more = "; further such lines are not logged" if self._logged == _MOST_LOGGED else ""
            log.warning("the server wrote what is no message (%s): %r%s", error, line[:200], more)

    def close(self) -> None:
        self._finalizer.detach()
        self._lose(ConnectionLost("The connection was closed"), told=False)
        self._child.end()
        if self._reader is not threading.current_thread():
            self._reader.join(_DRAIN_S)

    def _abandon(self) -> None:
        if self.pid == os.getpid():
            self._child.abandon()


def _is_nobodys(message: Any) -> bool:
    """Whether this is an error that names no request: nobody waits for it, but a trace shows it."""
    return isinstance(message, dict) and "error" in message and "method" not in message and message.get("id") is None


def _tell(function: Callable[..., Any], *args: Any) -> None:
    """Call what is above the transport; what it raises must not end the reading."""
    try:
        function(*args)
    except Exception:
        log.exception("a message could not be handed on")


class Call(Exchange):
    """One request; whoever waits for it may have to read."""

    __slots__ = ("_connection", "_queued")

    def __init__(self, connection: Connection, queued: Queued) -> None:
        self._connection = connection
        self._queued = queued

    def receive(self, timeout_s: float | None) -> Message:
        """Return the next message, or raise; see `Exchange`."""
        return self._connection.wait(self._queued, timeout_s)

    def abort(self, error: ClientError) -> None:
        """End the exchange with an error."""
        self._queued.abort(error)

    def close(self) -> None:
        """Forget the exchange."""
        # In a forked process a lock may be held by a thread that is not there.
        if self._connection.pid == os.getpid():
            self._queued.close()
