"""A limit on how many requests are worked on at once, which never makes a fast one wait for a slow one.

Dozens of Python threads that all want the interpreter lock starve each other, so only a few may run and the others
queue up, in order. A thread that blocks, on a database or a sleep, would hold its permit for nothing: it loses the
permit after a moment, and while most of the time goes to such threads the gate stands open.
"""

from __future__ import annotations

import threading
import time
from collections import deque

_TICK_S = 0.005
_PATIENCE_S = 0.01  # how long a permit lasts
_WINDOW_S = 0.2  # the time with permits after which it is judged how it was spent
_OPEN_S = 0.5  # how long the gate then stands open


class Ticket:
    """What one thread shows at the gate, time and again."""

    __slots__ = ("cpu_s", "holds", "since", "turn")

    def __init__(self) -> None:
        self.holds = False
        self.since = 0.0
        self.cpu_s = -1.0  # the thread's processor time when it went in, -1 if it is not measured
        self.turn = threading.Lock()
        self.turn.acquire()


class Gate:
    """Hands out `permits` permits, first come, first served; they are taken away only while `watch` runs."""

    def __init__(self, permits: int) -> None:
        self._lock = threading.Lock()  # guards everything below and the tickets; held for a few instructions
        self._free = permits
        self._holders: deque[Ticket] = deque()
        self._waiting: deque[Ticket] = deque()
        self._open_until = 0.0
        self._held_s = 0.0
        self._blocked_s = 0.0
        # Whether threads have had to wait lately; only then does anything need watching and measuring.
        self._crowded = False
        self._closed = False
        self._call = threading.Lock()
        self._call.acquire()

    def enter(self, ticket: Ticket) -> None:
        """Wait for a permit; give it back with `leave`."""
        with self._lock:
            must_wait = self._free == 0
            if not must_wait:
                self._free -= 1
                self._grant(ticket)
                if not self._crowded:
                    return
            elif time.monotonic() < self._open_until:
                return
            else:
                self._waiting.append(ticket)
                if not self._crowded:
                    self._crowded = True
                    self._call.release()
        if must_wait:
            ticket.turn.acquire()
        ticket.cpu_s = time.thread_time()

    def _grant(self, ticket: Ticket) -> None:
        ticket.holds = True
        ticket.since = time.monotonic()
        ticket.cpu_s = -1.0
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
        cpu_s = time.thread_time() - ticket.cpu_s if ticket.cpu_s >= 0 else -1.0
        with self._lock:
            if not ticket.holds:
                return
            ticket.holds = False
            self._holders.remove(ticket)
            self._pass_on()
            if cpu_s >= 0:
                now = time.monotonic()
                self._judge(now - ticket.since, cpu_s, now)

    def _judge(self, held_s: float, cpu_s: float, now: float) -> None:
        """Open the gate for a while if permits are mostly held by threads that wait for something."""
        self._held_s += held_s
        self._blocked_s += max(0.0, held_s - cpu_s)
        if self._held_s < _WINDOW_S:
            return
        if self._blocked_s > 0.8 * self._held_s:
            self._open_until = now + _OPEN_S
            self._let_all_in()
        self._held_s = self._blocked_s = 0.0

    def _let_all_in(self) -> None:
        while self._waiting:
            self._waiting.popleft().turn.release()

    def watch(self) -> None:
        """Take permits away that are held for too long, until `close`."""
        while not self._closed:
            if not self._waiting:
                with self._lock:
                    self._crowded = bool(self._waiting)
                if not self._crowded:
                    self._call.acquire()
                    continue
            time.sleep(_TICK_S)
            with self._lock:
                now = time.monotonic()
                while self._holders and self._waiting and now - self._holders[0].since >= _PATIENCE_S:
                    slow = self._holders.popleft()
                    slow.holds = False
                    self._pass_on()
                    self._judge(now - slow.since, 0.0, now)

    def close(self) -> None:
        """End `watch`, and let everybody in."""
        with self._lock:
            self._closed = True
            self._open_until = float("inf")
            self._let_all_in()
            if not self._crowded:
                self._crowded = True
                self._call.release()
