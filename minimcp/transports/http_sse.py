"""HTTP+SSE, the transport of 2024-11-05: a GET stream that carries everything, and POSTs that are only accepted.

Deprecated since 2025-03-26 and kept for old clients; deleting this file takes three lines out of `http`.
Spec: TRN-160 to TRN-166
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from ..protocol import sse, wire
from ..protocol.errors import McpError
from .origin import Environ, Refused, StartResponse
from .streams import Exchange


class HttpSse:
    """The two endpoints; a session lives as long as its stream.

    :param app: the HttpApp they belong to, for its body reader, workers and places for streams.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lock = threading.Lock()  # guards _sessions
        self._sessions: dict[str, tuple[Any, Exchange, str | None]] = {}

    def get(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Open the stream; its first event tells where to POST."""
        principal = self._app.principal(environ)
        leave = self._app.enter(environ)
        if leave is None:
            raise Refused(503, "No further stream can be held open here", ("Retry-After", "10"))
        over = threading.Event()
        exchange = Exchange(over, event="message")
        session = self._app.server.open_session(exchange.offer, principal=principal)
        id = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions[id] = (session, exchange, principal)
        session.door["ends_with_server"] = True
        session.transport = "sse"
        session.on_close.append(lambda: exchange.finish(None))

        def on_close(ended: bool) -> None:
            leave()
            over.set()
            with self._lock:
                self._sessions.pop(id, None)
            session.close()

        endpoint = f"{environ.get('SCRIPT_NAME', '')}/messages?session_id={id}".encode("latin-1")
        return self._app.stream(environ, start_response, self._events(exchange, endpoint), on_close)  # type: ignore[no-any-return]

    def _events(self, exchange: Exchange, endpoint: bytes) -> Any:
        limits = self._app.limits
        until = time.monotonic() + limits["stream_s"]
        yield sse.encode(endpoint, event="endpoint")
        while time.monotonic() < until:
            events = exchange.take(limits["keepalive_s"])
            yield b"".join(data for data, _ in events)
            if events and events[-1][1]:
                return

    def post(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Take a message for a session; whatever there is to say comes on its stream."""
        id = parse_qs(environ.get("QUERY_STRING", "")).get("session_id", [""])[0]
        with self._lock:
            session, exchange, owner = self._sessions.get(id, (None, None, None))
        principal = self._app.principal(environ)
        if session is None or exchange is None or owner != principal:
            raise Refused(404, "Session not found; open the SSE endpoint again")
        message: Any = None
        try:
            message = self._app.read_message(environ)
            call = self._app.server.call(message, session=session, principal=principal, request=environ)
        except McpError as problem:
            error = wire.error(wire.readable_id(message), problem)
            self._app.trace_refusal(environ, message, error, 400)
            return self._app.reply(environ, start_response, error, 400)  # type: ignore[no-any-return]
        if call is not None:
            session.add_call(call)

            def work() -> None:
                try:
                    reply = call.run(exchange.send)
                finally:
                    session.remove_call(call)
                if reply is not None:
                    exchange.send(reply)

            self._app.start(work)
        return self._app.respond(environ, start_response, 202, b"", [])  # type: ignore[no-any-return]
