"""A limit on how many requests compute at once, which requests that wait are let past.

Dozens of Python threads that all want the interpreter lock starve each other: a thread that has waited for it for the
switch interval queues up again, behind newer ones. So few requests run at once and the others queue up here, in order.
A request that waits for a database or an API needs no such limit: where the last runs of the same kind of work mostly
waited, it gives its permit back before it runs. Of an unknown kind, it loses the permit after a moment.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable

_READABLE = hasattr(time, "pthread_getcpuclockid")
_TICK_S = 0.005
_PATIENCE_S = 0.01  # how long a permit lasts
_KINDS = 1024  # kinds of work remembered
_SAMPLE = 8  # one of so many requests of a connection is measured
_SHARE = 1 / 8  # of the latest run in the averages
_LONGEST_S = 1.0  # a longer wait counts as that
# A kind mostly waits when it waits at least that long, and four times as long as it computes. One that computes for the
# interpreter's switch interval (5 ms) is interrupted, and may have waited for nothing but the interpreter lock.
_LEAST_WAIT_S = 0.001
_LEAST_RATIO = 4.0
_MOST_CPU_S = 0.004


class Ticket:
    """The permit of one connection's thread, and the measurement of its requests.

    Applications find it as `environ["minimcp.work"]`: they may `name` the kind of work, and `add_cpu` of other threads.
    """

    __slots__ = ("holds", "since", "turn", "_added_s", "_began", "_clock", "_cpu_s", "_gate", "_kind", "_requests")

    def __init__(self, gate: Gate) -> None:
        self.holds = False
        self.since = 0.0
        self.turn = threading.Lock()
        self.turn.acquire()
        self._gate = gate
        # The clock of this thread's processor time, by which other threads read it.
        self._clock = time.pthread_getcpuclockid(threading.get_ident()) if _READABLE else None
        self._kind: Hashable = None
        self._requests = 0
        self._began = 0.0  # 0 while nothing is measured
        self._cpu_s = 0.0
        self._added_s = 0.0

    def begin(self, kind: Hashable) -> None:
        """Begin a request.

        :param kind: what is known of its work; `name` may say it better.
        """
        self._began = 0.0
        if self._gate.measures:
            if self._requests % _SAMPLE == 0:
                self._added_s = 0.0
                self._cpu_s = time.thread_time()
                self._began = time.monotonic()
            self._requests += 1
            self.name(kind)

    def name(self, kind: Hashable) -> None:
        """Name the kind of work that the request asks for, such as a route; the thread of the request calls this.

        Kinds are compared with each other, and the permit is given back at once if this one mostly waits.
        """
        self._kind = kind
        if kind in self._gate.waiters:
            self._gate.leave(self)

    def add_cpu(self, seconds: float) -> None:
        """Count processor time that another thread spends on the request, before the response begins."""
        self._added_s += seconds

    def leave_out(self, seconds: float) -> None:
        """Leave out time in which the request waited for its own body."""
        if self._began:
            self._began += seconds

    def end(self) -> None:
        """End the measurement of the request, if it is measured: before sending, after which all threads wait."""
        self.report(time.thread_time)
        self._began = 0.0

    def report(self, clock: Callable[[], float]) -> None:
        """Tell the gate how long the request has computed and waited, if it is measured.

        :param clock: returns the processor time of the request's thread.
        """
        began = self._began
        if began:
            took_s = time.monotonic() - began
            cpu_s = clock() - self._cpu_s + self._added_s
            self._gate.learn(self._kind, cpu_s, max(0.0, took_s - cpu_s))

    def report_from_outside(self) -> None:
        """Do the same from another thread, while this one serves; some systems do not let threads ask."""
        if self._clock is not None:
            self.report(functools.partial(time.clock_gettime, self._clock))


class Gate:
    """Hands out `permits` permits, first come, first served; they are taken away only while `watch` runs.

    :ivar waiters: the kinds of work that mostly wait; read without the lock.
    :ivar measures: whether requests had to queue up lately, or some kinds mostly wait; read without the lock.
    """

    def __init__(self, permits: int) -> None:
        self._lock = (
            threading.RLock()
        )  # guards everything below and `holds` of the tickets; held for a few instructions
        self._free = permits
        self._holders: deque[Ticket] = deque()
        self._waiting: deque[Ticket] = deque()
        self._kinds: dict[Hashable, tuple[float, float]] = {}  # average seconds computed and waited
        self.waiters: set[Hashable] = set()
        self.measures = False
        # Whether requests have had to queue up lately; only then is there anything to watch.
        self._crowded = False
        self._closed = False
        self._call = threading.Lock()
        self._call.acquire()

    def enter(self, ticket: Ticket) -> None:
        """Wait for a permit; give it back with `leave`."""
        with self._lock:
            if self._free:
                self._free -= 1
                self._grant(ticket)
                return
            if self._closed:
                return
            self._waiting.append(ticket)
            if not self._crowded:
                self._crowded = self.measures = True
                self._wake()
        ticket.turn.acquire()

    def _wake(self) -> None:
        # The watch may not have come to wait for the call before this one.
        if self._call.locked():
            self._call.release()

    def _grant(self, ticket: Ticket) -> None:
        ticket.holds = True
        ticket.since = time.monotonic()
        self._holders.append(ticket)

    def _pass_on(self) -> None:
        if self._waiting:
            following = self._waiting.popleft()
            self._grant(following)
            following.turn.release()
        else:
            self._free += 1

    def leave(self, ticket: Ticket) -> None:
        """Give a permit back, unless it was taken away meanwhile."""
        if not ticket.holds:
            return
        with self._lock:
            if ticket.holds:
                ticket.holds = False
                self._holders.remove(ticket)
                self._pass_on()

    def learn(self, kind: Hashable, cpu_s: float, waited_s: float) -> None:
        """Update the averages of a kind of work with one more run."""
        waited_s = min(waited_s, _LONGEST_S)
        with self._lock:
            known = self._kinds.get(kind)
            if known is not None:
                cpu_s = known[0] + (cpu_s - known[0]) * _SHARE
                waited_s = known[1] + (waited_s - known[1]) * _SHARE
            elif len(self._kinds) >= _KINDS:
                # Clients may ask for any number of paths; they must not displace the kinds that mostly wait.
                self.waiters &= set(list(self.waiters)[: _KINDS // 2])
                self._kinds = {kind: self._kinds[kind] for kind in self.waiters}
            self._kinds[kind] = cpu_s, waited_s
            if waited_s >= _LEAST_WAIT_S and waited_s >= _LEAST_RATIO * cpu_s and cpu_s <= _MOST_CPU_S:
                self.waiters.add(kind)
            else:
                self.waiters.discard(kind)

    def watch(self) -> None:
        """Take permits away that are held for too long, until `close` is called."""
        while not self._closed:
            if not self._waiting:
                with self._lock:
                    self._crowded = crowded = bool(self._waiting)
                    self.measures = crowded or bool(self.waiters)
                # As it was under the lock: a request that sets it after that releases `_call`.
                if not crowded:
                    self._call.acquire()
                    continue
            time.sleep(_TICK_S)
            with self._lock:
                now = time.monotonic()
                while self._holders and self._waiting and now - self._holders[0].since >= _PATIENCE_S:
                    slow = self._holders.popleft()
                    slow.holds = False
                    slow.report_from_outside()
                    self._pass_on()

    def close(self) -> None:
        """End `watch`, and let all requests through."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().turn.release()
            if not self._crowded:
                self._crowded = True
                self._wake()
