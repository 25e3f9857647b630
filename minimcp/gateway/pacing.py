"""When and how much: the probes of replicas, each in its time, and the calls that a server may have at once."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from ..client.errors import CallCancelled
from ..transports.workers import Job, Workers
from .failures import UpstreamUnavailable

log = logging.getLogger("minimcp")

_JITTER = 0.2


class Prober:
    """Runs the probes of all replicas of a gateway when they are due.

    One daemon thread watches the time, from the first `add` to `close` or the last `remove`; the probes run on others,
    so that a slow one delays none.

    :param threads: how many probes may run at once.
    :param submit: runs a function soon, on another thread.
    """

    def __init__(
        self,
        threads: int = 32,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        submit: Callable[[Job], Any] | None = None,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._submit = submit or Workers(threads, 10_000, 0, "minimcp-probe").submit
        self._changed = threading.Condition()  # guards everything below
        self._probes: dict[Hashable, _Probe] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, key: Hashable, probe: Callable[[], Any], interval_s: float, delay_s: float | None = None) -> None:
        """Run a probe from now on, in place of the one with this key; never twice at once.

        :param interval_s: the time from the end of one run to the next, give or take a fifth.
        :param delay_s: the time to the first run; None for any part of the interval, so that not all begin together.
        """
        with self._changed:
            if self._closed or interval_s <= 0:
                return
            delay_s = interval_s * self._chance() if delay_s is None else delay_s
            before = self._probes.get(key)
            self._probes[key] = _Probe(
                probe, interval_s, self._clock() + delay_s, None if before is None else before.turn
            )
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="minimcp-prober", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, key: Hashable) -> None:
        """Run the probe with this key no more; a run that has begun goes on to its end."""
        with self._changed:
            self._probes.pop(key, None)
            self._changed.notify()

    def close(self) -> None:
        """Run no probe any more."""
        with self._changed:
            self._closed = True
            self._probes.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def run_due(self) -> float | None:
        """Start the probes that are due, and return the time until the next is, None when there is none."""
        with self._changed:
            now = self._clock()
            due = [each for each in self._probes.values() if each.due <= now]
            for each in due:
                # Until it has run; `_run` sets the next time.
                each.due = float("inf")
            coming = min((each.due for each in self._probes.values()), default=None)
        for each in due:
            try:
                self._submit(lambda each=each: self._run(each))  # type: ignore[misc]
            except RuntimeError as problem:
                log.warning("a probe could not be run: %s", problem)
                self._put_off(each)
        return None if coming is None else max(0.0, coming - now)

    def _watch(self) -> None:
        while True:
            wait_s = self.run_due()
            with self._changed:
                if not self._probes:
                    self._thread = None
                    return
                earliest = min(each.due for each in self._probes.values())
                if wait_s is not None and earliest > self._clock():
                    self._changed.wait(min(earliest - self._clock(), threading.TIMEOUT_MAX))

    def _run(self, probe: _Probe) -> None:
        # Held by the run of the probe that this one took the place of.
        with probe.turn:
            try:
                probe.function()
            except Exception:
                log.exception("a probe failed in a way that it did not expect")
            finally:
                self._put_off(probe)

    def _put_off(self, probe: _Probe) -> None:
        with self._changed:
            probe.due = self._clock() + probe.interval_s * (1 + _JITTER * (2 * self._chance() - 1))
            self._changed.notify()


class _Probe:
    """A probe and when it is due.

    :ivar turn: held while one with its key runs.
    """

    def __init__(
        self, function: Callable[[], Any], interval_s: float, due: float, turn: threading.Lock | None = None
    ) -> None:
        self.function = function
        self.interval_s = interval_s
        self.due = due
        self.turn = turn or threading.Lock()


class Slots:
    """The calls that a server may have at once; further ones wait their turn, bounded in time and number.

    :param server: its name, for the error.
    """

    def __init__(self, limit: int, server: str = "") -> None:
        self.limit = limit
        self.used = 0
        self._server = server
        self._lock = threading.Lock()  # guards used, _waiting and what waits there
        self._waiting: deque[_SlotWait] = deque()

    @property
    def waiting(self) -> int:
        """The number of calls that wait."""
        return len(self._waiting)

    def take(self, wait_s: float, on_wait: Callable[[Callable[[], None]], Any] | None = None) -> None:
        """Take a slot, which `release` gives back.

        :param wait_s: the longest wait for one.
        :param on_wait: is given a function that ends the wait, before it begins.
        :raises UpstreamUnavailable: when there is none in time, or too many wait.
        :raises CallCancelled: when the wait was ended.
        """
        with self._lock:
            if self.used < self.limit:
                # Then nobody waits: who waits is given each slot that another gives back.
                self.used += 1
                return
            if wait_s <= 0 or len(self._waiting) >= 4 * self.limit:
                raise self._busy()
            mine = _SlotWait()
            self._waiting.append(mine)
        try:
            if on_wait is not None:
                on_wait(mine.end)
            mine.woken.wait(min(wait_s, threading.TIMEOUT_MAX))
            if mine.ended:
                raise CallCancelled("The call was cancelled while it waited for its turn")
            with self._lock:
                if not mine.given:
                    raise self._busy()
        except BaseException:
            self._leave(mine)
            raise

    def release(self) -> None:
        """Give a slot back, to the call that has waited longest."""
        with self._lock:
            if self._waiting:
                first = self._waiting.popleft()
                first.given = True
                first.woken.set()
            else:
                self.used -= 1

    def _leave(self, mine: _SlotWait) -> None:
        with self._lock:
            if not mine.given:
                self._waiting.remove(mine)
                return
        # It was given a slot at the last moment.
        self.release()

    def _busy(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(self._server, f"has as many calls in progress as it may have ({self.limit})", 1.0)


class _SlotWait:
    """A call that waits for a slot, and what became of that."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.given = self.ended = False

    def end(self) -> None:
        """End the wait."""
        self.ended = True
        self.woken.set()
