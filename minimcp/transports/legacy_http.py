"""The session form of Streamable HTTP, 2025-03-26 to 2025-11-25: session ids, kept streams, GET and DELETE.

Spec: TRN-107 to TRN-159
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from typing import Any

from ..protocol import headers, spec, sse
from ..protocol.errors import InvalidParams, InvalidRequest, SessionNotFound, TooManySessions
from .origin import Environ, Headers, Refused, StartResponse
from .streams import Log, gone, log_batches

# A session is known here by what it can do, not by its class.
Session = Any

RETRY_MS = 500
_KEPT_STREAMS = 4


class LegacyHttp:
    """The part of an HttpApp that serves the legacy era.

    :param app: the HttpApp, for its server, responses, workers and places for streams.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._limits = app.limits
        self._lock = threading.Lock()  # guards the making of a session's streams, their dict, and who is live

    def find(self, environ: Environ, message: Any, principal: str | None, get_header: headers.Get) -> Session:
        """The session a message belongs to, a new one for `initialize`.

        :raises SessionNotFound: for an id that is not a session of this principal.
        :raises InvalidRequest: without an id, or for a version header that names nothing known. Spec: TRN-146, TRN-159
        """
        version = get_header("MCP-Protocol-Version")
        if version is not None and version not in spec.VERSIONS:
            raise InvalidRequest("The MCP-Protocol-Version header names a version that is not served here")
        if isinstance(message, dict) and message.get("method") == "initialize" and "id" in message:
            return self._app.server.open_session(principal=principal)
        return self._known(environ, principal)

    def _known(self, environ: Environ, principal: str | None) -> Session:
        id = environ.get("HTTP_MCP_SESSION_ID")
        if not id:
            raise InvalidRequest("The Mcp-Session-Id header is missing: send initialize first, or a 2026-07-28 request")
        try:
            session = self._app.server.open_session(id=id, principal=principal)
        except TooManySessions as problem:
            raise Refused(503, str(problem), ("Retry-After", "10")) from None
        if "standing" not in session.door:
            with self._lock:
                if "standing" not in session.door:
                    self._furnish(session)
        return session

    def _furnish(self, session: Session) -> None:
        """Give a session its streams; number 0 stands for what belongs to no request. Called under the lock."""
        standing = Log(0, int(self._limits["events"]))
        session.send = standing.send
        session.on_close.append(standing.finish)
        session.door.update(streams={}, number=0, standing=standing)

    def answer(
        self, environ: Environ, start_response: StartResponse, call: Any, session: Session, accept: Collection[str]
    ) -> Iterable[bytes]:
        """Run a call and send its reply: as a stream when something precedes it, else as JSON."""
        session.add_call(call)
        if call.interactive and "stream" in accept:
            return self._stream(environ, start_response, call, session)
        try:
            reply = call.run()
        finally:
            session.remove_call(call)
        extra = self._keep(session, reply)
        return self._app.reply(environ, start_response, reply, 200, extra)  # type: ignore[no-any-return]

    def _keep(self, session: Session, reply: Any) -> Headers:
        """Keep the session that an `initialize` just opened; its id goes with the answer."""
        if session.id or not isinstance(reply, dict) or "result" not in reply:
            return []
        try:
            return [("Mcp-Session-Id", self._app.server.keep_session(session))]
        except TooManySessions as problem:
            raise Refused(503, str(problem), ("Retry-After", "10")) from None
        except InvalidParams as problem:
            raise Refused(400, str(problem)) from None

    def _stream(self, environ: Environ, start_response: StartResponse, call: Any, session: Session) -> Iterable[bytes]:
        """Run a call in a worker; its events are kept, so that the client may leave and come back for them."""
        with self._lock:
            session.door["number"] += 1
            stream = Log(session.door["number"], int(self._limits["events"]))
            streams = session.door["streams"]
            for number in [number for number, old in streams.items() if old.done][:-_KEPT_STREAMS]:
                del streams[number]
            streams[stream.number] = stream
        # Before the call runs: it may close the stream at once.
        ticket = stream.attach()
        if _polls(session) and call.ctx is not None:
            call.ctx.close_stream = stream.detach

        def work() -> None:
            reply = None
            try:
                reply = self._app.run_apart(environ, call, stream.send)
            finally:
                session.remove_call(call)
                stream.finish(reply)

        self._app.start(work)
        if stream.alone(ticket, self._limits["silence_s"]):
            # It never was a stream: there is nothing that a client could come back for.
            with self._lock:
                streams.pop(stream.number, None)
            return self._app.reply(environ, start_response, stream.reply, 200)  # type: ignore[no-any-return]
        return self._follow(environ, start_response, session, stream, 0, _ignore, ticket)

    def _follow(
        self,
        environ: Environ,
        start_response: StartResponse,
        session: Session,
        stream: Log,
        after: int,
        on_close: Any,
        ticket: int | None = None,
    ) -> Iterable[bytes]:
        """Send a stream's events from number `after` on; only clients that poll are primed. Spec: TRN-134, TRN-140"""
        primed = sse.encode(b"", id=f"{stream.number}-{after}", retry_ms=RETRY_MS) if _polls(session) else b""
        until = time.monotonic() + self._limits["stream_s"]
        batches = log_batches(stream, after, self._limits["keepalive_s"], until, primed, ticket)
        return self._app.stream(environ, start_response, batches, on_close)  # type: ignore[no-any-return]

    def get(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Open the standing stream, or go on with a stream after `Last-Event-ID`. Spec: TRN-121 to TRN-133"""
        if not environ.get("HTTP_MCP_SESSION_ID"):
            raise Refused(405, "This endpoint takes POST; GET needs an Mcp-Session-Id", ("Allow", "POST"))
        if "stream" not in self._app.accepts(environ):
            raise Refused(406, "Accept must allow text/event-stream")
        session = self._known_or_404(environ)
        stream, after = self._position(session, environ.get("HTTP_LAST_EVENT_ID"))
        if stream.number:
            return self._follow(environ, start_response, session, stream, after, _ignore)
        leave = self._app.enter(environ)
        if leave is None:
            raise Refused(405, "No further stream can be held open here", ("Allow", "POST, DELETE"))
        with self._lock:
            live = session.door.get("live")
            taken = live is not None and not gone(live)
            if not taken:
                session.door["live"] = environ
        if taken:
            leave()
            raise Refused(409, "This session has a GET stream already")
        # A session restored from its id has not been told that it may speak.
        self._app.server.call({"jsonrpc": "2.0", "method": "notifications/initialized"}, session=session)

        def on_close(ended: bool) -> None:
            leave()
            if session.door.get("live") is environ:
                del session.door["live"]

        return self._follow(environ, start_response, session, stream, after, on_close)

    def _position(self, session: Session, event_id: str | None) -> tuple[Log, int]:
        """The stream an event id names, and the number of the event in it."""
        standing: Log = session.door["standing"]
        if event_id is None:
            return standing, standing.delivered
        number, _, event = event_id.partition("-")
        if number.isascii() and number.isdigit() and event.isascii() and event.isdigit() and len(event_id) < 30:
            stream = session.door["streams"].get(int(number)) if int(number) else standing
            if stream is not None:
                # A worker that has never seen this session has no events that the client could be ahead of.
                return stream, min(int(event), stream.newest)
        raise Refused(400, "Last-Event-ID names no stream of this session")

    def delete(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """End a session. Spec: TRN-150"""
        if not environ.get("HTTP_MCP_SESSION_ID"):
            raise Refused(405, "DELETE needs an Mcp-Session-Id", ("Allow", "POST"))
        self._app.server.close_session(self._known_or_404(environ))
        return self._app.respond(environ, start_response, 204, b"", [])  # type: ignore[no-any-return]

    def _known_or_404(self, environ: Environ) -> Session:
        try:
            return self._known(environ, self._app.principal(environ))
        except SessionNotFound as problem:
            raise Refused(404, str(problem)) from None


def _polls(session: Session) -> bool:
    """Say whether the client comes back to a stream that was closed on it."""
    return (session.version or "") >= spec.POLLING_SINCE


def _ignore(ended: bool) -> None:
    """A legacy client that disconnects has not cancelled its call. Spec: TRN-119"""
