"""A server as its author uses it: the functions to register, the settings, and the ways to serve."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from urllib.parse import urlsplit

from ..protocol.errors import McpError
from ..protocol.principal import Authenticated, as_principal
from ..protocol.wire import is_notification
from .engine import Engine
from .registration import Registration

if TYPE_CHECKING:
    from ..auth.verifier import Auth
    from ..engines.http_server.wsgi_server import WsgiServer
    from ..engines.trace import Trace
    from ..protocol import types
    from ..transports.http import HttpApp
    from .asking import Choose
    from .bus import Bus
    from .catalog import Catalog, Policy
    from .context import Context
    from .hooks import AroundRequest
    from .sanitize import Sanitizer
    from .seal import Secret
    from .session import Session

Message = dict[str, Any]


class Server(Registration):
    """A Model Context Protocol server: register functions, then `run`, `run_http` or mount `wsgi`.

    :param name: the name of the server, for display.
    :param instructions: a hint to the model on how to use the server.
    :param secret: one key or several (the first signs, all verify) for request states and session ids; needed as soon
        as several processes serve. Default: the environment variable MINIMCP_SECRET, else a key of this process.
    :param page_size: how many items a list page has; None for all.
    :param ttl_ms: how long clients may cache lists and resources, in milliseconds.
    :param cache_scope: "private" or "public", see `ttl_ms`.
    :param auth: finds the caller of each HTTP request: a verifier of `minimcp.auth`, a function `f(request)` that
        returns a `Principal`, its id or None, or a list of these. "public" lets everybody call.
    :param public_url: the URL of the endpoint as its callers see it.
    :param implied_scopes: `{scope: narrower scopes}`: what a broader scope includes. Spec: AUTH-097
    :param on_denied: "hide": what a caller may not use looks unknown; "challenge": scopes that are missing are named.
    :param trusted_proxy: addresses or networks of proxies whose `X-Forwarded-*` headers count.
    :param around_call: `f(ctx)` makes a context manager in which every handler runs; exceptions pass through it.
    :param lifespan: `f(server)` makes a context manager that each process enters once; what it gives is `ctx.app`.
    :param around_request: `f(outcome)` makes a context manager around every request, refused ones too. At its end
        `outcome` has the reply and the duration; an McpError that it raises takes the reply's place.
    :param strategy: `f(ctx, entry)` chooses the `asking.Strategy` that carries a call's questions; None: its era's own.
    :param allowed_hosts: values of Host that are served; default: on a loopback connection only loopback names.
    :param allowed_origins: origins, beside the server's own, whose pages may call it.
    :param limits: overrides of `minimcp.protocol.spec.LIMITS`.
    :param bus: publishes changes, for instance to other processes; default: to this process alone. With a `RedisBus`
        and a common secret these share legacy sessions, too.
    :param catalog: answers in place of `registry`, which the decorators fill, when clients list, call, get and read.
    :param policy: `f(ctx, entry)` decides, beside each entry's own `allow`, who sees and may use an entry.
    :param sanitize: filters what leaves: sizes, hidden characters and secrets, see `Sanitizer`.
    :param trace: True, "pretty", a path, a file or a callable that takes every message; see `minimcp.engines.trace`.
    :param debug: whether clients are told what exception a handler raised; by default only those that have this process
        to themselves: over stdio and in memory.
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
        auth: Auth | None = None,
        public_url: str | None = None,
        trusted_proxy: str | Collection[str] = (),
        implied_scopes: Mapping[str, Collection[str]] | None = None,
        on_denied: Literal["hide", "challenge"] = "hide",
        around_call: Callable[[Context], AbstractContextManager[Any]] | None = None,
        lifespan: Callable[[Server], AbstractContextManager[Any]] | None = None,
        around_request: AroundRequest | None = None,
        strategy: Choose | None = None,
        allowed_hosts: Iterable[str] | None = None,
        allowed_origins: Iterable[str] | None = None,
        limits: dict[str, float] | None = None,
        bus: Bus | None = None,
        catalog: Catalog | None = None,
        policy: Policy | None = None,
        sanitize: Sanitizer | None = None,
        trace: Trace | None = None,
        debug: bool | None = None,
    ) -> None:
        identity = {"name": name, "version": str(version), "title": title, "description": description}
        identity.update(websiteUrl=website, icons=icons)  # type: ignore[arg-type]
        known = {key: value for key, value in identity.items() if value is not None}
        engine = Engine(known, limits=limits, secret=secret, bus=bus, ttl_ms=ttl_ms, cache_scope=cache_scope)
        super().__init__(engine, lifespan)
        engine.instructions, engine.page_size = instructions, page_size
        if auth == "public":
            engine.public = True
        elif auth is not None:
            from ..auth.protected import ProtectedServer

            engine.auth = ProtectedServer(auth, public_url, trusted_proxy, implied_scopes)
        if on_denied not in ("hide", "challenge"):
            raise ValueError(f'on_denied= is "hide" or "challenge", not {on_denied!r}')
        engine.on_denied = on_denied
        engine.around_call, engine.around_request, engine.strategy = around_call, around_request, strategy
        if allowed_hosts is None and public_url is not None:
            allowed_hosts = [urlsplit(public_url).netloc, "localhost", "127.0.0.1", "[::1]"]
        engine.allowed_hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
        engine.allowed_origins = frozenset(allowed_origins or ())
        engine.debug, engine.policy = debug, policy
        if catalog is not None:
            engine.catalog = catalog
        self._lock = threading.Lock()  # guards _wsgi
        self._wsgi: HttpApp[Session] | None = None
        if sanitize is not None:
            from .sanitize import Sanitizing

            Sanitizing(engine, sanitize)
        if trace:
            from .tracing import Tracing

            Tracing(engine, trace)

    def handle(
        self,
        message: Any,
        send: Callable[[Message], None] | None = None,
        session: Session | None = None,
        principal: Authenticated = None,
    ) -> Any:
        """Take a message as a dict and return its reply as a dict, or None: the whole protocol in one call.

        :param send: takes what a handler emits before its reply.
        :param session: from `engine.open_session`; a 2026-07-28 request needs none.
        """
        caller = as_principal(principal) if principal else None
        try:
            call = self.engine.call(message, session=session, principal=caller)
        except McpError as problem:
            reply = self.engine.refuse(message, problem, caller)
            return None if is_notification(message) else reply
        if call is None:
            return None
        if session is None:
            return call.run(send)
        session.add_call(call)
        try:
            return call.run(send)
        finally:
            session.remove_call(call)

    def close(self, wait_s: float = 0.0) -> None:
        """End every stream gracefully and every session of this process; new ones may be opened afterwards.

        :param wait_s: how long calls in sessions may go on. Sessions that other processes share go on there.
        """
        self.engine.close(wait_s)
        self.engine.lifespans.leave()

    def run(self, *others: NoReturn, **options: NoReturn) -> None:
        """Serve on standard input and output until the input ends; there are no options."""
        self._check_running(others, options)
        from ..transports.stdio import serve
        from .screen import greet

        with self.engine.lifespans:
            greet(self.engine, sys.argv[0])
            serve(self.engine)

    @property
    def wsgi(self) -> HttpApp[Session]:
        """The WSGI callable of Streamable HTTP, to mount or to give to any WSGI server."""
        with self._lock:
            if self._wsgi is None:
                from ..transports.http import HttpApp

                self._wsgi = HttpApp(self.engine)
            return self._wsgi

    def run_http(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        path: str = "/mcp",
        *,
        tls: tuple[str, str] | None = None,
        ca: str | None = None,
        limits: dict[str, float] | None = None,
        ready: Callable[[WsgiServer], object] | None = None,
    ) -> None:
        """Serve Streamable HTTP, and HTTP+SSE for 2024-11-05 clients, on the embedded server until SIGTERM or Ctrl-C.

        :param tls: the paths of a certificate chain and its key; `ca` that of authorities: each client needs theirs.
        :param limits: overrides of `minimcp.engines.http_server.wsgi_server.LIMITS`.
        :param ready: called with the listening server, whose `url` and `port` are the real ones.
        """
        from ..transports.http import serve
        from .screen import watched

        with self.engine.lifespans:
            serve(self.engine, host, port, path, tls, ca, limits, watched(self.engine, path, ready))

    def flask_view(self) -> Callable[..., Any]:
        """A view function: `app.add_url_rule("/mcp", view_func=server.flask_view(), strict_slashes=False)`.

        Handlers and verifiers run in the application's own context: `g`, the login and the database session hold.
        """
        from ..transports.frameworks import flask_view

        return flask_view(self.wsgi)

    def django_view(self) -> Callable[..., Any]:
        """A view: `path("mcp", server.django_view())`; the principal is the name of the user whom Django logged in.

        `ctx.request["django.request"]` is the request; ATOMIC_REQUESTS holds for each call by itself.
        """
        from ..transports.frameworks import django_view

        return django_view(self.wsgi)
