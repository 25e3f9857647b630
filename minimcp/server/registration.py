"""Registration: the decorators by which functions become tools, resources, prompts and completions."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from ..protocol import revisions, spec
from ..protocol.app_pages import IDENTIFIER
from ..protocol.principal import Authenticated, as_principal
from . import makers
from .catalog import Completer, Entry
from .extension import install
from .habits import check_making, check_running, of_a_server
from .mount import mount, publish
from .needs import explain, take_needs
from .pages import PageEntry, check_links, page_function
from .registered import key_of
from .tasked import TaskEntry

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..extensions.tasks import Tasks
    from .engine import Engine
    from .entry_options import PromptOptions, ResourceOptions, ToolOptions
    from .extension import Extension
    from .hooks import Route

log = logging.getLogger("minimcp")

Message = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=Completer)


class Registration:
    """The decorators of a server; each is a plain function too: `server.tool(function, "name", title="Title")`.

    The options of each are listed in `minimcp.server.entry_options`. Clients are told of what is registered, replaced
    or removed once the server serves.

    :ivar engine: what transports and extensions use of the server.
    """

    if not TYPE_CHECKING:  # A type checker reads `__init__`, and would take every name for one of these.

        def __new__(cls, *given: object, **options: object) -> Registration:
            """Say what is missing in a call, or what an option should be."""
            check_making(cls, given, options)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> object:
            """Say what is written here in place of a name of another kit."""
            raise AttributeError(of_a_server(name))

    def __init__(self, engine: Engine, lifespan: Callable[[Any], AbstractContextManager[Any]] | None = None) -> None:
        self.engine = engine
        engine.lifespans.begin(lifespan, self)
        if not isinstance(engine.identity.get("name"), str):
            raise TypeError(f"The name of a server is a str, not {engine.identity.get('name')!r}")

    _check_running = staticmethod(check_running)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.engine.identity['name']!r}, version {self.engine.identity['version']}>"

    def use(self, extension: Extension) -> None:
        """Add an extension; see `Extension` for what it consists of."""
        install(self.engine, extension)
        setup = getattr(extension, "setup", None)
        if setup is not None:
            setup(self)

    def _add(self, kind: str, key: str, entry: Entry) -> None:
        """Register an entry; log a warning when it takes the place of another function's before the server serves.

        :raises ValueError: when a mounted server has that key.
        """
        known = self._known(kind, key)
        if known is not None and not self.engine.serving:
            old, new = _place(known.function), _place(entry.function)
            # A cell of a notebook is run again, and a module loaded again, to replace what it had.
            if old != new and not (_CELL.search(old) and _CELL.search(new)):
                what = {"resourceTemplates": "resource template"}.get(kind, kind[:-1])
                log.warning("the %s %r at %s takes the place of the one at %s", what, key, new, old)
        self.engine.registry.add(kind, key, entry)

    def _known(self, kind: str, key: str) -> Entry | None:
        """Return the entry of a key, or None.

        :raises ValueError: when it comes from another server.
        """
        known: Entry | None = getattr(self.engine.registry, kind).get(key_of(kind, key))
        if known is not None and known.origin:
            raise ValueError(f"{key!r} comes from the server {known.origin!r}, which keeps it; change it there")
        return known

    def _remove(self, kind: str, key: str) -> bool:
        return self._known(kind, key) is not None and self.engine.registry.remove(kind, key)

    @overload
    def tool(self, function: F, name: str | None = None, **options: Unpack[ToolOptions]) -> F: ...
    @overload
    def tool(self, *, name: str | None = None, **options: Unpack[ToolOptions]) -> Callable[[F], F]: ...
    def tool(self, function: Any = None, name: str | None = None, **options: Unpack[ToolOptions]) -> Any:
        """Register a function as a tool, or replace the tool of that name: `@server.tool` or `@server.tool(...)`.

        :param function: its hints and its docstring say what it takes and does.
        :param name: that of the function by default.
        :param options: `title`, `description`, `annotations`, `input_schema`, `output_schema`, `task`, `idempotent`,
            `ui`, `scopes`, `roles`, `allow`, `icons`, `tags`, `meta`; see `minimcp.server.entry_options.ToolOptions`.
        :raises TypeError: for a function that cannot be a tool, with what to write instead.
        """
        if function is None:
            return lambda later: self.tool(later, name, **options)
        entry = makers.make_tool(_callable(function), name, **_options("tool", makers.make_tool, options))
        if isinstance(entry, TaskEntry):
            self._use_tasks()
        self._add("tools", entry.definition["name"], entry)
        if options.get("ui") is not None:
            self._use_apps()
            if self.engine.serving:
                check_links(self.engine, entry.definition["name"])
        return function

    @property
    def tasks(self) -> Tasks:
        """The tasks of this server; those of `server.use(Tasks("tasks.db"))`, or else some that are kept in memory."""
        return self._use_tasks()

    def _use_tasks(self) -> Tasks:
        if self.engine.tasks is None:
            from ..extensions.tasks import Tasks

            self.use(Tasks())
        return cast("Tasks", self.engine.tasks)

    def _use_apps(self) -> None:
        from ..extensions.apps import Apps

        if Apps.identifier not in self.engine.extensions:
            self.use(Apps())

    def remove_tool(self, name: str) -> bool:
        """Remove a tool and say whether it was there."""
        return self._remove("tools", name)

    def resource(self, uri: str, **options: Unpack[ResourceOptions]) -> Callable[[F], F]:
        """Register a function as a resource, or replace the one at that URI: `@server.resource("config://app")`.

        The function returns text, bytes, what has a JSON form, or None where there is nothing to read.

        :param uri: a URI, or a template such as `weather://{city}` whose variables are the function's parameters.
        :param options: `name`, `title`, `description`, `mime_type`, `size`, `annotations`, `ttl_ms`, `cache_scope`,
            `traversal`, `list`, `scopes`, `roles`, `allow`, `icons`, `tags`, `meta`; see
            `minimcp.server.entry_options.ResourceOptions`.
        :raises ValueError: for a malformed URI, or variables that are not the function's parameters.
        """
        if not isinstance(uri, str):
            raise TypeError('Write the URI: @server.resource("config://app")')

        def register(function: F) -> F:
            entry = makers.make_resource(function, uri, **_options("resource", makers.make_resource, options))
            self._add("resourceTemplates" if entry.template else "resources", uri, entry)
            if isinstance(entry, PageEntry):
                self._use_apps()
            return function

        return register

    def page(self, uri: str, html: str | os.PathLike[str], **options: Unpack[ResourceOptions]) -> str:
        """Register a page of MCP Apps, and return its URI: `@server.tool(ui=server.page("ui://clock/page.html", ...))`.

        :param html: the text of an HTML document, or the `Path` of one, which is read each time it is asked for.
        :param options: as of `resource`.
        :raises ValueError: when it is no whole HTML document.
        """
        options.setdefault("name", uri.rpartition("/")[2] or uri)
        self.resource(uri, **options)(page_function(uri, html))
        return uri

    def remove_resource(self, uri: str) -> bool:
        """Remove a resource or template and say whether it was there."""
        return self._remove("resources", uri) or self._remove("resourceTemplates", uri)

    @overload
    def prompt(self, function: F, name: str | None = None, **options: Unpack[PromptOptions]) -> F: ...
    @overload
    def prompt(self, *, name: str | None = None, **options: Unpack[PromptOptions]) -> Callable[[F], F]: ...
    def prompt(self, function: Any = None, name: str | None = None, **options: Unpack[PromptOptions]) -> Any:
        """Register a function as a prompt, or replace the prompt of that name: `@server.prompt`.

        The function returns text, a message, or a list of them.

        :param options: `title`, `description`, `scopes`, `roles`, `allow`, `icons`, `tags`, `meta`; see
            `minimcp.server.entry_options.PromptOptions`.
        """
        if function is None:
            return lambda later: self.prompt(later, name, **options)
        entry = makers.make_prompt(_callable(function), name, **_options("prompt", makers.make_prompt, options))
        self._add("prompts", entry.definition["name"], entry)
        return function

    def remove_prompt(self, name: str) -> bool:
        """Remove a prompt and say whether it was there."""
        return self._remove("prompts", name)

    def completion(self, reference: str, argument: str) -> Callable[[C], C]:
        """Register a function `f(value, arguments) -> list[str]` that completes an argument.

        `value` is what was typed so far, `arguments` those that are settled: `@server.completion("review", "lang")`.
        A `content.Raw({"completion": {...}})` that it returns is the result as it is.

        :param reference: a prompt's name, or a resource template as it was registered.
        """

        def register(function: C) -> C:
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{function.__name__} is async def: write def; every call has its own thread")
            self.engine.registry.add_completion(reference, argument, function)
            return function

        return register

    def mount(self, prefix: str, other: Registration) -> None:
        """Serve what another server has within this one, now and later: each team or blueprint has a server of its own.

        Its tools and prompts are named `{prefix}_{name}`; its URIs get a marker, as in `weather+file:///a`, also in the
        links that it returns. Its rules, `around_call`, completions, instructions, notices and the servers that are
        mounted into it come along; all that concerns connections, such as `auth` and `limits`, is this server's.

        :param prefix: at most 40 of A-Z a-z 0-9 _ - . and "" for none.
        :raises ValueError: for names that are taken, naming both owners, or a server that would be within itself.
        """
        mount(self.engine, prefix, other.engine, other)
        if other.engine.tasks is not None:
            self._use_tasks()
        if IDENTIFIER in other.engine.extensions:
            self._use_apps()

    def route(self, path: str, handler: Route, method: str = "GET") -> None:
        """Serve a further path beside the endpoint over HTTP, to every caller that Host and Origin let in.

        :param path: the whole path, such as "/.well-known/oauth-protected-resource/mcp", or the path below the place
            where the server is mounted. Its last segment may be a variable, `{name}`, or `{+name}` for several
            segments, whose text is `environ["minimcp.route"]["name"]`.
        :param handler: `f(environ) -> (status, headers, body)`, where the body is an iterable of bytes; it may raise
            `Unauthorized` or another McpError with `http`.
        :raises ValueError: for a path without a leading slash, or a variable that is not its last segment.
        """
        if not path.startswith("/"):
            raise ValueError(f"A path begins with a slash, unlike {path!r}")
        if not _ROUTE.fullmatch(path):
            raise ValueError(f"A variable is the last segment of a path, as in /tools/{{name}}, unlike {path!r}")
        # As in PATH_INFO.
        path = path.encode("utf-8").decode("latin-1")
        self.engine.routes.setdefault(path, {})[method] = handler

    def explain(
        self, principal: Authenticated, name: str, kind: str = "tools", arguments: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Say whether a principal may see and use an entry: `{"allowed": bool, "reasons": [what is missing]}`.

        :param kind: "tools", "resources", where `name` is a URI, or "prompts".
        """
        return explain(self.engine, as_principal(principal), name, kind, arguments)

    def changed(self, kind: str) -> None:
        """Tell clients that the list of "tools", "prompts" or "resources" changed; registration does so by itself."""
        if kind not in spec.CHANGES:
            raise ValueError(f"{kind!r} is not one of {', '.join(spec.CHANGES)}; for one resource use updated(uri)")
        publish(self.engine, kind)

    def updated(self, uri: str) -> None:
        """Tell clients that subscribed to a resource that it changed."""
        publish(self.engine, "resource", uri)


