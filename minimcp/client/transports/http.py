"""The client end of Streamable HTTP, both eras: every message is a POST, sent and read on the caller's thread.

Spec: TRN-035 to TRN-054, TRN-110 to TRN-120
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Optional

from ...engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ...engines.fork import PerProcess
from ...engines.http_client.pool import Pool, make_pool
from ...engines.http_client.reply import Reply, excerpt
from ...engines.http_client.response import Headers, deadline_of
from ...protocol import spec
from ...protocol.sse import EventReader
from ..errors import HTTPStatus
from .legacy_http import LegacySession, Resumption, is_stream, not_resumed
from .messages import in_event, is_message, parse, same_id, tidy, with_defaults
from .transport import Exchange, Message, SessionExpired, Transport, written

log = logging.getLogger("minimcp")

_JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

_SERVER_ERROR = -32000

# These refuse the caller or the address, so an error without an id is no answer to the message.
_NOT_OURS = (401, 405)


class HttpTransport(Transport):
    """A way to a Streamable HTTP server.

    :param headers: sent with every request; what the protocol needs prevails over them.
    :param auth: a user and a password, credentials with the methods of `engines.http_client.request.Auth`, such as
        `OAuth`, or what `requests` takes; the last is slower, since `requests` then sends every request.
    :param session: a requests.Session with proxies, certificates, adapters and cookies, which sends every request.
        Without one, neither .netrc nor the environment is looked at.
    :param limits: overrides for `messages.LIMITS`; other keys are for other transports.
    """

    kind = "http"
    survives_fork = True
    # Until `settle` says otherwise.
    closing_cancels = True

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
        self.pool = self._make_pool(headers, auth, session)
        self.session = LegacySession(self)
        self._open = PerProcess(_OpenExchanges)
        self._closed = False  # guarded by the lock of _open
        self._sent = False

    def _make_pool(self, headers: Optional[Headers], auth: Any, session: Any) -> Pool:
        return make_pool(self.url, headers, auth, session, self.limits)

    def open(self, timeout_s: float) -> None:
        """Make ready; a connection is made when there is something to send."""
        self.pool.ready()
        with self._open().lock:
            self._closed = False

    def settle(self, version: str) -> None:
        """Take note of the revision: whether requests name it and the session, and what a closed stream means."""
        self.version = version
        self.closing_cancels = version in spec.MODERN_VERSIONS
        if self.closing_cancels:
            self.session.id = None

    def start(self, message: Message, headers: Headers, timeout_s: float | None) -> HttpExchange:
        """Send a request; see `Transport`."""
        if message["method"] == "initialize":
            # It begins a session, whatever was before. Spec: TRN-149
            self.session.id = self.version = None
        exchange = HttpExchange(self, message, self._post(message, headers, deadline_of(timeout_s)))
        self._sent = True
        mine = self._open()
        with mine.lock:
            mine.exchanges.add(exchange)
            closed = self._closed
        if closed:
            exchange.abort(ConnectionLost("The connection was closed"))
        return exchange

    def identity(self) -> str | None:
        """Return a fingerprint of what the caller would send along; see `Transport`."""
        return self.pool.identity(_JSON) if self._sent else None

    def send(self, message: Message, headers: Headers, timeout_s: float | None) -> None:
        """Send a notification or a response; see `Transport`. Spec: TRN-038, TRN-113"""
        deadline = deadline_of(timeout_s)
        reply = self._post(message, headers, deadline)
        try:
            status = reply.head(reply.until(deadline))
            self.note(reply)
            if not 200 <= status < 300:
                raise self.refusal(reply, excerpt(reply, reply.until(deadline)))
            # Whatever body there is, it is not waited for.
            reply.release()
        finally:
            reply.close()

    def note(self, reply: Reply) -> None:
        """Record a reply without a message: that something was accepted, or refused."""
        if self.record is not None:
            self.record("received", None, status=reply.status, headers=reply.headers)

    def _post(self, message: Message, headers: Headers, deadline: float | None) -> Reply:
        if self._closed:
            raise ConnectionLost("The connection is closed; open it again", "always")
        fields = {**_JSON, **self.session.fields(), **headers}
        reply = self.pool.request("POST", fields, written(message), deadline)
        if self.record is not None:
            self.record("sent", message, method="POST", headers=reply.shown)
        return reply

    def listen(self) -> None:
        """Legacy: hold the GET stream open on a thread of its own."""
        if not self._closed and self.version not in spec.MODERN_VERSIONS:
            self.session.listen()

    def close(self) -> None:
        """Fail what is open, end the session, close the connections."""
        mine = self._open()
        with mine.lock:
            if self._closed:
                return
            self._closed = True
            waiting = list(mine.exchanges)
            mine.exchanges.clear()
        for exchange in waiting:
            exchange.abort(ConnectionLost("The connection was closed"))
        self.session.end()
        self.pool.close()

    # What exchanges and the GET stream share

    def refusal(self, reply: Reply, text: str) -> ClientError:
        """Return the error that an HTTP status without an answer means."""
        if reply.status == 404 and reply.field("mcp-session-id"):
            return SessionExpired("The server no longer knows the session")
        authorized = bool(reply.field("authorization"))
        return HTTPStatus(reply.status, text, reply.url.partition("?")[0], authorized=authorized)

    def forget(self, exchange: HttpExchange) -> None:
        """Take note that an exchange is over."""
        mine = self._open()
        with mine.lock:
            mine.exchanges.discard(exchange)


class _OpenExchanges:
    """The open exchanges of one process, which `close` ends."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards exchanges
        self.exchanges: set[HttpExchange] = set()


