"""A server's process: its three pipes, and how it is ended.

Spec: TRN-009, TRN-015, TRN-023, BASE-113
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Union

from ..protocol.errors import ConnectionLost
from .command import environment, find, shown

log = logging.getLogger("minimcp")
stderr_log = logging.getLogger("minimcp.stderr")

# Takes each line that a server writes to standard error: a function, or an object with `write`.
Sink = Union[Callable[[str], Any], Any, None]

PATIENCE_S = 2.0
QUEUE_BYTES = 64 * 1024 * 1024
_CHUNK = 64 * 1024
_TAIL = 16 * 1024
_SHOWN_TAIL = 2000
_LAST_WORDS_S = 0.2
_WRITER_S = 0.5
_SIGKILL = getattr(signal, "SIGKILL", 9)
# POSIX can wait for several pipes at once; elsewhere each pipe has a thread that blocks in it.
CAN_POLL = hasattr(select, "poll")


class Child:
    """A running server with its pipes.

    A thread drains standard error, one waits for the end of the process, and one writes what the pipe has no room for;
    reading standard output is left to the caller of `read`.

    :param patience_s: how long each step of `end` waits for the process to go.
    :ivar exited: set when the process has ended and is reaped.
    :raises ConnectionLost: when the process cannot be started.
    """

    def __init__(
        self,
        command: list[str],
        env: dict[str, str] | None,
        cwd: str | None,
        stderr: Sink = None,
        patience_s: float = PATIENCE_S,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.command = shown(command)
        self.patience_s = patience_s
        self.exited = threading.Event()
        self._owner = os.getpid()
        self._sink = stderr
        self._tail = b""
        self._sweeping = threading.Lock()  # taken once, by whoever ends what is left of the group
        self._swept = threading.Event()
        self._changed = threading.Condition()  # guards the four below, and who may write to stdin
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._hung_up = False
        self._writer: threading.Thread | None = None
        self._queue_bytes = queue_bytes
        self._process = _spawn(command, environment(env), cwd)
        self._stop = _Stop()
        if CAN_POLL:
            os.set_blocking(self._process.stdin.fileno(), False)
            self._writable = select.poll()
            self._writable.register(self._process.stdin.fileno(), select.POLLOUT)
            self._readable = self._poller(self._process.stdout)
        _live.add(self)
        self._errors = threading.Thread(target=self._drain, name="minimcp-stdio-errors", daemon=True)

    def watch(self, reader: threading.Thread, on_exit: Callable[[], None]) -> None:
        """Start the threads.

        :param reader: calls `read` until the end, and `close_output` then.
        :param on_exit: called on a thread of its own when the process has ended and is reaped.
        :raises ConnectionLost: when the system has no thread to give; the process is ended then.
        """
        waiter = threading.Thread(target=self._wait, args=(on_exit,), name="minimcp-stdio-wait", daemon=True)
        started = []
        try:
            for thread in (reader, self._errors, waiter):
                thread.start()
                started.append(thread)
        except RuntimeError as error:
            self.signal(_SIGKILL)
            self._process.wait()
            self.exited.set()
            self.sweep()
            if reader not in started:
                self.close_output()
            if self._errors not in started:
                self._close_errors()
            raise ConnectionLost(f"The server {self.command} was not started: {error}", "always") from None

    def _poller(self, pipe: Any) -> Any:
        """What waits for a pipe to have something, or for the order to stop."""
        poller = select.poll()
        poller.register(pipe.fileno(), select.POLLIN)
        poller.register(self._stop.fileno(), select.POLLIN)
        return poller

    # Reading.

    def read(self, timeout_s: float | None = None) -> bytes | None:
        """Some bytes of standard output, b"" at its end, None when nothing came in time. One thread at a time."""
        return self._read(self._process.stdout, self._readable if CAN_POLL else None, timeout_s)

    def _read(self, pipe: Any, poller: Any, timeout_s: float | None = None) -> bytes | None:
        if poller is not None:
            ready = poller.poll(None if timeout_s is None else timeout_s * 1000)
            if not ready:
                return None
            if len(ready) > 1 or ready[0][0] == self._stop.fileno():
                return b""
        try:
            chunk: bytes = pipe.read(_CHUNK)
        except (OSError, ValueError):
            return b""
        return chunk

    def close_output(self) -> None:
        """Let go of standard output, when nothing reads it any more."""
        self._process.stdout.close()
        self._stop.leave()

    def _drain(self) -> None:
        """Read standard error to its end, whatever its reader does: a server would stop at a full pipe."""
        pipe = self._process.stderr
        poller = self._poller(pipe) if CAN_POLL else None
        rest = b""
        while chunk := self._read(pipe, poller):
            self._tail = (self._tail + chunk)[-_TAIL:]
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _CHUNK:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._tell(line)
        if rest:
            self._tell(rest)
        self._close_errors()

    def _close_errors(self) -> None:
        self._process.stderr.close()
        self._stop.leave()

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        try:
            if self._sink is None:
                stderr_log.info("%s", text)
            elif callable(self._sink):
                self._sink(text)
            else:
                self._sink.write(text + "\n")
        except Exception:
            log.exception("what takes the lines of standard error failed; it gets no more of them")
            self._sink = None

    # Writing.

    def write(self, data: bytes) -> None:
        """Write at once what the pipe has room for and leave the rest to a thread; never blocks.

        :raises OSError: when the server does not read any more.
        :raises ConnectionLost: when too much waits already; nothing of `data` is sent then.
        """
        with self._changed:
            if self._hung_up:
                raise BrokenPipeError
            view = memoryview(data)
            if CAN_POLL and not self._queue and self._writable.poll(0):
                view = view[self._process.stdin.write(view) or 0 :]
                if not view:
                    return
            elif self._queue and self._queued + len(view) > self._queue_bytes:
                raise ConnectionLost(
                    f"The server {self.command} does not read: {self._queued} bytes wait to be sent", "always"
                )
            self._queue.append(view)
            self._queued += len(view)
            try:
                self._start_writer()
            except RuntimeError as error:
                if len(view) == len(data):
                    self._queued -= len(self._queue.pop())
                    raise ConnectionLost(f"Nothing was sent to {self.command}: {error}", "always") from None
                # The beginning of the line is written; its rest goes with the next.
            self._changed.notify()

    def _start_writer(self) -> None:
        if self._writer is None:
            writer = threading.Thread(target=self._write, name="minimcp-stdio-write", daemon=True)
            writer.start()
            self._writer = writer

    def _write(self) -> None:
        """Write what is queued, in order, whenever the pipe has room."""
        writable = select.poll() if CAN_POLL else None
        if writable is not None:
            writable.register(self._process.stdin.fileno(), select.POLLOUT)
        while True:
            with self._changed:
                while not self._queue and not self._hung_up:
                    self._changed.wait()
                if self._hung_up:
                    return
                view = self._queue[0]
            try:
                # In steps, since a server that never reads must not keep this thread from the end of the connection.
                written = 0 if writable and not writable.poll(100) else self._process.stdin.write(view) or 0
            except (OSError, ValueError):
                with self._changed:
                    self._hung_up = True
                return
            with self._changed:
                if self._hung_up:
                    return
                self._queued -= written
                if written == len(view):
                    self._queue.popleft()
                else:
                    self._queue[0] = view[written:]

    def hang_up(self) -> None:
        """Close the server's standard input, which asks it to end."""
        with self._changed:
            self._hung_up = True
            self._queue.clear()
            self._changed.notify()
        if self._writer is not None and self._writer is not threading.current_thread():
            self._writer.join(_WRITER_S)
        if self._writer is None or not self._writer.is_alive():
            try:
                self._process.stdin.close()
            except OSError:
                pass

    # The end.

    def _wait(self, on_exit: Callable[[], None]) -> None:
        self._process.wait()
        self.exited.set()
        try:
            on_exit()
        except Exception:
            log.exception("the end of a server could not be told")
        self.sweep()

    def end(self) -> None:
        """End the process and its group: close its input, wait, terminate, wait, kill. Bounded, from any thread."""
        end([self])

    def abandon(self) -> None:
        """Make `read` return b"", whose caller then ends the process. Takes no lock: it runs inside the collector."""
        self._stop.set()
        if not CAN_POLL:
            self._process.kill()

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group, if there is anything left of it."""
        if self._swept.is_set():
            return
        try:
            if sys.platform != "win32":
                os.killpg(self._process.pid, number)
            else:
                _kill_tree(self._process.pid)
        except (OSError, subprocess.SubprocessError):
            pass

    def sweep(self) -> None:
        """End what a process that is gone left of its group, and let go of the pipes."""
        if not self._sweeping.acquire(blocking=False):
            self._swept.wait(self.patience_s)
            return
        if sys.platform != "win32":
            self.signal(signal.SIGTERM)
            until = time.monotonic() + min(self.patience_s, 1.0)
            while self._group_lives() and time.monotonic() < until:
                time.sleep(0.02)
            self.signal(_SIGKILL)
        self.hang_up()
        self._stop.set()
        _live.discard(self)
        self._swept.set()

    def _group_lives(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except OSError:
            return False
        return True

    def fate(self) -> str:
        """What became of the process, and the last it said, for an error message."""
        # A grandchild may keep the pipe open, so not for ever.
        self._errors.join(_LAST_WORDS_S)
        code = self._process.returncode
        if not self.exited.is_set():
            text = "closed its standard output but is still running"
        elif code >= 0:
            text = f"exited with code {code}"
        else:
            try:
                text = f"was ended by {signal.Signals(-code).name}"
            except ValueError:
                text = f"was ended by signal {-code}"
        tail = self._tail.decode("utf-8", "replace").strip()
        if len(tail) > _SHOWN_TAIL:
            # From the beginning of a line, if there is one.
            tail = tail[-_SHOWN_TAIL:]
            tail = tail[tail.find("\n") + 1 :]
        said = f". The end of its standard error:\n{tail}" if tail else " and wrote nothing to standard error"
        return f"The server {self.command} {text}{said}"


class _Stop:
    """A pipe that two threads can wait for together with another: it is readable once `set` was called."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._users = [2, 1]
        # Guards the pipe. The collector may call `set` in the middle of `close`.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        # A byte, not the closing of this end, of which a forked process may have a copy.
        with self._lock:
            if self._write >= 0:
                os.write(self._write, b".")

    def leave(self) -> None:
        """Called by each of the threads when it waits no more; the last one closes the pipe."""
        if self._users.pop() == 2:
            with self._lock:
                self.close()

    def close(self) -> None:
        write, self._write = self._write, -1
        if write >= 0:
            os.close(write)
            os.close(self._read)


