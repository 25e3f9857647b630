"""The session form of Streamable HTTP, 2025-03-26 to 2025-11-25: session ids, kept streams, GET and DELETE.

Spec: TRN-107 to TRN-159
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Generic
from weakref import WeakKeyDictionary

from ..engines.fork import PerProcess
from ..protocol import headers, spec, sse
from ..protocol.errors import InvalidParams, InvalidRequest
from ..protocol.principal import Principal
from ..protocol.served import Environ, Headers, Reply, Response, S, ServedCall, ServedSession
from .bodies import accepts, respond, respond_with_events, respond_with_reply
from .hangups import watched
from .origin import Refused
from .streams import BRIEF_S, Outbox, gone

if TYPE_CHECKING:
    from .http import HttpApp

RETRY_MS = 500
_KEPT_STREAMS = 4


class LegacyStreams:
    """The streams of one session.

    :ivar standing: the stream, with number 0, of messages that belong to no request.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._lock = threading.Lock()  # guards everything below
        self._newest = 0
        # The streams of calls, by number; a few that have ended are kept for clients that come back.
        self._calls: dict[int, Outbox] = {}
        # The environ of the request that reads the standing stream; `listening` of the session goes with it.
        self._live: Environ | None = None
        self.standing = Outbox(number=0, limit=kept)

    def add(self) -> Outbox:
        """Make the stream of a call, and forget the oldest of those that have ended."""
        with self._lock:
            for number in [number for number, old in self._calls.items() if old.done][:-_KEPT_STREAMS]:
                del self._calls[number]
            self._newest += 1
            stream = self._calls[self._newest] = Outbox(number=self._newest, limit=self._kept)
            return stream

    def remove(self, stream: Outbox) -> None:
        """Forget a stream that no client has seen."""
        with self._lock:
            self._calls.pop(stream.number or 0, None)

    def take(self, session: ServedSession, environ: Environ) -> bool:
        """Give the standing stream to a request, unless another one reads it whose client is still there."""
        with self._lock:
            if self._live is not None and not gone(self._live):
                return False
            self._live, session.listening = environ, True
            return True

    def release(self, session: ServedSession, environ: Environ) -> None:
        """Take the standing stream from a request, if it still has it."""
        with self._lock:
            if self._live is environ:
                self._live, session.listening = None, False

    def position(self, event_id: str | None) -> tuple[Outbox, int]:
        """Return the stream that an event id names, and the number of the event in it.

        :raises Refused: when it names none.
        """
        if event_id is None:
            return self.standing, self.standing.delivered
        number, _, event = event_id.partition("-")
        if number.isascii() and number.isdigit() and event.isascii() and event.isdigit() and len(event_id) < 30:
            with self._lock:
                stream = self._calls.get(int(number)) if int(number) else self.standing
            if stream is not None:
                # A worker that has never seen this session has no events that the client could be ahead of.
                return stream, min(int(event), stream.newest)
        raise Refused(400, "Last-Event-ID names no stream of this session")


