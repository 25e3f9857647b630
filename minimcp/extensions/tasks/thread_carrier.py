"""The threads of a process that run tasks."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...engines.fork import PerProcess
from ...protocol.errors import ToolError

log = logging.getLogger("minimcp")

# Ids that are looked for at once, for each thread that may run.
_AHEAD = 4
_IDLE_S = 2.0


class ThreadCarrier:
    """Runs tasks on threads of this process, which begin with a hint and end when there has been none for a while.

    :param run: runs a task, and says whether it was still to be run.
    :param more: returns ids of so many tasks that wait, from wherever they came.
    :param limit: how many threads may run at once, beside those that wait for an answer; 0 runs none here.
    :param most_parked: how many may wait for an answer.
    :ivar limit: the same.
    """

    patience_s = 0.0

    def __init__(
        self, run: Callable[[str], bool], more: Callable[[int], Sequence[str]], limit: int, most_parked: int
    ) -> None:
        self.limit = limit
        self._run = run
        self._more = more
        self._most_parked = most_parked
        self._threads = PerProcess(_Threads)

    def send(self, id: str) -> None:
        """Run a task soon."""
        threads = self._threads()
        with threads.lock:
            if self.limit and id not in threads.known:
                threads.known.add(id)
                threads.ids.append(id)
                self._start(threads)

    def room(self, queued: int) -> int:
        """Return how many threads have nothing to do."""
        threads = self._threads()
        with threads.lock:
            return max(0, self.limit - threads.active - len(threads.ids))

    def clear(self) -> None:
        """Forget the hints that no thread has taken; their tasks stay queued."""
        threads = self._threads()
        with threads.lock:
            threads.ids.clear()
            threads.known.clear()

    def wait_for_looks(self) -> None:
        """Wait until no thread looks for more tasks."""
        with self._threads().looking:
            pass

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Let another thread take this one's place while it waits for an answer.

        :raises ToolError: when too many wait already.
        """
        threads = self._threads()
        with threads.lock:
            if threads.parked >= self._most_parked:
                raise ToolError("Too many tasks wait for an answer; try again later")
            threads.parked += 1
            threads.active -= 1
            self._start(threads)
        try:
            yield
        finally:
            with threads.lock:
                threads.parked -= 1
                threads.active += 1

    def _start(self, threads: _Threads) -> None:
        """Have one more thread run if there is work for it; the lock is held."""
        if not threads.ids or threads.active >= self.limit:
            return
        if threads.idle:
            threads.idle -= 1
            threads.called += 1
            threads.hinted.notify()
        else:
            try:
                threading.Thread(target=self._work, args=(threads,), name="minimcp-task", daemon=True).start()
            except RuntimeError:
                # The system has no thread to give; the hint waits for one that runs, or is sent again.
                log.warning("no thread could be started for a task")
                return
        threads.active += 1

    def _work(self, threads: _Threads) -> None:
        while True:
            with threads.lock:
                while threads.active > self.limit or not (threads.ids or threads.look):
                    threads.active -= 1
                    threads.idle += 1
                    threads.hinted.wait(_IDLE_S)
                    if not threads.called:
                        threads.idle -= 1
                        return
                    threads.called -= 1
                id = threads.ids.popleft() if threads.ids else ""
                threads.known.discard(id)
                threads.look = threads.look and bool(id)
            try:
                if not id:
                    with threads.looking:
                        for each in self._more(_AHEAD * self.limit):
                            self.send(each)
                elif self._run(id):
                    with threads.lock:
                        threads.look = True
            except BaseException:
                log.exception("task %s could not be run", id)


class _Threads:
    """The threads of one process and what they have to do."""

    def __init__(self) -> None:
        self.looking = threading.Lock()  # held while one of them looks for more tasks; `lock` is taken within
        self.lock = threading.Lock()  # guards all of the rest
        self.hinted = threading.Condition(self.lock)  # notified for each thread that is called
        self.ids: deque[str] = deque()
        self.known: set[str] = set()  # the same as `ids`
        # Whether to look for more once there are no ids: one ran since the last look, so that no look follows in vain.
        self.look = False
        self.active = 0
        self.idle = 0
        self.called = 0  # those of the active ones that were idle and have not woken up yet
        self.parked = 0
