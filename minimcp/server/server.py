"""The face of a server: how it is made, what its doors call, and the doors themselves."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Optional, Union

from ..protocol import headers, spec, wire
from ..protocol.errors import InvalidRequest, McpError
from . import legacy, modern
from .bus import Bus, BusLike, Subscription
from .context import Context
from .dispatcher import Batch, Call, check_batch
from .registration import Registration
from .seal import Sealer, Secret
from .session import Session, Sessions

if TYPE_CHECKING:
    from ..protocol import types
    from .tracing import TracedCall, Tracing

Message = dict[str, Any]


class Server(Registration):
    """A Model Context Protocol server: register functions, then `run`, `run_http` or mount `wsgi`.

    :param name: what the server calls itself.
    :param instructions: a hint to the model on how to use the server.
    :param secret: one key or several (the first signs, all verify) for request states and session ids; needed as soon
        as several processes serve. Default: the environment variable MINIMCP_SECRET, else a key of this process.
    :param page_size: how many items a list page has; None for all.
    :param ttl_ms: how long clients may cache lists and resources, in milliseconds.
    :param cache_scope: "private" or "public", see `ttl_ms`.
    :param principal: `f(environ)` names the authenticated user of an HTTP request; default: REMOTE_USER.
    :param around_call: `f(ctx)` makes a context manager in which every handler runs; exceptions pass through it.
    :param allowed_hosts: values of Host that are served; default: on a loopback connection only loopback names.
    :param allowed_origins: origins, beside the server's own, whose pages may call it.
    :param limits: overrides of `minimcp.protocol.spec.LIMITS`.
    :param trace: True, a path, a file or a callable that takes every message; see `minimcp.engines.trace`.
    :param debug: tell clients what exception a handler raised; never on a server that others can reach.
    """

    def __init__(
        self,
        name: str,
        version: str = "0",
        *,
        title: str | None = None,
        description: str | None = None,
        website: str | None = None,
        icons: list[types.Icon] | None = None,
        instructions: str | None = None,
        secret: Secret | Sequence[Secret] | None = None,
        page_size: int | None = None,
        ttl_ms: int = 0,
        cache_scope: str = "private",
        principal: Callable[[Message], str | None] | None = None,
        around_call: Callable[[Context], AbstractContextManager[Any]] | None = None,
        allowed_hosts: Iterable[str] | None = None,
        allowed_origins: Iterable[str] | None = None,
        limits: dict[str, float] | None = None,
        bus: BusLike | None = None,
        trace: Any = None,
        debug: bool = False,
    ) -> None:
        super().__init__(bus or Bus(), ttl_ms, cache_scope)
        unknown = set(limits or ()) - set(spec.LIMITS)
        if unknown:
            raise ValueError(f"Unknown limits {sorted(unknown)}; there are {sorted(spec.LIMITS)}")
        identity = {"name": name, "version": version, "title": title, "description": description}
        identity.update(websiteUrl=website, icons=icons)  # type: ignore[arg-type]
        self.identity = {key: value for key, value in identity.items() if value is not None}
        self.identity_meta = {spec.META_SERVER: self.identity}
        self.instructions = instructions
        self.page_size = page_size
        self.principal = principal
        self.around_call = around_call
        self.allowed_hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
        self.allowed_origins = frozenset(allowed_origins or ())
        self.limits = {**spec.LIMITS, **(limits or {})}
        self.debug = debug
        self.tracing: Tracing | None = None
        if trace:
            self.trace(trace)
        self.sealer = Sealer(secret)
        self.sessions = Sessions(
            self.sealer, int(self.limits["sessions"]), self.limits["session_idle_s"], self.limits["session_s"]
        )
        self._lock = threading.Lock()  # guards _listeners, _streaming and _wsgi
        self._listeners: set[Subscription] = set()
        # Sessions that are one stream from beginning to end (stdio, HTTP+SSE); those of `sessions` have ids instead.
        self._streaming: weakref.WeakSet[Session] = weakref.WeakSet()
        self._wsgi: Any = None

    # What the doors use

    def call(
        self,
        message: Any,
        *,
        get_header: headers.Get | None = None,
        session: Session | None = None,
        principal: str | None = None,
        request: Any = None,
    ) -> Optional[Union[Call, Batch, TracedCall]]:
        """Take a parsed message: a request becomes a Call to run; notifications and responses are dealt with here.

        :param get_header: looks up an HTTP header; given, the headers of a modern request are held against its body.
        :raises McpError: when the envelope is wrong; answer it under `wire.readable_id(message)`.
        """
        if self.tracing is not None:
            return self.tracing.call(self._call, message, session, request, get_header=get_header, principal=principal)
        return self._call(message, get_header, session, principal, request)

    def _call(
        self, message: Any, get_header: headers.Get | None, session: Session | None, principal: str | None, request: Any
    ) -> Optional[Union[Call, Batch]]:
        if isinstance(message, list):
            return self._batch(message, session, principal, request)
        kind = wire.check(message)
        if kind == "response":
            if session is None:
                raise InvalidRequest("A response was sent, but nothing was asked")
            session.resolve(message)
            return None
        era = modern.ERA if headers.is_modern(message, get_header) else legacy.ERA
        if kind == "notification":
            handler = era.notifications.get(message["method"])
            if handler is not None:
                handler(session, message.get("params", {}))
            return None
        ctx = Context(self, message, session, principal, request)
        return Call(ctx, era, get_header if era is modern.ERA else None)

    def _batch(self, messages: list[Any], session: Session | None, principal: str | None, request: Any) -> Batch | None:
        if session is None or session.version != spec.BATCHES:
            raise InvalidRequest(f"A message is a JSON object; arrays exist only in a {spec.BATCHES} session")
        check_batch(messages, int(self.limits["batch"]))
        calls: list[Call] = []
        refused: list[Message] = []
        for message in messages:
            try:
                if isinstance(message, dict) and message.get("method") == "initialize":
                    raise InvalidRequest("initialize must not be part of a batch")
                if isinstance(message, list):
                    raise InvalidRequest("A message is a JSON object")
                if headers.is_modern(message, None):
                    raise InvalidRequest("A 2026-07-28 request is never part of a batch")
                call = self._call(message, None, session, principal, request)
            except McpError as problem:
                refused.append(wire.error(wire.readable_id(message), problem))
            else:
                if isinstance(call, Call):
                    calls.append(call)
        return Batch(calls, refused) if calls or refused else None

    def handle(
        self,
        message: Any,
        send: Callable[[Message], None] | None = None,
        session: Session | None = None,
        principal: str | None = None,
    ) -> Any:
        """The whole protocol in one call: a message in as a dict, the reply out as a dict, or None.

        :param send: takes what a handler emits before its reply.
        :param session: from `open_session`; a 2026-07-28 request needs none.
        """
        try:
            call = self.call(message, session=session, principal=principal)
        except McpError as problem:
            return wire.error(wire.readable_id(message), problem)
        if call is None:
            return None
        if session is None:
            return call.run(send)
        session.add_call(call)
        try:
            return call.run(send)
        finally:
            session.remove_call(call)

    def open_session(
        self,
        send: Callable[[Message], None] | None = None,
        id: str | None = None,
        principal: str | None = None,
    ) -> Session:
        """Open a new session, or find the one with an id.

        :param send: takes messages that belong to no request.
        :raises SessionNotFound: when the id is not a session of this principal.
        """
        if id is None:
            session = Session(principal, send)
            if send is not None:
                with self._lock:
                    self._streaming.add(session)
        else:
            session = self.sessions.get(id, principal)
        session.door.setdefault("bus", self.bus)
        if self.tracing is not None and session.record is None:
            session.record = self.tracing.of(session)
        return session

    def keep_session(self, session: Session) -> str:
        """Give an initialized session an id under which it can be found again, and return the id."""
        self.sessions.add(session)
        return session.id

    def close_session(self, session: Session) -> None:
        """End a session: its calls are cancelled and its streams end."""
        self.sessions.remove(session)

    def close(self) -> None:
        """End every listen stream gracefully and every session; new ones may be opened afterwards."""
        with self._lock:
            listeners, streaming = list(self._listeners), list(self._streaming)
        for listener in listeners:
            listener.close()
        for session in streaming:
            # A stdio connection outlives this: its listen streams have ended, and it is for its client to hang up.
            if session.door.get("ends_with_server"):
                session.close()
        for session in self.sessions.all():
            self.close_session(session)

    def trace(self, trace: Any) -> None:
        """Record every message from now on; see the parameter `trace`."""
        from .tracing import Tracing

        self.tracing = Tracing(trace)

    # What the eras and features use

    def describe(self, what: str, error: BaseException) -> str:
        """What a client is told of an exception: nothing but that it happened, unless debugging."""
        return f"{what}: {type(error).__name__}: {error}" if self.debug else f"{what}; the server's log has the details"

    def add_listener(self, subscription: Subscription) -> None:
        """Remember an open listen stream, so that `close` can end it."""
        with self._lock:
            self._listeners.add(subscription)

    def remove_listener(self, subscription: Subscription) -> None:
        """Forget a listen stream that has ended."""
        with self._lock:
            self._listeners.discard(subscription)

    # The doors; each loads on first use

    def run(self) -> None:
        """Serve on standard input and output until the input ends."""
        from ..transports.stdio import serve

        serve(self)

    @property
    def wsgi(self) -> Any:
        """The WSGI callable that serves Streamable HTTP, to mount or to give to any WSGI server."""
        with self._lock:
            if self._wsgi is None:
                from ..transports.http import HttpApp

                self._wsgi = HttpApp(self)
            return self._wsgi

    def run_http(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        path: str = "/mcp",
        *,
        tls: tuple[str, str] | None = None,
        limits: dict[str, float] | None = None,
        ready: Callable[[Any], Any] | None = None,
    ) -> None:
        """Serve Streamable HTTP, and HTTP+SSE for 2024-11-05 clients, on the embedded server until SIGTERM or Ctrl-C.

        :param tls: the paths of a certificate chain and its key.
        :param limits: overrides of `minimcp.engines.http_server.wsgi_server.LIMITS`.
        :param ready: called with the listening server, whose `url` and `port` are the real ones.
        """
        from ..transports.http import serve

        serve(self, host, port, path, tls, limits, ready)

    def flask_view(self) -> Callable[..., Any]:
        """A view function: `app.add_url_rule("/mcp", view_func=server.flask_view(), strict_slashes=False)`.

        Handlers and `principal` run inside the application's own context: `g`, the login and the database session hold.
        """
        from ..transports.frameworks import flask_view

        return flask_view(self.wsgi)

    def django_view(self) -> Callable[..., Any]:
        """A view: `path("mcp", server.django_view())`; the principal is the name of the user whom Django logged in.

        `ctx.request["django.request"]` is the request; ATOMIC_REQUESTS holds for each call by itself.
        """
        from ..transports.frameworks import django_view

        return django_view(self.wsgi)
