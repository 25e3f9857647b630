"""Calls that run on a thread of their own, and the thread that cancels those that nobody holds any more."""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Optional

from ..engines.errors import ConnectionLost, ProtocolError, Timeout
from ..engines.fork import PerProcess
from .call import ClientCall
from .connection import HANG_UP_S
from .errors import UsedAfterFork
from .tracebacks import short_traceback
from .transports.waiting import Mailbox

Message = dict[str, Any]


class RunningCall:
    """A call on a thread of its own: iterate over it for its progress, take its `result()`, or `cancel()` it.

    As a context it is cancelled at the end, if it has not ended by then; so is one that nobody refers to any more.
    """

    def __init__(self, call: ClientCall) -> None:
        self._call = call
        self._work = work = _Work(call)
        self._pid = os.getpid()
        self._raised = False
        # The thread knows the call and never the handle, which would not be found dropped otherwise.
        weakref.finalize(self, _dropped().calls.put, call).atexit = False
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(work.run,), name="minimcp-call", daemon=True)
        try:
            _dropped().run(self._thread)
        except RuntimeError as problem:
            raise ConnectionLost(f"Nothing was sent: {problem}", "always") from None

    def __enter__(self) -> RunningCall:
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._work.over:
            self.cancel()
            if self._thread is not threading.current_thread():
                self._thread.join(HANG_UP_S)  # it tells the server

    def __iter__(self) -> Iterator[Message]:
        """Yield `{"progress": number, "total"?: number, "message"?: str}` until the call has ended."""
        return self

    def __next__(self) -> Message:
        work = self._work
        # An interrupt may have come between taking the None that marks the end and acting on it.
        if not work.over or len(work.progress):
            if self._pid != os.getpid():
                raise UsedAfterFork("The call runs in the parent process; start another one here")
            progress: Optional[Message] = work.progress.get(None)
            if progress is not None:
                return progress
            work.progress.put(None)  # for other threads that wait
        if work.error is not None and not self._raised:
            self._raised = True
            raise work.error
        raise StopIteration

    @short_traceback
    def result(self, on_progress: Callable[[Message], Any] | None = None) -> Any:
        """Wait for the answer.

        :param on_progress: called with each progress on this thread; an exception of it ends the call.
        :raises ClientError: when there is no answer, or a wrong one.
        """
        try:
            for progress in self:
                if on_progress is not None:
                    on_progress(progress)
        except BaseException:
            self.cancel()
            raise
        if self._work.error is not None:
            raise self._work.error
        return self._work.outcome

    def cancel(self) -> None:
        """End the call from any thread: `result` raises CallCancelled, and the server is told."""
        if not self._work.over:
            self._call.cancel()

    @property
    def task_id(self) -> Optional[str]:
        """The id of the task that the server has made of the call, as soon as it has; None for a plain call."""
        return self._call.task_id

    def detach(self, timeout: float | None = None) -> str:
        """Follow the task of the call no longer, and return its id; it goes on, and `client.task(id)` comes back to it.

        :param timeout: the seconds to wait until the server has made a task of the call.
        :raises Timeout: when it has not in that time; the call goes on.
        :raises ClientError: when the call has ended without a task.
        """
        if not self._work.known.wait(timeout):
            raise Timeout("The server has not made a task of the call yet")
        if self._call.task_id is None:
            raise self._work.error or ProtocolError("The server has answered the call without making a task of it")
        if not self._work.over:
            self._call.detach()
        return self._call.task_id


class _Work:
    """A call, its progress so far, None at its end, and its outcome; no lock, since one thread writes it."""

    __slots__ = ("call", "error", "known", "outcome", "over", "progress")

    def __init__(self, call: ClientCall) -> None:
        self.call = call
        self.known = threading.Event()  # set when there is a task, or at the end
        call.on_task = lambda id: self.known.set()
        self.progress = Mailbox()
        self.outcome: Any = None
        self.error: Optional[BaseException] = None
        self.over = False

    def run(self) -> None:
        try:
            self.outcome = self.call.run(self.hear)
        except BaseException as error:
            self.error = error
        self.over = True
        self.known.set()
        self.progress.put(None)
        _dropped().end()

    def hear(self, progress: Message) -> None:
        """Keep progress for the handle; too much of it is lost."""
        self.progress.offer(progress)


class _Dropped:
    """Cancels the calls whose handle was dropped, on a thread that lives as long as calls have threads of their own.

    A finalizer may run inside the collector, at any point of any thread. So it only puts the call into a mailbox, which
    takes no lock; cancelling takes locks and uses the network.
    """

    def __init__(self) -> None:
        self.calls = Mailbox()
        self._lock = threading.Lock()  # guards _running and _watching
        self._running = 0
        self._watching = False

    def run(self, thread: threading.Thread) -> None:
        """Start the thread of a call, which calls `end` at its end.

        :raises RuntimeError: when the system has no thread to give.
        """
        with self._lock:
            if not self._watching:
                threading.Thread(target=self._cancel, name="minimcp-dropped", daemon=True).start()
                self._watching = True
            self._running += 1
        try:
            thread.start()
        except RuntimeError:
            self.end()
            raise

    def end(self) -> None:
        """Count a call that has ended."""
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self.calls.put(None)

    def _cancel(self) -> None:
        while True:
            call: Optional[ClientCall] = self.calls.get(None)
            if call is not None:
                call.cancel()
                continue
            with self._lock:
                if self._running == 0:
                    self._watching = False
                    return


_dropped = PerProcess(_Dropped)
