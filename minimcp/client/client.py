"""The face of the client: an object that blocks, usable from any thread for the life of the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from .. import __version__
from ..protocol import spec
from . import targets
from .answers import Answers, Elicit, Roots, Sample
from .cache import Cache
from .connection import Connection
from .errors import UsedAfterFork
from .methods import Methods, OnMessage
from .negotiation import MODES, negotiate

if TYPE_CHECKING:
    from ..engines.trace import Recorder

Message = dict[str, Any]


class Client(Methods):
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
    :param auth: credentials for HTTP: `OAuth`, a user and a password, or what `requests` takes.
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
    :param trace: True, a file, a path or a callable that takes every message; see `minimcp.engines.trace`.
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
            self._extensions.setdefault(spec.TASKS, {})
        self._record: Recorder | None = None
        if trace:
            from ..engines.trace import recorder
            from ..protocol.redaction import NAMES

            self._record = recorder(trace, NAMES)
        self._connections: dict[int, Connection] = {}  # by process id
        self._locks: dict[int, threading.Lock] = {}

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
        with self._lock():
            found = self._connections.get(pid)
            if found is not None and found.closed:
                del self._connections[pid]

    def close(self) -> None:
        """Hang up; calls that wait fail. The client can be opened again."""
        found = self._connections.get(os.getpid())
        if found is not None:
            found.close()

    def __enter__(self) -> Client:
        return self.open()

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.target.name!r}: {self.state}>"

    @property
    def state(self) -> str:
        """ "new", "open", "lost" or "closed"."""
        found = self._connections.get(os.getpid())
        if found is None or (found.peer is None and not found.closed):
            return "new"
        return "closed" if found.closed else "open" if found.lost is None else "lost"

    def _connect(self) -> Connection:
        pid = os.getpid()
        found = self._connections.get(pid)
        if found is not None and (found.lost is None or found.closed or not self._restart):
            return found
        with self._lock():
            found = self._connections.get(pid)
            if found is None:
                self._check_inherited(pid)
            if found is None or (found.lost is not None and self._restart):
                found = self._connections[pid] = self._make()
            return found

    def _lock(self) -> threading.Lock:
        """Guards replacing the connection; one for each process, since a thread that a fork left behind may hold it."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _check_inherited(self, pid: int) -> None:
        inherited = [conn for owner, conn in self._connections.items() if owner != pid and conn.peer is not None]
        if inherited and not inherited[-1].transport.survives_fork and not self._restart:
            raise UsedAfterFork(
                f"{self.target.name} was started by the parent process; make a Client in this one, "
                "or pass restart=True to start another server here"
            )

    def _make(self) -> Connection:
        conn = Connection(
            self.target.transports,
            self.target.key,
            negotiate,
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
        """What was found out about the server; given to the next client as `discovery=` it saves the question."""
        return {**self.peer.greeting, "protocolVersion": self.peer.version}


def clients(config: Any, **options: Any) -> dict[str, Client]:
    """A client for each entry of an `mcpServers` dict or file, by name; none is opened yet.

    :param options: for every client, as of `Client`.
    :raises ValueError: naming the entry that makes no sense.
    """
    found = {}
    for name, entry in targets.entries(config).items():
        try:
            found[name] = Client(entry, **options)
        except ValueError as problem:
            raise ValueError(f"The server {name!r}: {problem}") from None
    return found
