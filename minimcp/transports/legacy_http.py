"""The session form of Streamable HTTP, 2025-03-26 to 2025-11-25: session ids, kept streams, GET and DELETE.

Spec: TRN-107 to TRN-159
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic
from weakref import WeakKeyDictionary

from ..engines.budget import Budget
from ..engines.fork import PerProcess
from ..protocol import headers, spec, sse
from ..protocol.errors import InvalidParams, InvalidRequest
from ..protocol.principal import Principal
from ..protocol.served import Environ, Headers, Reply, Response, S, ServedCall, ServedSession
from .bodies import accepts, respond, respond_with_events, respond_with_reply
from .hangups import watched
from .origin import Refused
from .outbox import BRIEF_S, Outbox

if TYPE_CHECKING:
    from .http import HttpApp
    from .shared_streams import SharedStreams

RETRY_MS = 500
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
_KEPT_STREAMS = 4
# The bytes up to which a stream is kept although a reader got to its end.
_SMALL = 64 * 1024


class LegacyStreams:
    """The streams of one session.

    :param node: the name of this process, where there are others.
    :ivar standing: the stream, with number 0, of messages that belong to no request.
    """

    __slots__ = ("__weakref__", "_calls", "_kept", "_lock", "_newest", "_node", "limits", "standing")

    def __init__(self, limits: Mapping[str, float], kept: Budget, node: str) -> None:
        self.limits = limits
        self._node = node
        self._kept = kept
        self._lock = threading.Lock()  # guards everything below
        self._newest = 0
        # The streams of calls, by number; a few that have ended are kept for clients that come back.
        self._calls: dict[int, Outbox] = {}
        self.standing = self._make(0)

    def _make(self, number: int) -> Outbox:
        limits, kept = self.limits, self._kept
        label = f"{number}.{self._node}" if self._node else None
        return Outbox(None, number, int(limits["events"]), kept, limits["event_bytes"], label)

    def add(self) -> Outbox:
        """Make the stream of a call, and forget the oldest of those that have ended and are not being read."""
        with self._lock:
            old = [stream for stream in self._calls.values() if stream.done and not stream.read][:-_KEPT_STREAMS]
            self._newest += 1
            stream = self._calls[self._newest] = self._make(self._newest)
        for each in old:
            self.remove(each)
        return stream

    def remove(self, stream: Outbox) -> None:
        """Forget a stream that no client comes back to."""
        with self._lock:
            self._calls.pop(stream.number or 0, None)
        stream.forget()

    def find(self, number: int) -> Outbox | None:
        """Return the stream with a number."""
        with self._lock:
            return self._calls.get(number) if number else self.standing

    def unread(self) -> list[Outbox]:
        """Return the streams of calls that have ended, but were not read to their ends."""
        with self._lock:
            return [stream for stream in self._calls.values() if stream.done and stream.delivered < stream.newest]

    def position(self, event_id: str | None) -> tuple[Outbox, int | None]:
        """Return the stream that an event id names, and the number of the event in it, None for the newest one read.

        :raises Refused: when it names none.
        """
        if event_id is None:
            return self.standing, None
        named = parse(event_id)
        stream = self.find(named[0]) if named is not None and named[1] == self._node else None
        if named is None or stream is None:
            raise no_stream()
        # A worker that has never seen this session has no events that the client could be ahead of.
        return stream, min(named[2], stream.newest)


_EVENT_ID = re.compile(r"([0-9]{1,9})(?:\.([0-9a-z]{1,32}))?-([0-9]{1,15})")


def parse(event_id: str) -> tuple[int, str, int] | None:
    """Return the stream's number, its process, or "", and the event's number of an event id; None for another text."""
    found = _EVENT_ID.fullmatch(event_id)
    return None if found is None else (int(found[1]), found[2] or "", int(found[3]))


def no_stream() -> Refused:
    """Make the refusal of an event id that names nothing."""
    return Refused(400, "Last-Event-ID names no stream of this session")


class SessionStreams:
    """The streams of every session in this process: a session may be met through several HTTP applications.

    Those that have ended are kept for a while, in case a client did not get all of it and comes back. When all numbered
    streams keep too many bytes, those that were read to the end go first, then the others, the oldest first.

    :ivar kept: the bytes of the events that all streams keep.
    """

    def __init__(self) -> None:
        self.kept = Budget()
        self._lock = threading.Lock()  # guards everything below
        self._streams: WeakKeyDictionary[ServedSession, LegacyStreams] = WeakKeyDictionary()
        # When each stream that has ended did so, and whose it is: those that were read to the end, and the others.
        self._read: dict[Outbox, tuple[float, LegacyStreams]] = {}
        self._unread: dict[Outbox, tuple[float, LegacyStreams]] = {}

    def of(
        self, session: ServedSession, limits: Mapping[str, float], shared: SharedStreams[Any] | None = None
    ) -> LegacyStreams:
        """Return the streams of a session, made on first use.

        :param shared: the streams of the other processes, where there are any.
        """
        with self._lock:
            streams = self._streams.get(session)
            if streams is not None:
                return streams
            node = "" if shared is None else shared.node
            streams = self._streams[session] = LegacyStreams(limits, self.kept, node)
        standing = streams.standing
        session.send, session.note = standing.send, standing.note
        if shared is not None:
            session.send = partial(shared.send, session)
        session.end_stream = partial(standing.detach, RETRY_MS)

        def on_close() -> None:
            if shared is not None:
                session.send = None
            standing.finish()
            self.end(streams, standing)

        session.on_close.append(on_close)
        return streams

    def end(self, streams: LegacyStreams, stream: Outbox, read: bool = False) -> None:
        """Take note that a stream has ended, or that a reader got to its end, and forget what was kept long enough."""
        now, dropped = time.monotonic(), []
        if read and stream.held > _SMALL:
            # Whoever reads this much has it; the small ones are worth keeping in case the connection lost the end.
            streams.remove(stream)
        with self._lock:
            self._unread.pop(stream, None)
            if stream.held:
                (self._read if read else self._unread)[stream] = now, streams
            excess = self.kept.used - streams.limits["event_bytes"]
            for pool in (self._read, self._unread):
                gone = []
                for old, (ended, owner) in pool.items():
                    if excess <= 0 and old.held and now - ended < owner.limits["event_s"]:
                        break
                    excess -= old.held
                    gone.append(old)
                dropped += [(pool.pop(old)[1], old) for old in gone]
        for owner, old in dropped:
            owner.remove(old)


session_streams = PerProcess(SessionStreams)


class LegacyHttp(Generic[S]):
    """The part of an HttpApp that serves the legacy era.

    :param app: the HttpApp, for its engine, responses and workers.
    """

    def __init__(self, app: HttpApp[S]) -> None:
        self._app = app
        self._limits = app.limits
        self._shared: SharedStreams[S] | None = None
        if app.engine.sharing is not None:
            from .shared_streams import SharedStreams

            self._shared = SharedStreams(app, app.engine.sharing)

    def find(self, environ: Environ, message: Any, principal: Principal | None, get_header: headers.Get) -> S:
        """Return the session that a message belongs to, a new one for `initialize`.

        :raises SessionNotFound: for an id that is not a session of this principal.
        :raises InvalidRequest: without an id, or for a version header that names nothing known. Spec: TRN-146, TRN-159
        """
        version = get_header("MCP-Protocol-Version")
        if version is not None and version not in spec.VERSIONS:
            raise InvalidRequest("The MCP-Protocol-Version header names a version that is not served here")
        if isinstance(message, dict) and message.get("method") == "initialize" and "id" in message:
            session = self._app.engine.open_session(principal=principal)
            session.peer = sys.intern(environ.get("REMOTE_ADDR", ""))
            return session
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
        return session_streams().of(session, self._limits, self._shared)

    def answer(
        self,
        environ: Environ,
        call: ServedCall,
        session: S,
        accept: Collection[str],
        principal: Principal | None,
    ) -> Response:
        """Run a call and build its response: a stream when a message precedes the reply, else JSON."""
        session.add_call(call, self._limits["calls"])
        if call.interactive and "stream" in accept:
            return self._answer_from_worker(environ, call, session, principal)
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

    def _answer_from_worker(
        self, environ: Environ, call: ServedCall, session: S, principal: Principal | None
    ) -> Response:
        """Run a call in a worker; its events are kept, so that the client may leave and come back for them."""
        streams = self._streams_of(session)
        stream = streams.add()
        # Before the call runs: it may close the stream at once.
        reader = stream.attach()
        for ctx in call.contexts:
            ctx._unread_s = stream.unread_s
            if _polls(session):
                ctx.close_stream = stream.detach

        def finish(reply: Reply | None) -> None:
            stream.finish(reply)
            session_streams().end(streams, stream)

        try:
            self._app.run_in_worker(environ, call, stream.send, finish, session)
        except Refused:
            streams.remove(stream)
            raise
        if not stream.wait(min(BRIEF_S, self._limits["silence_s"])):
            with watched(environ, stream.nudge):
                stream.wait(self._limits["silence_s"])
        if stream.only_reply(reader):
            # It never was a stream: there is nothing that a client could come back for.
            reply = stream.reply
            streams.remove(stream)
            return respond_with_reply(reply, call.http, 200)
        return self._follow(environ, session, stream, reader, 0, principal)

    def _follow(
        self,
        environ: Environ,
        session: S,
        stream: Outbox,
        reader: int,
        after: int,
        principal: Principal | None,
        leave: Callable[[], None] | None = None,
    ) -> Response:
        """Send a stream's events from number `after` on; only clients that poll are primed.

        A legacy client that disconnects has not cancelled its call. Spec: TRN-119
        """
        streams = self._streams_of(session)

        def on_close(ended: bool) -> None:
            unread = stream.leave(reader)
            if leave is not None:
                leave()
                session.listening = not unread and not session.away
            elif ended and stream.done and unread:
                session_streams().end(streams, stream, read=True)

        primed = priming(session, f"{stream.label}-{after}")
        # A call goes on when its caller's credential ends; a stream is read with another one.
        until = self._app.until(principal)
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
        streams, event_id, shared = self._streams_of(session), environ.get("HTTP_LAST_EVENT_ID"), self._shared
        if shared is not None and shared.is_elsewhere(event_id):
            elsewhere = shared.follow(environ, session, event_id, principal)
            if elsewhere is not None:
                return elsewhere
            # It names the session's own stream, which comes here.
            stream, after = streams.standing, None
        else:
            stream, after = streams.position(event_id)
        leave = None
        if stream is streams.standing:
            leave = self._app.enter_stream(environ)
            if leave is None:
                raise Refused(405, "No further stream can be held open here", ("Allow", "POST, DELETE"))
            if shared is None:
                # A session restored from its id has not been told that it may speak.
                self._app.engine.call(INITIALIZED, session=session)
            session.listening = True
        # The newest reader takes over: a client comes back before its server knows that it had left. Spec: TRN-122
        reader = stream.attach()
        if leave is not None and shared is not None:
            shared.take_over(session, event_id)
        after = stream.delivered if after is None else after
        return self._follow(environ, session, stream, reader, after, principal, leave)

    def delete(self, environ: Environ) -> Response:
        """End a session. Spec: TRN-150"""
        if not environ.get("HTTP_MCP_SESSION_ID"):
            raise Refused(405, "DELETE needs an Mcp-Session-Id", ("Allow", "POST"))
        self._app.engine.close_session(self._known(environ, self._app.authenticate(environ)))
        return respond(204)


def priming(session: ServedSession, event_id: str) -> bytes:
    """Return the beginning of a stream: at least a comment, so that the head arrives at once. Spec: TRN-134, TRN-140"""
    return sse.encode(b"", id=event_id, retry_ms=RETRY_MS) if _polls(session) else sse.COMMENT


def _polls(session: ServedSession) -> bool:
    """Say whether the client comes back to a stream that was closed on it."""
    return (session.version or "") >= spec.POLLING_SINCE
