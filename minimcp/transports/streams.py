"""Event streams: the WSGI iterable that carries events to a client, and whether that is still there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator

from ..engines.budget import Budget
from ..engines.fork import PerProcess
from ..protocol import sse
from ..protocol.served import Environ
from .hangups import watch


def gone(environ: Environ) -> bool:
    """Say whether the client of a request has hung up, judged by the socket that its server exposes.

    A client that only closed its sending side looks the same, and is taken as gone.
    """
    left = environ.get("waitress.client_disconnected")
    if left is not None:
        # Turns true only with waitress's channel_request_lookahead; otherwise a failed write tells.
        return bool(left())
    connection = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
    except (BlockingIOError, InterruptedError):
        return False
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK)
    except (AttributeError, ValueError):
        # TLS sockets cannot peek, and other servers expose other things: a failed write will tell.
        return False


# The long-lived streams of all HTTP applications in a process, each of which keeps a thread, and the calls of sessions
# that are in progress on worker threads.
open_streams = PerProcess(Budget)
open_calls = PerProcess(Budget)


class EventStream:
    """A WSGI iterable over a stream's events; closing it early means that the client has gone.

    :param batches: yields the bytes to send, and empty bytes at the first silence and when it is time for a comment.
    :param on_close: called once, with whether the stream was sent to its end.
    :param nudge: makes `batches` yield or end soon, from any thread, once the client has hung up.
    """

    def __init__(
        self,
        batches: Iterator[bytes],
        environ: Environ,
        on_close: Callable[[bool], None],
        nudge: Callable[[], None],
    ) -> None:
        self._batches = batches
        self._environ = environ
        self._nudge = nudge
        self._unwatch: Callable[[], None] | None = None
        self._on_close: Callable[[bool], None] | None = on_close
        self._ended = False

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> bytes:
        while True:
            try:
                data = next(self._batches)
            except StopIteration:
                self._ended = True
                self.close()
                raise
            if data:
                return data
            if gone(self._environ):
                self.close()
                raise StopIteration
            if self._unwatch is not None:
                return sse.COMMENT
            self._unwatch = watch(self._environ, self._nudge)

    def close(self) -> None:
        """Release the thread or session of the stream; WSGI servers call this however the response ended."""
        if self._unwatch is not None:
            self._unwatch()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self._ended)
