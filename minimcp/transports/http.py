"""Streamable HTTP of both eras as one WSGI callable. Spec: TRN-029 to TRN-106

A request is refused in this order: Host and Origin, path and method, authentication, media type and size, the message.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic

from ..engines.addresses import is_loopback
from ..protocol import headers, sse, wire
from ..protocol.errors import McpError, SessionNotFound, TooManySessions, Unauthorized
from ..protocol.principal import Principal, as_principal
from ..protocol.served import Environ, Handler, Headers, Message, Reply, Response, S, Send, Served, ServedCall
from .bodies import (
    accepts,
    asks_for_events,
    is_browser,
    read_message,
    reason,
    respond,
    respond_with_events,
    respond_with_page,
    respond_with_reply,
)
from .hangups import watched
from .http_sse import HttpSse
from .legacy_http import LegacyHttp
from .origin import OriginCheck, Refused, embedded_in_page, options
from .outbox import BRIEF_S, Outbox
from .routes import guarded, is_mounted, tailed, without_body
from .streams import gone, open_calls, open_streams
from .workers import http_workers

if TYPE_CHECKING:
    from ..engines.http_server.wsgi_server import WsgiServer

log = logging.getLogger("minimcp")

StartResponse = Callable[[str, Headers], object]

# The values of PATH_INFO at which a mounted callable is the MCP endpoint.
MOUNTED = ("", "/", "/mcp", "/mcp/")
_NO_ROUTE: Mapping[str, Handler] = {}
# Comes from a long-lived handler that emits nothing at all, since its call was cancelled.
_NOTHING: Message = {}
_KEYS = {
    "MCP-Protocol-Version": "HTTP_MCP_PROTOCOL_VERSION",
    "Mcp-Method": "HTTP_MCP_METHOD",
    "Mcp-Name": "HTTP_MCP_NAME",
}


class HttpApp(Generic[S]):
    """The WSGI callable of a server.

    It needs no start-up: threads are made on first use, in whichever process serves. `environ["werkzeug.socket"]` or
    `["gunicorn.socket"]`, where the WSGI server offers one, lets it notice at once that a client has gone.

    :param paths: the values of PATH_INFO that are the MCP endpoint.
    :ivar routes: the handlers, by PATH_INFO and HTTP method.
    """

    # Read by the embedded server.
    judges_heads = True

    def __init__(self, engine: Served[S], paths: Collection[str] = MOUNTED) -> None:
        self.engine = engine
        self.limits = engine.limits
        self._origins = OriginCheck(engine.allowed_hosts, engine.allowed_origins)
        self._legacy = LegacyHttp(self)
        self._warned = False
        old = HttpSse(self)
        self.routes: dict[str, dict[str, Handler]] = {"/sse": {"GET": old.get}, "/messages": {"POST": old.post}}
        endpoint: dict[str, Handler] = {"POST": self._post, "GET": self._legacy.get, "DELETE": self._legacy.delete}
        self.routes.update(dict.fromkeys(paths, endpoint))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._origins.refusal(environ)
        if refusal is not None:
            status, fields, body = self.refuse(environ, None, Refused(403, refusal))
        else:
            try:
                status, fields, body = self._route(environ)(environ)
            except McpError as problem:
                status, fields, body = self.refuse(environ, None, problem)
            except SessionNotFound as problem:
                status, fields, body = self.refuse(environ, None, Refused(404, str(problem)))
            except TooManySessions as problem:
                status, fields, body = self.refuse(environ, None, Refused(503, str(problem), ("Retry-After", "10")))
            if "HTTP_ORIGIN" in environ:
                fields = fields + self._origins.cors(environ)
        start_response(reason(status), fields)
        return body

    def _route(self, environ: Environ) -> Handler:
        """Find the handler of a request.

        :raises Refused: when there is none at its path, or none for its HTTP method.
        """
        path, mount, method = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", ""), environ["REQUEST_METHOD"]
        further, whole = self.engine.routes, mount + path
        own = self.routes.get(path, _NO_ROUTE)
        # A second mount for further paths, which a framework may leave open to everybody, must not open these too.
        if own and mount and not is_mounted(environ, mount, path):
            own = _NO_ROUTE
        routes: tuple[Mapping[str, Handler], ...] = (own,)
        if further:
            # The author's route at the whole path, or ours below the mount, or the author's below the mount.
            exact = further if "{" not in whole else {}
            routes = (exact.get(whole, _NO_ROUTE), own, exact.get(path, _NO_ROUTE))
            if method not in own and method not in routes[0] and method not in routes[2]:
                routes += tailed(further, whole, path)
        for route in routes:
            handler = route.get(method)
            if handler is not None:
                if route is not own:
                    if method == "GET" and "POST" in own and asks_for_events(environ):
                        # A page of the author's at the endpoint leaves a client its stream.
                        continue
                    return guarded(handler)
                if "HTTP_SEC_FETCH_SITE" in environ and embedded_in_page(environ):
                    raise Refused(403, "Pages of other origins may not call this server; allowed_origins decides")
                if method == "GET" and is_browser(environ):
                    return functools.partial(respond_with_page, str(self.engine.identity["name"]))
                return handler
            if method == "HEAD" and route is not own and "GET" in route:
                return without_body(guarded(route["GET"]))
        taken = dict.fromkeys(each for route in routes for each in route)
        if not taken:
            auth = self.engine.auth
            if auth is not None and method == "GET" and "/.well-known/oauth-protected-resource" in mount + path:
                return auth.metadata
            raise Refused(404, "There is no MCP endpoint at this path")
        if method == "OPTIONS":
            return functools.partial(options, taken)
        raise Refused(405, "This endpoint does not take this method", ("Allow", ", ".join(taken)))

    def _post(self, environ: Environ) -> Response:
        principal = self.authenticate(environ)
        accept = accepts(environ)
        if environ.get("wsgi.multiprocess") and not self._warned:
            self._warn()
        message: Any = None
        session: S | None = None

        def get_header(name: str) -> str | None:
            value: str | None = environ.get(_KEYS.get(name) or "HTTP_" + name.upper().replace("-", "_"))
            return value

        try:
            message = read_message(environ, self.limits)
            if not headers.is_modern(message, get_header):
                session = self._legacy.find(environ, message, principal, get_header)
            call = self.engine.call(
                message, get_header=get_header, session=session, principal=principal, request=environ
            )
            if call is None:
                return respond(202)
            work = environ.get("minimcp.work")
            if work is not None:
                work.name(_kind_of(message))
            if session is not None:
                return self._legacy.answer(environ, call, session, accept, principal)
            if call.streams:
                return self._listen(environ, call, accept, principal)
            if call.interactive:
                return self._answer_from_worker(environ, call, accept, principal)
            return respond_with_reply(call.run(), call.http)
        except McpError as problem:
            return self.refuse(environ, message, problem, principal)
        except SessionNotFound as problem:
            # The status tells a legacy client to start over. Spec: TRN-149
            return self.refuse(environ, message, Refused(404, str(problem)), principal)

    def _answer_from_worker(
        self, environ: Environ, call: ServedCall, accept: Collection[str], principal: Principal | None
    ) -> Response:
        """Run a modern call in a worker; a message before its reply, or a long silence, makes its response a stream.

        Such a stream, and its call, end with the caller's credential.
        """
        outbox = Outbox()
        may_stream = "stream" in accept
        self.run_in_worker(environ, call, outbox.send if may_stream else None, outbox.finish)

        def on_close(ended: bool) -> None:
            if not ended or (late is not None and outbox.reply is late):
                call.cancel("the credential has expired" if ended else "the client has gone")
                # A handler may wait for room.
                outbox.finish()

        late = None
        if principal is not None and principal.expires is not None:
            late = wire.error(call.id, Unauthorized("The credential of this call has expired"))
        until = self.until(principal, math.inf)
        began, keepalive_s, silence_s = time.monotonic(), self.limits["keepalive_s"], self.limits["silence_s"]
        if not outbox.wait(min(BRIEF_S, keepalive_s, silence_s)):
            with watched(environ, outbox.nudge):
                while not outbox.wait(min(keepalive_s, silence_s)):
                    if gone(environ):
                        on_close(False)
                        return respond(202)
                    if may_stream and time.monotonic() - began >= silence_s:
                        break
        if outbox.only_reply():
            return respond_with_reply(outbox.reply, call.http)
        return respond_with_events(environ, outbox.batches(0, keepalive_s, until, late=late), on_close, outbox.nudge)

    def _listen(
        self, environ: Environ, call: ServedCall, accept: Collection[str], principal: Principal | None
    ) -> Response:
        """Run a long-lived handler on this thread, for as long as its stream may live."""
        if "stream" not in accept:
            raise Refused(406, "Accept must allow text/event-stream for this method")
        leave = self.enter_stream(environ)
        call.deadline = self.until(principal) if leave else time.monotonic()
        messages = call.messages()
        first = next(messages, _NOTHING)
        if first is not None and "method" not in first:
            if leave:
                leave()
            return respond_with_reply(first or None, call.http)

        def batches() -> Iterator[bytes]:
            yield sse.encode(wire.encode(first)) if first is not None else b""
            yield b""
            for message in messages:
                yield sse.encode(wire.encode(message)) if message is not None else b""

        def on_close(ended: bool) -> None:
            if leave:
                leave()
            if not ended:
                call.cancel("the client has gone")
            messages.close()

        return respond_with_events(environ, batches(), on_close, lambda: call.cancel("the client has gone"))

    # Used by the other HTTP transports too

    def authenticate(self, environ: Environ) -> Principal | None:
        """Return the principal of a request; None for an anonymous one.

        :raises McpError: when the request is refused.
        """
        auth, user = self.engine.auth, environ.get("REMOTE_USER")
        principal = auth.principal(environ) if auth is not None else as_principal(user) if user else None
        if principal is None and environ.get("minimcp.login_required"):
            raise Unauthorized("Authentication is required here")
        return principal

    def refuse(self, environ: Environ, message: Any, problem: McpError, principal: Principal | None = None) -> Response:
        """Build the response to a request of which no call is made; `message` is None when it was not read."""
        if problem.http is None:
            problem.http = (400, [])
        reply = self.engine.refuse(message, problem, principal, environ)
        # The author's hook around every request may have put another error in this one's place.
        status, extra = problem.http
        return respond(status, wire.encode(reply), extra)

    def until(self, principal: Principal | None, longest_s: float | None = None) -> float:
        """Return the time on the monotonic clock at which a stream that begins now ends.

        :param longest_s: how long it may live, by default `stream_s`; never longer than the caller's credential.
        """
        longest_s = self.limits["stream_s"] if longest_s is None else longest_s
        return time.monotonic() + (longest_s if principal is None else min(longest_s, principal.lasts_s()))

    def run_in_worker(
        self,
        environ: Environ,
        call: ServedCall,
        send: Send | None,
        finish: Callable[[Reply | None], None],
        session: S | None = None,
    ) -> None:
        """Run a call on a worker thread, which then passes the reply, or None, to `finish`.

        :param session: forgets the call at its end; such calls outlive their connections, so they have a limit.
        :raises Refused: when no thread is free, or too many calls are in progress.
        """
        leave = None
        if session is not None:
            leave = open_calls().enter(self.limits["session_calls"])
            if leave is None:
                session.remove_call(call)
                raise _busy()
        counted = environ.get("minimcp.work")

        def work() -> None:
            reply = None
            began_s = 0.0 if counted is None else time.thread_time()
            try:
                reply = call.run(send)
            finally:
                if counted is not None:
                    counted.add_cpu(time.thread_time() - began_s)
                if session is not None:
                    session.remove_call(call)
                if leave is not None:
                    leave()
                finish(reply)

        try:
            http_workers().submit(work, int(environ.get("CONTENT_LENGTH") or 0))
        except RuntimeError:
            if session is not None:
                session.remove_call(call)
            if leave is not None:
                leave()
            raise _busy() from None

    def enter_stream(self, environ: Environ) -> Callable[[], None] | None:
        """Count a long-lived stream and return the function that ends that, or None when there is no room for it.

        Another server's threads are few, and one that has a single thread has none to spare.
        """
        if not environ.get("wsgi.multithread", True):
            return None
        own = environ.get("SERVER_SOFTWARE", "").startswith("minimcp")
        return open_streams().enter(self.limits["streams" if own else "foreign_streams"])

    def _warn(self) -> None:
        """Log once that several processes serve without a common secret; two threads may both do so."""
        self._warned = True
        if not self.engine.sealer.shared:
            log.warning(
                "Several processes serve, but Server(secret=...) is not set: a question's retry or a session that "
                "reaches another process fails. Give all of them one secret, or set MINIMCP_SECRET."
            )


def _busy() -> Refused:
    return Refused(503, "Too many calls are in progress here; try again", ("Retry-After", "1"))


def _kind_of(message: Any) -> tuple[Any, ...] | None:
    """Name the kind of work a message asks for: the embedded server lets kinds that mostly wait run at once."""
    if not isinstance(message, dict):
        return None
    name = (message.get("params") or {}).get("name")
    return message["method"], name if isinstance(name, str) else None


def serve(
    engine: Served[S],
    host: str,
    port: int,
    path: str,
    tls: tuple[str, str] | None,
    ca: str | None,
    limits: dict[str, float] | None,
    ready: Callable[[WsgiServer], object] | None,
) -> None:
    """Serve on the embedded server until SIGTERM or Ctrl-C.

    :raises ValueError: for an address beyond loopback, when the server does not ask who is calling.
    """
    from ..engines.http_server.wsgi_server import serve as serve_wsgi

    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port= is a whole number, not {port!r}")
    if engine.auth is None and not engine.public and not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines and the server does not ask who is calling: give it "
            'Server(auth=...), or, if everybody may call, auth="public" (on a command line: --public)'
        )

    def on_ready(listening: WsgiServer) -> None:
        listening.on_shutdown.append(lambda: engine.close(listening.limits["grace_s"]))
        engine.start()
        if ready is not None:
            ready(listening)

    serve_wsgi(
        HttpApp(engine, (path, path + "/")),
        host,
        port,
        tls=tls,
        ca=ca,
        limits={"body_bytes": engine.limits["body_bytes"], **(limits or {})},
        ready=on_ready,
        warn_open=engine.auth is None,
    )
