"""Worker threads, which run handlers while a transport goes on with its own work."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable

from ..engines.fork import PerProcess

log = logging.getLogger("minimcp")

_IDLE_S = 10.0

Job = Callable[[], None]


class Workers:
    """Up to `limit` daemon threads, started when needed and ended when idle; jobs beyond that wait their turn.

    A job runs in a copy of the submitting thread's context variables. A forked child needs Workers of its own.

    :param waiting: how many jobs may wait for a thread.
    :param waiting_bytes: how many bytes they may hold together.
    """

    def __init__(self, limit: int, waiting: int, waiting_bytes: int, name: str = "minimcp-worker") -> None:
        self._limit = limit
        self._waiting = waiting
        self._waiting_bytes = waiting_bytes
        self._name = name
        self._changed = threading.Condition()  # guards everything below
        self._jobs: deque[tuple[contextvars.Context, Job, int]] = deque()
        self._bytes = 0  # what _jobs hold
        self._idle = 0
        self._threads = 0

    def submit(self, job: Job, size: int = 0) -> None:
        """Run a job soon.

        :param size: the bytes that it holds.
        :raises RuntimeError: when it would need a thread that the system does not have, or too many jobs wait.
        """
        with self._changed:
            if self._idle <= len(self._jobs):
                self._make_room(size)
            self._jobs.append((contextvars.copy_context(), job, size))
            self._bytes += size
            self._changed.notify()

    def _make_room(self, size: int) -> None:
        """Start a thread for one more job, or see that it may wait for one that is there."""
        if self._threads < self._limit:
            try:
                # Under the lock: whoever finds no thread here can be sure that none is about to come.
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._threads += 1
                return
            except RuntimeError:
                if self._threads == 0:
                    raise
        waiting = len(self._jobs) - self._idle
        if waiting >= self._waiting or (waiting > 0 and self._bytes + size > self._waiting_bytes):
            raise RuntimeError("too many jobs wait for a thread")

    def _work(self) -> None:
        changed = self._changed
        while True:
            with changed:
                while not self._jobs:
                    self._idle += 1
                    woken = changed.wait(_IDLE_S)
                    self._idle -= 1
                    if not woken and not self._jobs:
                        self._threads -= 1
                        return
                context, job, size = self._jobs.popleft()
                self._bytes -= size
            try:
                context.run(job)
            except BaseException:
                log.exception("a worker's job failed")
            # Not kept while waiting: they may hold a whole request.
            del context, job


# The workers of all HTTP applications in a process. Calls of the modern era are bounded by their connections and those
# of sessions by `session_calls`; this is the net below both.
http_workers = PerProcess(lambda: Workers(2500, 100, 64 * 1024 * 1024))
