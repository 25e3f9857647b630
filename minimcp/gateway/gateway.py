"""`Gateway`: a server whose tools, resources and prompts are those of many servers."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Union

from ..monitoring.calls import Calls
from ..protocol import spec
from ..protocol.errors import InvalidParams
from ..protocol.input_requests import ANY_QUESTION
from ..server import legacy, modern
from ..server.engine import Engine
from ..server.server import Server
from . import assembly, config, unasked
from .credentials import Credentials
from .endpoints import close_endpoint, make_catalog, make_endpoint, serve_endpoint
from .entries import RelayedEntry
from .federation import Federation
from .gateway_options import make_policy, server_options
from .pacing import Prober
from .parked import Parked
from .relayed_tasks import RelayedTasks
from .relaying import META_GATEWAYS
from .states import Relaying, States
from .subscriptions import Subscriptions
from .upstream import Upstream

if TYPE_CHECKING:
    from ..auth.rates import Rates
    from ..client.client import Client
    from ..engines.http_server.wsgi_server import WsgiServer
    from ..protocol.content import Raw
    from ..server.asking import Strategy
    from ..server.catalog import Catalog, Entry
    from ..server.context import Context
    from ..server.hooks import AroundRequest
    from ..server.session import Session
    from .pins import Pins

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Source = Union[Message, str, "os.PathLike[str]", config.Settings]

PARKED_S = 300.0
_HANG_UP_S = 6.0
# The longest that the first answer waits, which names capabilities and instructions; clients give it little time.
_GREETING_S = 2.0
# Options that are read once.
_LASTING = frozenset(
    {"auth", "host", "limits", "log", "metrics", "name", "on_denied", "path", "peer_url", "port", "public_url"}
    | {"redis", "rest", "sanitize", "secret", "status", "tls", "trusted_proxy", "version"}
)
_RELAYING = Relaying()


class Gateway(Server):
    """A server in front of many: one endpoint, one set of rules, every revision to every revision.

    It starts with the first message, or with `start`; `close` ends its connections and the processes it has started.

    :param source: a configuration of the `mcpServers` form, as a dict or the path of a JSON or TOML file.
    :param options: options of `Server` that take the place of those in the configuration.
    :raises ValueError: naming what is wrong with the configuration.
    :ivar upstreams: the servers by name.
    :ivar endpoints: the servers of further endpoints, by name.
    """

    def __init__(self, source: Source, **options: Any) -> None:
        settings = source if isinstance(source, config.Settings) else config.read(source)
        self.settings = settings
        given = {**server_options(settings.options), **options}
        self._verifiers = given.get("auth")
        self._peers = assembly.make_peers(self, settings.options)
        if self._peers is not None and self._verifiers not in (None, "public"):
            verifiers = self._verifiers if isinstance(self._verifiers, (list, tuple)) else [self._verifiers]
            given["auth"] = [self._peers, *verifiers]
        name = given.pop("name")
        strategy = given.pop("strategy", None)
        super().__init__(name, given.pop("version", "1"), **given)
        self.id = os.urandom(8).hex()
        self.single = False  # whether it serves one client, over stdio
        self.session: Session | None = None  # that of the only client, if it is a legacy one
        self.initialized = threading.Event()  # set once a legacy client has said that it is ready
        self.info: Message = dict(self.engine.identity)
        # Its own connections can carry every question, so that servers list all that they have.
        self.declared: Message = ANY_QUESTION
        self.federation = Federation(self.engine._announce, self)
        self.engine.registry = self.engine.catalog = self.federation
        self.endpoints: dict[str, Server] = {}
        self.states = States(self)
        self.relayed_tasks = RelayedTasks(self)
        self.parked = Parked(PARKED_S)
        self.upstreams: dict[str, Upstream] = {}
        self._strategy = strategy
        self._subscriptions = Subscriptions()
        self._began = time.monotonic()
        self._starting = threading.RLock()  # held while starting, reloading and closing; guards _pid
        self._pid: Optional[int] = None
        self._prober: Optional[Prober] = None
        self._closing: set[threading.Thread] = set()  # no lock: single operations of a set, which are atomic
        self._pins: Pins | None = None
        self._pinned = 0  # the revision of the pins that the lists follow
        self.prepare(self.engine)
        self.calls = Calls(settings.options["log"] or None)
        self.rates: Rates | None = None
        self.around = self.engine.around_request  # the author's own
        assembly.install_pages(self, settings.options)
        self._take(self._make(settings), self.engine.policy)

    def prepare(self, engine: Engine) -> None:
        """Give an engine the rows and the strategy of a gateway."""
        engine.strategy = self._choose_strategy
        rows = engine.methods["modern"]
        rows["server/discover"] = rows["server/discover"]._replace(handler=self._discover)
        old = engine.methods["legacy"]
        old["initialize"] = old["initialize"]._replace(handler=self._initialize)
        self._subscriptions.install(engine)
        unasked.install(engine, self)
        self.relayed_tasks.install(engine)

    def _choose_strategy(self, ctx: Context, entry: Entry | None) -> Strategy | None:
        if isinstance(entry, RelayedEntry):
            return _RELAYING
        return self._strategy(ctx, entry) if self._strategy is not None else None

    def _discover(self, ctx: Context, params: Message) -> Message:
        """Answer `server/discover`, and say which gateways are on the way, so that no ring is made of them."""
        self.settle(ctx, _GREETING_S)
        ids = {self.id}
        for upstream in list(self.upstreams.values()):
            ids.update(upstream.gateways)
        return {**modern.discover(ctx, params), "_meta": {META_GATEWAYS: sorted(ids)}}

    @property
    def engines(self) -> list[Engine]:
        """The engines of all endpoints, the gateway's own first."""
        return [self.engine, *(server.engine for server in self.endpoints.values())]

    def name_of(self, engine: Engine) -> str:
        """Return the name of the endpoint that an engine is of, "" for the gateway's own."""
        return next((name for name, server in self.endpoints.items() if server.engine is engine), "")

    def describe(self, instructions: Optional[str]) -> None:
        """Let all endpoints but those with a text of their own give these instructions."""
        self.engine.instructions = instructions
        for name, server in self.endpoints.items():
            own = self.settings.options["endpoints"][name].get("instructions")
            server.engine.instructions = own or instructions

    def _make(self, settings: config.Settings) -> tuple[AroundRequest, Pins | None, Catalog, dict[str, Server]]:
        """Make what a configuration may change at any time, or fail."""
        options = settings.options
        chain = assembly.make_chain(options)
        endpoints = {name: make_endpoint(self, name, spec, options) for name, spec in options["endpoints"].items()}
        hook, pins = assembly.make_hook(self, options, chain), assembly.make_pins(options, chain)
        return hook, pins, make_catalog(self, {"search": options["search"]}), endpoints

    def _take(self, made: tuple[AroundRequest, Pins | None, Catalog, dict[str, Server]], policy: Any) -> None:
        """Use what `_make` has made; endpoints that stay keep their sessions."""
        around, self._pins, self.engine.catalog, endpoints = made
        for name, server in self.endpoints.items():
            if name in endpoints:
                server.engine.catalog = endpoints[name].engine.catalog
                endpoints[name] = server
            else:
                close_endpoint(self, name, server)
        for name, server in endpoints.items():
            if name not in self.endpoints:
                serve_endpoint(self, name, server)
        self.endpoints = endpoints
        for engine in self.engines:
            engine.around_request, engine.policy = around, policy

    def _initialize(self, ctx: Context, params: Message) -> Message:
        """Answer `initialize`."""
        if isinstance(params.get("capabilities"), dict):
            # Before the servers are met, which are told what the only client can be asked.
            ctx.capabilities = params["capabilities"]
        self.settle(ctx, _GREETING_S)
        return legacy.initialize(ctx, params)

    # Its life

    def start(self, ctx: Context | None = None) -> Gateway:
        """Connect to the servers, in the background; in a forked process once more.

        :param ctx: the first request, which says what the only client of a gateway over stdio can be asked.
        """
        if self._pid == os.getpid():
            return self
        with self._starting:
            if self._pid == os.getpid():
                return self
            if self.single and ctx is not None:
                self.declared, self.session = ctx.capabilities, ctx.session
                self.info = ctx.client_info or self.info
            self._began = time.monotonic()
            self.parked = Parked(PARKED_S)
            self._prober = Prober()
            self.upstreams = {
                name: self._upstream(each) for name, each in self.settings.upstreams.items() if not each.disabled
            }
            self._pid = os.getpid()
            for upstream in self.upstreams.values():
                self._begin(upstream)
            self._prober.add("parked", self.parked.tidy, 30.0)
            if self._pins is not None:
                self._pinned = self._pins.revision
                self._prober.add("pins", self._look_at_pins, 2.0)
            atexit.register(_close, weakref.ref(self))
        return self

    def _upstream(self, settings: config.UpstreamSettings) -> Upstream:
        options = self.settings.options
        return Upstream(self, settings, Credentials(settings, self._verifiers, options["public_url"]))

    def _begin(self, upstream: Upstream) -> None:
        upstream.start()
        prober = self._prober
        assert prober is not None
        for replica in upstream.replicas:
            if upstream.settings.probe_s and not upstream.credentials.per_principal:
                prober.add(replica.name, replica.probed, upstream.settings.probe_s)
            prober.add(("idle", replica.name), replica.tidy, max(1.0, upstream.settings.idle_s / 4))

    def settle(self, ctx: Context | None = None, most_s: float = math.inf) -> None:
        """Wait until every server was listed, but no longer than `listTimeout` after the start.

        :param most_s: the longest wait.
        """
        self.start(ctx)
        until = min(self._began + self.settings.options["list_timeout"], time.monotonic() + most_s)
        for upstream in list(self.upstreams.values()):
            if not upstream.settled.is_set():
                upstream.settled.wait(max(0.0, until - time.monotonic()))

    def reload(self, settings: config.Settings) -> dict[str, list[str]]:
        """Take over another configuration and return what changed, as `config.diff` does.

        Servers that did not change keep their processes, sessions and counters; calls to those that go away end first.
        """
        with self._starting:
            found = config.diff(self.settings, settings)
            lasting = [name for name in found["options"] if name in _LASTING]
            if lasting:
                log.warning("%s of the gateway take effect after a restart", ", ".join(lasting))
            # Nothing has changed yet when one of these fails.
            made, policy = self._make(settings), make_policy(settings.options)
            wanted = {name: self._upstream(each) for name, each in settings.upstreams.items() if not each.disabled}
            self.settings = settings
            self._take(made, policy)
            self.federation.own_instructions = settings.options["instructions"]
            if self._pid != os.getpid():
                return found
            before = self.upstreams
            after = {
                name: before[name] if name in found["kept"] and name in before else upstream
                for name, upstream in wanted.items()
            }
            self.upstreams = after
            for name, upstream in after.items():
                if before.get(name) is not upstream:
                    self._begin(upstream)
            gone = [upstream for name, upstream in before.items() if after.get(name) is not upstream]
        for upstream in gone:
            self._end(upstream, after)
        for upstream in after.values():
            upstream.settled.wait(max(0.0, settings.options["list_timeout"]))
        self.federation.rebuild()
        if {"endpoints", "rules", "search"} & set(found["options"]):
            for kind in spec.CHANGES:
                self.engine.bus.publish(kind)
        return found

    def _end(self, upstream: Upstream, others: dict[str, Upstream]) -> None:
        """Close a server that is no longer wanted, once its calls have ended."""
        prober = self._prober
        assert prober is not None
        names = {replica.name for other in others.values() for replica in other.replicas}
        for replica in upstream.replicas:
            if replica.name not in names:
                prober.remove(replica.name)
                prober.remove(("idle", replica.name))

        def work() -> None:
            upstream.drain(upstream.settings.timeout_s)
            upstream.close()

        self._in_background(work)

    def hang_up(self, client: Client) -> None:
        """Close a client on a thread of its own, since a process may take its time to end."""
        self._in_background(client.close)

    def _in_background(self, work: Callable[[], object]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                self._closing.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="minimcp-hang-up", daemon=True)
        self._closing.add(thread)
        thread.start()

    def close(self, wait_s: float = 0.0) -> None:
        """End every stream, session and connection, and the processes of the servers; it may be started again."""
        super().close(wait_s)
        for server in self.endpoints.values():
            server.close(wait_s)
        with self._starting:
            ours, self._pid = self._pid == os.getpid(), None
            upstreams, self.upstreams = self.upstreams, {}
        if not ours:
            return
        self.parked.close()
        if self._peers is not None:
            self._peers.close()
        if self._prober is not None:
            self._prober.close()
        for upstream in upstreams.values():
            upstream.close()
        until = time.monotonic() + _HANG_UP_S
        for thread in list(self._closing):
            thread.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Gateway:
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.close()

    def run(self, *others: NoReturn, **options: NoReturn) -> None:
        """Serve on standard input and output until the input ends."""
        self.single = True
        try:
            super().run(*others, **options)
        finally:
            self.close()

    def run_http(
        self,
        host: str | None = None,
        port: int | None = None,
        path: str | None = None,
        *,
        tls: tuple[str, str] | None = None,
        ca: str | None = None,
        limits: dict[str, float] | None = None,
        ready: Callable[[WsgiServer], object] | None = None,
    ) -> None:
        """Serve over HTTP until SIGTERM or Ctrl-C; see `Server.run_http`. Defaults are those of the configuration."""
        options = self.settings.options
        secured = options.get("tls")
        if tls is None and secured:
            tls, ca = (secured["cert"], secured["key"]), ca or secured.get("ca")
        self.start()
        try:
            super().run_http(
                host or options["host"],
                options["port"] if port is None else port,
                path or options["path"],
                tls=tls,
                ca=ca,
                limits=limits,
                ready=ready,
            )
        finally:
            self.close()

    # For people

    def explain(self, principal: Any, name: str, kind: str = "tools", arguments: Message | None = None) -> Message:
        """Say whether a principal may see and use an entry, and why; see `Server.explain`."""
        self.settle()
        return super().explain(principal, name, kind, arguments)

    def snapshot(self) -> Message:
        """Return the state of the gateway and of its servers as JSON data."""
        self.start()
        servers = [upstream.snapshot() for upstream in list(self.upstreams.values())]
        for name, each in self.settings.upstreams.items():
            if each.disabled:
                servers.append({"name": name, "state": "disabled", "error": None, "replicas": []})
        sessions = sum(len(engine.sessions.all()) for engine in self.engines)
        return {
            **{name: self.engine.identity[name] for name in ("name", "version")},
            "uptimeS": round(time.monotonic() - self._began, 1),
            "ready": all(each["state"] in ("up", "disabled") or each["stale"] for each in servers),
            "servers": servers,
            "sessions": sessions,
            "parked": len(self.parked),
            "collisions": list(self.federation.collisions),
            "pins": self._pins.changes if self._pins is not None else [],
        }

    @property
    def peer_url(self) -> Optional[str]:
        """The endpoint at which other gateways reach this one, None where it is alone."""
        return self._peers.url if self._peers is not None else None

    def forward(self, ctx: Context, url: Any) -> Raw:
        """Pass a retry on to the gateway in which its call waits.

        :raises InvalidParams: when there is none.
        """
        if self._peers is None or not isinstance(url, str):
            raise InvalidParams("This call does not wait here; start again without the request state")
        return self._peers.forward(ctx, url)

    def pinned(self, server: str, kind: str, definitions: list[Message]) -> list[Message]:
        """Return those definitions of a server that may be listed."""
        if self._pins is None or kind not in ("tools", "prompts"):
            return definitions
        return self._pins.judge(server, definitions, kind)

    def _look_at_pins(self) -> None:
        """List the servers again when another process has approved a change."""
        pins = self._pins
        if pins is not None and pins.revision != self._pinned:
            self._pinned = pins.revision
            for upstream in list(self.upstreams.values()):
                upstream.refresh_soon()


def _close(gateway: weakref.ref[Gateway]) -> None:
    found = gateway()
    if found is not None:
        found.close()
