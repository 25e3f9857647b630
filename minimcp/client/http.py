"""Streamable HTTP as a client speaks it, both eras: every message is a POST, sent and read on the caller's thread.

Spec: TRN-035 to TRN-054, TRN-110 to TRN-159
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Optional

from ..protocol import spec, wire
from ..protocol.errors import ClientError, ConnectionLost, HTTPStatus, McpError, ProtocolError, Timeout
from .link import Exchange, Link, Message, SessionExpired
from .reading import LIMITS, Events, Headers
from .web import Reply, Web

log = logging.getLogger("minimcp")

JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
STREAM = {"Accept": "text/event-stream"}
RETRY_S = 1.0
MOST_RETRIES = 5
_MOST_RETRY_S = 30.0
_EXCERPT = 2000
_REFUSAL_BYTES = 1024 * 1024
_CLOSE_S = 2.0
_SESSION_ID = re.compile(r"[\x21-\x7e]{1,4096}\Z")


class HttpLink(Link):
    """A way to a Streamable HTTP server.

    :param headers: sent with every request; what the protocol needs prevails over them.
    :param auth: as `requests` takes it: a tuple or a callable that changes the prepared request.
    :param session: a requests.Session with proxies, certificates, adapters and cookies. Without one, neither .netrc
        nor the environment is looked at.
    :param limits: overrides for `reading.LIMITS`.
    """

    kind = "http"
    survives_fork = True
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
        self.limits = {**LIMITS, **{key: value for key, value in (limits or {}).items() if key in LIMITS}}
        self.web = self._make_web(headers, auth, session)
        self._lock = threading.Lock()  # guards _open, _closed and _stream
        self._open: set[HttpExchange] = set()
        self._closed = False
        self._stream: Any = None
        self._session: str | None = None
        self._session_pid = 0
        self._identity = ("", "")

    def _make_web(self, headers: Optional[Headers], auth: Any, session: Any) -> Web:
        return Web(self.url, headers, auth, session, self.limits)

    def open(self, timeout_s: float) -> None:
        """Make ready; a connection is made when there is something to send."""
        self.web.setup()
        with self._lock:
            self._closed = False

    def settle(self, version: str) -> None:
        """Take note of the revision: which requests name it and the session, and what a closed stream means."""
        self.version = version
        self.closing_cancels = version in spec.MODERN_VERSIONS
        if self.closing_cancels:
            self._session = None

    def start(self, message: Message, headers: Headers, timeout_s: float | None) -> HttpExchange:
        """Send a request; see `Link`."""
        if message["method"] == "initialize":
            # Whatever was before, this begins without an id. Spec: TRN-149
            self._session, self.version = None, None
        deadline = _deadline(timeout_s)
        reply = self.post(message, headers, deadline)
        exchange = HttpExchange(self, message, reply)
        with self._lock:
            self._open.add(exchange)
            closed = self._closed
        if closed:
            exchange.abort(ConnectionLost("The connection was closed"))
        return exchange

    def send(self, message: Message, headers: Headers, timeout_s: float | None) -> None:
        """Send a notification or a response; see `Link`. Spec: TRN-038, TRN-113"""
        deadline = _deadline(timeout_s)
        reply = self.post(message, headers, deadline)
        try:
            status = reply.head(deadline)
            if not 200 <= status < 300:
                raise self.refusal(reply, excerpt(reply, deadline))
            excerpt(reply, deadline)
            reply.release()
        finally:
            reply.close()

    def post(self, message: Message, headers: Headers, deadline: float | None) -> Reply:
        """POST a message.

        :raises ClientError: when it could not be sent.
        """
        if self._closed:
            raise ConnectionLost("The connection is closed; open it again", "always")
        reply = self.web.request("POST", {**JSON, **self.fields(), **headers}, wire.dumps(message), deadline)
        if self.record is not None:
            self.record("sent", message, method="POST", headers=reply.sent)
        return reply

    def fields(self) -> Headers:
        """The headers of a legacy session. Spec: TRN-144, TRN-156"""
        found: Headers = {}
        if self._session is not None:
            found["Mcp-Session-Id"] = self._session
        if self.version is not None and "2025-06-18" <= self.version <= spec.LATEST_LEGACY:
            found["MCP-Protocol-Version"] = self.version
        return found

    def refusal(self, reply: Reply, body: str) -> ClientError:
        """What an HTTP status that is no answer means."""
        if reply.status == 404 and reply.field("mcp-session-id"):
            return SessionExpired("The server no longer knows the session")
        problem = HTTPStatus(reply.status, body, self.url.partition("?")[0])
        return problem

    def began(self, id: str | None) -> None:
        """Take note of the session that the answer to `initialize` opened, if it did. Spec: TRN-141"""
        if id is not None and not _SESSION_ID.match(id):
            raise ProtocolError("The server sent a session id with characters that it may not have")
        self._session, self._session_pid = id, os.getpid()

    def identity(self, reply: Reply) -> str:
        """A fingerprint of the credentials that a request was sent with."""
        value = reply.field("authorization")
        known, found = self._identity
        if known != value:
            found = hashlib.sha256(value.encode("latin-1", "replace")).hexdigest()[:16] if value else ""
            self._identity = (value, found)
        return found

    def forget(self, exchange: HttpExchange) -> None:
        """An exchange is over."""
        with self._lock:
            self._open.discard(exchange)

    def close(self) -> None:
        """End the session, fail what is open, close the connections."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiting, self._open = list(self._open), set()
        for exchange in waiting:
            exchange.abort(ConnectionLost("The connection was closed"))
        self.web.close()


