"""Hang-ups: one thread watches the sockets of all open streams, so that none keeps its place after its reader left."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..engines.fork import PerProcess
from ..protocol.served import Environ

_TICK_S = 0.1  # after which a new stream is watched at the latest
_IDLE_TICKS = 10  # without any stream, after which the thread ends
# Where the system cannot tell that the other side has closed, bytes may mean it too.
_EVENTS: int = getattr(select, "POLLRDHUP", getattr(select, "POLLIN", 0))


class Hangups:
    """Calls a function, once, when the client of a socket has hung up; the thread lives while there is any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._watched: dict[int, Callable[[], None]] = {}
        self._running = False

    def watch(self, descriptor: int, on_hangup: Callable[[], None]) -> None:
        """Begin to watch a socket; the function must not block."""
        with self._lock:
            self._watched[descriptor] = on_hangup
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._work, name="minimcp-hangups", daemon=True).start()
        except RuntimeError:
            # Without a thread a stream notices with its next comment.
            with self._lock:
                self._running = False

    def forget(self, descriptor: int, on_hangup: Callable[[], None]) -> None:
        """Stop watching a socket, before it is closed and its descriptor becomes another one's."""
        with self._lock:
            if self._watched.get(descriptor) is on_hangup:
                del self._watched[descriptor]

    def is_idle(self) -> bool:
        """Say whether nothing is watched."""
        with self._lock:
            return not self._watched

    def _work(self) -> None:
        idle = 0
        while True:
            with self._lock:
                watched = dict(self._watched)
                idle = 0 if watched else idle + 1
                if idle > _IDLE_TICKS:
                    self._running = False
                    return
            poll = select.poll()
            for descriptor in watched:
                poll.register(descriptor, _EVENTS)
            for descriptor, _ in poll.poll(_TICK_S * 1000):
                self.forget(descriptor, watched[descriptor])
                watched[descriptor]()


# The streams of all HTTP applications in a process.
hangups = PerProcess(Hangups)


def watch(environ: Environ, on_hangup: Callable[[], None]) -> Callable[[], None]:
    """Have a function called when the client of a request hangs up, where its server exposes the socket.

    :returns: the function that ends that.
    """
    exposed: Any = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
    try:
        descriptor = exposed.fileno()
    except (AttributeError, OSError):
        return _nothing
    if not isinstance(descriptor, int) or descriptor < 0 or not _EVENTS:
        return _nothing
    watcher = hangups()
    watcher.watch(descriptor, on_hangup)
    return lambda: watcher.forget(descriptor, on_hangup)


@contextlib.contextmanager
def watched(environ: Environ, on_hangup: Callable[[], None]) -> Iterator[None]:
    """Watch the client of a request for as long as the context is open."""
    end = watch(environ, on_hangup)
    try:
        yield
    finally:
        end()


def _nothing() -> None:
    """Do nothing: no socket is watched."""
