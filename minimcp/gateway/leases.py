"""The connections of a gateway to one replica of a server: its own, and those of callers that share none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Optional

from ..client.client import Client
from ..client.eras import MODERN
from ..client.targets import fitting
from ..engines.errors import ClientError
from ..protocol import spec
from ..protocol.input_requests import ANY_QUESTION
from ..protocol.principal import key_of
from ..server.seal import digest
from . import answering, unasked
from .failures import UpstreamUnavailable
from .replicas import Health

if TYPE_CHECKING:
    from ..protocol.principal import Principal
    from ..server.context import Context
    from .upstream import Upstream

log = logging.getLogger("minimcp")

Message = dict[str, Any]

# Processes that may start at the same time, in the whole process.
_STARTING = threading.BoundedSemaphore(8)


class Lease:
    """A connection of one caller, or of all callers of a server that keeps no state.

    :ivar level: the log level that a legacy server was last asked for, or None.
    :ivar calls: the contexts of the calls in flight on it, the newest last.
    :ivar watched: the resources of a legacy server that are subscribed to, and how often.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.level: str | None = None
        self._told: Any = None  # the session that was asked for the level
        self.used = time.monotonic()
        self._subscribing = threading.Lock()  # guards watched, and is held while a subscription is sent
        self.watched: dict[str, int] = {}
        self._lock = threading.Lock()  # guards calls
        self.calls: list[Context] = []

    def begin(self, ctx: Context) -> None:
        """Count a call."""
        with self._lock:
            self.calls.append(ctx)

    def end(self, ctx: Context) -> None:
        """Count the end of a call."""
        with self._lock:
            self.calls.remove(ctx)
        self.used = time.monotonic()

    @property
    def is_modern(self) -> bool:
        """Whether the server speaks 2026-07-28 on it; opens the connection if need be.

        :raises ClientError: when that fails.
        """
        return self.client.peer.era is MODERN

    def set_level(self, level: str | None, alone: bool) -> None:
        """Ask a legacy server for log messages of a level, if it does not send them already.

        :param alone: whether no other caller uses the connection, so that it may also send less from now on.
        """
        peer = self.client.peer
        if peer is not self._told:  # another session knows of no level
            self._told, self.level = peer, None
        if level is None or level == self.level or (self.level is None and level == "info"):
            return
        if not alone and self.level is not None and spec.LOG_RANKS[level] >= spec.LOG_RANKS[self.level]:
            return
        if self.client.peer.offers("logging"):
            self.client.request("logging/setLevel", {"level": level})
        self.level = level

    def subscribe(self, uri: str) -> None:
        """Subscribe to a resource of a legacy server, unless that has happened.

        :raises ClientError: when the server refuses.
        """
        with self._subscribing:
            if uri not in self.watched:
                self.client.subscribe(uri)
            self.watched[uri] = self.watched.get(uri, 0) + 1

    def unsubscribe(self, uri: str) -> None:
        """End one subscription, and with the last one that of the server."""
        with self._subscribing:
            left = self.watched.pop(uri, 1) - 1
            if left:
                self.watched[uri] = left
            elif self.client.state == "open":
                try:
                    self.client.unsubscribe(uri)
                except ClientError as problem:
                    log.debug("a subscription could not be ended: %s", problem)


