"""The connections of a server and the bytes of their bodies: how many there may be, and which of them make room.

At a limit the connection that has waited longest for its client is given up: first those that never asked for
anything, then those between two requests, then those whose client is slow to send a body or to read an answer. One
whose request is running never is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .framing import BadRequest

if TYPE_CHECKING:
    from .handler import ConnectionHandler

_FRESH_S = 0.25  # in which a request may be on its way: a crowd of slow ones must not turn new clients out
_CLOSING_S = 1.0  # for a connection that was given up to be closed
_RESERVE = 256  # descriptors left to the application, or a quarter of them if they are few


class Admission:
    """The open connections, up to `most`, and the bytes of large bodies that they hold, up to `most_bytes`.

    A connection counts until its socket is closed, and a body until its request is answered.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self._changed = threading.Condition()  # guards everything below, and `held` of the connections
        self._open: set[ConnectionHandler] = set()
        self._arriving = 0  # connections that wait for a place
        self._bytes = 0

    def add(self, connection: ConnectionHandler) -> bool:
        """Count a connection, once another one has made room if need be; False where none can."""
        until = time.monotonic() + _CLOSING_S
        with self._changed:
            self._arriving += 1
            try:
                while len(self._open) >= self.most:
                    leaving = sum(1 for each in self._open if each.given_up and each.waiting_since)
                    # One that came later, while this one waited, is not turned out for it.
                    older = [each for each in self._open if each.arrived <= connection.arrived]
                    if leaving < self._arriving and not self._give_up_oldest(older) and not leaving:
                        return False
                    if not self._changed.wait(until - time.monotonic()):
                        return False
                self._open.add(connection)
                return True
            finally:
                self._arriving -= 1

    def remove(self, connection: ConnectionHandler) -> None:
        """Stop counting a connection, whose socket is closed."""
        with self._changed:
            self._open.discard(connection)
            self._release(connection)
            self._changed.notify_all()

    def make_room(self, timeout_s: float) -> None:
        """Give a connection up for its descriptor, and wait until one is closed."""
        with self._changed:
            self._give_up_oldest(self._open)
            self._changed.wait(timeout_s)

    def _give_up_oldest(self, among: Iterable[ConnectionHandler]) -> ConnectionHandler | None:
        waiting = [each for each in among if each.waiting_since and not each.given_up]
        if not waiting:
            return None
        fresh = time.monotonic() - _FRESH_S
        oldest = min(
            waiting, key=lambda each: (each.requests > 0, each.busy or each.waiting_since > fresh, each.waiting_since)
        )
        oldest.give_up()
        return oldest

    def hold(self, connection: ConnectionHandler, size: int, deadline: float) -> None:
        """Count bytes of a body that a connection reads; at the limit others make room, or it waits for room.

        :raises BadRequest: when there is no room until the deadline.
        """
        with self._changed:
            self._bytes += size
            connection.held += size
            while self._bytes > self.most_bytes:
                # One whose answer has just begun is not slow.
                fresh = time.monotonic() - _FRESH_S
                held = [each for each in self._open if each.held and each.sending_since <= fresh]
                oldest = self._give_up_oldest(each for each in held if each is not connection)
                if oldest is not None:
                    self._release(oldest)
                    self._changed.notify_all()
                elif connection.given_up or not self._changed.wait(deadline - time.monotonic()):
                    raise BadRequest(503, "There are too many large bodies; try again later")

    def release(self, connection: ConnectionHandler) -> None:
        """Stop counting the body of a connection, whose request is answered."""
        with self._changed:
            self._release(connection)
            self._changed.notify_all()

    def _release(self, connection: ConnectionHandler) -> None:
        self._bytes -= connection.held
        connection.held = 0

    def finish(self, until: float) -> None:
        """End the connections that wait for a request, and let the others end by themselves until then."""
        with self._changed:
            while self._open and time.monotonic() < until:
                for connection in self._open:
                    if connection.waiting_since and not connection.busy:
                        connection.give_up()
                self._changed.wait(0.05)

    def end(self) -> None:
        """End all connections, and wait a moment for their threads."""
        with self._changed:
            for connection in self._open:
                connection.give_up()
            self._changed.wait_for(lambda: not self._open, 1.0)


def descriptors() -> int | None:
    """Return how many connections the limit of open files has room for, or None where there is no such limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(1, soft - min(_RESERVE, soft // 4))


def raise_descriptor_limit(connections: int) -> None:
    """Let this process open as many files as there may be connections, where the system permits it."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _RESERVE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        except (OSError, ValueError):
            pass