class HttpExchange(Exchange):
    """A request that was POSTed, and the reply that is read as it is asked for."""

    def __init__(self, link: HttpLink, message: Message, reply: Reply) -> None:
        self._link = link
        self._id = message["id"]
        self._method = message["method"]
        self._reply: Reply | None = reply
        self._ready: deque[Message] = deque()
        self._body = bytearray()
        self._events: Events | None = None
        self._error: ClientError | None = None
        self._over = False
        self._count = 0
        self._most = float("inf") if self._method == "subscriptions/listen" else link.limits["events"]
        self.identity = link.identity(reply)

    def receive(self, timeout_s: float | None) -> Message:
        """Return the next message; see `Exchange`."""
        try:
            return self._next(_deadline(timeout_s))
        except ClientError as problem:
            if self._error is not None:
                raise self._error from None
            if not isinstance(problem, Timeout):
                self.abort(problem)
            raise

    def _next(self, deadline: float | None) -> Message:
        while True:
            if self._ready:
                message = self._ready.popleft()
                if "method" not in message:
                    self._finish()
                return message
            if self._error is not None or self._over or self._reply is None:
                raise self._error or ConnectionLost("The request is over")
            if self._events is None:
                self._begin(self._reply, deadline)
                continue
            if deadline is not None and time.monotonic() >= deadline:
                raise Timeout("The server did not answer in time")
            data = self._reply.read(deadline)
            if not data:
                raise ConnectionLost("The stream ended before the response")
            for name, text in self._events.feed(data):
                self._take(name, text)

    def _begin(self, reply: Reply, deadline: float | None) -> None:
        """Read the head of the reply, and all of it when it is not a stream. Spec: TRN-041, TRN-114"""
        status = self.status = reply.head(deadline)
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not 200 <= status < 300:
            body = self._refused(reply, deadline)
            try:
                error = wire.loads(body) if kind == "application/json" else None
            except McpError:
                error = None
            if status == 404 and reply.field("mcp-session-id") or not self._is_error(error):
                raise self._link.refusal(reply, body[:_EXCERPT].decode("utf-8", "replace"))
            self._put(error)
        elif kind == "text/event-stream":
            self._events = Events(self._link.limits["event_bytes"])
        elif kind == "application/json":
            self._json(reply.whole(self._link.limits["body_bytes"], deadline, self._body))
        elif status == 202:
            raise ProtocolError("The server accepted the request without answering it")
        else:
            raise ProtocolError(f"The server answered with {kind[:80] or 'no content type'}, neither JSON nor events")

    def _refused(self, reply: Reply, deadline: float | None) -> bytes:
        """The body of a refusal, or what there is of it."""
        try:
            return reply.whole(_REFUSAL_BYTES, deadline, self._body)
        except ClientError:
            return bytes(self._body)

    def _json(self, body: bytes) -> None:
        """Take a JSON reply: the response, or in 2025-03-26 an array with it. Spec: TRN-041, TRN-115"""
        found = parse(body)
        for message in found if isinstance(found, list) else [found]:
            if _kind(message) is None:
                raise ProtocolError("The server's answer is not a JSON-RPC message")
            self._put(message)
        if not any("method" not in message for message in self._ready):
            raise ProtocolError("The server's answer is not the response to the request: its id differs")

    def _take(self, name: str, text: str) -> None:
        """Take an event. Spec: TRN-043, TRN-116"""
        self._count += 1
        if self._count > self._most:
            raise ProtocolError(f"The server sent more than {self._most:.0f} events before the response")
        if name != "message":
            return
        try:
            found = parse(text.encode("utf-8"))
        except ProtocolError as problem:
            log.warning("an event of the server is dropped: %s", problem)
            return
        for message in found if isinstance(found, list) else [found]:
            if _kind(message) is None:
                log.warning("an event of the server is dropped: it is not a JSON-RPC message")
            else:
                self._put(message)

    def _put(self, message: Message) -> None:
        """Keep a message for `receive`; a response that is not ours is dropped. Spec: BASE-006"""
        if "method" not in message and not self._is_error(message) and not _same(message["id"], self._id):
            log.warning("a response of the server is dropped: no request has its id")
            return
        if self._link.record is not None and self._reply is not None:
            self._link.record("received", message, status=self.status, headers=self._reply.headers)
        if self._method == "initialize" and "result" in message and self._reply is not None:
            self._link.began(self._reply.headers.get("mcp-session-id"))
        self._ready.append(message)

    def _is_error(self, message: Any) -> bool:
        """Whether this is an error for our request; one that names no request can only be for it."""
        if _kind(message) != "response" or "error" not in message:
            return False
        return message.get("id") is None or _same(message["id"], self._id)

    def _finish(self) -> None:
        self._over = True
        self._ready.clear()
        if self._reply is not None:
            self._reply.release()
        self._link.forget(self)

    def abort(self, error: ClientError) -> None:
        """Make `receive` raise this error; see `Exchange`."""
        if self._error is None:
            self._error = error
        self.close()

    def close(self) -> None:
        """Close the response's stream, which cancels a modern request. Spec: TRN-052"""
        self._over = True
        reply = self._reply
        if reply is not None:
            reply.close()
        self._link.forget(self)


def parse(body: bytes) -> Any:
    """Parse what a server sent.

    :raises ProtocolError: when it is not JSON, or too deep.
    """
    try:
        return wire.loads(body, max_elements=10_000_000)
    except McpError as problem:
        raise ProtocolError(f"The server sent what is not a message: {problem}") from None


def excerpt(reply: Reply, deadline: float | None) -> str:
    """The beginning of a body that only people read."""
    read = bytearray()
    try:
        reply.whole(_REFUSAL_BYTES, deadline, read)
    except ClientError:
        pass
    return bytes(read[:_EXCERPT]).decode("utf-8", "replace")


def _kind(message: Any) -> str | None:
    """What a message is, or None; an error may lack an id."""
    try:
        return wire.check(message)
    except McpError:
        error = isinstance(message, dict) and "method" not in message and "result" not in message
        return "response" if error and "error" in message and message.get("id") is None else None


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _deadline(timeout_s: float | None) -> float | None:
    # What has already arrived is taken even when there is no time.
    return None if timeout_s is None else time.monotonic() + max(timeout_s, 0.001)
