"""The face of a server: registration, and the four calls its doors use."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union, overload

from ..protocol import headers, spec, wire
from ..protocol.errors import InvalidRequest, McpError
from . import legacy, modern
from .bus import Bus, BusLike, Subscription
from .context import Context
from .dispatcher import Batch, Call, check_batch
from .registry import Allow, Definition, Registry
from .seal import Sealer, Secret
from .session import Session, Sessions

if TYPE_CHECKING:
    from ..protocol import types

log = logging.getLogger("minimcp")

Message = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class Server:
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
        debug: bool = False,
    ) -> None:
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
        self.sealer = Sealer(secret)
        self.bus: BusLike = bus or Bus()
        self.registry = Registry(Context, self.bus.publish)
        self.sessions = Sessions(
            self.sealer, int(self.limits["sessions"]), self.limits["session_idle_s"], self.limits["session_s"]
        )
        self.extensions: dict[str, Message] = {}
        self.extension_methods: dict[str, Any] = {}
        self.name_params: dict[str, str] = {}
        self.result_types: dict[str, str] = {}
        self._caching = _check_caching({"ttlMs": ttl_ms, "cacheScope": cache_scope})
        self._lock = threading.Lock()  # guards _listeners, _streaming and _wsgi
        self._listeners: set[Subscription] = set()
        # Sessions that are one stream from beginning to end (stdio, HTTP+SSE); those of `sessions` have ids instead.
        self._streaming: weakref.WeakSet[Session] = weakref.WeakSet()
        self._wsgi: Any = None

    # Registration

    @overload
    def tool(self, function: F) -> F: ...
    @overload
    def tool(self, *, name: str | None = None, **options: Any) -> Callable[[F], F]: ...
    def tool(self, function: Any = None, *, name: str | None = None, **options: Any) -> Any:
        """Register a function as a tool: `@server.tool` or `@server.tool(...)`; see `add_tool` for the options."""
        return _decorate(function, lambda f: self.add_tool(f, name, **options))

    def add_tool(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        title: str | None = None,
        description: str | None = None,
        annotations: types.ToolAnnotations | None = None,
        icons: list[types.Icon] | None = None,
        meta: Message | None = None,
        input_schema: Definition | None = None,
        output_schema: Definition | None = None,
        allow: Allow | None = None,
    ) -> None:
        """Register a tool, or replace the one of that name.

        :param annotations: hints such as `{"readOnlyHint": True}`. Spec: FEAT-013
        :param input_schema: a JSON Schema, used verbatim instead of the one made from the type hints.
        :param allow: `f(ctx)` decides who sees and may call the tool; for others it does not exist.
        :raises TypeError: for a function that cannot be a tool, with what to write instead.
        """
        entry = self.registry.make_tool(
            function,
            name,
            allow,
            input_schema,
            output_schema,
            title=title,
            description=description,
            annotations=annotations,
            icons=icons,
            meta=meta,
        )
        self.registry.add("tools", entry.definition["name"], entry)

    def remove_tool(self, name: str) -> bool:
        """Remove a tool and say whether it was there."""
        return self.registry.remove("tools", name)

    def resource(self, uri: str, **options: Any) -> Callable[[F], F]:
        """Register a function as a resource: a URI, or a template such as `weather://{city}`; see `add_resource`."""
        if not isinstance(uri, str):
            raise TypeError('Write the URI: @server.resource("config://app")')
        return lambda function: _decorated(function, self.add_resource, uri, options)

    def add_resource(
        self,
        function: Callable[..., Any],
        uri: str,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        size: int | None = None,
        annotations: types.Annotations | None = None,
        icons: list[types.Icon] | None = None,
        meta: Message | None = None,
        ttl_ms: int | None = None,
        cache_scope: str | None = None,
        allow: Allow | None = None,
    ) -> None:
        """Register a resource or template, or replace the one at that URI.

        :param size: in bytes.
        :param ttl_ms: how long clients may cache what is read here, in milliseconds.
        """
        entry = self.registry.make_resource(
            function,
            uri,
            allow,
            name=name,
            title=title,
            description=description,
            mime_type=mime_type,
            size=size,
            annotations=annotations,
            icons=icons,
            meta=meta,
            ttl_ms=ttl_ms,
            cache_scope=cache_scope,
        )
        _check_caching({**self._caching, **entry.hints})
        self.registry.add("resourceTemplates" if entry.template else "resources", uri, entry)

    def remove_resource(self, uri: str) -> bool:
        """Remove a resource or template and say whether it was there."""
        return self.registry.remove("resources", uri) or self.registry.remove("resourceTemplates", uri)

    @overload
    def prompt(self, function: F) -> F: ...
    @overload
    def prompt(self, *, name: str | None = None, **options: Any) -> Callable[[F], F]: ...
    def prompt(self, function: Any = None, *, name: str | None = None, **options: Any) -> Any:
        """Register a function as a prompt: `@server.prompt` or `@server.prompt(...)`; see `add_prompt`."""
        return _decorate(function, lambda f: self.add_prompt(f, name, **options))

    def add_prompt(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        title: str | None = None,
        description: str | None = None,
        icons: list[types.Icon] | None = None,
        meta: Message | None = None,
        allow: Allow | None = None,
    ) -> None:
        """Register a prompt, or replace the one of that name; it returns text, a message, or a list of them."""
        entry = self.registry.make_prompt(
            function, name, allow, title=title, description=description, icons=icons, meta=meta
        )
        self.registry.add("prompts", entry.definition["name"], entry)

    def remove_prompt(self, name: str) -> bool:
        """Remove a prompt and say whether it was there."""
        return self.registry.remove("prompts", name)

    def completion(self, reference: str, argument: str) -> Callable[[F], F]:
        """Register `f(value, arguments) -> list[str]` as what completes an argument.

        :param reference: a prompt's name, or a resource template as it was registered.
        """
        return lambda function: _decorated(function, self.registry.add_completion, None, {}, reference, argument)

    def use(self, extension: Any) -> None:
        """Add an extension: an object with `identifier`, and optionally these attributes.

        `settings` (what is advertised), `methods` (method -> `f(ctx, params) -> result`), `name_params` (method -> the
        parameter its Mcp-Name header mirrors), `result_types` (values of resultType its results may have), and
        `setup(server)`. A handler learns with `ctx.extension(identifier)` whether the client supports it too.
        """
        self.extensions[extension.identifier] = getattr(extension, "settings", {})
        self.extension_methods.update(getattr(extension, "methods", {}))
        self.name_params.update(getattr(extension, "name_params", {}))
        self.result_types.update(dict.fromkeys(getattr(extension, "result_types", ()), extension.identifier))
        setup = getattr(extension, "setup", None)
        if setup is not None:
            setup(self)

    def changed(self, kind: str) -> None:
        """Tell clients that the list of "tools", "prompts" or "resources" changed; registration does so by itself."""
        if kind not in spec.CHANGES:
            raise ValueError(f"{kind!r} is not one of {', '.join(spec.CHANGES)}; for one resource use updated(uri)")
        self.bus.publish(kind)

    def updated(self, uri: str) -> None:
        """Tell clients that subscribed to a resource that it changed."""
        self.bus.publish("resource", uri)

    # What the doors use

    def call(
        self,
        message: Any,
        *,
        get_header: headers.Get | None = None,
        session: Session | None = None,
        principal: str | None = None,
        request: Any = None,
    ) -> Optional[Union[Call, Batch]]:
        """Take a parsed message: a request becomes a Call to run; notifications and responses are dealt with here.

        :param get_header: looks up an HTTP header; given, the headers of a modern request are held against its body.
        :raises McpError: when the envelope is wrong; answer it under `wire.readable_id(message)`.
        """
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
                call = self.call(message, session=session, principal=principal, request=request)
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
            session, _ = self.sessions.get(id, principal)
        session.door.setdefault("bus", self.bus)
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

    # What the eras and features use

    def capabilities(self) -> Message:
        """The capabilities to advertise: exactly what was registered. Spec: BASE-080, BASE-116"""
        offers = self.registry.offers
        found: Message = {kind: {"listChanged": True} for kind in ("tools", "prompts", "resources") if kind in offers}
        if "resources" in offers:
            found["resources"]["subscribe"] = True
        found.update({kind: {} for kind in ("completions", "logging") if kind in offers})
        if self.extensions:
            found["extensions"] = self.extensions
        return found

    def caching(self, override: Message) -> Message:
        """The caching hints of a result. Spec: FEAT-121 to FEAT-124"""
        return {**self._caching, **override} if override else self._caching

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

    def run_http(self, host: str = "127.0.0.1", port: int = 8000, path: str = "/mcp", **options: Any) -> None:
        """Serve Streamable HTTP, and HTTP+SSE for 2024-11-05 clients, on the embedded server until SIGTERM or Ctrl-C.

        :param options: `tls=(cert, key)` and `ready=f(server)`, see `minimcp.transports.wsgi_server.serve`.
        """
        from ..transports.http import serve

        serve(self, host, port, path, **options)

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


def _decorate(function: Any, register: Callable[[Any], None]) -> Any:
    if function is None:
        return lambda later: _decorate(later, register)
    if not callable(function):
        raise TypeError(f"Write name={function!r}: the first argument is the function itself")
    register(function)
    return function


def _decorated(function: F, register: Callable[..., None], uri: str | None, options: Message, *before: str) -> F:
    register(*before, function, *(() if uri is None else (uri,)), **options)
    return function


def _check_caching(hints: Message) -> Message:
    if type(hints["ttlMs"]) is not int or hints["ttlMs"] < 0 or hints["cacheScope"] not in ("public", "private"):
        raise ValueError('ttl_ms is a whole number of milliseconds, cache_scope is "public" or "private"')
    return hints


