"""What can be asked of a server, one method of the client each: tools, resources, prompts, changes, settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Optional, cast

from ..engines.errors import ProtocolError
from ..protocol import spec, wire
from . import listen as listening
from .answers import Answers, Roots
from .cache import Cache
from .call import ClientCall, RunningCall
from .connection import Connection
from .errors import ToolFailed
from .peer import Peer
from .results import Result
from .targets import Target

if TYPE_CHECKING:
    from ..protocol import types

Message = dict[str, Any]
OnMessage = Callable[[Message], Any]

MAX_PAGES = 1000
OPTIONS = {"check", "max_timeout", "meta", "progress", "timeout"}


class Methods:
    """The part of `Client` that speaks; the rest sees to the connection and has the settings."""

    target: Target
    trusted: bool
    _answers: Answers
    _approve: Optional[Callable[[Any], Any]]
    _cache: Optional[Cache]
    _check: bool
    _log_level: Optional[str]
    _max_timeout: Optional[float]
    _on_log: Optional[OnMessage]
    _timeout: Optional[float]
    _validate: bool

    def _connect(self) -> Connection:
        """The connection of this process."""
        raise NotImplementedError

    @property
    def peer(self) -> Peer:
        """The server as negotiation found it; opens the connection if need be."""
        return self._connect().ready()

    def request(self, method: str, params: Message | None = None, **options: Any) -> Result:
        """Send any request, such as one of an extension, and return its result.

        :param options: `timeout`, `max_timeout` (s), `meta` (a dict for `_meta`), `progress` (a callback).
        """
        progress = options.pop("progress", None)
        return self._call(method, params or {}, progress=progress is not None, **options).run(progress)  # type: ignore[no-any-return]

    def _call(
        self,
        method: str,
        params: Message,
        needs: tuple[str, ...] = (),
        finish: Callable[[Connection, Result], Any] | None = None,
        timeout: Any = ...,
        max_timeout: Any = ...,
        meta: Message | None = None,
        progress: bool = False,
    ) -> ClientCall:
        return ClientCall(
            self._connect,
            method,
            params,
            timeout_s=self._timeout if timeout is ... else timeout,
            max_timeout_s=self._max_timeout if max_timeout is ... else max_timeout,
            meta=meta,
            progress=progress,
            needs=needs,
            finish=finish,
            on_log=self._on_log,
        )

    def call_tool(self, name: str, arguments: Message | None = None, /, **more: Any) -> Result:
        """Call a tool and return its result.

        Keywords are the tool's arguments; with a dict of arguments they are options: `timeout`, `max_timeout` (s),
        `progress` (called with each), `check`, `meta`.

        :raises ToolFailed: when the tool says so and `check` is set.
        :raises ClientError: when there is no answer, or a wrong one.
        """
        arguments, options = _split(arguments, more)
        progress = options.pop("progress", None)
        call = self._tool_call(name, arguments, {**options, "progress": progress is not None})
        return call.run(progress)  # type: ignore[no-any-return]

    def start_tool(self, name: str, arguments: Message | None = None, /, **more: Any) -> RunningCall:
        """Start a call of a tool and return it at once: iterate over it for its progress, then take its `result()`.

        The call runs on a thread of its own. Arguments and options are those of `call_tool`.
        """
        arguments, options = _split(arguments, more)
        return RunningCall(self._tool_call(name, arguments, {**options, "progress": True}))

    def _tool_call(self, name: str, arguments: Message, options: Message) -> ClientCall:
        check = options.pop("check", self._check)
        if self._approve is not None:
            from .consent import ask

            ask(self._approve, self._tool(name), arguments, self.trusted, self.target.key)

        def finish(conn: Connection, result: Result) -> Result:
            if self._validate and "structuredContent" in result and conn.tools.get(name) is None:
                self._learn(conn)
            if self._validate:
                conn.tools.check_output(name, result)
            if check and result.is_error:
                raise ToolFailed(name, result)
            return result

        return self._call("tools/call", {"name": name, "arguments": arguments}, ("tools",), finish, **options)

    def _learn(self, conn: Connection) -> None:
        """List the tools once, so that the schema of a result is known."""
        if not conn.tools.complete:
            conn.tools.complete = True
            self.list_tools()

    def _tool(self, name: str) -> Message:
        """The definition of a tool, from a list if need be, for whoever approves the call."""
        conn = self._connect()
        conn.ready()
        if conn.tools.get(name) is None:
            self.list_tools()
        return conn.tools.get(name) or {"name": name}

    def list_tools(self, *, fresh: bool = False) -> list[types.Tool]:
        """Return all tools; `fresh` asks the server even if the last answer may still be used."""
        conn = self._connect()
        listed = self._list("tools/list", "tools", "tools", fresh)
        usable = conn.tools.learn(listed, conn.transport.kind in ("http", "wsgi"))
        conn.tools.complete = True
        return cast("list[types.Tool]", usable)

    def list_resources(self, *, fresh: bool = False) -> list[types.Resource]:
        """Return all resources that are listed."""
        return cast("list[types.Resource]", self._list("resources/list", "resources", "resources", fresh))

    def list_resource_templates(self, *, fresh: bool = False) -> list[types.ResourceTemplate]:
        """Return all resource templates."""
        found = self._list("resources/templates/list", "resourceTemplates", "resources", fresh)
        return cast("list[types.ResourceTemplate]", found)

    def list_prompts(self, *, fresh: bool = False) -> list[types.Prompt]:
        """Return all prompts."""
        return cast("list[types.Prompt]", self._list("prompts/list", "prompts", "prompts", fresh))

    def _list(self, method: str, key: str, capability: str, fresh: bool) -> list[Message]:
        """All pages of a list; a server that does not offer the kind has none of it. Spec: FEAT-113 to FEAT-120"""
        peer = self.peer
        if not peer.offers(capability):
            return []
        items: list[Message] = []
        params: Message = {}
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = self._cached(method, params, fresh)
            found = page.get(key)
            if not isinstance(found, list):
                raise ProtocolError(f"The server answered {method} without a list of {key}")
            items.extend(found)
            cursor = page.get("nextCursor")
            if cursor is None or (cursor == "" and peer.era.empty_cursor_ends):
                return items
            if not isinstance(cursor, str) or cursor in seen:
                raise ProtocolError(f"The pages of {method} have no end: a nextCursor is wrong or came twice")
            seen.add(cursor)
            params = {"cursor": cursor}
        raise ProtocolError(f"{method} has more than {MAX_PAGES} pages")

    def _cached(self, method: str, params: Message, fresh: bool, **options: Any) -> Result:
        """The result of a request, from the cache if it may be. Spec: FEAT-128 to FEAT-131"""
        conn = self._connect()
        cache = self._cache
        if cache is not None and not fresh and not options:
            found = cache.get(self.target.key, method, params, conn.identity)
            if found is not None:
                return Result(found)
        progress = options.pop("progress", None)
        call = self._call(method, params, progress=progress is not None, **options)
        result: Result = call.run(progress)
        if cache is not None and not options and not call.asked and conn.ready().era.caches:
            cache.put(self.target.key, method, params, conn.identity, result)
        return result

    def read_resource(self, uri: str, *, fresh: bool = False, **options: Any) -> Result:
        """Read a resource; `.text` and `.bytes` of the result have what is in it.

        :param options: as for `request`.
        """
        self.peer.need("resources/read", "resources")
        return self._cached("resources/read", {"uri": uri}, fresh, **options)

    def get_prompt(self, name: str, arguments: Message | None = None, /, **more: Any) -> Result:
        """Fetch a prompt, with its arguments as keywords, or as a dict followed by options as for `request`.

        Arguments of prompts are strings; other values go out as their JSON. Spec: FEAT-084
        """
        arguments, options = _split(arguments, more)
        self.peer.need("prompts/get", "prompts")
        texts = {key: value if isinstance(value, str) else wire.dump_text(value) for key, value in arguments.items()}
        return self.request("prompts/get", {"name": name, "arguments": texts}, **options)

    def complete(
        self,
        argument: str,
        value: str,
        *,
        prompt: str | None = None,
        template: str | None = None,
        given: dict[str, str] | None = None,
    ) -> Message:
        """Ask for completions of an argument of a prompt, or of a variable of a resource template.

        :param given: arguments that are already chosen.
        :return: `{"values": [...], "total"?: int, "hasMore"?: bool}`.
        """
        if (prompt is None) == (template is None):
            raise TypeError("Give either prompt= or template=")
        self.peer.need("completion/complete", "completions")
        ref = {"type": "ref/prompt", "name": prompt} if template is None else {"type": "ref/resource", "uri": template}
        params: Message = {"ref": ref, "argument": {"name": argument, "value": value}}
        if given:
            params["context"] = {"arguments": given}
        found = self.request("completion/complete", params).get("completion")
        if not isinstance(found, dict) or not isinstance(found.get("values"), list):
            raise ProtocolError("The server answered completion/complete without values")
        return found

    # Changes and settings

    def listen(
        self,
        *,
        tools: bool = False,
        prompts: bool = False,
        resources: bool = False,
        uris: Iterable[str] = (),
        task_ids: Iterable[str] = (),
        reconnect: bool = False,
    ) -> listening.Listen:
        """Open a subscription to changes of lists and of single resources (`uris`); it is an iterator and a context.

        :param reconnect: listen anew when the stream ends or breaks; what changed meanwhile is not told.
        """
        wanted = listening.wanted(tools, prompts, resources, uris, task_ids)
        return listening.Listen(self._connect(), wanted, reconnect)

    def subscribe(self, uri: str) -> None:
        """Legacy: have changes of a resource told to `on_notification`; `listen(uris=[uri])` works on both eras."""
        self.peer.need("resources/subscribe", "resources", "subscribe")
        self._connect().transport.listen()
        self.request("resources/subscribe", {"uri": uri})

    def unsubscribe(self, uri: str) -> None:
        """Legacy: end a subscription."""
        self.peer.need("resources/unsubscribe", "resources", "subscribe")
        self.request("resources/unsubscribe", {"uri": uri})

    def ping(self, timeout: float | None = None) -> None:
        """Legacy: ask for a sign of life."""
        self.request("ping", timeout=timeout or self._timeout)

    def set_log_level(self, level: str) -> None:
        """Ask for log messages of this level and above, for `on_log`."""
        if level not in spec.LOG_LEVELS:
            raise ValueError(f"level must be one of {', '.join(spec.LOG_LEVELS)}")
        peer = self.peer
        self._log_level = self._connect().log_level = level
        if "logging/setLevel" not in peer.era.absent:
            peer.need("logging/setLevel", "logging")
            self.request("logging/setLevel", {"level": level})

    def set_roots(self, roots: Roots) -> None:
        """Replace the roots; a legacy server is told that they changed. Spec: FEAT-149

        :raises ProtocolError: when the client was made without roots, so that none were declared.
        """
        if self._answers.roots is None:
            raise ProtocolError("Make the client with roots=, if only [], to declare that it has some")
        self._answers.roots = roots
        conn = self._connect()
        if "subscriptions/listen" in conn.ready().era.absent:
            conn.notify("notifications/roots/list_changed")


def _split(arguments: Message | None, more: Message) -> tuple[Message, Message]:
    """Keywords are arguments, unless there is a dict of arguments; then they are options.

    :raises TypeError: for an option that there is not, and for what can only be meant as one.
    """
    if arguments is not None:
        unknown = more.keys() - OPTIONS
        if unknown:
            raise TypeError(f"There is no option {sorted(unknown)[0]!r}; there are {', '.join(sorted(OPTIONS))}")
        return arguments, dict(more)
    for name, value in more.items():
        if callable(value):
            raise TypeError(
                f"{name}= cannot be an argument; options follow a dict of arguments: (name, {{...}}, {name}=...)"
            )
    return more, {}