class Replica:
    """One process or one address of a server, with its health and its connections.

    :ivar health: what its calls say of it.
    """

    def __init__(self, upstream: Upstream, number: int, entry: Message) -> None:
        self.upstream = upstream
        self.entry = entry
        name = upstream.settings.name
        self.name = name if len(upstream.settings.entries) == 1 else f"{name}/{number + 1}"
        self.health = Health(self.name)
        self._lock = threading.Lock()  # guards everything below
        self._leases: dict[Hashable, Lease] = {}
        self._closed = False

    @property
    def is_process(self) -> bool:
        """Whether it is a process that the gateway starts."""
        return "url" not in self.entry

    def own(self, ctx: Context | None = None) -> Lease:
        """Return the connection that nobody's state is on: it lists, watches, and carries calls of modern servers.

        :param ctx: a request of the caller, where the server's credentials depend on that.
        """
        gateway = self.upstream.gateway
        if not self.upstream.credentials.per_principal:
            return self._lease(("own",), lambda: self._client(gateway.declared, gateway.info, None))
        key = ("principal", _mark(ctx.principal) if ctx is not None else None, "own")
        return self._lease(key, lambda: self._client(gateway.declared, gateway.info, ctx))

    def lease(self, ctx: Context) -> Lease:
        """Return the connection for a call: one of its own for a legacy session, or for a caller without one.

        :raises ClientError: when the server cannot be reached.
        :raises UpstreamUnavailable: when too many callers have one already.
        """
        settings, own = self.upstream.settings, self.own(ctx)
        if settings.sessions == "shared" or self.upstream.gateway.single or self._open(own).is_modern:
            return own
        key, session = self._key(ctx), ctx.session
        if key not in self._leases and key[0] == "session":
            session.on_close.append(lambda: self.release(key))
        info = ctx.client_info or self.upstream.gateway.info
        found = self._lease(key, lambda: self._client(_asking(ctx.capabilities), info, ctx, session))
        if key[0] == "session" and session.closed:
            self.release(key)
        return found

    def _key(self, ctx: Context) -> tuple[Hashable, ...]:
        if self.upstream.settings.sessions == "own" and ctx.session is not None and ctx.session.version is not None:
            return ("session", ctx.session)
        return ("principal", _mark(ctx.principal), digest(_asking(ctx.capabilities)))

    def has(self, ctx: Context) -> bool:
        """Say whether a legacy session of this caller is here, which later calls belong to."""
        return self._key(ctx) in self._leases

    def _lease(self, key: Hashable, make: Callable[[], Client]) -> Lease:
        found = self._leases.get(key)
        if found is not None:
            return found
        dropped = None
        with self._lock:
            found = self._leases.get(key)
            if found is None:
                if self._closed:
                    raise UpstreamUnavailable(self.upstream.settings.name, "is no longer here", 1.0)
                if len(self._leases) > self.upstream.settings.max_sessions:
                    dropped = self._make_room()
                found = self._leases[key] = Lease(make())
        if dropped is not None:
            self.upstream.gateway.hang_up(dropped.client)
        return found

    def _make_room(self) -> Lease:
        idle = [key for key, lease in self._leases.items() if not lease.calls and _kind(key) == "principal"]
        if not idle:
            raise UpstreamUnavailable(self.upstream.settings.name, "has too many sessions", 5.0)
        return self._leases.pop(min(idle, key=lambda key: self._leases[key].used))

    def _open(self, lease: Lease) -> Lease:
        """Open a connection, unless it is; not too many processes start at once."""
        if lease.client.state == "open" or not self.is_process:
            return lease
        with _STARTING:
            lease.client.open()
        return lease

    def open(self, lease: Lease) -> Lease:
        """Open a connection, unless it is.

        :raises ClientError: when the server cannot be reached.
        """
        self._open(lease).client.open()
        return lease

    def _client(self, capabilities: Message, info: Message, ctx: Context | None, session: Any = None) -> Client:
        upstream, settings = self.upstream, self.upstream.settings
        options: Message = {
            "auth": upstream.credentials.auth_for(ctx.principal if ctx is not None else None),
            "stderr": upstream.log_line,
        }
        client = Client(
            self.entry,
            **{name: value for name, value in fitting(self.entry, options).items() if value is not None},
            mode=settings.mode,
            info={name: info[name] for name in ("name", "version") if name in info},
            capabilities=capabilities,
            timeout=settings.connect_timeout_s,
            max_timeout=settings.max_timeout_s,
            probe_timeout=min(5.0, settings.connect_timeout_s),
            on_request=lambda request: answering.answer(upstream, session, request),
            on_notification=lambda message: unasked.take_notice(upstream, session, message),
            on_log=lambda params: unasked.take_log(upstream, session, self._find(client), params),
            restart=True,
            validate=False,
            cache=False,
        )
        return client

    def of(self, session: Any) -> Lease | None:
        """Return the connection of a legacy session, or None."""
        return self._leases.get(("own",) if self.upstream.gateway.single else ("session", session))

    def _find(self, client: Client) -> Lease | None:
        return next((lease for lease in list(self._leases.values()) if lease.client is client), None)

    def release(self, key: Hashable) -> None:
        """Close a connection whose caller has gone."""
        with self._lock:
            lease = self._leases.pop(key, None)
        if lease is not None:
            self.upstream.gateway.hang_up(lease.client)

    def tidy(self) -> None:
        """Close the connections of callers that have not called for a while."""
        until = time.monotonic() - self.upstream.settings.idle_s
        with self._lock:
            keys = [key for key, each in self._leases.items() if _kind(key) == "principal" and not each.calls]
            idle = [self._leases.pop(key) for key in keys if self._leases[key].used < until]
        for lease in idle:
            self.upstream.gateway.hang_up(lease.client)

    @property
    def sessions(self) -> int:
        """The number of connections beside the gateway's own."""
        return sum(_kind(key) != "own" for key in list(self._leases))

    def close(self) -> None:
        """Close every connection; calls in flight fail."""
        with self._lock:
            self._closed = True
            leases, self._leases = list(self._leases.values()), {}
        for lease in leases:
            self.upstream.gateway.hang_up(lease.client)

    def probed(self) -> None:
        """Run a probe, and let the health take note of what came of it."""
        try:
            self.probe()
        except ClientError as problem:
            self.health.probed(False, problem)
            return
        was_down = self.health.state != "closed" or self.health.error is not None
        self.health.probed(True)
        if was_down or self.health.different:
            self.upstream.refresh_soon()

    def probe(self) -> None:
        """Ask the server for a sign of life that is an answer of MCP.

        :raises ClientError: when there is none.
        """
        lease = self.open(self.own())
        client = lease.client
        if lease.is_modern:
            client.request("server/discover", timeout=5.0)
        else:
            client.ping(5.0)
        missing = set(self.upstream.settings.expect_tools)
        if missing:
            missing -= {tool["name"] for tool in client.list_tools(fresh=True)}
        if missing:
            raise ClientError(f"{self.name} does not list {', '.join(sorted(missing))}")


def _kind(key: Hashable) -> str:
    return str(key[0]) if isinstance(key, tuple) else ""


def _mark(principal: Optional[Principal]) -> Optional[str]:
    return None if principal is None else digest(key_of(principal))


def _asking(capabilities: Message) -> Message:
    """Return what a caller can be asked; other capabilities are not the gateway's to pass on over a session."""
    kept = {name: each for name, each in capabilities.items() if name in ANY_QUESTION}
    extensions = {name: each for name, each in (capabilities.get("extensions") or {}).items() if name != spec.TASKS}
    if extensions:
        kept["extensions"] = extensions
    return kept
