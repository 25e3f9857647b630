"""The face of the client: an object that blocks, usable from any thread for the life of the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Optional

from .. import __version__
from ..protocol import spec
from ..protocol.errors import ProtocolError, ToolFailed, UsedAfterFork
from . import listen as listening
from . import targets, tasks
from .answers import Answers, Elicit, Roots, Sample
from .cache import Cache
from .calls import Call
from .connection import Connection
from .negotiation import MODES
from .peer import Peer
from .results import Result
from .steps import Manual, StepByStep

if TYPE_CHECKING:
    from .trace import Recorder

Message = dict[str, Any]
OnMessage = Callable[[Message], Any]

MAX_PAGES = 1000


class Client(StepByStep):
    """A connection to a Model Context Protocol server of any revision.

    It opens on first use, or with `open()` or `with`; `close()` ends it. Both may be called from any thread.

    :param target: the URL of an HTTP server; a command as a list or string; a Python file; an entry, a dict or a .json
        file of the `mcpServers` form; a `Server`; or a WSGI callable.
    :param server: the name of the entry, when the form has several.
    :param mode: "auto" finds out; "legacy", "modern" or one revision allows nothing else.
    :param discovery: what `discovery` of an earlier client said, to save the question.
    :param info: what the client calls itself, `{"name": ..., "version": ...}`.
    :param elicit: `f(question)` puts a form or a page to a person; see `answers.Answers` for what it returns.
    :param sample: `f(params)` asks a model; `sample_tools=True` when it can use tools.
    :param roots: folders the server may know of, or a function that returns them.
    :param on_log: takes the params of log messages; `log_level` asks for them.
    :param on_notification: takes every other notification; it runs on a thread of its own.
    :param approve: `f(proposal)` is asked before every tool call; see `consent`.
    :param trusted: whether to believe what the server says about its tools. Spec: FEAT-012
    :param auth: a `requests.auth.AuthBase` such as `OAuth`, for HTTP.
    :param session: a `requests.Session` with proxies, certificates or adapters of your own.
    :param env: variables for the process, beside a few harmless ones of this one; `cwd` its folder.
    :param stderr: takes the lines a process writes there: a callable or a file.
    :param restart: start a process anew that died, or that belongs to the parent of a fork.
    :param timeout: seconds without a sign of life after which a call is given up; None waits for ever.
    :param max_timeout: seconds after which it is given up in any case.
    :param check: whether a tool's `isError` raises `ToolFailed`.
    :param validate: whether structured results are held against the tool's output schema.
    :param cache: keep what the server allows to be kept: True, False, or a `Cache` shared with other clients.
    :param tasks: whether a server may answer a call with a task, which is then followed to its end.
    :param extensions: further extensions to declare, `{identifier: settings}`.
    :param trace: True, a file, a path or a callable that takes every message; see `trace`.
    :param auto: False for going step by step; see `steps`.
    """

    def __init__(
        self,
        target: Any,
        *,
        server: str | None = None,
        mode: str = "auto",
        discovery: Message | None = None,
        info: Message | None = None,
        elicit: Elicit | None = None,
        sample: Sample | None = None,
        sample_tools: bool = False,
        roots: Roots | None = None,
        on_log: OnMessage | None = None,
        log_level: str | None = None,
        on_notification: OnMessage | None = None,
        approve: Callable[[Any], Any] | None = None,
        trusted: bool = False,
        auth: Any = None,
        headers: dict[str, str] | None = None,
        session: Any = None,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        stderr: Any = None,
        restart: bool = False,
        timeout: float | None = 60.0,
        max_timeout: float | None = 600.0,
        probe_timeout: float = 5.0,
        check: bool = False,
        validate: bool = True,
        cache: bool | Cache = True,
        tasks: bool = False,
        extensions: Message | None = None,
        trace: Any = None,
        auto: bool = True,
        limits: dict[str, float] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, not {mode!r}")
        if log_level is not None and log_level not in spec.LOG_LEVELS:
            raise ValueError(f"log_level must be one of {', '.join(spec.LOG_LEVELS)}")
        options = {"headers": headers, "auth": auth, "session": session, "env": env, "cwd": cwd}
        options.update(stderr=stderr, limits=limits)
        self.target = targets.read(target, server, options)
        self.trusted = trusted
        self._mode = mode
        self._discovery = discovery
        self._info = {"name": "minimcp", "version": __version__} if info is None else info
        self._answers = Answers(elicit, sample, roots, sample_tools)
        self._on_log = on_log
        self._log_level = log_level
        self._on_notification = on_notification
        self._approve = approve
        self._restart = restart
        self._timeout = timeout
        self._max_timeout = max_timeout
        self._probe_timeout = probe_timeout
        self._check = check
        self._validate = validate
        self._cache = Cache() if cache is True else cache or None
        self._extensions = {**(getattr(auth, "extensions", None) or {}), **(extensions or {})}
        if tasks:
            self._extensions.setdefault(_TASKS, {})
        self._record: Recorder | None = None
        if trace:
            from .trace import recorder

            self._record = recorder(trace)
        self._auto = auto
        self._connections: dict[int, Connection] = {}
        self._lock = threading.Lock()  # guards replacing a connection

    # Opening and closing

    def open(self) -> Client:
        """Connect and find out what the server speaks, if that has not happened yet.

        :raises ClientError: when that fails.
        """
        self._discard_closed()
        self._connect().ready()
        return self

    def _discard_closed(self) -> None:
        pid = os.getpid()
        with self._lock:
            found = self._connections.get(pid)
            if found is not None and found.closed:
                del self._connections[pid]

    def close(self) -> None:
        """Hang up; calls that wait fail. The client can be opened again."""
        found = self._connections.get(os.getpid())
        if found is not None:
            found.close()

    def __enter__(self) -> Client:
        return self.open() if self._auto else self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.target.name!r}: {self.state}>"

    @property
    def state(self) -> str:
        """ "new", "open", "lost" or "closed"; step by step also "started", "discovered", "initializing", "ready"."""
        found = self._connections.get(os.getpid())
        if isinstance(found, Manual):
            return found.state
        if found is None or (found.peer is None and not found.closed):
            return "new"
        return "closed" if found.closed else "open" if found.lost is None else "lost"

    def _connect(self) -> Connection:
        """The connection of this process."""
        pid = os.getpid()
        found = self._connections.get(pid)
        if found is not None and (found.lost is None or found.closed or not self._restart):
            return found
        # After a fork the lock may have been held by a thread that does not exist here.
        lock = self._lock if not self._connections or pid in self._connections else threading.Lock()
        with lock:
            found = self._connections.get(pid)
            if found is None or (found.lost is not None and self._restart):
                inherited = [
                    conn for owner, conn in self._connections.items() if owner != pid and conn.peer is not None
                ]
                if found is None and inherited and not inherited[-1].link.survives_fork and not self._restart:
                    raise UsedAfterFork(
                        f"{self.target.name} was started by the parent process; make a Client in this one, "
                        "or pass restart=True to start another server here"
                    )
                self._lock = lock if found is not None else threading.Lock()
                found = self._connections[pid] = self._make()
            return found

    def _make(self) -> Connection:
        conn = (Connection if self._auto else Manual)(
            self.target.links,
            self.target.key,
            mode=self._mode,
            greeting=self._discovery,
            info=self._info or None,
            answers=self._answers,
            extensions=self._extensions,
            record=self._record,
            cache=self._cache,
            timeout_s=self._timeout or 60.0,
            probe_timeout_s=self._probe_timeout,
            watch=bool(self._answers or self._on_log or self._on_notification),
            on_notice=self._notice,
        )
        conn.log_level = self._log_level
        conn.relist = lambda: self.list_tools(fresh=True)
        return conn

    def _notice(self, message: Message) -> None:
        if message["method"] == "notifications/message" and self._on_log is not None:
            self._on_log(message.get("params", {}))
        elif self._on_notification is not None:
            self._on_notification(message)

    # What the server is

    @property
    def peer(self) -> Peer:
        """The server as negotiation found it; opens the connection if need be."""
        return self._connect().ready()

    @property
    def protocol_version(self) -> str:
        """The revision that is spoken."""
        return self.peer.version

    @property
    def server_info(self) -> Message:
        """What the server calls itself; not verified. Spec: BASE-047"""
        return self.peer.info

    @property
    def capabilities(self) -> Message:
        """What the server declared, {} when it did not say."""
        return self.peer.capabilities or {}

    @property
    def instructions(self) -> Optional[str]:
        """The server's hint on how to use it, or None."""
        return self.peer.instructions

    @property
    def discovery(self) -> Message:
        """What was found out about a modern server, to be given to the next client as `discovery=`."""
        return {**self.peer.greeting, "protocolVersion": self.peer.version}

    # Requests

    def request(self, method: str, params: Message | None = None, **options: Any) -> Result:
        """Send any request, such as one of an extension, and return its result.

        :param options: `timeout`, `max_timeout` (s), `meta` (a dict for `_meta`), `progress` (a callback).
        """
        progress = options.pop("progress", None)
        return self._call(method, params or {}, progress=progress is not None, **options).result(progress)  # type: ignore[no-any-return]

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
    ) -> Call:
        return Call(
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
        return call.result(progress)  # type: ignore[no-any-return]

    def start_tool(self, name: str, arguments: Message | None = None, /, **more: Any) -> Call:
        """Like `call_tool`, but return the call: iterate over it for its progress, then take its `result()`."""
        arguments, options = _split(arguments, more)
        return self._tool_call(name, arguments, {**options, "progress": True})

    def _tool_call(self, name: str, arguments: Message, options: Message) -> Call:
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

    def list_tools(self, *, fresh: bool = False) -> list[Message]:
        """Return all tools; `fresh` asks the server even if the last answer may still be used."""
        conn = self._connect()
        listed = self._list("tools/list", "tools", "tools", fresh)
        usable = conn.tools.learn(listed, conn.link.kind in ("http", "wsgi"))
        conn.tools.complete = True
        return usable

    def list_resources(self, *, fresh: bool = False) -> list[Message]:
        """Return all resources that are listed."""
        return self._list("resources/list", "resources", "resources", fresh)

    def list_resource_templates(self, *, fresh: bool = False) -> list[Message]:
        """Return all resource templates."""
        return self._list("resources/templates/list", "resourceTemplates", "resources", fresh)

    def list_prompts(self, *, fresh: bool = False) -> list[Message]:
        """Return all prompts."""
        return self._list("prompts/list", "prompts", "prompts", fresh)

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
        result: Result = call.result(progress)
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
        """Fetch a prompt, with its arguments as keywords, or as a dict followed by options as for `request`."""
        arguments, options = _split(arguments, more)
        self.peer.need("prompts/get", "prompts")
        return self.request("prompts/get", {"name": name, "arguments": arguments}, **options)

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
        self._connect().link.listen()
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


_TASKS = tasks.EXTENSION


def _split(arguments: Message | None, more: Message) -> tuple[Message, Message]:
    """Keywords are arguments, unless there is a dict of arguments; then they are options."""
    return (more, {}) if arguments is None else (arguments, dict(more))


def clients(config: Any, **options: Any) -> dict[str, Client]:
    """A client for each entry of an `mcpServers` dict or file, by name; none is opened yet.

    :param options: for every client, as of `Client`.
    """
    return {name: Client(entry, **options) for name, entry in targets.entries(config).items()}
