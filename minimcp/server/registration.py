"""Registration: the decorators by which functions become tools, resources, prompts and completions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..protocol import spec
from . import makers
from .bus import Bus
from .catalog import Catalog, Completer, Policy
from .registry import Registry

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .context import Context
    from .options import PromptOptions, ResourceOptions, ToolOptions

Message = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=Completer)


class Registration:
    """The decorators of a server; each is a plain function too: `server.tool(function, "name", title="Title")`.

    The options of each are listed in `minimcp.server.options`. Clients are told of what is registered, replaced or
    removed once the server serves.

    :ivar registry: the dicts that the decorators fill.
    :ivar catalog: answers clients; the registry, unless the author has given another one.
    :ivar serving: whether a message has arrived; before that, registrations are not announced.
    """

    def __init__(self, bus: Bus, catalog: Catalog | None, policy: Policy | None, ttl_ms: int, cache_scope: str) -> None:
        self.bus = bus
        self.serving = False
        self.policy = policy
        self.registry = Registry(self._announce)
        self.catalog: Catalog = self.registry if catalog is None else catalog
        self._caching = makers.caching_hints(ttl_ms, cache_scope)
        # What extensions brought: their settings, methods, Mcp-Name parameters, and whose a result type is.
        self.extensions: dict[str, Message] = {}
        self.extension_methods: dict[str, Any] = {}
        self.name_params: dict[str, str] = {}
        self.result_types: dict[str, str] = {}

    @overload
    def tool(self, function: F, name: str | None = None, **options: Unpack[ToolOptions]) -> F: ...
    @overload
    def tool(self, *, name: str | None = None, **options: Unpack[ToolOptions]) -> Callable[[F], F]: ...
    def tool(self, function: Any = None, name: str | None = None, **options: Unpack[ToolOptions]) -> Any:
        """Register a function as a tool, or replace the tool of that name: `@server.tool` or `@server.tool(...)`.

        :raises TypeError: for a function that cannot be a tool, with what to write instead.
        """
        if function is None:
            return lambda later: self.tool(later, name, **options)
        entry = makers.make_tool(_callable(function), name, **options)
        self.registry.add("tools", entry.definition["name"], entry)
        return function

    def remove_tool(self, name: str) -> bool:
        """Remove a tool and say whether it was there."""
        return self.registry.remove("tools", name)

    def resource(self, uri: str, **options: Unpack[ResourceOptions]) -> Callable[[F], F]:
        """Register a function as a resource, or replace the one at that URI: `@server.resource("config://app")`.

        :param uri: a URI, or a template such as `weather://{city}` whose variables are the function's parameters.
        :raises ValueError: for a malformed URI, or variables that are not the function's parameters.
        """
        if not isinstance(uri, str):
            raise TypeError('Write the URI: @server.resource("config://app")')

        def register(function: F) -> F:
            entry = makers.make_resource(function, uri, **options)
            self.registry.add("resourceTemplates" if entry.template else "resources", uri, entry)
            return function

        return register

    def remove_resource(self, uri: str) -> bool:
        """Remove a resource or template and say whether it was there."""
        return self.registry.remove("resources", uri) or self.registry.remove("resourceTemplates", uri)

    @overload
    def prompt(self, function: F, name: str | None = None, **options: Unpack[PromptOptions]) -> F: ...
    @overload
    def prompt(self, *, name: str | None = None, **options: Unpack[PromptOptions]) -> Callable[[F], F]: ...
    def prompt(self, function: Any = None, name: str | None = None, **options: Unpack[PromptOptions]) -> Any:
        """Register a function as a prompt, or replace the prompt of that name: `@server.prompt`.

        The function returns text, a message, or a list of them.
        """
        if function is None:
            return lambda later: self.prompt(later, name, **options)
        entry = makers.make_prompt(_callable(function), name, **options)
        self.registry.add("prompts", entry.definition["name"], entry)
        return function

    def remove_prompt(self, name: str) -> bool:
        """Remove a prompt and say whether it was there."""
        return self.registry.remove("prompts", name)

    def completion(self, reference: str, argument: str) -> Callable[[C], C]:
        """Register a function `f(value, arguments) -> list[str]` that completes an argument.

        :param reference: a prompt's name, or a resource template as it was registered.
        """

        def register(function: C) -> C:
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{function.__name__} is async def: write def; every call has its own thread")
            self.registry.add_completion(reference, argument, function)
            return function

        return register

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

    def _announce(self, topic: str) -> None:
        # A worker that starts has changed nothing for the clients of the other workers on its bus.
        if self.serving:
            self.bus.publish(topic)

    def capabilities(self, ctx: Context) -> Message:
        """Return the capabilities to advertise: exactly what is offered to this caller. Spec: BASE-080, BASE-116"""
        offers = self.catalog.offers(ctx)
        found: Message = {kind: {"listChanged": True} for kind in ("tools", "prompts", "resources") if kind in offers}
        if "resources" in offers:
            found["resources"]["subscribe"] = True
        found.update({kind: {} for kind in ("completions", "logging") if kind in offers})
        if self.extensions:
            found["extensions"] = self.extensions
        return found

    def caching(self, override: Message) -> Message:
        """Return the caching hints of a result. Spec: FEAT-121, FEAT-123, FEAT-124"""
        return {**self._caching, **override} if override else self._caching


def _callable(function: Any) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError(f"Write name={function!r}: the first argument is the function itself")
    return function  # type: ignore[no-any-return]