_ROUTE = re.compile(r"[^{}]*(?:/\{\+?[A-Za-z_][A-Za-z0-9_]*\})?")
_CELL = re.compile(r"ipykernel|<ipython-input|<stdin>")


def _place(function: Any) -> str:
    """Return the file and line of a function, for a message."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code is not None else repr(function)


def _options(kind: str, maker: Callable[..., Any], given: Any) -> Message:
    """Return the options of a decorator as its maker takes them.

    :raises TypeError: for one that there is not.
    """
    known = [*inspect.getfullargspec(maker).kwonlyargs, "scopes", "roles", "tags"]
    for name in given:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise TypeError(f"@server.{kind} has no option {name}; {hint}")
    return _with_tags(take_needs({**given}))


def _with_tags(options: Message) -> Message:
    """Return the options of a registration with its `tags` put into its `meta`.

    :raises TypeError: for what are no words.
    """
    tags = options.pop("tags", None)
    if tags:
        if isinstance(tags, str):
            raise TypeError(f"tags= is a list: write tags=[{tags!r}]")
        words = sorted(tags) if isinstance(tags, (set, frozenset)) else list(dict.fromkeys(tags))
        options["meta"] = {revisions.TAGS_META: words, **(options.get("meta") or {})}
    return options


def _callable(function: Any) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError(f"Write name={function!r}: the first argument is the function itself")
    return function  # type: ignore[no-any-return]
