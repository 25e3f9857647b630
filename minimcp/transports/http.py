"""Streamable HTTP, both eras, as one WSGI callable.

Spec: TRN-029 to TRN-159. A request is refused in this order: who is calling, what kind of request it is, what it says.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, Optional

from ..protocol import headers, spec, sse, wire
from ..protocol.errors import InvalidParams, InvalidRequest, McpError, MinimcpError, SessionNotFound, TooManySessions
from ..protocol.wire import encode
from .guard import Guard
from .streams import EventStream, Exchange, Log, exchange_batches, gone, log, log_batches
from .workers import Workers

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]
# A server and its sessions are known here by what they can do, not by their classes.
Session = Any

RETRY_MS = 500
MOUNTED = ("", "/", "/mcp", "/mcp/")

_REASONS = {
    200: "200 OK",
    202: "202 Accepted",
    204: "204 No Content",
    400: "400 Bad Request",
    403: "403 Forbidden",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    406: "406 Not Acceptable",
    409: "409 Conflict",
    413: "413 Content Too Large",
    415: "415 Unsupported Media Type",
    503: "503 Service Unavailable",
}
_STREAM_HEADERS: Headers = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    # Keeps a framework's gzip middleware from holding the stream back.
    ("Content-Encoding", "identity"),
    ("X-Accel-Buffering", "no"),
]


class Refused(MinimcpError):
    """An HTTP request that never becomes a message, with the status to refuse it with."""

    def __init__(self, status: int, message: str, *extra: tuple[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.extra = list(extra)


class HttpApp:
    """The WSGI callable of a server.

    It needs no start-up: threads and locks are made on first use in whichever process serves. `environ["werkzeug.socket"]`
    or `["gunicorn.socket"]`, where a server offers one, lets it notice at once that a client has gone.

    :param paths: the values of PATH_INFO that are the MCP endpoint.
    """

    def __init__(self, server: Any, paths: Collection[str] = MOUNTED) -> None:
        self.server = server
        self._paths = frozenset(paths)
        self._guard = Guard(server.allowed_hosts, server.allowed_origins)
        self.limits = server.limits
        self._workers = Workers(10_000)
        self._lock = threading.Lock()  # guards _streams and _warned
        self._streams = 0
        self._warned = False
        self._pid = os.getpid()
        self._sse: Any = None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            refusal = self._guard.refusal(environ)
            if refusal is not None:
                raise Refused(403, refusal)
            route = self._route(environ.get("PATH_INFO", ""))
            handle = route.get(environ["REQUEST_METHOD"])
            if handle is None:
                if environ["REQUEST_METHOD"] == "OPTIONS" and environ.get("HTTP_ORIGIN"):
                    return self.respond(environ, start_response, 204, b"", [])
                raise Refused(405, "This endpoint takes POST", ("Allow", ", ".join(route)))
            return handle(environ, start_response)
        except Refused as refused:
            body = wire.dumps(wire.error(None, InvalidRequest(str(refused))))
            return self.respond(environ, start_response, refused.status, body, refused.extra)

    def _route(self, path: str) -> dict[str, Callable[[Environ, StartResponse], Iterable[bytes]]]:
        if path in self._paths:
            return {"POST": self._post, "GET": self._get, "DELETE": self._delete}
        if path in ("/sse", "/messages"):
            if self._sse is None:
                from .sse import SseDoor

                self._sse = SseDoor(self)
            return {"GET": self._sse.get} if path == "/sse" else {"POST": self._sse.post}
        raise Refused(404, "There is no MCP endpoint at this path")

    def _post(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        accept = _accepts(environ)
        if environ.get("wsgi.multiprocess"):
            self.warn_once()
        message: Any = None
        session: Session | None = None
        modern = True

        def get_header(name: str) -> str | None:
            value: str | None = environ.get(_KEYS.get(name) or "HTTP_" + name.upper().replace("-", "_"))
            return value

        try:
            message = wire.loads(
                self.read_body(environ), int(self.limits["depth"]), int(self.limits["elements"])
            )
            modern = headers.is_modern(message, get_header)
            principal = self.principal(environ)
            if not modern:
                session = self._session(environ, message, principal, get_header)
            call = self.server.call(
                message, get_header=get_header, session=session, principal=principal, request=environ
            )
        except McpError as problem:
            return self._reply(environ, start_response, wire.error(wire.readable_id(message), problem), modern, 400)
        except SessionNotFound as problem:
            # The status alone tells a legacy client to start over.
            error = wire.error(wire.readable_id(message), InvalidRequest(str(problem)))
            return self.respond(environ, start_response, 404, wire.dumps(error), [])
        if call is None:
            return self.respond(environ, start_response, 202, b"", [])
        if call.streams:
            return self._listen(environ, start_response, call, accept)
        if session is None:
            if call.interactive:
                return self._exchange(environ, start_response, call, accept)
            return self._reply(environ, start_response, call.run(), True)
        session.add_call(call)
        if call.interactive and "stream" in accept:
            return self._logged(environ, start_response, call, session)
        try:
            reply = call.run()
        finally:
            session.remove_call(call)
        return self._reply(environ, start_response, reply, False, extra=self._keep(session, reply))

    # Requests

    def read_body(self, environ: Environ) -> bytes:
        """The body of a JSON request, within the limit.

        :raises Refused: for another media type, an encoding, a bad length or too many bytes.
        """
        media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise Refused(415, "Content-Type must be application/json")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise Refused(415, "Content-Encoding is not supported")
        limit = int(self.limits["body_bytes"])
        length = environ.get("CONTENT_LENGTH")
        if length:
            if not (length.isascii() and length.isdigit()):
                raise Refused(400, "Content-Length is not a number")
            if int(length) > limit:
                raise Refused(413, f"The body is larger than {limit} bytes", ("Connection", "close"))
            body: bytes = environ["wsgi.input"].read(int(length))
            return body
        if not environ.get("wsgi.input_terminated"):
            return b""
        body = environ["wsgi.input"].read(limit + 1)
        if len(body) > limit:
            raise Refused(413, f"The body is larger than {limit} bytes", ("Connection", "close"))
        return body

    def principal(self, environ: Environ) -> str | None:
        """The authenticated user of a request."""
        name: str | None = environ.get("REMOTE_USER")
        if self.server.principal is not None:
            name = self.server.principal(environ)
        return name or None

    def _session(self, environ: Environ, message: Any, principal: str | None, get_header: headers.Get) -> Session:
        """The legacy session a message belongs to, a new one for `initialize`. Spec: TRN-141 to TRN-159"""
        version = get_header("MCP-Protocol-Version")
        if version is not None and version not in spec.VERSIONS:
            raise InvalidRequest("The MCP-Protocol-Version header names a version that is not served here")
        if isinstance(message, dict) and message.get("method") == "initialize" and "id" in message:
            session: Session = self.server.open_session(principal=principal)
            return session
        return self._known_session(environ, principal)

    def _known_session(self, environ: Environ, principal: str | None) -> Session:
        id = environ.get("HTTP_MCP_SESSION_ID")
        if not id:
            raise InvalidRequest("The Mcp-Session-Id header is missing: send initialize first, or a 2026-07-28 request")
        session: Session = self.server.open_session(id=id, principal=principal)
        if "standing" not in session.door:
            with self._lock:
                if "standing" not in session.door:
                    self._furnish(session)
        return session

    def _furnish(self, session: Session) -> None:
        """Give a session its streams: number 0 is for what belongs to no request. Called under the lock."""
        limit = int(self.limits["events"])
        standing = Log(0, limit)
        session.door.update(streams={}, standing=standing, number=0, limit=limit)
        session.send = standing.send
        session.on_close.append(standing.finish)

    def _keep(self, session: Session, reply: Any) -> Headers:
        """Keep the session that an `initialize` just opened; its id goes with the answer."""
        if session.id or not isinstance(reply, dict) or "result" not in reply:
            return []
        try:
            id = self.server.keep_session(session)
        except TooManySessions as problem:
            raise Refused(503, str(problem), ("Retry-After", "10")) from None
        except InvalidParams as problem:
            raise Refused(400, str(problem)) from None
        return [("Mcp-Session-Id", id)]

    # Replies

    def respond(
        self, environ: Environ, start_response: StartResponse, status: int, body: bytes, extra: Headers
    ) -> Iterable[bytes]:
        """Send a short response, JSON unless it is empty."""
        fields: Headers = [("Content-Length", str(len(body)))] if status != 204 else []
        if body:
            fields.append(("Content-Type", "application/json"))
        if "HTTP_ORIGIN" in environ and status != 403:
            fields += self._guard.cors(environ)
        start_response(_REASONS[status], fields + extra)
        return [body] if body else []

    def _reply(
        self,
        environ: Environ,
        start_response: StartResponse,
        reply: Any,
        modern: bool,
        legacy_status: int = 200,
        extra: Optional[Headers] = None,
    ) -> Iterable[bytes]:
        """Send a reply as JSON; a modern error has the status of its code, a cancelled call is only accepted."""
        if reply is None:
            return self.respond(environ, start_response, 202, b"", extra or [])
        status = 200
        if isinstance(reply, dict) and "error" in reply:
            status = spec.HTTP_STATUS.get(reply["error"]["code"], 200) if modern else legacy_status
        body = encode(reply)
        return self.respond(environ, start_response, status, body, extra or [])

    def stream(
        self, environ: Environ, start_response: StartResponse, batches: Any, on_close: Callable[[bool], None]
    ) -> Iterable[bytes]:
        """Send server-sent events."""
        start_response("200 OK", _STREAM_HEADERS + self._guard.cors(environ))
        return EventStream(batches, environ, on_close)

    def _exchange(
        self, environ: Environ, start_response: StartResponse, call: Any, accept: Collection[str]
    ) -> Iterable[bytes]:
        """Run a modern call in a worker; it becomes a stream when something precedes the answer, or nothing comes."""
        exchange = Exchange(call.ctx.cancelled)
        send = exchange.send if "stream" in accept else None

        def work() -> None:
            exchange.finish(call.run(send))

        self.start(work)
        silent_s = 0.0
        keepalive_s = self.limits["keepalive_s"]
        while True:
            events = exchange.take(keepalive_s)
            if events and events[-1][1] and len(events) == 1:
                return self._reply(environ, start_response, exchange.reply, True)
            silent_s += keepalive_s
            if events or (silent_s >= self.limits["silence_s"] and send is not None):
                break
            if gone(environ):
                call.cancel("the client has gone")
                return self.respond(environ, start_response, 202, b"", [])

        def on_close(ended: bool) -> None:
            if not ended:
                call.cancel("the client has gone")

        return self.stream(environ, start_response, exchange_batches(exchange, events, keepalive_s), on_close)

    def _listen(
        self, environ: Environ, start_response: StartResponse, call: Any, accept: Collection[str]
    ) -> Iterable[bytes]:
        """Run a long-lived handler on this thread, for as long as its stream may live."""
        if "stream" not in accept:
            raise Refused(406, "Accept must allow text/event-stream for this method")
        leave = self.enter(environ)
        lifetime_s = self.limits["stream_s"] if leave else 0.0
        call.ctx.deadline = time.monotonic() + lifetime_s
        messages = call.messages()
        first = next(messages, None)
        if first is None or "method" not in first:
            if leave:
                leave()
            return self._reply(environ, start_response, first, True)

        def batches() -> Any:
            yield sse.encode(encode(first))
            for message in messages:
                yield sse.encode(encode(message)) if message is not None else b""

        def on_close(ended: bool) -> None:
            if leave:
                leave()
            if not ended:
                call.cancel("the client has gone")
            messages.close()

        return self.stream(environ, start_response, batches(), on_close)

    def _logged(
        self, environ: Environ, start_response: StartResponse, call: Any, session: Session
    ) -> Iterable[bytes]:
        """Run a legacy call in a worker; its stream is kept, so that the client may leave and come back."""
        with self._lock:
            session.door["number"] += 1
            stream = Log(session.door["number"], session.door["limit"])
            streams = session.door["streams"]
            streams[stream.number] = stream
            for number in [number for number, old in streams.items() if old.done][:-16]:
                del streams[number]
        polls = (session.version or "") >= spec.POLLING_SINCE
        if polls and call.ctx is not None:
            call.ctx.close_stream = stream.detach

        def work() -> None:
            reply = None
            try:
                reply = call.run(stream.send)
            finally:
                session.remove_call(call)
                stream.finish(reply)

        self.start(work)
        if stream.alone(self.limits["silence_s"]):
            return self._reply(environ, start_response, stream.reply, False)
        prime = sse.encode(b"", id=f"{stream.number}-0", retry_ms=RETRY_MS) if polls else b""
        until = time.monotonic() + self.limits["stream_s"]
        batches = log_batches(stream, 0, self.limits["keepalive_s"], until, prime)
        return self.stream(environ, start_response, batches, _ignore)

    def start(self, work: Callable[[], None]) -> None:
        """Run something on a worker thread."""
        try:
            self._workers.submit(work)
        except RuntimeError:
            raise Refused(503, "No thread is free; try again", ("Retry-After", "1")) from None

    # GET and DELETE

    def _get(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Open a legacy session's standing stream, or go on with a stream after `Last-Event-ID`. Spec: TRN-121 to TRN-133"""
        if not environ.get("HTTP_MCP_SESSION_ID"):
            raise Refused(405, "This endpoint takes POST; GET needs an Mcp-Session-Id", ("Allow", "POST"))
        if "stream" not in _accepts(environ):
            raise Refused(406, "Accept must allow text/event-stream")
        session = self._session_or_404(environ)
        stream, after = self._position(session, environ.get("HTTP_LAST_EVENT_ID"))
        live = session.door.get("live")
        if stream.number == 0 and live is not None and not gone(live):
            raise Refused(409, "This session has a GET stream already")
        leave = self.enter(environ)
        if leave is None:
            raise Refused(405, "No further stream can be held open here", ("Allow", "POST, DELETE"))
        if stream.number == 0:
            session.door["live"] = environ
            notify = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            self.server.call(notify, session=session)

        def on_close(ended: bool) -> None:
            leave()
            if session.door.get("live") is environ:
                del session.door["live"]

        until = time.monotonic() + self.limits["stream_s"]
        polls = (session.version or "") >= spec.POLLING_SINCE
        prime = sse.encode(b"", id=f"{stream.number}-{after}", retry_ms=RETRY_MS) if polls else sse.COMMENT
        batches = log_batches(stream, after, self.limits["keepalive_s"], until, prime)
        return self.stream(environ, start_response, batches, on_close)

    def _position(self, session: Session, event_id: str | None) -> tuple[Log, int]:
        """The stream an event id names, and the number of the event in it."""
        standing: Log = session.door["standing"]
        if event_id is None:
            return standing, standing.last()
        number, _, event = event_id.partition("-")
        if number.isascii() and number.isdigit() and event.isascii() and event.isdigit() and len(event_id) < 30:
            stream = standing if int(number) == 0 else session.door["streams"].get(int(number))
            if stream is not None:
                return stream, int(event)
        raise Refused(400, "Last-Event-ID names no stream of this session")

    def _delete(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """End a legacy session. Spec: TRN-150"""
        if not environ.get("HTTP_MCP_SESSION_ID"):
            raise Refused(405, "DELETE needs an Mcp-Session-Id", ("Allow", "POST"))
        self.server.close_session(self._session_or_404(environ))
        return self.respond(environ, start_response, 204, b"", [])

    def _session_or_404(self, environ: Environ) -> Session:
        try:
            return self._known_session(environ, self.principal(environ))
        except SessionNotFound as problem:
            raise Refused(404, str(problem)) from None

    def enter(self, environ: Environ) -> Callable[[], None] | None:
        """Take a place for a long-lived stream and return what gives it back, or None when there is no place.

        Another server's threads are few, and one that has a single thread none to spare.
        """
        own = environ.get("SERVER_SOFTWARE", "").startswith("minimcp")
        limit = self.limits["streams" if own else "foreign_streams"]
        if not environ.get("wsgi.multithread", True):
            return None
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._streams = os.getpid(), 0
            if self._streams >= limit:
                return None
            self._streams += 1
        given_back: list[bool] = []

        def leave() -> None:
            with self._lock:
                if not given_back:
                    given_back.append(True)
                    self._streams -= 1

        return leave

    def warn_once(self) -> None:
        """Say that several processes serve without a common secret, which makes retries and sessions fail at random."""
        if self._warned or self.server.sealer.shared:
            return
        self._warned = True
        log.warning(
            "Several processes serve, but Server(secret=...) is not set: a question's retry or a session that reaches "
            "another process fails. Give all of them one secret, or set MINIMCP_SECRET."
        )


_KEYS = {
    "MCP-Protocol-Version": "HTTP_MCP_PROTOCOL_VERSION",
    "Mcp-Method": "HTTP_MCP_METHOD",
    "Mcp-Name": "HTTP_MCP_NAME",
}


def _accepts(environ: Environ) -> frozenset[str]:
    """What the client can take: "json" and "stream".

    :raises Refused: when it is neither.
    """
    accept = environ.get("HTTP_ACCEPT", "*/*")
    found = _ACCEPTS.get(accept)
    if found is None:
        types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
        anything = "*/*" in types
        found = frozenset(
            (["json"] if anything or types & {"application/json", "application/*"} else [])
            + (["stream"] if anything or types & {"text/event-stream", "text/*"} else [])
        )
        if not found:
            raise Refused(406, "Accept must allow application/json or text/event-stream")
        if len(_ACCEPTS) < 256 and len(accept) < 256:
            _ACCEPTS[accept] = found
    return found


_ACCEPTS: dict[str, frozenset[str]] = {}


def _ignore(ended: bool) -> None:
    """A legacy client that disconnects has not cancelled its call. Spec: TRN-119"""


def serve(server: Any, host: str, port: int, path: str = "/mcp", **options: Any) -> None:
    """Serve on the embedded server until SIGTERM or Ctrl-C."""
    from .wsgi_server import serve as serve_wsgi

    app = HttpApp(server, (path, path + "/"))
    serve_wsgi(app, host, port, **options)