class SessionStreams:
    """The streams of every session in this process: a session may be met through several HTTP applications."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _streams
        self._streams: WeakKeyDictionary[ServedSession, LegacyStreams] = WeakKeyDictionary()

    def of(self, session: ServedSession, kept: int) -> LegacyStreams:
        """Return the streams of a session, made on first use.

        :param kept: how many events each of them keeps.
        """
        with self._lock:
            streams = self._streams.get(session)
            if streams is None:
                streams = self._streams[session] = LegacyStreams(kept)
                session.send = streams.standing.send
                session.on_close.append(streams.standing.finish)
            return streams


session_streams = PerProcess(SessionStreams)


class LegacyHttp(Generic[S]):
    """The part of an HttpApp that serves the legacy era.

    :param app: the HttpApp, for its engine, responses and workers.
    """

    def __init__(self, app: HttpApp[S]) -> None:
        self._app = app
        self._limits = app.limits

    def find(self, environ: Environ, message: Any, principal: Principal | None, get_header: headers.Get) -> S:
        """Return the session that a message belongs to, a new one for `initialize`.

        :raises SessionNotFound: for an id that is not a session of this principal.
        :raises InvalidRequest: without an id, or for a version header that names nothing known. Spec: TRN-146, TRN-159
        """
        version = get_header("MCP-Protocol-Version")
        if version is not None and version not in spec.VERSIONS:
            raise InvalidRequest("The MCP-Protocol-Version header names a version that is not served here")
        if isinstance(message, dict) and message.get("method") == "initialize" and "id" in message:
            return self._app.engine.open_session(principal=principal)
        return self._known(environ, principal)

    def _known(self, environ: Environ, principal: Principal | None) -> S:
        id = environ.get("HTTP_MCP_SESSION_ID")
        if not id:
            raise InvalidRequest("The Mcp-Session-Id header is missing: send initialize first, or a 2026-07-28 request")
        session = self._app.engine.open_session(id=id, principal=principal)
        if session.send is None:
            self._streams_of(session)
        return session

    def _streams_of(self, session: S) -> LegacyStreams:
        return session_streams().of(session, int(self._limits["events"]))

    def answer(self, environ: Environ, call: ServedCall, session: S, accept: Collection[str]) -> Response:
        """Run a call and build its response: a stream when a message precedes the reply, else JSON."""
        session.add_call(call)
        if call.interactive and "stream" in accept:
            return self._answer_from_worker(environ, call, session)
        try:
            reply = call.run()
        finally:
            session.remove_call(call)
        status, fields, body = respond_with_reply(reply, call.http, 200)
        return status, fields + self._keep(session, reply), body

    def _keep(self, session: S, reply: Reply | None) -> Headers:
        """Keep the session that an `initialize` has just opened, and return the header with its id."""
        if session.id or not isinstance(reply, dict) or "result" not in reply:
            return []
        try:
            return [("Mcp-Session-Id", self._app.engine.keep_session(session))]
        except InvalidParams as problem:
            raise Refused(400, str(problem)) from None

    def _answer_from_worker(self, environ: Environ, call: ServedCall, session: S) -> Response:
        """Run a call in a worker; its events are kept, so that the client may leave and come back for them."""
        streams = self._streams_of(session)
        stream = streams.add()
        # Before the call runs: it may close the stream at once.
        reader = stream.attach()
        if _polls(session) and call.ctx is not None:
            call.ctx.close_stream = stream.detach
        self._app.run_in_worker(environ, call, stream.send, stream.finish, session)
        if not stream.wait(min(BRIEF_S, self._limits["silence_s"])):
            with watched(environ, stream.nudge):
                stream.wait(self._limits["silence_s"])
        if stream.only_reply(reader):
            # It never was a stream: there is nothing that a client could come back for.
            streams.remove(stream)
            return respond_with_reply(stream.reply, call.http, 200)
        return self._follow(environ, session, stream, reader, 0, _ignore)

    def _follow(
        self, environ: Environ, session: S, stream: Outbox, reader: int, after: int, on_close: Callable[[bool], None]
    ) -> Response:
        """Send a stream's events from number `after` on; only clients that poll are primed. Spec: TRN-134, TRN-140"""
        primed = sse.encode(b"", id=f"{stream.number}-{after}", retry_ms=RETRY_MS) if _polls(session) else b""
        until = time.monotonic() + self._limits["stream_s"]
        batches = stream.batches(after, self._limits["keepalive_s"], until, primed, reader)
        return respond_with_events(environ, batches, on_close, stream.nudge)

    def get(self, environ: Environ) -> Response:
        """Open the standing stream, or go on with a stream after `Last-Event-ID`. Spec: TRN-121 to TRN-133"""
        if not environ.get("HTTP_MCP_SESSION_ID"):
            raise Refused(405, "This endpoint takes POST; GET needs an Mcp-Session-Id", ("Allow", "POST"))
        principal = self._app.authenticate(environ)
        if "stream" not in accepts(environ):
            raise Refused(406, "Accept must allow text/event-stream")
        session = self._known(environ, principal)
        streams = self._streams_of(session)
        stream, after = streams.position(environ.get("HTTP_LAST_EVENT_ID"))
        if stream is not streams.standing:
            return self._follow(environ, session, stream, stream.attach(), after, _ignore)
        leave = self._app.enter_stream(environ)
        if leave is None:
            raise Refused(405, "No further stream can be held open here", ("Allow", "POST, DELETE"))
        if not streams.take(session, environ):
            leave()
            raise Refused(409, "This session has a GET stream already")
        # A session restored from its id has not been told that it may speak.
        self._app.engine.call({"jsonrpc": "2.0", "method": "notifications/initialized"}, session=session)

        def on_close(ended: bool) -> None:
            leave()
            streams.release(session, environ)

        return self._follow(environ, session, stream, stream.attach(), after, on_close)

    def delete(self, environ: Environ) -> Response:
        """End a session. Spec: TRN-150"""
        if not environ.get("HTTP_MCP_SESSION_ID"):
            raise Refused(405, "DELETE needs an Mcp-Session-Id", ("Allow", "POST"))
        self._app.engine.close_session(self._known(environ, self._app.authenticate(environ)))
        return respond(204)


def _polls(session: ServedSession) -> bool:
    """Say whether the client comes back to a stream that was closed on it."""
    return (session.version or "") >= spec.POLLING_SINCE


def _ignore(ended: bool) -> None:
    """Do nothing: a legacy client that disconnects has not cancelled its call. Spec: TRN-119"""
