"""The part of carriers that all brokers share: hints are sent by a thread, which alone waits for the broker."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from ...engines.fork import PerProcess

if TYPE_CHECKING:
    from .background import Tasks

log = logging.getLogger("minimcp")

# Hints beyond these are sent later, by whoever keeps the tasks; the records are there.
_MOST = 1000
# The answer of the broker is of no use when it is older.
_FRESH_S = 5.0
# One hint is sent again so often where the broker holds enough: they may all be of something else.
_TRICKLE_S = 60.0
_COMPLAIN_S = 60.0
_FLUSH_S = 5.0


class BrokerCarrier:
    """Carries hints through a broker, which may be gone, slow, or full of other work.

    Whoever makes a task waits for its record alone. What goes wrong at the broker is logged, at most once a minute.

    :param patience_s: how long a task may stay queued before its hint is sent again, if it seems to be lost.
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._hints = PerProcess(lambda: _Hints(self._publish, self._held))

    def _publish(self, id: str) -> None:
        """Send a hint to the broker."""
        raise NotImplementedError

    def _held(self) -> int:
        """Return how many hints wait at the broker, those of other work in the same queue included."""
        raise NotImplementedError

    def attach(self, server: str, tasks: Tasks) -> None:
        """Take the tasks whose hints these are, and the name of their server.

        :raises ValueError: for tasks that no other process can reach.
        """
        if not tasks.store.lasting:
            raise ValueError(
                f"{type(self).__name__} hands tasks to other processes, which do not see the memory of this one: "
                'give Tasks a file, Tasks("tasks.db", carrier=...), or a store that they share'
            )

    def send(self, id: str) -> None:
        """Send a hint soon."""
        self._hints().add(id)

    def room(self, queued: int) -> int:
        """Return how many hints the broker seems to have lost.

        It is asked now, and the answer is taken the next time. So long as it holds as many hints as tasks are
        queued, workers are slow and nothing is lost: sending again would only pile up.
        """
        return self._hints().missing(queued)


class _Hints:
    """The hints of one process that have yet to be sent, and its thread, which ends when there are none.

    :param publish: sends a hint; `held` counts those at the broker; both may wait and raise.
    """

    def __init__(self, publish: Callable[[str], None], held: Callable[[], int]) -> None:
        self._publish = publish
        self._held = held
        self._changed = threading.Condition()  # guards all of the rest; notified when the thread ends
        self._ids: deque[str] = deque()
        self._running = False
        self._asked: Optional[int] = None  # how many tasks were queued when it was asked
        self._answer: Optional[tuple[int, float]] = None  # how many of their hints were missing, and when
        self._trickled_at, self._complained_at = time.monotonic(), float("-inf")
        self._pid = os.getpid()
        # Libraries of brokers load this on first use, which Python refuses when that is at the end of the process.
        import concurrent.futures.thread  # noqa: F401

        atexit.register(self._flush)

    def add(self, id: str) -> None:
        with self._changed:
            if len(self._ids) < _MOST:
                self._ids.append(id)
            self._start()

    def missing(self, queued: int) -> int:
        now = time.monotonic()
        with self._changed:
            answer, self._answer = self._answer, None
            fresh = answer is not None and now - answer[1] <= _FRESH_S
            missing = answer[0] if answer is not None and fresh else 0
            if fresh and missing <= 0 and now - self._trickled_at >= _TRICKLE_S:
                missing = 1
            if missing > 0:
                self._trickled_at = now
            else:
                # Not beside hints that are about to be sent: they would not be counted.
                self._asked = queued
                self._start()
            return max(0, missing)

    def _start(self) -> None:
        """Start the thread, if it does not run; the lock is held."""
        if not self._running:
            try:
                threading.Thread(target=self._work, name="minimcp-hints", daemon=True).start()
                self._running = True
            except RuntimeError:
                log.warning("no thread could be started to send the hints of tasks")

    def _work(self) -> None:
        while True:
            with self._changed:
                id, queued = self._ids.popleft() if self._ids else None, self._asked
                if id is None and queued is None:
                    self._running = False
                    self._changed.notify_all()
                    return
                if id is None:
                    self._asked = None
            try:
                if id is not None:
                    self._publish(id)
                elif queued is not None:
                    # After they were sent that this process had to send.
                    missing = queued - self._held()
                    with self._changed:
                        self._answer = missing, time.monotonic()
            except BaseException as problem:
                with self._changed:
                    # Each would wait as long as this one did.
                    self._ids.clear()
                self._complain(problem)

    def _complain(self, problem: BaseException) -> None:
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            log.warning(
                "hints to run tasks do not reach the broker, and are sent again later: %s: %s",
                type(problem).__name__,
                problem,
            )

    def _flush(self) -> None:
        """Give the thread a moment to send what is left, at the end of the process."""
        if os.getpid() == self._pid:
            with self._changed:
                self._changed.wait_for(lambda: not self._running, _FLUSH_S)