class HttpExchange(Exchange):
    """A request that was POSTed, and its reply, read by the thread that receives.

    :ivar paused_s: the time that the auth took, in which it may have asked a person.
    """

    def __init__(self, transport: HttpTransport, message: Message, reply: Reply) -> None:
        self._transport = transport
        self._id = message["id"]
        self._method = message["method"]
        # None while a legacy stream waits to be resumed.
        self._reply: Reply | None = reply
        self._ready: deque[Message] = deque()
        self._body = bytearray()
        self._events: EventReader | None = None
        self._streaming = False
        self._error: ClientError | None = None
        self._over = False
        # Sentences about events that were no messages; the first may be why no answer comes.
        self._dropped: deque[str] = deque(maxlen=1)
        self._count = 0
        self._most = float("inf") if self._method == "subscriptions/listen" else transport.limits["events"]
        # Modern streams cannot be resumed. Spec: TRN-050
        self._resumable = reply.field("mcp-protocol-version") not in spec.MODERN_VERSIONS
        self._resumption: Resumption | None = None
        self.paused_s = reply.paused_s

    @property
    def identity(self) -> str:  # type: ignore[override]
        """A fingerprint of the credentials; the auth may have sent the request again with others."""
        return self._reply.identity() if self._reply is not None else ""

    def receive(self, timeout_s: float | None) -> Message:
        """Return the next message; see `Exchange`."""
        try:
            return self._next(deadline_of(timeout_s))
        except Timeout:
            if self._error is not None:
                raise self._error from None
            raise
        except ClientError as problem:
            self.abort(problem)
            raise self._error or problem from None
        except BaseException:
            # The user's auth or an interrupt left the connection in a state that nobody knows.
            self.close()
            raise

    def _next(self, deadline: float | None) -> Message:
        while not self._ready:
            if self._error is not None or self._over:
                raise self._error or ConnectionLost("The request is over")
            if self._events is None:
                deadline = self._begin(deadline)
            elif not self._streaming:
                self._resume(self._events, deadline)
            elif deadline is not None and time.monotonic() >= deadline:
                # A server that never stops talking does not stop the clock.
                raise Timeout("The server did not answer in time")
            else:
                self._read(self._events, deadline)
        message = self._ready.popleft()
        if "method" not in message:
            self._ready.clear()
            self._over = True
            if self._reply is not None:
                self._reply.release()
            self._transport.forget(self)
        return message

    def _begin(self, deadline: float | None) -> float | None:
        """Read the head of the reply, and all of it when it is not a stream, and return until when to go on.

        Spec: TRN-041, TRN-114
        """
        reply = self._reply
        assert reply is not None
        try:
            status = self.status = reply.head(deadline)
        finally:
            paused_s, self.paused_s = reply.paused_s - self.paused_s, reply.paused_s
        if deadline is not None:
            # Time in which the auth asked a person does not count.
            deadline += paused_s
        if not 200 <= status < 300:
            self._refused(reply, deadline)
        elif is_stream(reply):
            self._events, self._streaming = EventReader(self._transport.limits["event_bytes"]), True
        elif reply.kind == "application/json":
            self._json(reply.whole(self._transport.limits["body_bytes"], deadline, self._body))
        elif status == 202:
            raise ProtocolError("The server accepted the request without answering it")
        else:
            raise ProtocolError(
                f"The server answered with {reply.kind[:80] or 'no content type'}, neither JSON nor events"
            )
        return deadline

    def _refused(self, reply: Reply, deadline: float | None) -> None:
        """Take the JSON-RPC error that an HTTP error may come with. Spec: TRN-039, TRN-058"""
        text = excerpt(reply, deadline, self._body)
        reply.release()
        try:
            error: Any = tidy(parse(bytes(self._body))) if reply.kind == "application/json" else None
        except ProtocolError:
            error = None
        problem = self._transport.refusal(reply, text)
        if not is_message(error) or not self._is_error(error):
            self._transport.note(reply)
            raise problem
        if reply.status == 400 and reply.field("mcp-session-id"):
            said = error["error"]
            if isinstance(said, dict) and said.get("code") == _SERVER_ERROR:
                # So say the official examples in TypeScript, and the servers that were copied from them.
                problem = SessionExpired(f"The server no longer knows the session: {str(said.get('message'))[:200]}")
        if isinstance(problem, SessionExpired) or (error.get("id") is None and reply.status in _NOT_OURS):
            self._transport.note(reply)
            raise problem
        self._put(error)

    def _json(self, body: bytes) -> None:
        """Take a JSON reply: the response, or from 2025-03-26 an array with it."""
        found = parse(body)
        for message in map(tidy, found if isinstance(found, list) else [found]):
            if not is_message(message):
                raise ProtocolError("The server's answer is not a JSON-RPC message")
            self._put(message)
        if not any("method" not in message for message in self._ready):
            raise ProtocolError("The server's answer is not the response to the request: its id differs")

    def _read(self, events: EventReader, deadline: float | None) -> None:
        """Take what comes next on the stream. Spec: TRN-043, TRN-116"""
        assert self._reply is not None
        last_id = events.last_id
        try:
            data = self._reply.read(deadline)
        except ConnectionLost as problem:
            self._broken(events, problem)
            return
        if not data:
            why = "".join(f"; {text}" for text in self._dropped)
            self._broken(events, ConnectionLost(f"The stream ended before the response{why}"))
            return
        for name, text in events.feed(data):
            self._count += 1
            if self._count > self._most:
                raise ProtocolError(f"The server sent more than {self._most:.0f} events before the response")
            for message in in_event(name, text, self._dropped.append):
                self._put(message)
        if self._ready or events.last_id != last_id:
            self._resumption = None

    def _put(self, message: Message) -> None:
        """Keep a message for `receive`; a response that is not ours is dropped. Spec: BASE-006"""
        reply = self._reply
        assert reply is not None
        if "method" not in message and not self._is_error(message) and not same_id(message["id"], self._id):
            log.debug("a response of the server is dropped: no request has its id")
            return
        if self._transport.record is not None:
            self._transport.record("received", message, status=self.status, headers=reply.headers)
        if self._method == "initialize" and "result" in message:
            self._transport.session.began(reply.headers.get("mcp-session-id"))
        self._ready.append(message)

    def _is_error(self, message: Message) -> bool:
        """Say whether a message is an error for our request; one that names no request can only be for it."""
        if "error" not in message or "method" in message:
            return False
        return message.get("id") is None or same_id(message["id"], self._id)

    def _broken(self, events: EventReader, problem: ConnectionLost) -> None:
        """Plan to resume a legacy stream whose events have ids; raise for another. Spec: TRN-131, TRN-137"""
        self._resumption = self._resumption or Resumption()
        if self._over or not self._resumable or events.last_id is None:
            raise problem
        self._resumption.plan(events.retry_s, problem)
        self._streaming = False
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.close()

    def _resume(self, events: EventReader, deadline: float | None) -> None:
        """Wait as long as the server wished, and ask for what comes after the newest event. Spec: TRN-138"""
        if self._reply is None:
            if self._resumption is not None and self._resumption.cancelled(deadline):
                return
            try:
                self._reply = self._transport.session.get(events.last_id, deadline)
            except ConnectionLost as problem:
                self._broken(events, problem)
                return
            if self._over:
                self._reply.close()
        try:
            self._reply.head(deadline)
        except ConnectionLost as problem:
            self._broken(events, problem)
            return
        if not is_stream(self._reply):
            raise not_resumed(self._reply)
        events.restart()
        self._streaming = True

    def abort(self, error: ClientError) -> None:
        """Make `receive` raise this error; see `Exchange`."""
        if self._error is None:
            self._error = error
        self.close()

    def close(self) -> None:
        """Close the response's stream, which cancels a modern request. Spec: TRN-052"""
        if self._over:
            return
        self._over = True
        reply, resumption = self._reply, self._resumption
        if resumption is not None:
            resumption.cancel()
        if reply is not None:
            reply.close()
        self._transport.forget(self)
