"""HTTP+SSE, the transport of 2024-11-05: a GET stream that carries every message, and POSTs that are only accepted.

Deprecated since 2025-03-26 and kept for old clients; deleting this file takes three lines out of `http`.
Spec: TRN-160 to TRN-166
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any, Generic
from urllib.parse import parse_qs

from ..protocol import sse
from ..protocol.errors import McpError
from ..protocol.principal import Principal
from ..protocol.served import Environ, Reply, Response, S
from .bodies import read_message, respond, respond_with_events
from .origin import Refused
from .outbox import Outbox

if TYPE_CHECKING:
    from .http import HttpApp


class HttpSse(Generic[S]):
    """The two endpoints; a session lives as long as its stream.

    :param app: the HttpApp that they belong to, for its engine, body reader and workers.
    """

    def __init__(self, app: HttpApp[S]) -> None:
        self._app = app
        self._lock = threading.Lock()  # guards _sessions
        # The session, its stream and its principal, by the id in the stream's first event.
        self._sessions: dict[str, tuple[S, Outbox, Principal | None]] = {}

    def get(self, environ: Environ) -> Response:
        """Open the stream; its first event is the URL to POST to."""
        principal = self._app.authenticate(environ)
        leave = self._app.enter_stream(environ)
        if leave is None:
            raise Refused(503, "No further stream can be held open here", ("Retry-After", "10"))
        outbox = Outbox(event="message")
        session = self._app.engine.open_session(outbox.offer, principal=principal)
        session.transport, session.note = "sse", outbox.note
        session.on_close.append(outbox.finish)
        self._app.engine.add_stream(session)
        id = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions[id] = session, outbox, principal

        def on_close(ended: bool) -> None:
            leave()
            self._app.engine.remove_stream(session)
            with self._lock:
                self._sessions.pop(id, None)
            session.close()

        endpoint = f"{environ.get('SCRIPT_NAME', '')}/messages?session_id={id}".encode("latin-1")
        first = sse.encode(endpoint, event="endpoint")
        batches = outbox.batches(0, self._app.limits["keepalive_s"], self._app.until(principal), first)
        return respond_with_events(environ, batches, on_close, outbox.nudge)

    def post(self, environ: Environ) -> Response:
        """Take a message for a session; its reply comes on the session's stream."""
        principal = self._app.authenticate(environ)
        id = parse_qs(environ.get("QUERY_STRING", "")).get("session_id", [""])[0]
        with self._lock:
            found = self._sessions.get(id)
        if found is None or found[2] != principal:
            raise Refused(404, "Session not found; open the SSE endpoint again")
        session, outbox, _ = found
        message: Any = None

        def finish(reply: Reply | None) -> None:
            if reply is not None:
                outbox.send(reply)

        try:
            message = read_message(environ, self._app.limits)
            call = self._app.engine.call(message, session=session, principal=principal, request=environ)
            if call is not None:
                session.add_call(call, self._app.limits["calls"])
                if call.quick:
                    finish(call.run())
                    session.remove_call(call)
                else:
                    self._app.run_in_worker(environ, call, outbox.send, finish, session)
        except McpError as problem:
            return self._app.refuse(environ, message, problem, principal)
        return respond(202)
