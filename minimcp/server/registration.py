"""How functions become tools, resources, prompts and completions: the part of a Server that its author types."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..protocol import spec
from .bus import BusLike
from .context import Context
from .registry import Allow, Definition, Registry

if TYPE_CHECKING:
    from ..protocol import types

Message = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class Registration:
    """The decorators and their plain calls, over one registry.

    Whatever is registered, replaced or removed while clients are connected is announced to them by itself.
    """

    def __init__(self, bus: BusLike, ttl_ms: int, cache_scope: str) -> None:
        self.bus = bus
        self._caching = _check_caching({"ttlMs": ttl_ms, "cacheScope": cache_scope})
        self.registry = Registry(Context, bus.publish)
        # What extensions brought: their settings, methods, Mcp-Name parameters, and whose a result type is.
        self.extensions: dict[str, Message] = {}
        self.extension_methods: dict[str, Any] = {}
        self.name_params: dict[str, str] = {}
        self.result_types: dict[str, str] = {}

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
