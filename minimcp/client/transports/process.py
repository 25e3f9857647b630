"""A server's process: how it is started, written to, read from and ended.

Spec: TRN-009, TRN-015, TRN-023, BASE-113
"""

from __future__ import annotations

import _thread
import atexit
import io
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Union

from ...engines.errors import ConnectionLost, Timeout
from ..python_files import HIDING
from .command import environment, find, shown
from .server_lines import ServerLines

if TYPE_CHECKING:
    from ..sandbox import Sandbox

log = logging.getLogger("minimcp")

# Takes each line that a server writes to standard error: a function, or an object with `write`. None stands for this
# process's own standard error, False for nothing.
Sink = Union[Callable[[str], Any], Any, None]
# What stands before these lines in the message of an error.
SAID = ". The end of its standard error:\n"

PATIENCE_S = 2.0
_CHUNK = 64 * 1024
_STEP_S = 0.1
_TAIL = 16 * 1024
_SHOWN_TAIL = 2000
# How long a process that is gone is waited for on standard error, which a grandchild may keep open.
_LAST_WORDS_S = 0.2
# How long a thread that has not come to what is there already is waited for: on a busy machine it may be far behind.
BEHIND_S = 5.0
_HIDDEN = re.compile(r"cannot import name '\w+' from [^\n]*'minimcp'[^\n]*\(([^()\n]*minimcp\.py)\)")
_MISSING = re.compile(r"^KeyError: '(\w+)'$", re.MULTILINE)
_SIGKILL = getattr(signal, "SIGKILL", 9)


