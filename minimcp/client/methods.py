"""The methods of a client, one for each request to a server: tools, resources, prompts, changes, settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Optional, cast

from ..engines.bounds import weight
from ..engines.errors import ClientError, ProtocolError, Timeout
from ..protocol import revisions, spec, wire
from . import advice
from . import listen as listening
from .answers import Roots
from .call import ClientCall
from .connection import Connection, Reply
from .eras import Peer
from .errors import RemoteError, ToolFailed
from .options import Settings, split, to_arguments
from .relay import RawCall
from .results import Result, listing
from .running import RunningCall
from .tracebacks import short_traceback
from .transports.waiting import Deadline

if TYPE_CHECKING:
    from ..protocol import types

log = logging.getLogger("minimcp")

Message = dict[str, Any]

MAX_PAGES = 1000
MAX_LIST_BYTES = 64 * 1024 * 1024  # of all pages together, as they are kept


class Methods:
    """The requests of `Client`, whose other half opens the connection."""

    settings: Settings

    def _connect(self) -> Connection:
        """Return the connection of this process."""
        raise NotImplementedError

    @property
    def peer(self) -> Peer:
        """The server as negotiation found it; opens the connection if need be."""
        return self._connect().ready()

    @short_traceback
    def request(self, method: str, params: Message | None = None, **options: Any) -> Result:
        """Send any request, such as one of an extension, and return its result.

        :param options: `timeout`, `max_timeout` (s), `meta` (a dict for `_meta`), `progress` (a callback).
        """
        progress = options.pop("progress", None)
        call = self._call(method, params or {}, progress=progress is not None, **options)
        return call.run(progress)  # type: ignore[no-any-return]

    def notify(self, method: str, params: Message | None = None) -> None:
        """Send a notification, such as one of an extension."""
        conn = self._connect()
        conn.ready()
        conn.send_notification(method, params)

    def exchange(
        self,
        method: str,
        params: Message | None = None,
        meta: Message | None = None,
        on_message: Optional[Callable[[Message, Optional[Reply]], Any]] = None,
        timeout: Any = ...,
        headers: Optional[dict[str, str]] = None,
        on_start: Optional[Callable[[Callable[[], None]], Any]] = None,
        tool: Optional[Message] = None,
    ) -> Message:
        """Send one request and return the result exactly as it came, for a relay; nothing in it is interpreted.

        :param meta: the `_meta` of the request, by default that in the params. It goes out as it is, but for the
            protocol version, which is that of this connection, and the `progressToken`, which must be this client's
            own: progress comes back under the token given here. In the modern era missing members are added.
        :param on_message: `f(message, reply)` is called with each message that comes before the answer. For a
            notification reply is None. A request of the server is answered by `reply({"result": {...}})` or
            `reply({"error": {...}})` before the function returns; it runs on a thread of its own, and its time does not
            count. By default the client's callbacks get these messages.
        :param headers: headers of this one request, where it goes over HTTP.
        :param on_start: `f(cancel)` is called first, with a function that ends the call from any thread.
        :param tool: the definition of the tool that is called, if it wants some arguments mirrored in headers.
        :raises RemoteError: when the answer is an error.
        :raises ClientError: when there is no answer.
        """
        settings = self.settings
        timeout_s = settings.timeout_s if timeout is ... else timeout
        call = RawCall(method, params or {}, meta, on_message, timeout_s, settings.max_timeout_s, headers)
        if on_start is not None:
            on_start(call.cancel)
        conn = self._connect()
        if tool is not None and conn.tools.get(tool["name"]) != tool:
            conn.tools.learn([tool], True)
        return call.run(conn)

    def _call(self, method: str, params: Message, **options: Any) -> ClientCall:
        return ClientCall(self._connect, self.settings, method, params, **options)

    @short_traceback
    def call_tool(self, name: str, arguments: Message | None = None, /, *others: NoReturn, **more: Any) -> Result:
        """Call a tool and return its result.

        A tool that failed is a result too, whose text a model may read: look at `.is_error`, or say `check=True`, here
        or of the client, to have `ToolFailed` raised.

        Keywords are the tool's arguments; with a dict of arguments they are options: `timeout`, `max_timeout` (s),
        `progress` (called with each), `check`, `meta`.

        :raises ToolFailed: when the result has `isError` and `check` is set.
        :raises ClientError: when there is no answer, or a wrong one.
        """
        arguments, options = self._split_tool("call_tool", name, arguments, more, others)
        progress = options.pop("progress", None)
        call = self._tool_call(name, arguments, {**options, "progress": progress is not None})
        return call.run(progress)  # type: ignore[no-any-return]

    def _split_tool(
        self, method: str, name: str, arguments: Message | None, more: Message, others: tuple[NoReturn, ...]
    ) -> tuple[Message, Message]:
        """Return the arguments and the options of a call of a tool; see `options.split`."""
        arguments, options = split(method, name, arguments, more, others)
        if arguments is more:
            advice.check_keywords(name, more, lambda: (self._tool(name) or {}).get("inputSchema"))
        return arguments, options

    @short_traceback
    def start_tool(self, name: str, arguments: Message | None = None, /, *others: NoReturn, **more: Any) -> RunningCall:
        """Start a call of a tool and return it at once: iterate over it for its progress, then take its `result()`.

        The call runs on a thread of its own until it ends, is cancelled, or nobody holds it any more. Arguments and
        options are those of `call_tool`.
        """
        arguments, options = self._split_tool("start_tool", name, arguments, more, others)
        return RunningCall(self._tool_call(name, arguments, {**options, "progress": True}))

    def task(self, id: str, *, check: bool | None = None, **options: Any) -> RunningCall:
        """Come back to a task by its id, perhaps in another process than the one that started it, and follow it.

        :param check: whether a result with `isError` raises `ToolFailed`; by default as the client does.
        :param options: `timeout`, `max_timeout` (s), `meta` (a dict for `_meta`).
        """
        settings = self.settings
        if spec.TASKS not in settings.extensions:
            raise ProtocolError("Make the client with tasks=True: it does not declare the tasks extension")
        if self.peer.era.name != "modern":
            raise ProtocolError(f"{self.peer.name} speaks {self.peer.version}, which has no such tasks")

        def finish(conn: Connection, result: Result) -> Result:
            if result.is_error and (settings.check if check is None else check):
                raise ToolFailed(f"task {id}", result)
            return result

        return RunningCall(self._call("tasks/get", {"taskId": id}, finish=finish, follow=True, **options))

    def _near(self, name: str) -> str:
        """Return the question whether a tool of a similar name was meant, or "" without one."""
        return advice.near(name, self.list_tools)

    def _tool_call(self, name: str, arguments: Message, options: Message) -> ClientCall:
        settings = self.settings
        arguments = to_arguments(arguments)
        check = options.pop("check", settings.check)
        if settings.approve is not None:
            from .consent import ask

            ask(settings.approve, self._tool(name) or {"name": name}, arguments, settings.trusted, settings.target)

        def finish(conn: Connection, result: Result) -> Result:
            structured = result.get("structuredContent")
            single = isinstance(structured, dict) and structured.keys() == {"result"}
            due = "structuredContent" in result or self.peer.version >= revisions.STRUCTURED_SINCE
            if (single or (settings.validate and due and not result.is_error)) and conn.tools.get(name) is None:
                self._learn(conn)
            if settings.validate:
                conn.tools.check_output(name, result)
            result.wrapped = single and conn.tools.wraps(name)
            if check and result.is_error:
                raise ToolFailed(name, result)
            return result

        params = {"name": name, "arguments": arguments}
        call = self._call("tools/call", params, needs=("tools",), finish=finish, **options)
        call.advise = lambda problem: advice.about(self, "tools/call", name, problem)
        return call

    def _learn(self, conn: Connection) -> None:
        """List the tools once, so that the schema of a result is known; a result is not lost when that fails."""
        if not conn.tools.complete:
            conn.tools.complete = True
            try:
                self.list_tools()
            except ClientError as error:
                log.warning("no result is judged, because the tools could not be listed: %.300s", error)

    def _tool(self, name: str) -> Message | None:
        """Return the definition of a tool, listing the tools if need be, or None for an unknown one."""
        conn = self._connect()
        conn.ready()
        if conn.tools.get(name) is None:
            self.list_tools()
        return conn.tools.get(name)

    @short_traceback
    def list_tools(self, *, fresh: bool = False) -> list[types.Tool]:
        """Return all tools; `fresh` asks the server even if the last answer may still be used."""
        conn = self._connect()
        listed = self._list("tools/list", "tools", "tools", fresh)
        usable = conn.tools.learn(listed, conn.transport.kind in ("http", "wsgi"))
        conn.tools.complete = True
        return cast("list[types.Tool]", listing(usable))

    @short_traceback
    def list_resources(self, *, fresh: bool = False) -> list[types.Resource]:
        """Return all resources that are listed."""
        found = self._list("resources/list", "resources", "resources", fresh)
        return cast("list[types.Resource]", listing(found))

    @short_traceback
    def list_resource_templates(self, *, fresh: bool = False) -> list[types.ResourceTemplate]:
        """Return all resource templates."""
        found = self._list("resources/templates/list", "resourceTemplates", "resources", fresh)
        return cast("list[types.ResourceTemplate]", listing(found))

    @short_traceback
    def list_prompts(self, *, fresh: bool = False) -> list[types.Prompt]:
        """Return all prompts."""
        return cast("list[types.Prompt]", listing(self._list("prompts/list", "prompts", "prompts", fresh)))

    def _list(self, method: str, key: str, capability: str, fresh: bool) -> list[Message]:
        """Return all pages of a list, [] when the server does not offer the kind. Spec: FEAT-113 to FEAT-120"""
        peer = self.peer
        if not peer.offers(capability):
            return []
        items: list[Message] = []
        params: Message = {}
        seen: set[str] = set()
        deadline = Deadline(self.settings.timeout_s, self.settings.max_timeout_s)
        room, again = MAX_LIST_BYTES, False
        for _ in range(MAX_PAGES):
            if not deadline.can_extend():
                raise Timeout(f"The pages of {method} did not end in time")
            deadline.restart()
            try:
                page = self._cached(method, params, fresh, deadline)
            except RemoteError as problem:
                if again or not params or problem.code != spec.INVALID_PARAMS:
                    raise
                # The cursor is no longer good, perhaps since the page that named it was kept. Spec: FEAT-138
                items, params, seen, fresh, again = [], {}, set(), True, True
                continue
            room -= weight(page, room)
            if room < 0:
                raise ProtocolError(f"The pages of {method} are larger than {MAX_LIST_BYTES} bytes")
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

    def _cached(
        self, method: str, params: Message, fresh: bool, deadline: Deadline | None = None, **options: Any
    ) -> Result:
        """Return the result of a request, from the cache if that is allowed. Spec: FEAT-128 to FEAT-131"""
        conn = self._connect()
        cache, server = self.settings.cache, self.settings.target.key
        if cache is not None and not fresh and not options:
            found = cache.get(server, method, params, conn.transport.identity)
            if found is not None:
                return Result(found)
        since = cache.changes if cache is not None else None
        progress = options.pop("progress", None)
        call = self._call(method, params, progress=progress is not None, deadline=deadline, **options)
        result: Result = call.run(progress)
        if cache is not None and not options and not call.asked and conn.ready().era.caches:
            cache.put(server, method, params, call.identity, result, since)
        return result

    @short_traceback
    def read_resource(self, uri: str, *, fresh: bool = False, **options: Any) -> Result:
        """Read a resource; `.text` and `.bytes` of the result are its contents.

        :param options: as for `request`.
        """
        self.peer.require("resources/read", "resources")
        try:
            return self._cached("resources/read", {"uri": uri}, fresh, **options)
        except RemoteError as problem:
            problem.args = (f"{problem}{advice.about(self, 'resources/read', uri, problem)}",)
            raise

    @short_traceback
    def get_prompt(self, name: str, arguments: Message | None = None, /, *others: NoReturn, **more: Any) -> Result:
        """Fetch a prompt, with its arguments as keywords, or as a dict followed by options as for `request`.

        Arguments of prompts are strings; other values go out as their JSON. Spec: FEAT-084
        """
        arguments, options = split("get_prompt", name, arguments, more, others)
        self.peer.require("prompts/get", "prompts")
        if arguments is more:
            advice.check_keywords(name, more, lambda: advice.prompt_schema(self.list_prompts(), name))
        texts = {key: value if isinstance(value, str) else wire.dump_text(value) for key, value in arguments.items()}
        progress = options.pop("progress", None)
        call = self._call("prompts/get", {"name": name, "arguments": texts}, progress=progress is not None, **options)
        call.advise = lambda problem: advice.about(self, "prompts/get", name, problem)
        return call.run(progress)  # type: ignore[no-any-return]

    @short_traceback
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
        self.peer.require("completion/complete", "completions")
        ref = {"type": "ref/prompt", "name": prompt} if template is None else {"type": "ref/resource", "uri": template}
        params: Message = {"ref": ref, "argument": {"name": argument, "value": value}}
        if given:
            params["context"] = {"arguments": given}
        params = revisions.known(self.peer.version, params, revisions.COMPLETION_FIELDS_SINCE)
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

        :param reconnect: listen again when the stream ends or breaks, or a process was started again; changes in
            between are missed.
        """
        wanted = listening.wanted(tools, prompts, resources, uris, task_ids)
        return listening.Listen(self._connect, wanted, reconnect)

    def subscribe(self, uri: str) -> None:
        """Legacy: ask for changes of a resource, for `on_notification`; `listen(uris=[uri])` works in both eras."""
        self.peer.require("resources/subscribe", "resources", "subscribe")
        self._connect().transport.listen()
        self.request("resources/subscribe", {"uri": uri})

    def unsubscribe(self, uri: str) -> None:
        """Legacy: end a subscription."""
        self.peer.require("resources/unsubscribe", "resources", "subscribe")
        self.request("resources/unsubscribe", {"uri": uri})

    def ping(self, timeout: float | None = None) -> None:
        """Legacy: check that the server answers."""
        self.request("ping", timeout=timeout or self.settings.timeout_s)

    def set_log_level(self, level: str) -> None:
        """Ask for log messages of this level and above, for `on_log`."""
        if level not in spec.LOG_LEVELS:
            raise ValueError(f"level must be one of {', '.join(spec.LOG_LEVELS)}")
        peer = self.peer
        self.settings = self._connect().settings = self.settings._replace(log_level=level)
        if "logging/setLevel" not in peer.era.absent:
            peer.require("logging/setLevel", "logging")
            self.request("logging/setLevel", {"level": level})

    def set_roots(self, roots: Roots) -> None:
        """Replace the roots; a legacy server is told that they changed. Spec: FEAT-149

        :raises ProtocolError: when the client was made without roots, so that none were declared.
        """
        if self.settings.answers.roots is None:
            raise ProtocolError("Make the client with roots=, if only [], to declare that it has some")
        self.settings.answers.roots = roots
        conn = self._connect()
        if "subscriptions/listen" in conn.ready().era.absent:
            conn.send_notification("notifications/roots/list_changed")
