"""A limit on how many handlers run at once, which never makes a fast one wait for a slow one.

Dozens of Python threads that all want the interpreter lock starve each other. So only a few may run, and the others
queue up, in order. But a handler may also block, on a database or a sleep, and then holds its permit for nothing:
whoever has waited for a moment takes the oldest permit over, and the handler that had it goes on without.
"""

from __future__ import annotations

import threading
from collections import deque

_PATIENCE_S = 0.01


class _Ticket:
    """A place in the gate: waiting for a permit, holding one, or running on without."""

    __slots__ = ("granted", "holds", "turn")

    def __init__(self) -> None:
        self.holds = False
        self.granted = False
        self.turn: threading.Lock | None = None


class Gate:
    """Hands out `permits` permits, first come, first served."""

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._lock = threading.Lock()  # guards everything below and the tickets; held for a few instructions
        self._holders: deque[_Ticket] = deque()
        self._waiting: deque[_Ticket] = deque()

    def enter(self) -> _Ticket:
        """Wait for a permit, at most for a moment; give the ticket back with `leave`."""
        ticket = _Ticket()
        with self._lock:
            if self._free > 0:
                self._free -= 1
                self._grant(ticket)
                return ticket
            ticket.turn = threading.Lock()
            ticket.turn.acquire()
            self._waiting.append(ticket)
        ticket.turn.acquire(timeout=_PATIENCE_S)
        with self._lock:
            if not ticket.holds and not ticket.granted:
                self._waiting.remove(ticket)
                if self._holders:
                    self._holders.popleft().holds = False
                self._grant(ticket)
        return ticket

    def _grant(self, ticket: _Ticket) -> None:
        ticket.holds = ticket.granted = True
        self._holders.append(ticket)

    def leave(self, ticket: _Ticket) -> None:
        """Give a permit back, unless it was taken over meanwhile."""
        with self._lock:
            if not ticket.holds:
                return
            ticket.holds = False
            self._holders.remove(ticket)
            if self._waiting:
                following = self._waiting.popleft()
                self._grant(following)
                assert following.turn is not None
                following.turn.release()
            else:
                self._free += 1