class Child:
    """A running server with its pipes.

    One thread drains standard error and one waits for the end of the process; reading its output is left to others.
    The pipes are the file objects of `subprocess`, which gevent, where patched in, makes cooperative.

    :param patience_s: how long each step of `end` waits for the process to go.
    :ivar command: the command as it may be shown.
    :ivar exited: set when the process has ended and is reaped.
    :raises ConnectionLost: when the process cannot be started.
    """

    def __init__(
        self,
        command: list[str],
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        stderr: Sink = None,
        patience_s: float = PATIENCE_S,
        sandbox: Sandbox | None = None,
    ) -> None:
        self.command = shown(command)
        self.patience_s = patience_s
        self.exited = threading.Event()
        self._owner = os.getpid()
        self._sink = ServerLines() if stderr is None else stderr
        if isinstance(self._sink, ServerLines):
            self._sink.begin()
        self._tail = b""
        self._sweeping = threading.Lock()  # taken once, by the thread that ends what is left of the group
        self._swept = threading.Event()
        self._killed = False
        self._words, self._env = list(command), environment(env)
        self._process = _spawn(command, self._env, cwd, sandbox)
        # Guards _unsent and the input pipe, its closing too; nobody waits for room while holding it.
        self._input_lock = threading.Lock()
        # Held by the one caller that polls a full pipe, so that room does not wake them all. It guards nothing: the
        # others try again after each step.
        self._watch = threading.Lock()
        self._unsent = memoryview(b"")  # the end of the line whose beginning is written
        if hasattr(select, "poll"):
            # On other systems, such as Windows, a write waits until the server reads or ends.
            os.set_blocking(self._process.stdin.fileno(), False)
        self._drainer = threading.Thread(target=self._drain, name="minimcp-stdio-errors", daemon=True)
        _live.add(self)

    def start(self, reader: threading.Thread, on_exit: Callable[[], None]) -> None:
        """Start the threads.

        :param reader: calls `read` until the output ends, then `close_output`.
        :param on_exit: called on a thread of its own when the process has ended and is reaped.
        :raises ConnectionLost: when the system has no thread to give; the process is ended then.
        """
        waiter = threading.Thread(target=self._wait, args=(on_exit,), name="minimcp-stdio-wait", daemon=True)
        try:
            for thread in (reader, self._drainer, waiter):
                thread.start()
        except RuntimeError as error:
            self.signal(_SIGKILL)
            self._process.wait()
            self.exited.set()
            self.sweep()
            if reader.ident is None:
                self.close_output()
            if self._drainer.ident is None:
                self._process.stderr.close()
            raise ConnectionLost(f"The server {self.command} was not started: {error}", "always") from None

    def read(self) -> bytes:
        """Wait for output and return some, b"" at its end."""
        return _read(self._process.stdout)

    def read_into(self, chunks: deque[bytes]) -> None:
        """Read some output and add it, b"" at its end, with no point between at which an interrupt is raised."""
        try:
            chunks.extend(map(self._process.stdout.read, (_CHUNK,)))
        except (OSError, ValueError):
            chunks.append(b"")

    def output_poll(self) -> select.poll | None:
        """Return an object that waits for output, None where the system has none."""
        if not hasattr(select, "poll"):
            return None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        return poll

    def has_output(self) -> bool:
        """Say whether there is output, or its end, that was not read yet; False where the system does not tell."""
        return _has_more(self._process.stdout)

    def is_over(self) -> bool:
        """Say whether the process has ended, though it may not be reaped yet."""
        if self.exited.is_set() or not hasattr(os, "waitid"):
            return self.exited.is_set()
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def ends(self, timeout_s: float) -> bool:
        """Wait until the process has ended and is reaped, and say whether it did end in time."""
        return self.exited.wait(timeout_s) or (self.is_over() and self.exited.wait(BEHIND_S))

    def close_output(self) -> None:
        """Close the output, once nothing reads it any more."""
        self._process.stdout.close()

    def write(self, line: bytes, timeout_s: float | None) -> None:
        """Write a line to the input, waiting while the pipe is full.

        The end of a line that was only begun in time is kept, and written before the next one.

        :raises OSError: when the server cannot read any more.
        :raises Timeout: when the line is not written in time; `retry` is "always" if none of it is.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        begun = watching = False
        try:
            while True:
                with self._input_lock:
                    if self._unsent:
                        self._unsent = self._unsent[self._put(self._unsent) :]
                    if begun and (not self._unsent or self._unsent.obj is not line):
                        return
                    if not begun and not self._unsent:
                        sent = self._put(line)
                        if sent == len(line):
                            return
                        if sent:
                            begun = True
                            self._unsent = memoryview(line)[sent:]
                left = _STEP_S if until is None else min(until - time.monotonic(), _STEP_S)
                if left <= 0:
                    raise Timeout(f"The server {self.command} did not read in time", None if begun else "always")
                if watching:
                    self._wait_for_room(left)
                else:
                    watching = self._watch.acquire(timeout=left)
        finally:
            if watching:
                self._watch.release()

    def _put(self, data: bytes | memoryview) -> int:
        """Write as much as the pipe has room for, and return how much that was."""
        try:
            return os.write(self._process.stdin.fileno(), data)
        except BlockingIOError:
            return 0
        except ValueError:
            raise BrokenPipeError("the input is closed") from None

    def _wait_for_room(self, timeout_s: float) -> None:
        poller = select.poll()
        try:
            poller.register(self._process.stdin.fileno(), select.POLLOUT)
        except ValueError:
            return  # It was closed, which the next write reports.
        poller.poll(timeout_s * 1000)

    def close_input(self) -> None:
        """Close the input, any number of times; what was not written is dropped."""
        # Where a write can only block, it has the lock until the process is killed, and `sweep` comes here again.
        if self._input_lock.acquire(timeout=_STEP_S):
            try:
                self._process.stdin.close()
            except OSError:
                pass
            finally:
                self._input_lock.release()

    def _drain(self) -> None:
        """Read standard error to its end, whatever becomes of the lines: a server would stop at a full pipe."""
        rest = b""
        while chunk := _read(self._process.stderr):
            self._tail = (self._tail + chunk)[-_TAIL:]
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _CHUNK:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._tell(line)
        if rest:
            self._tell(rest)
        self._process.stderr.close()

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        try:
            if self._sink is False:
                return
            if callable(self._sink):
                self._sink(text)
            else:
                self._sink.write(text + "\n")
        except Exception:
            log.exception("the function or file for standard error failed; it gets no more lines")
            self._sink = False

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
        """End the process on a thread of its own, without waiting and without a lock: the collector calls this."""
        if self._owner != os.getpid() or self._swept.is_set():
            return
        try:
            # Not a `threading.Thread`, whose start takes locks and waits.
            _thread.start_new_thread(self.end, ())
        except RuntimeError:
            self.signal(_SIGKILL)

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
        """End what a process that is gone left of its group, and close its input."""
        if not self._sweeping.acquire(blocking=False):
            self._swept.wait(self.patience_s + 1)
            return
        if sys.platform != "win32" and not self._killed:
            self.signal(signal.SIGTERM)
            until = time.monotonic() + min(self.patience_s, 1.0)
            while self._group_lives() and time.monotonic() < until:
                time.sleep(0.02)
            self.signal(_SIGKILL)
        self.close_input()
        _live.discard(self)
        self._swept.set()

    def _group_lives(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except OSError:
            return False
        return True

    def hear_out(self) -> None:
        """Wait for the end of standard error, but not for ever: a grandchild may keep the pipe open."""
        if self._drainer.ident is not None and self._drainer is not threading.current_thread():
            until = time.monotonic() + BEHIND_S
            self._drainer.join(_LAST_WORDS_S)
            while self._drainer.is_alive() and _has_more(self._process.stderr) and time.monotonic() < until:
                self._drainer.join(_LAST_WORDS_S)

    def fate(self) -> str:
        """Return what became of the process, and the last it wrote to standard error, for an error message."""
        self.hear_out()
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
        said = SAID + tail if tail else " and wrote nothing to standard error"
        return f"The server {self.command} {text}{self._advice(tail)}{said}"

    def _advice(self, tail: str) -> str:
        """Return what may help, by the end of standard error."""
        file = next((word for word in self._words if word.endswith(".py")), None)
        missing = _MISSING.search(tail)
        if self._process.returncode == 0 and not tail and file is not None:
            return f" (does {file} call server.run()? Client({file!r}) serves it without)"
        if "No module named 'minimcp'" in tail and os.path.abspath(self._words[0]) != sys.executable:
            found = shutil.which(self._words[0], path=self._env.get("PATH")) or self._words[0]
            return f" ({self._words[0]} is {found}, while this program runs {sys.executable})"
        hidden = _HIDDEN.search(tail)
        if hidden:
            return f" ({HIDING.format(hidden[1])})"
        if missing and "environ" in tail and missing[1] not in self._env:
            known = f"{missing[1]} is set here, but " if missing[1] in os.environ else ""
            return f" ({known}a server gets few variables: env={{{missing[1]!r}: ...}} gives it)"
        return ""


def _read(pipe: Any) -> bytes:
    try:
        chunk: bytes = pipe.read(_CHUNK)
    except (OSError, ValueError):
        return b""
    return chunk


def _has_more(pipe: Any) -> bool:
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    try:
        poll.register(pipe, select.POLLIN)
    except ValueError:
        return False  # It was closed, after all was read.
    return bool(poll.poll(0))


def end(children: Iterable[Child]) -> None:
    """End several processes at once, so that together they take no longer than one. Spec: TRN-023, BASE-113"""
    children = list(children)
    for child in children:
        child.close_input()
    for number in (signal.SIGTERM, _SIGKILL):
        if _all_exited(children):
            break
        for child in children:
            if not child.exited.is_set():
                child.signal(number)
    _all_exited(children)
    for child in children:
        child.sweep()
    for child in children:
        # What a server says last is shown before its client is closed.
        child.hear_out()


def _all_exited(children: list[Child]) -> bool:
    until = time.monotonic() + max((child.patience_s for child in children), default=0)
    return all(child.exited.wait(max(0.0, until - time.monotonic())) for child in children)


def _spawn(command: list[str], env: dict[str, str], cwd: str | None, sandbox: Sandbox | None) -> Any:
    words = find(command, env, cwd)
    if sandbox is not None:
        words = sandbox.wrap(words, cwd)
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
    """Close the parent's pipes in a forked process, or else a server would not see that its input was closed."""
    for child in _live:
        process = child._process
        for pipe in (process.stdin, process.stdout, process.stderr):
            if isinstance(pipe, io.FileIO):
                pipe.close()
        # Only the parent waits for it; without this `subprocess` warns that it is still running.
        process.returncode = 0
    _live.clear()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
