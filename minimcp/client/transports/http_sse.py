"""The client end of HTTP+SSE, the transport of 2024-11-05: one GET stream for all that the server says.

Deprecated since 2025-03-26 and kept for old servers. Spec: TRN-160 to TRN-163
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from itertools import chain
from typing import Any, Optional

from ...engines.addresses import origin, show
from ...engines.errors import ClientError, ConnectionLost, ProtocolError
from ...engines.fork import PerProcess
from ...engines.http_client.pool import make_pool
from ...engines.http_client.reply import Reply, excerpt, resolve
from ...engines.http_client.response import Headers, deadline_of
from ...protocol.sse import EventReader
from ..errors import HTTPStatus, UsedAfterFork
from .messages import in_event, on_stream, with_defaults
from .transport import Exchange, Message, Transport, begin, written
from .waiting import Pending

log = logging.getLogger("minimcp")

_CLOSE_S = 2.0


class HttpSseTransport(Transport):
    """A way to an HTTP+SSE server.

    :param url: of the GET stream, which tells where to POST; that must be the same origin.

    The other parameters are those of `http.HttpTransport`.
    """

    kind = "sse"
    survives_fork = True

    def __init__(
        self,
        url: str,
        *,
        headers: Optional[Headers] = None,
        auth: Any = None,
        session: Any = None,
        limits: Optional[Mapping[str, float]] = None,
    ) -> None:
        super().__init__()
        self.url = url
        self.limits = with_defaults(limits)
        self._pool = make_pool(url, headers, auth, session, self.limits)
        self._lock = PerProcess(threading.Lock)  # guards _stream
        self._stream: _SseStream | None = None

    def open(self, timeout_s: float) -> None:
        """Open the stream and wait for the address to POST to."""
        with self._lock():
            stream = self._stream
            if stream is not None and stream.error is None and stream.pid == os.getpid():
                return
        deadline = deadline_of(timeout_s)
        reply = self._pool.request("GET", {"Accept": "text/event-stream"}, b"", deadline)
        stream = _SseStream(self, reply)
        try:
            stream.greet(deadline)
        except BaseException:
            reply.close()
            raise
        try:
            begin(stream.thread)
        except BaseException:
            reply.close()
            raise
        with self._lock():
            self._stream = stream

    def start(self, message: Message, headers: Headers, timeout_s: float | None) -> Exchange:
        """Send a request; see `Transport`."""
        stream = self._opened()
        exchange = stream.pending.add(message)
        try:
            exchange.identity = self._post(stream, message, timeout_s).identity()
        except BaseException:
            exchange.close()
            raise
        return exchange

    def send(self, message: Message, headers: Headers, timeout_s: float | None) -> None:
        """Send a notification or a response; see `Transport`."""
        self._post(self._opened(), message, timeout_s)

    def _opened(self) -> _SseStream:
        stream = self._stream
        if stream is not None and stream.pid != os.getpid():
            raise UsedAfterFork("The stream belongs to the parent process; open a client in this one")
        if stream is None:
            raise ConnectionLost("The connection is closed; open it again", "always")
        if stream.error is not None:
            raise ConnectionLost(stream.error.message, "always")
        return stream

    def _post(self, stream: _SseStream, message: Message, timeout_s: float | None) -> Reply:
        """POST a message, which is answered with a status only. Spec: TRN-162"""
        deadline = deadline_of(timeout_s)
        fields = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

        def before(sent: Reply) -> None:
            # Afterwards the answer may be there already.
            if self.record is not None:
                self.record("sent", message, method="POST", headers=sent.shown)

        reply = self._pool.request("POST", fields, written(message), deadline, stream.endpoint, before)
        try:
            status = reply.head(reply.until(deadline))
            if not 200 <= status < 300:
                raise _refusal(reply, reply.until(deadline))
            reply.release()
        finally:
            reply.close()
        return reply

    def close(self) -> None:
        """Close the stream, which is how the server learns that the session is over."""
        with self._lock():
            stream, self._stream = self._stream, None
        # In a forked child it is the parent's, and goes on there.
        if stream is not None and stream.pid == os.getpid():
            stream.close()
        self._pool.close()


def _refusal(reply: Reply, deadline: Optional[float]) -> HTTPStatus:
    authorized = bool(reply.field("authorization"))
    return HTTPStatus(reply.status, excerpt(reply, deadline), reply.url.partition("?")[0], authorized=authorized)


class _SseStream:
    """The GET stream of one session, and the thread that reads it."""

    def __init__(self, transport: HttpSseTransport, reply: Reply) -> None:
        self.pid = os.getpid()
        self.pending = Pending()
        self.endpoint = ""
        self.error: ClientError | None = None
        self.thread = threading.Thread(target=self._run, name="minimcp-sse", daemon=True)
        self._transport = transport
        self._reply = reply
        self._events = EventReader(transport.limits["event_bytes"])
        self._closed = False
        self._early: list[Message] = []

    def greet(self, deadline: float | None) -> None:
        """Read the first event, which tells where to POST. Spec: TRN-161

        :raises ClientError: when it is not there in time, or no address of the same origin.
        """
        status = self._reply.head(self._reply.until(deadline))
        deadline = self._reply.until(deadline)
        kind = self._reply.kind
        if status != 200:
            raise _refusal(self._reply, deadline)
        if kind != "text/event-stream":
            raise ProtocolError(f"The server answered with {kind[:80] or 'no content type'}, not with events")
        while not self.endpoint:
            data = self._reply.read(deadline)
            if not data:
                raise ConnectionLost("The server closed the stream before it said where to POST")
            for name, text in self._events.feed(data):
                if self.endpoint:
                    self._early += in_event(name, text)
                elif name != "endpoint":
                    raise ProtocolError("The first event of an HTTP+SSE stream must be its endpoint")
                else:
                    self.endpoint = resolve(self._reply.url, text.strip())
        if origin(self.endpoint) != origin(self._transport.url):
            there = show(self.endpoint)
            raise ProtocolError(f"The server names another origin to send messages to, {there}; nothing was sent there")

    def _run(self) -> None:
        error: ClientError = ConnectionLost("The server closed the stream")
        try:
            for message in chain(self._early, on_stream(self._reply, self._events)):
                if self._transport.record is not None:
                    self._transport.record("received", message, status=200, headers=self._reply.headers)
                if not self.pending.take(message):
                    self._transport.on_message(message)
        except ClientError as problem:
            error = problem
        except Exception:
            log.exception("the stream of the server could not be read")
        self.error = error
        self._reply.close()
        try:
            if not self._closed:
                # Before the callers, since one whose call has failed may make another, on a new connection.
                self._transport.on_lost(error)
        finally:
            self.pending.fail(error)

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self.pending.fail(ConnectionLost("The connection was closed"))
        self._reply.close()
        if threading.current_thread() is not self.thread:
            self.thread.join(_CLOSE_S)
