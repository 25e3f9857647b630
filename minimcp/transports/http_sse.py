"""HTTP+SSE, the transport of 2024-11-05: a GET stream that carries every message, and POSTs that are only accepted.

Deprecated since 2025-03-26 and kept for old clients; deleting this file takes three lines out of `http`.
Spec: TRN-160 to TRN-166
"""

from __future__ import annotations

import re
import secrets
import threading
from typing import TYPE_CHECKING, Any, Generic
from urllib.parse import parse_qs

from ..protocol import sse
from ..protocol.errors import McpError
from ..protocol.principal import Principal
from ..protocol.served import Environ, Message, Reply, Response, S
from .bodies import read_message, respond, respond_with_events
from .origin import Refused
from .outbox import Outbox
from .workers import http_workers

if TYPE_CHECKING:
    from .http import HttpApp

_NODE = re.compile(r"[0-9a-z]{1,32}")
_PATIENCE_S = 5.0


class HttpSse(Generic[S]):
    """The two endpoints; a session lives as long as its stream.

    :param app: the HttpApp that they belong to, for its engine, body reader and workers.
    """

    def __init__(self, app: HttpApp[S]) -> None:
        self._app = app
        self._lock = threading.Lock()  # guards _sessions
        # The session, its stream and its principal, by the id in the stream's first event.
        self._sessions: dict[str, tuple[S, Outbox, Principal | None]] = {}
        self._sharing = app.engine.sharing
        if self._sharing is not None:
            self._sharing.takers["post"] = self._take_post

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
        id, leave_others = secrets.token_urlsafe(24), _nothing
        if self._sharing is not None:
            id = f"{id}.{self._sharing.node}"
            leave_others = self._sharing.join(session, id)
        with self._lock:
            self._sessions[id] = session, outbox, principal

        def on_close(ended: bool) -> None:
            leave()
            leave_others()
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
        if found is None and self._sharing is not None:
            return self._pass_on(environ, id, principal)
        if found is None or found[2] != principal:
            raise _not_found()
        message: Any = None
        try:
            message = read_message(environ, self._app.limits)
        except McpError as problem:
            return self._app.refuse(environ, message, problem, principal)
        return self._take(message, found[0], found[1], principal, environ)

    def _take(
        self, message: Any, session: S, outbox: Outbox, principal: Principal | None, environ: Environ
    ) -> Response:
        def finish(reply: Reply | None) -> None:
            if reply is not None:
                outbox.send(reply)

        try:
            call = self._app.engine.call(message, session=session, principal=principal, request=environ or None)
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

    # Where the stream is in another process

    def _pass_on(self, environ: Environ, id: str, principal: Principal | None) -> Response:
        """Pass a message on to the process that has the stream, which answers as if it had come there."""
        sharing, node = self._sharing, id.rpartition(".")[2]
        if sharing is None or not _NODE.fullmatch(node) or node == sharing.node:
            raise _not_found()
        message = read_message(environ, self._app.limits)
        session = self._app.engine.open_session(principal=principal)
        session.key = sharing.key(session, id)
        granted = None if principal is None else [principal.scopes, principal.roles]
        answer = sharing.ask(session, "post", {"message": message, "granted": granted}, node, _PATIENCE_S)
        if answer is None:
            raise _not_found()
        return answer["status"], [(name, value) for name, value in answer["fields"]], [answer["body"].encode("utf-8")]

    def _take_post(self, session: S, message: Message) -> None:
        with self._lock:
            found = next((each for each in self._sessions.values() if each[0] is session), None)
        sharing, principal = self._sharing, session.principal
        if found is None or sharing is None:
            return
        if principal is not None:
            # With what this request was granted, like every other.
            scopes, roles = message["granted"]
            more = (principal.claims, principal.via)
            principal = Principal(principal.id, principal.issuer, scopes, roles, *more, expires=principal.expires)

        def work() -> None:
            status, fields, body = self._take(message["message"], session, found[1], principal, {})
            text = b"".join(body).decode("utf-8")
            sharing.reply(session, message, {"status": status, "fields": fields, "body": text})

        try:
            http_workers().submit(work)
        except RuntimeError:
            busy = "Too many calls are in progress here; try again"
            status, fields, body = self._app.refuse({}, None, Refused(503, busy, ("Retry-After", "1")), principal)
            sharing.reply(session, message, {"status": status, "fields": fields, "body": b"".join(body).decode()})


def _not_found() -> Refused:
    return Refused(404, "Session not found; open the SSE endpoint again")


def _nothing() -> None:
    """Stand in for leaving other processes, where there are none."""