def end(children: Iterable[Child]) -> None:
    """End several processes at once, so that together they take no longer than one. Spec: TRN-023, BASE-113"""
    children = list(children)
    for child in children:
        child.hang_up()
    for number in (signal.SIGTERM, _SIGKILL):
        if _all_exited(children):
            break
        for child in children:
            if not child.exited.is_set():
                child.signal(number)
    _all_exited(children)
    for child in children:
        child.sweep()


def _all_exited(children: list[Child]) -> bool:
    until = time.monotonic() + max((child.patience_s for child in children), default=0)
    return all(child.exited.wait(max(0.0, until - time.monotonic())) for child in children)


def _spawn(command: list[str], env: dict[str, str], cwd: str | None) -> Any:
    words = find(command, env, cwd)
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(words, 0, None, pipe, pipe, pipe, env=env, cwd=cwd, close_fds=True, **options)
    except (OSError, TypeError, ValueError) as error:
        raise ConnectionLost(f"The server {shown(command)} did not start: {error}", "always") from None


def _kill_tree(pid: int) -> None:
    subprocess.run(["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True, timeout=5)


# The children that this process has started and not ended yet.
_live: set[Child] = set()


def _end_all() -> None:
    children = [child for child in list(_live) if child._owner == os.getpid()]
    try:
        end(children)
    except BaseException:
        # A second Ctrl-C: no more patience.
        for child in children:
            child.signal(_SIGKILL)
        raise


def _forget_all() -> None:
    """In a forked process: let go of the parent's pipes, or else a server would not see that its input was closed."""
    for child in _live:
        process = child._process
        for pipe in (process.stdin, process.stdout, process.stderr):
            if isinstance(pipe, io.FileIO):
                pipe.close()
        child._stop.close()
        # It is not ours to wait for; without this it would be told of as still running.
        process.returncode = 0
    _live.clear()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
