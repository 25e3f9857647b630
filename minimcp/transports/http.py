"""Streamable HTTP, both eras, as one WSGI callable.

Spec: TRN-029 to TRN-106. A request is refused in this order: who is calling, what kind of request it is, what it says.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Optional

from ..protocol import headers, spec, sse, wire
from ..protocol.errors import InvalidRequest, McpError, SessionNotFound
from .http_sse import HttpSse
from .legacy_http import LegacyHttp
from .origin import Environ, Guard, Headers, Refused, StartResponse
from .streams import EventStream, Exchange, exchange_batches, gone
from .workers import Workers

log = logging.getLogger("minimcp")

# The values of PATH_INFO at which a mounted callable is the MCP endpoint.
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
_KEYS = {
    "MCP-Protocol-Version": "HTTP_MCP_PROTOCOL_VERSION",
    "Mcp-Method": "HTTP_MCP_METHOD",
    "Mcp-Name": "HTTP_MCP_NAME",
}


class HttpApp:
    """The WSGI callable of a server.

    It needs no start-up: threads are made on first use, in whichever process serves. `environ["werkzeug.socket"]` or
    `["gunicorn.socket"]`, where the WSGI server offers one, lets it notice at once that a client has gone.

    :param paths: the values of PATH_INFO that are the MCP endpoint.
    """

    def __init__(self, server: Any, paths: Collection[str] = MOUNTED) -> None:
        self.server = server
        self.limits = server.limits
        self._guard = Guard(server.allowed_hosts, server.allowed_origins)
        self._workers = Workers(10_000)
        self._sessions = LegacyHttp(self)
        self._lock = threading.Lock()  # guards _streams, _pid and _warned
        self._streams = 0
        self._pid = os.getpid()
        self._warned = False
        endpoint = {"POST": self._post, "GET": self._sessions.get, "DELETE": self._sessions.delete}
        old = HttpSse(self)
        self._routes: dict[str, dict[str, Any]] = {"/sse": {"GET": old.get}, "/messages": {"POST": old.post}}
        self._routes.update(dict.fromkeys(paths, endpoint))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        try:
            refusal = self._guard.refusal(environ)
            if refusal is not None:
                raise Refused(403, refusal)
            route = self._routes.get(environ.get("PATH_INFO", ""))
            if route is None:
                raise Refused(404, "There is no MCP endpoint at this path")
            handle = route.get(method)
            if handle is None:
                if method == "OPTIONS" and environ.get("HTTP_ORIGIN"):
                    return self.respond(environ, start_response, 204, b"", [])
                raise Refused(405, "This endpoint does not take this method", ("Allow", ", ".join(route)))
            return handle(environ, start_response)  # type: ignore[no-any-return]
        except Refused as refused:
            error = wire.error(None, InvalidRequest(str(refused)))
            self.trace_refusal(environ, None, error, refused.status)
            return self.respond(environ, start_response, refused.status, wire.dumps(error), refused.extra)

    def _post(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        accept = self.accepts(environ)
        if environ.get("wsgi.multiprocess") and not self._warned:
            self._warn()
        message: Any = None
        session: Any = None

        def get_header(name: str) -> str | None:
            value: str | None = environ.get(_KEYS.get(name) or "HTTP_" + name.upper().replace("-", "_"))
            return value

        try:
            message = self.read_message(environ)
            principal = self.principal(environ)
            if not headers.is_modern(message, get_header):
                session = self._sessions.find(environ, message, principal, get_header)
            call = self.server.call(
                message, get_header=get_header, session=session, principal=principal, request=environ
            )
        except McpError as problem:
            error = wire.error(wire.readable_id(message), problem)
            self.trace_refusal(environ, message, error, 400)
            return self.reply(environ, start_response, error, 400)
        except SessionNotFound as problem:
            # The status tells a legacy client to start over. Spec: TRN-149
            gone_error = wire.error(wire.readable_id(message), InvalidRequest(str(problem)))
            self.trace_refusal(environ, message, gone_error, 404)
            return self.reply(environ, start_response, gone_error, 404)
        if call is None:
            return self.respond(environ, start_response, 202, b"", [])
        if session is not None:
            return self._sessions.answer(environ, start_response, call, session, accept)
        if call.streams:
            return self._listen(environ, start_response, call, accept)
        if call.interactive:
            return self._exchange(environ, start_response, call, accept)
        return self.reply(environ, start_response, call.run())

    def _exchange(
        self, environ: Environ, start_response: StartResponse, call: Any, accept: Collection[str]
    ) -> Iterable[bytes]:
        """Run a modern call in a worker; the reply becomes a stream when something precedes it, or nothing comes."""
        exchange = Exchange(call.ctx.cancelled)
        send = exchange.send if "stream" in accept else None

        def work() -> None:
            reply = None
            try:
                reply = call.run(send)
            finally:
                exchange.finish(reply)

        self.start(work)
        silent_s, keepalive_s = 0.0, self.limits["keepalive_s"]
        while True:
            events = exchange.take(min(keepalive_s, self.limits["silence_s"]))
            if len(events) == 1 and events[0][1]:
                return self.reply(environ, start_response, exchange.reply)
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
        call.ctx.deadline = time.monotonic() + (self.limits["stream_s"] if leave else 0.0)
        messages = call.messages()
        first = next(messages, None)
        if first is None or "method" not in first:
            if leave:
                leave()
            return self.reply(environ, start_response, first)

        def batches() -> Iterator[bytes]:
            yield sse.encode(wire.encode(first))
            for message in messages:
                yield sse.encode(wire.encode(message)) if message is not None else b""

        def on_close(ended: bool) -> None:
            if leave:
                leave()
            if not ended:
                call.cancel("the client has gone")
            messages.close()

        return self.stream(environ, start_response, batches(), on_close)

    # What the other HTTP doors use too

    def accepts(self, environ: Environ) -> frozenset[str]:
        """What the client can take: "json" and "stream".

        :raises Refused: when it is neither.
        """
        accept = environ.get("HTTP_ACCEPT", "*/*")
        found = _accepted.get(accept)
        if found is None:
            types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
            known = {"json": {"application/json", "application/*"}, "stream": {"text/event-stream", "text/*"}}
            found = frozenset(kind for kind, names in known.items() if types & (names | {"*/*"}))
            if len(_accepted) < 256 and len(accept) < 256:
                _accepted[accept] = found
        if not found:
            raise Refused(406, "Accept must allow application/json or text/event-stream")
        return found

    def read_message(self, environ: Environ) -> Any:
        """Read and parse the body.

        :raises Refused: for another media type, an encoding, a bad length or too many bytes.
        :raises McpError: when it is not JSON within the limits.
        """
        media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise Refused(415, "Content-Type must be application/json")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise Refused(415, "Content-Encoding is not supported")
        limit = int(self.limits["body_bytes"])
        length = environ.get("CONTENT_LENGTH") or ""
        if length and not (length.isascii() and length.isdigit()):
            raise Refused(400, "Content-Length is not a number")
        body = b""
        if length and int(length) <= limit:
            body = environ["wsgi.input"].read(int(length))
        elif not length and environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read(limit + 1)
        if len(body) > limit or (length and int(length) > limit):
            raise Refused(413, f"The body is larger than {limit} bytes")
        return wire.loads(body, int(self.limits["depth"]), int(self.limits["elements"]))

    def trace_refusal(self, environ: Environ, message: Any, reply: Any, status: int) -> None:
        """Record a request that is refused before the server has taken its message."""
        if self.server.tracing is not None:
            self.server.tracing.refused("http", message, reply, environ, status)

    def principal(self, environ: Environ) -> str | None:
        """The authenticated user of a request."""
        find = self.server.principal
        name: str | None = environ.get("REMOTE_USER") if find is None else find(environ)
        return name or None

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

    def reply(
        self,
        environ: Environ,
        start_response: StartResponse,
        reply: Any,
        status: int | None = None,
        extra: Optional[Headers] = None,
    ) -> Iterable[bytes]:
        """Send a reply as JSON; a cancelled call's absent one is only accepted.

        :param status: None for the status that the modern era has for the reply's error code.
        """
        if reply is None:
            return self.respond(environ, start_response, 202, b"", extra or [])
        if status is None:
            status = spec.HTTP_STATUS.get(reply["error"]["code"], 200) if "error" in reply else 200
        return self.respond(environ, start_response, status, wire.encode(reply), extra or [])

    def stream(
        self,
        environ: Environ,
        start_response: StartResponse,
        batches: Iterator[bytes],
        on_close: Callable[[bool], None],
    ) -> Iterable[bytes]:
        """Send server-sent events."""
        start_response("200 OK", _STREAM_HEADERS + self._guard.cors(environ))
        return EventStream(batches, environ, on_close)

    def start(self, work: Callable[[], None]) -> None:
        """Run something on a worker thread.

        :raises Refused: when the system has no thread to give.
        """
        try:
            self._workers.submit(work)
        except RuntimeError:
            raise Refused(503, "No thread is free; try again", ("Retry-After", "1")) from None

    def enter(self, environ: Environ) -> Callable[[], None] | None:
        """Take a place for a long-lived stream and return what gives it back, or None when there is no place.

        Another server's threads are few, and one that has a single thread has none to spare.
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

    def _warn(self) -> None:
        """Say once that several processes serve without a common secret."""
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned and not self.server.sealer.shared:
            log.warning(
                "Several processes serve, but Server(secret=...) is not set: a question's retry or a session that "
                "reaches another process fails. Give all of them one secret, or set MINIMCP_SECRET."
            )


# Accept headers are few and repeat; guards nothing but speed, and is bounded.
_accepted: dict[str, frozenset[str]] = {}


def serve(
    server: Any,
    host: str,
    port: int,
    path: str,
    tls: tuple[str, str] | None,
    limits: dict[str, float] | None,
    ready: Callable[[Any], Any] | None,
) -> None:
    """Serve on the embedded server until SIGTERM or Ctrl-C."""
    from ..engines.http_server.wsgi_server import serve as serve_wsgi

    def on_ready(listening: Any) -> None:
        listening.on_shutdown.append(server.close)
        if ready is not None:
            ready(listening)

    serve_wsgi(
        HttpApp(server, (path, path + "/")),
        host,
        port,
        tls=tls,
        limits={"body_bytes": server.limits["body_bytes"], **(limits or {})},
        ready=on_ready,
        warn_open=server.principal is None,
    )
