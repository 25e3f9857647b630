"""A server's process: its three pipes, and how it is ended.

Spec: TRN-009, TRN-015, TRN-023, BASE-113
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Union

from ...engines.errors import ConnectionLost
from .command import environment, find, shown
from .pipes import CAN_POLL, CHUNK, QUEUE_BYTES, Reader, Stop, Writer

log = logging.getLogger("minimcp")
stderr_log = logging.getLogger("minimcp.stderr")

# Takes each line that a server writes to standard error: a function, or an object with `write`.
Sink = Union[Callable[[str], Any], Any, None]

PATIENCE_S = 2.0
_TAIL = 16 * 1024
_SHOWN_TAIL = 2000
_LAST_WORDS_S = 0.2
_SIGKILL = getattr(signal, "SIGKILL", 9)


class Child:
    """A running server with its pipes.

    One thread drains standard error and one waits for the end of the process; reading its output is left to others.

    :param patience_s: how long each step of `end` waits for the process to go.
    :ivar input: the writer of its standard input.
    :ivar output: the reader of its standard output.
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
        self._killed = False
        self._process, self._stop = _spawn(command, environment(env), cwd)
        self.input = Writer(self._process.stdin, queue_bytes)
        self.output = Reader(self._process.stdout, self._stop)
        self._errors = Reader(self._process.stderr, self._stop)
        _live.add(self)
        self._drainer = threading.Thread(target=self._drain, name="minimcp-stdio-errors", daemon=True)

    def watch(self, reader: threading.Thread, on_exit: Callable[[], None]) -> None:
        """Start the threads.

        :param reader: reads `output` to its end and closes it.
        :param on_exit: called on a thread of its own when the process has ended and is reaped.
        :raises ConnectionLost: when the system has no thread to give; the process is ended then.
        """
        waiter = threading.Thread(target=self._wait, args=(on_exit,), name="minimcp-stdio-wait", daemon=True)
        started = []
        try:
            for thread in (reader, self._drainer, waiter):
                thread.start()
                started.append(thread)
        except RuntimeError as error:
            self.signal(_SIGKILL)
            self._process.wait()
            self.exited.set()
            self.sweep()
            if reader not in started:
                self.output.close()
            if self._drainer not in started:
                self._errors.close()
            raise ConnectionLost(f"The server {self.command} was not started: {error}", "always") from None

    def _drain(self) -> None:
        """Read standard error to its end, whatever its reader does: a server would stop at a full pipe."""
        rest = b""
        while chunk := self._errors.read():
            self._tail = (self._tail + chunk)[-_TAIL:]
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > CHUNK:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._tell(line)
        if rest:
            self._tell(rest)
        self._errors.close()

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
        """Make `output` end, whose reader then ends the process. Takes no lock: it runs inside the collector."""
        self._stop.set()
        if not CAN_POLL:
            self._process.kill()

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group, if there is anything left of it."""
        if self._swept.is_set():
            return
        self._killed = self._killed or number == _SIGKILL
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
            self._swept.wait(self.patience_s + 1)
            return
        if sys.platform != "win32" and not self._killed:
            self.signal(signal.SIGTERM)
            until = time.monotonic() + min(self.patience_s, 1.0)
            while self._group_lives() and time.monotonic() < until:
                time.sleep(0.02)
            self.signal(_SIGKILL)
        self.input.close()
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
        self._drainer.join(_LAST_WORDS_S)
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


def end(children: Iterable[Child]) -> None:
    """End several processes at once, so that together they take no longer than one. Spec: TRN-023, BASE-113"""
    children = list(children)
    for child in children:
        child.input.close()
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


def _spawn(command: list[str], env: dict[str, str], cwd: str | None) -> tuple[Any, Stop]:
    """The process, and what its two readers wait for beside their pipes."""
    words = find(command, env, cwd)
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    pipe = subprocess.PIPE
    stop = None
    try:
        stop = Stop(2)
        return subprocess.Popen(words, 0, None, pipe, pipe, pipe, env=env, cwd=cwd, close_fds=True, **options), stop
    except (OSError, TypeError, ValueError) as error:
        if stop is not None:
            stop.close()
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
