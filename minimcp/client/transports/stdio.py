"""The stdio transport: a server as a child process, one message a line.

A thread reads the server's output, blocks in it, and gives each message to the exchange it belongs to. A caller writes
its own messages, and while it is alone it also reads, so that a quick answer wakes one thread and not two.
Spec: TRN-009 to TRN-011, TRN-013, TRN-019, TRN-023
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...engines.errors import ClientError, ConnectionLost, ProtocolError
from ...engines.fork import PerProcess
from ...protocol import wire
from ...protocol.errors import McpError
from ...protocol.lines import LineSplitter
from ..errors import UsedAfterFork
from .messages import may_answer, tidy, without_bom
from .process import BEHIND_S, PATIENCE_S, Child, Sink
from .transport import Exchange, Message, Transport, written
from .waiting import Pending, Queued

if TYPE_CHECKING:
    from ..sandbox import Sandbox

log = logging.getLogger("minimcp")

LINE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 256
MAX_ELEMENTS = 5_000_000
_MOST_LOGGED = 5
# So many lines without a message among them, and it is no server.
_MOST_FOREIGN = 100
# How long the end of the output is waited for after the end of the process, and the other way round.
_DRAIN_S = 0.5
# How long a caller that is alone reads, and after how long without such a caller the thread reads again.
_ALONE_S = 0.02


class StdioTransport(Transport):
    """A transport to a server that this process starts and ends.

    :param command: the program and its arguments; no shell sees them.
    :param env: variables the server gets beside a few harmless ones of this process.
    :param stderr: takes the lines of the server's standard error: a function, an object with `write`, None for this
        process's own standard error, or False for nothing. It is called on a thread of its own.
    :param line_bytes: the longest line a server may send.
    :param sandbox: bounds what the process may use and see.
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
        patience_s: float = PATIENCE_S,
        sandbox: Sandbox | None = None,
    ) -> None:
        super().__init__()
        if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
            raise ValueError("The command is a list: the program and its arguments")
        self._child_args = list(command), env, cwd, stderr, patience_s, sandbox
        self._line_bytes = line_bytes
        self._lock = PerProcess(threading.Lock)  # guards the replacement of _connection
        self._connection: StdioConnection | None = None

    def open(self, timeout_s: float) -> None:
        """Start the process, unless it runs; one that has ended is started again. Spec: TRN-026"""
        with self._lock():
            old = self._connection
            if old is not None:
                old.check_process()
                if old.lost is None:
                    return
                self._connection = None
                old.close()
            self._connection = StdioConnection(self, Child(*self._child_args), self._line_bytes)

    def start(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> Exchange:
        """Send a request, waiting until the server has room for it.

        :raises Timeout: when it has none in time; `retry` is "always" if nothing was sent.
        """
        connection = self._opened()
        if self.record is not None:
            self.record("sent", message)
        return connection.start(message, timeout_s)

    def send(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> None:
        """Send a notification or a response; see `start`."""
        connection = self._opened()
        if self.record is not None:
            self.record("sent", message)
        connection.write(message, timeout_s)

    def close(self) -> None:
        """End the process: close its input, wait, terminate, wait, kill. Spec: TRN-023, BASE-113"""
        with self._lock():
            connection, self._connection = self._connection, None
        # That of a parent process is only forgotten.
        if connection is not None and connection.pid == os.getpid():
            connection.close()

    def _opened(self) -> StdioConnection:
        connection = self._connection
        if connection is None:
            raise ConnectionLost("The connection is not open", "always")
        connection.check_process()
        return connection

    def doubt(self) -> str:
        """Return why this may be no server, or ""; see `Transport.doubt`."""
        connection = self._connection
        told = connection.doubt() if connection is not None else ""
        return f"it {told}: is it an MCP server? {connection.first()}" if connection is not None and told else ""


class StdioConnection:
    """One run of a server: its process, its open exchanges, and the thread that reads.

    The threads hold on to this and never to the transport, so that the process ends with a transport that is dropped.

    :ivar pid: the process that made it.
    :ivar lost: the error that ended it, or None.
    """

    def __init__(self, transport: StdioTransport, child: Child, line_bytes: int) -> None:
        self.pid = os.getpid()
        self.lost: ClientError | None = None
        self._lost_lock = threading.Lock()  # guards the setting of lost
        self._gone = threading.Event()  # set once lost is
        self._drained = threading.Event()  # set once nothing more can be read
        self._transport = weakref.ref(transport)
        self._child = child
        self._pending = Pending()
        self._line_bytes = line_bytes
        self._splitter = LineSplitter(line_bytes)
        # Only the thread that reads, which holds _turn, changes these.
        self._foreign = 0  # the number of lines that are no messages
        self._first_foreign = b""
        self._delivered = False  # whether any message came
        self._turn = threading.Lock()  # held by the thread that reads; guards _chunks and _poll
        self._chunks: deque[bytes] = deque()  # what callers have read and the thread has to take
        self._poll = child.output_poll()
        self._alone = 0  # how often a caller has read
        self._needed = threading.Event()  # set when the thread has to read
        self._reader = threading.Thread(target=self._read, name="minimcp-stdio-read", daemon=True)
        child.start(self._reader, self._exited)
        self._finalizer = weakref.finalize(transport, child.abandon)
        self._finalizer.atexit = False

    def check_process(self) -> None:
        """Refuse to work in a forked process.

        :raises UsedAfterFork: in any process but the one that started the server.
        """
        if self.pid != os.getpid():
            raise UsedAfterFork(
                "The server was started before this process was forked, and belongs to the parent: make a client in "
                "this process, or one with restart=True"
            )

    def start(self, message: Message, timeout_s: float | None) -> Exchange:
        """Send a request; see `StdioTransport.start`."""
        try:
            queued = self._pending.add(message)
        except ConnectionLost as error:
            raise ConnectionLost(error.message, _unsent(error)) from None
        try:
            self.write(message, timeout_s)
        except BaseException:
            queued.close()
            raise
        return StdioExchange(self, queued)

    def write(self, message: Message, timeout_s: float | None) -> None:
        """Send one line. Spec: TRN-010, TRN-011"""
        line = written(message) + b"\n"
        try:
            self._child.write(line, timeout_s)
        except OSError:
            # The server's input is closed, so it has not read this. Its end says more, if it comes.
            if not self._gone.wait(_DRAIN_S) and self._child.is_over():
                self._gone.wait(BEHIND_S)
            lost = self.lost or ConnectionLost(f"The server {self._child.command} has closed its standard input")
            raise type(lost)(lost.message, _unsent(lost)) from None

    def receive(self, queued: Queued, timeout_s: float | None) -> Message:
        """Return the next message of an exchange, or raise; see `Exchange`."""
        if self._poll is not None and len(self._pending) == 1 and self._turn.acquire(blocking=False):
            try:
                self._read_alone(self._poll, queued, _ALONE_S if timeout_s is None else min(timeout_s, _ALONE_S))
            finally:
                self._turn.release()
                # A caller that came meanwhile looked for the turn after it was added, so it is seen here.
                if self._chunks or len(self._pending):
                    self._needed.set()
        elif not self._needed.is_set():
            self._needed.set()
        return queued.receive(timeout_s)

    def _read_alone(self, poll: select.poll, queued: Queued, timeout_s: float) -> None:
        """Take whole lines until a message for the exchange has come; leave anything else to the thread.

        An interrupt (Ctrl-C) may come between any two steps. What was read is in `_chunks` by then, since no step lies
        between the reading and the adding, and stays there until it is taken.
        """
        self._alone += 1
        until = time.monotonic() + timeout_s
        while not self._chunks and not queued.ready() and poll.poll(max(0.0, until - time.monotonic()) * 1000):
            self._child.read_into(self._chunks)
            chunk = self._chunks[0]
            if self._splitter.begun or chunk[-1:] != b"\n" or len(chunk) > self._line_bytes:
                return
            for line in chunk.split(b"\n"):
                if line and not line.isspace():
                    self._take(line)
            self._chunks.popleft()

    def close(self) -> None:
        """End the process and every exchange."""
        self._finalizer.detach()
        self._lose(ConnectionLost("The connection was closed"), told=False)
        self._child.end()
        if self._reader is not threading.current_thread():
            self._reader.join(_DRAIN_S)

    def _read(self) -> None:
        """Hand out what the server writes until its output ends, then end the process if it runs on."""
        error: ClientError | None = None
        splitter = self._splitter
        try:
            while True:
                with self._turn:
                    chunk = self._chunks.popleft() if self._chunks else self._child.read()
                    if not chunk:
                        break
                    for line in splitter.feed(chunk):
                        if line is None:
                            raise self._too_long()
                        self._take(line)
                    if splitter.too_long:
                        raise self._too_long()
                self._step_aside()
        except ClientError as problem:
            error = problem
        except Exception as problem:
            log.exception("reading from a server failed")
            error = ConnectionLost(f"Reading from the server {self._child.command} failed: {problem!r}")
        self._drained.set()
        if error is None and not self._child.ends(_DRAIN_S):
            error = ConnectionLost(self._child.fate())
        if error is not None:
            self._lose(error)
        self._child.end()
        self._child.close_output()

    def _step_aside(self) -> None:
        """Wait while callers read, until one needs the thread or none has read for a while."""
        seen = -1
        self._needed.clear()
        while self._poll is not None and not self._chunks and not len(self._pending) and self._alone != seen:
            seen = self._alone
            if self._needed.wait(_ALONE_S):
                return

    def _too_long(self) -> ProtocolError:
        return ProtocolError(f"The server sent a line of more than {self._line_bytes} bytes")

    def _exited(self) -> None:
        """Tell of the end of the process, after what it said before; a grandchild may keep its output open."""
        self._needed.set()
        until = time.monotonic() + BEHIND_S
        while not self._drained.wait(_DRAIN_S) and self._child.has_output() and time.monotonic() < until:
            pass
        self._lose(ConnectionLost(self._child.fate()))

    def _lose(self, error: ClientError, told: bool = True) -> None:
        with self._lost_lock:
            if self.lost is not None:
                return
            self.lost = error
        self._gone.set()
        transport = self._transport()
        if told and transport is not None:
            # Before the callers, since one whose call has failed may make another, for which a new process is started.
            _tell(transport.on_lost, error)
        self._pending.fail(error)
        self._needed.set()

    def _take(self, line: bytes) -> None:
        """Hand out the message or the batch in a line; pass over a line that is neither. Spec: TRN-010"""
        line = without_bom(line)
        try:
            value = wire.loads(line, MAX_DEPTH, MAX_ELEMENTS)
        except McpError as error:
            self._log(error, line)
            return
        for message in map(tidy, value if isinstance(value, list) else [value]):
            try:
                wire.check(message)
            except McpError as error:
                self._log(error, line, wire.dumps(message))
                if _names_no_request(message):
                    self._deliver(message)
            else:
                self._deliver(message)

    def doubt(self) -> str:
        """Return that only something else than messages came, if that is so, or ""."""
        if self._delivered or not self._foreign:
            return ""
        lines = "1 line" if self._foreign == 1 else f"{self._foreign} lines"
        return f"wrote {lines} and none of them is a message"

    def first(self) -> str:
        """Return a sentence with the first line that is no message."""
        return f"The first is {self._first_foreign.decode('utf-8', 'replace')!r}"

    def _deliver(self, message: Message) -> None:
        self._delivered = True
        transport = self._transport()
        if transport is not None and transport.record is not None:
            _tell(transport.record, "received", message)
        if not self._pending.take(message) and transport is not None:
            _tell(transport.on_message, message)

    def _log(self, error: McpError, line: bytes, item: bytes | None = None) -> None:
        """Log what a server does wrong, a bounded number of times; the only call fails, if this was its answer.

        :param item: the member of a batch that is wrong.
        """
        wrong = ProtocolError(f"The server answered with a line that is no message: {error}")
        self._pending.fail_alone(wrong, lambda id: may_answer(line if item is None else item, id))
        self._first_foreign = self._first_foreign or line[:200].strip()
        self._foreign += 1
        if self._foreign == _MOST_FOREIGN and not self._delivered:
            told = f"The server {self._child.command} {self.doubt()}: it is no MCP server. {self.first()}"
            self._lose(ConnectionLost(told, "never"))
        if self._foreign <= _MOST_LOGGED:
            more = "; further such lines are not logged" if self._foreign == _MOST_LOGGED else ""
            log.warning(
                "the server wrote a line that is no message (%s), where print() belongs on standard error: %r%s",
                error,
                line[:200],
                more,
            )


def _unsent(error: ClientError) -> str:
    """Return the `retry` of a request that was not sent, since the connection had ended with this error."""
    return "never" if isinstance(error, ConnectionLost) and error.retry == "never" else "always"


def _names_no_request(message: Any) -> bool:
    """Say whether this is an error without a request's id: no call waits for it, but a trace shows it."""
    return isinstance(message, dict) and "error" in message and "method" not in message and message.get("id") is None


def _tell(function: Callable[..., Any], *args: Any) -> None:
    """Call what is above the transport; an exception that it raises does not end the reading."""
    try:
        function(*args)
    except Exception:
        log.exception("a message could not be handed on")


class StdioExchange(Exchange):
    """One request, refused in a forked process, where the reader thread does not exist."""

    __slots__ = ("_connection", "_queued")

    def __init__(self, connection: StdioConnection, queued: Queued) -> None:
        self._connection = connection
        self._queued = queued

    def receive(self, timeout_s: float | None) -> Message:
        """Return the next message, or raise; see `Exchange`."""
        self._connection.check_process()
        return self._connection.receive(self._queued, timeout_s)

    def abort(self, error: ClientError) -> None:
        """End the exchange with an error."""
        self._queued.abort(error)

    def close(self) -> None:
        """Forget the exchange."""
        # In a forked process a lock may be held by a thread that does not exist there.
        if self._connection.pid == os.getpid():
            self._queued.close()
