"""`Client`: blocking calls of a server, from any thread, for the life of the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from .. import __version__
from ..engines.errors import ProtocolError
from ..engines.fork import PerProcess
from ..protocol import app_pages, spec
from ..protocol.revisions import check_extension
from . import targets
from .answers import Answers, Elicit, Roots, Sample
from .cache import Cache
from .connection import Connection
from .errors import RemoteError, UsedAfterFork
from .methods import Methods
from .negotiation import MODES, negotiate
from .options import OnMessage, Settings, check_callback, check_seconds
from .results import Item
from .tracebacks import short_traceback

if TYPE_CHECKING:
    from .sandbox import Sandbox
    from .tool_page import AppPage

Message = dict[str, Any]


class Client(Methods):
    """A connection to a Model Context Protocol server of any revision.

    It opens on first use, or with `open()` or `with`; `close()` ends it. Both may be called from any thread.

    :param target: the URL of an HTTP server; a command as a list or string; a Python file, or "FILE.py:NAME" where it
        has several Servers; an entry, a dict or a .json file of the `mcpServers` form; a `Server`; or a WSGI callable.
    :param server: the name of the entry, when the form has several.
    :param mode: "auto" finds out; "legacy", "modern" or one revision allows nothing else.
    :param discovery: `discovery` of an earlier client, to save the probe.
    :param info: the client's own name and version, `{"name": ..., "version": ...}`.
    :param elicit: `f(question)` puts a form or a page to a person; see `answers.Answers` for its result.
    :param sample: `f(params)` asks a model; `sample_tools=True` when it can use tools.
    :param roots: folders the server may know of, or a function that returns them.
    :param on_log: takes the params of log messages; `log_level` asks for them.
    :param on_notification: takes every other notification; it runs on a thread of its own.
    :param approve: `f(proposal)` is asked before every tool call; see `consent`.
    :param trusted: whether to believe the server's annotations of its tools. Spec: FEAT-012
    :param auth: credentials for HTTP: a bearer token, `OAuth`, a user and a password, or what `requests` takes.
    :param session: a `requests.Session` with proxies, certificates or adapters of your own.
    :param env: variables for the process, beside a few harmless ones of this one; `cwd` its folder.
    :param stderr: takes the lines a process writes there: a callable, a file, or False for nothing; by default they are
        shown on this process's own standard error.
    :param sandbox: bounds what the process may use and see.
    :param restart: start a process again that died, or that belongs to the parent of a fork.
    :param timeout: seconds without a sign of life after which a call is given up; None waits for ever.
    :param max_timeout: seconds after which it is given up in any case.
    :param probe_timeout: seconds to wait for an answer to the question whether a server is modern; some legacy servers
        never give one.
    :param check: whether a tool's `isError` raises `ToolFailed`.
    :param validate: whether structured results are checked against the tool's output schema.
    :param cache: keep results as the server allows: True, False, or a `Cache` shared with other clients.
    :param tasks: whether a server may answer a call with a task, which is then followed to its end.
    :param apps: whether this host shows the pages of tools (MCP Apps); see `app`.
    :param extensions: further extensions to declare, `{identifier: settings}`.
    :param capabilities: the capabilities to declare in place of those that the callbacks mean: a relay answers itself
        what a server asks, in its calls by `exchange`, elsewhere by `on_request`, an `f(request) -> result`.
    :param trace: True, "pretty", a file, a path or a callable that takes every message; see `minimcp.engines.trace`.
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
        sandbox: Sandbox | None = None,
        restart: bool = False,
        timeout: float | None = 60.0,
        max_timeout: float | None = 600.0,
        probe_timeout: float = 5.0,
        check: bool = False,
        validate: bool = True,
        cache: bool | Cache = True,
        tasks: bool = False,
        apps: bool = False,
        extensions: Message | None = None,
        capabilities: Message | None = None,
        on_request: Callable[[Message], Message] | None = None,
        trace: Any = None,
        limits: dict[str, float] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, not {mode!r}")
        if log_level is not None and log_level not in spec.LOG_LEVELS:
            raise ValueError(f"log_level must be one of {', '.join(spec.LOG_LEVELS)}")
        for name, limit in (("timeout", timeout), ("max_timeout", max_timeout), ("probe_timeout", probe_timeout)):
            check_seconds(name, limit)
        for name, callback in (
            ("elicit", elicit),
            ("sample", sample),
            ("on_log", on_log),
            ("on_notification", on_notification),
            ("approve", approve),
            ("on_request", on_request),
        ):
            check_callback(name, callback)
        options = {"headers": headers, "auth": auth, "session": session, "env": env, "cwd": cwd}
        options.update(stderr=stderr, sandbox=sandbox, limits=limits)
        declared = {**(getattr(auth, "extensions", None) or {}), **(extensions or {})}
        if tasks:
            declared.setdefault(spec.TASKS, {})
        if apps:
            declared.setdefault(app_pages.IDENTIFIER, {"mimeTypes": [app_pages.MEDIA_TYPE]})
        for identifier in declared:
            check_extension(identifier)
        record = None
        if trace:
            from ..engines.trace import recorder
            from ..protocol.redaction import NAMES

            record = recorder(trace, NAMES)
        self.settings = Settings(
            target=targets.read(target, server, options),
            mode=mode,
            discovery=discovery,
            info={"name": "minimcp", "version": __version__} if info is None else info or None,
            answers=Answers(elicit, sample, roots, sample_tools),
            on_log=on_log,
            log_level=log_level,
            on_notification=on_notification,
            approve=approve,
            trusted=trusted,
            restart=restart,
            timeout_s=timeout,
            max_timeout_s=max_timeout,
            probe_timeout_s=probe_timeout,
            check=check,
            validate=validate,
            cache=Cache() if cache is True else cache or None,
            extensions=declared,
            record=record,
            capabilities=capabilities,
            on_request=on_request,
        )
        self._own = PerProcess(_Own)
        self._newest: Connection | None = None  # in a forked child at first the parent's

    # Opening and closing

    @short_traceback
    def open(self) -> Client:
        """Connect and find out the server's revision, if that has not happened yet.

        :raises ClientError: when that fails.
        """
        own = self._own()
        with own.lock:
            if own.conn is not None and own.conn.closed:
                own.conn = None
        self._connect().ready()
        return self

    def close(self) -> None:
        """Hang up; calls that wait fail. The client can be opened again."""
        conn = self._own().conn
        if conn is not None:
            conn.close()

    def __enter__(self) -> Client:
        return self.open()

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __aenter__(self) -> NoReturn:
        raise TypeError("This client is synchronous: write `with Client(...) as client:`, without async")

    __aexit__ = __aenter__

    def __repr__(self) -> str:
        return f"<Client of {self.target.name!r}: {self.state}>"

    @property
    def target(self) -> targets.Target:
        """The server that the client is for."""
        return self.settings.target

    @property
    def state(self) -> str:
        """ "new", "open", "lost" or "closed"."""
        conn = self._own().conn
        if conn is None or (conn.peer is None and not conn.closed):
            return "new"
        return "closed" if conn.closed else "open" if conn.lost is None else "lost"

    def _connect(self) -> Connection:
        own = self._own()
        conn = own.conn
        if conn is not None and (conn.lost is None or conn.closed or not self.settings.restart):
            return conn
        with own.lock:
            conn = own.conn
            if conn is None:
                self._check_inherited()
            if conn is None or (conn.lost is not None and self.settings.restart):
                conn = own.conn = self._newest = Connection(
                    self.settings, negotiate, lambda: self.list_tools(fresh=True)
                )
            return conn

    def _check_inherited(self) -> None:
        """Refuse to replace a parent's connection that a forked child cannot use."""
        conn = self._newest
        if conn is None or conn.pid == os.getpid() or conn.peer is None:
            return
        if not conn.transport.survives_fork and not self.settings.restart:
            raise UsedAfterFork(
                f"{self.target.name} was started by the parent process; make a Client in this one, "
                "or pass restart=True to start another server here"
            )

    # What the server is

    @property
    def protocol_version(self) -> str:
        """The revision that both sides speak."""
        return self.peer.version

    @property
    def transport(self) -> str:
        """The way to the server that was found: "stdio", "http", "sse", "wsgi" or "memory"."""
        conn = self._connect()
        conn.ready()
        return conn.transport.kind

    @property
    def server_info(self) -> Message:
        """The server's own name and version, not verified. Spec: BASE-047"""
        return Item(self.peer.info)

    @property
    def capabilities(self) -> Message:
        """The server's capabilities, {} when it declared none."""
        return self.peer.capabilities or {}

    @property
    def instructions(self) -> Optional[str]:
        """The server's hint on how to use it, or None."""
        return self.peer.instructions

    @property
    def discovery(self) -> Message:
        """The outcome of negotiation; as `discovery=` of the next client it saves the probe."""
        return {**self.peer.greeting, "protocolVersion": self.peer.version}

    @short_traceback
    def list_all(self, *, fresh: bool = False) -> dict[str, list[Any]]:
        """Return all that the server lists: by `tools`, `resources`, `resourceTemplates` and `prompts`."""
        calls: dict[str, Callable[..., list[Any]]] = {
            "tools": self.list_tools,
            "resources": self.list_resources,
            "resourceTemplates": self.list_resource_templates,
            "prompts": self.list_prompts,
        }
        lists: dict[str, list[Any]] = {}
        for kind, call in calls.items():
            try:
                lists[kind] = call(fresh=fresh)
            except RemoteError as problem:
                # Servers offer resources and know no templates.
                if problem.code != spec.METHOD_NOT_FOUND:
                    raise
                lists[kind] = []
        return lists

    def app(self, name: str) -> AppPage | None:
        """Read the page in which the result of a tool is shown (MCP Apps), or return None when it has none.

        `minimcp.client.app_views.AppView` speaks with it; `Client(..., apps=True)` says that pages are shown.

        :raises ProtocolError: when there is no such tool, or its page cannot be shown.
        """
        from .tool_page import read_app

        tool = self._tool(name)
        if tool is None:
            raise ProtocolError(f"There is no tool {name!r}{self._near(name)}")
        return read_app(self, tool)


class _Own:
    """The connection of one process, and the lock that guards replacing it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.conn: Connection | None = None


def clients(config: Any, **options: Any) -> dict[str, Client]:
    """Make a client for each entry of an `mcpServers` dict or file, by name; none is opened yet.

    :param options: for every client, as of `Client`; those for HTTP or for a process go to the entries of this kind.
    :raises ValueError: naming the file and the entry that is wrong.
    """
    found = {}
    for name, entry in targets.entries(config).items():
        try:
            found[name] = Client(entry, **targets.fitting(entry, options))
        except ValueError as problem:
            where = f"{os.fspath(config)}: " if isinstance(config, (str, os.PathLike)) else ""
            raise ValueError(f"{where}The server {name!r}: {problem}") from None
    return found
