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
    """

    def __init__(self, limit: int, name: str = "minimcp-worker") -> None:
        self._limit = limit
        self._name = name
        self._changed = threading.Condition()  # guards everything below
        self._jobs: deque[tuple[contextvars.Context, Job]] = deque()
        self._idle = 0
        self._threads = 0

    def submit(self, job: Job) -> None:
        """Run a job soon.

        :raises RuntimeError: when a thread is needed and the system has none to give.
        """
        with self._changed:
            self._jobs.append((contextvars.copy_context(), job))
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return
            if self._threads >= self._limit:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._changed:
                self._threads -= 1
                if self._threads == 0:
                    self._jobs.pop()
                    raise

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
                context, job = self._jobs.popleft()
            try:
                context.run(job)
            except BaseException:
                log.exception("a worker's job failed")
            # Not kept while waiting: they may hold a whole request.
            del context, job


# The workers of all HTTP applications in a process.
http_workers = PerProcess(lambda: Workers(10_000))
