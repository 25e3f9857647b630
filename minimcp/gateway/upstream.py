"""One server behind the gateway: its replicas, and what it lists."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..client.errors import RemoteError
from ..engines.errors import ClientError, ConnectionLost
from ..protocol.errors import McpError
from ..server import names
from . import relaying, unasked
from .entries import KINDS, RelayedEntry, make_entries
from .leases import Lease, Replica
from .pacing import Slots
from .routing import Routing

if TYPE_CHECKING:
    from ..server.context import Context
    from .config import UpstreamSettings
    from .credentials import Credentials
    from .gateway import Gateway

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Entries = dict[str, dict[str, RelayedEntry]]  # by kind, then by public name or URI

MOST_ITEMS = 10_000  # of a list
_RETRY_S = 1.0
_MOST_RETRY_S = 60.0
# How long several notices of a change count as one, and how far apart two listings are at least.
_QUIET_S = 0.05
_APART_S = 1.0
# How often a server is listed that tells of no change.
_UNTOLD_S = 300.0


class Upstream:
    """A server with its replicas.

    :ivar call: relays a request to it, see `Routing`.
    :ivar entries: what it lists, under public names; of a server whose credentials depend on the caller, nobody's.
    :ivar tried: whether it was listed, or could not be.
    :ivar settled: set once the gateway's lists have followed.
    :ivar error: why it is not there, or None.
    """

    def __init__(self, gateway: Gateway, settings: UpstreamSettings, credentials: Credentials) -> None:
        self.gateway = gateway
        self.settings = settings
        self.credentials = credentials
        self.replicas = [Replica(self, number, entry) for number, entry in enumerate(settings.entries)]
        self.slots = Slots(settings.concurrency, settings.name)
        self.call = Routing(self).call
        self.entries: Entries = {kind: {} for kind in KINDS}
        self.settled = threading.Event()
        self.tried = False
        self.error: Optional[str] = None
        self.capabilities: Message = {}
        self.instructions: Optional[str] = None
        self.revision: Optional[str] = None
        self.transport = ""
        self.gateways: set[str] = set()  # the gateways that it leads to
        self._closed = threading.Event()
        self._refreshing = threading.Lock()  # held while listing, so that the newest list is the last to arrive
        self._lock = threading.Lock()  # guards everything below
        self._dirty = False
        self._refresher = False
        self._listed: set[str] = set()  # the original URIs of its resources
        self._watched: dict[str, int] = {}
        self._listen: Any = None
        self._lease: Optional[Lease] = None  # the connection that it was listed over
        self._watching = threading.Lock()  # held while a subscription is sent

    # Its life

    def start(self) -> None:
        """Connect, list and follow the server, on a thread of its own."""
        if self.credentials.per_principal:
            self.settled.set()  # there is nothing to list without a caller
            return
        threading.Thread(target=self._keep, name=f"minimcp-upstream-{self.settings.name}", daemon=True).start()

    def close(self) -> None:
        """Close every connection; calls in flight fail."""
        self._closed.set()
        self.settled.set()
        listen = self._listen
        if listen is not None:
            listen.close()
        for replica in self.replicas:
            replica.close()

    def _keep(self) -> None:
        pause_s = _RETRY_S
        while not self._closed.is_set():
            try:
                lease = self.refresh()
                pause_s = _RETRY_S
                self._follow(lease)
            except (ClientError, McpError) as problem:
                if self._closed.is_set():
                    return
                if self.error != str(problem):
                    log.warning("the server %s is not there: %.1000s", self.settings.name, problem)
                self.error = str(problem)
                self._settle()
            except Exception:
                log.exception("following the server %s failed", self.settings.name)
            self._closed.wait(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(pause_s * 2, _MOST_RETRY_S)

    def _follow(self, lease: Lease) -> None:
        """Keep a stream of changes open until the connection ends.

        :raises ClientError: when it is lost.
        """
        try:
            with self._watching:
                old = self._listen
                self._listen = lease.client.listen(
                    tools=True, prompts=True, resources=True, uris=self._subscribable(lease)
                )
            if old is not None and lease.is_modern:
                # Opened by a subscription that came first, which this one has as well; or lost with its connection.
                old.close()
        except RemoteError:
            # It tells of no changes.
            while not self._closed.wait(_UNTOLD_S):
                lease = self.refresh()
            return
        if lease.is_modern:
            # What changed between the list and the stream was told to nobody.
            self.refresh_soon()
        while not self._closed.is_set():
            listen = self._listen
            try:
                event = listen.receive(None)
            except ClientError:
                if listen is not self._listen:
                    continue  # another one has taken its place, with more subscriptions
                raise
            if event is None and listen is self._listen:
                return

    def take_notice(self, message: Message) -> None:
        """Take a change of a list or a resource that came in the middle of a call."""
        unasked.take_notice(self, None, message)

    def log_line(self, line: str) -> None:
        """Take a line of its standard error."""
        log.info("%s: %.1000s", self.settings.name, line)

    # What it lists

    def refresh_soon(self) -> None:
        """List again shortly, once for all notices that come meanwhile."""
        with self._lock:
            self._dirty = True
            if self._refresher or self._closed.is_set():
                return
            self._refresher = True
        threading.Thread(target=self._refresh_all, name="minimcp-refresh", daemon=True).start()

    def _refresh_all(self) -> None:
        pause_s = _QUIET_S
        while not self._closed.wait(pause_s):
            with self._lock:
                if not self._dirty:
                    self._refresher = False
                    return
                self._dirty = False
            try:
                if self.credentials.per_principal:
                    self.gateway.federation.forget(self)
                else:
                    self.refresh()
            except ClientError as problem:
                if not self._closed.is_set():
                    log.warning("%s could not be listed again: %.500s", self.settings.name, problem)
            pause_s = _APART_S
        with self._lock:
            self._refresher = False

    def refresh(self) -> Lease:
        """List everything, from the first replica that answers, and let the gateway's lists follow.

        :raises ClientError: when none does.
        """
        with self._refreshing:
            first: Optional[ClientError] = None
            for replica in sorted(self.replicas, key=lambda each: each.health.state != "closed"):
                try:
                    lease, lists = self.list_all(replica, None)
                    break
                except ClientError as problem:
                    replica.health.error = str(problem)
                    first = first or problem
            else:
                assert first is not None
                raise first
            replica.health.error = None
            self._learn(lease, lists)
            self.error, self._lease = None, lease
            for other in self.replicas:
                if other is not replica:
                    self._compare(other, lists["tools"])
        self._settle()
        return lease

    def _settle(self) -> None:
        """Let the gateway's lists follow, and those who wait for that go on."""
        self.tried = True
        self.gateway.federation.rebuild()
        self.settled.set()

    def list_all(self, replica: Replica, ctx: Context | None) -> tuple[Lease, dict[str, list[Any]]]:
        """Return all that a replica lists, by kind.

        :param ctx: a request of the caller, where the server's credentials depend on that.
        :raises ClientError: when it does not answer, or with nonsense.
        """
        if ctx is None:
            return self._list_all(replica, ctx)
        with self.credentials.acting(ctx.principal, ctx.request):
            return self._list_all(replica, ctx)

    def _list_all(self, replica: Replica, ctx: Context | None) -> tuple[Lease, dict[str, list[Any]]]:
        lease = replica.open(replica.own(ctx))
        self._check_ring(lease.client.peer.greeting)
        lists = lease.client.list_all(fresh=True)
        for kind, listed in lists.items():
            if len(listed) > MOST_ITEMS:
                log.error("%s lists %d %s; the first %d count", self.settings.name, len(listed), kind, MOST_ITEMS)
                del listed[MOST_ITEMS:]
        return lease, lists

    def _check_ring(self, greeting: Message) -> None:
        """Refuse a server that leads back to this gateway, whose lists would grow for ever.

        :raises ClientError: with what it is.
        """
        meta = greeting.get("_meta")
        ids = meta.get(relaying.META_GATEWAYS) if isinstance(meta, dict) else None
        self.gateways = {each for each in ids[:1000] if isinstance(each, str)} if isinstance(ids, list) else set()
        if self.gateway.id in self.gateways:
            raise ClientError("It is this gateway itself, or leads back to it; take it out of the configuration")

    def drain(self, seconds: float) -> None:
        """Wait until no call is in progress."""
        until = time.monotonic() + seconds
        while self.slots.used and time.monotonic() < until and not self._closed.wait(0.05):
            pass

    def _learn(self, lease: Lease, lists: dict[str, list[Any]]) -> None:
        peer = lease.client.peer
        self.capabilities, self.instructions = peer.capabilities or {}, peer.instructions
        self.revision, self.transport = peer.version, lease.client.transport
        self._listed = {item["uri"] for item in lists["resources"] if isinstance(item, dict) and "uri" in item}
        self.entries = self.make_entries(lists)

    def make_entries(self, lists: dict[str, list[Any]]) -> Entries:
        """Make the entries of what the server lists, without definitions that pins hold back."""
        pinned = self.gateway.pinned
        return {kind: make_entries(self, kind, pinned(self.settings.name, kind, lists[kind])) for kind in KINDS}

    def named(self, name: str) -> Optional[RelayedEntry]:
        """Return the entry of a tool by the name that the server gives it."""
        return next((entry for entry in self.entries["tools"].values() if entry.original["name"] == name), None)

    def _compare(self, replica: Replica, tools: list[Any]) -> None:
        """Take a replica out whose tools differ from those of the others."""
        try:
            _, lists = self.list_all(replica, None)
        except ClientError as problem:
            replica.health.error = str(problem)
            return
        replica.health.error = None
        theirs = {tool["name"]: tool for tool in lists["tools"]}
        ours = {tool["name"]: tool for tool in tools}
        differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        found = f"its tool {differing[0]} differs from that of the other replicas" if differing else None
        if found and found != replica.health.different:
            log.error("%s is not used: %s", replica.name, found)
        replica.health.different = found

    # Names and URIs

    def public_uri(self, uri: str) -> str:
        """Return the gateway's URI for one of the server."""
        return names.public_uri(self.settings.uri_prefix, uri)

    def rewrite(self, result: Message) -> Message:
        """Return a result with public URIs."""
        if not self.settings.uri_prefix:
            return result
        return names.rewrite_result(self.public_uri, result, self._listed.__contains__)

    # Subscriptions

    def subscribe(self, ctx: Context, uri: str) -> Callable[[], None]:
        """Subscribe to a resource of the server, by its original URI, and return the function that ends that.

        At a legacy server that is done in the session of the caller, since updates may depend on it.

        :raises ClientError: when the server refuses.
        """
        replica = next((each for each in self.replicas if each.has(ctx)), self.replicas[0])
        with self.credentials.acting(ctx.principal, ctx.request):
            lease = replica.lease(ctx)
        if not lease.is_modern:
            lease.subscribe(uri)
            return lambda: lease.unsubscribe(uri)
        with self._watching:
            self._watched[uri] = self._watched.get(uri, 0) + 1
            if self._watched[uri] == 1:
                try:
                    self._watch(uri)
                except ClientError:
                    del self._watched[uri]
                    raise
        return lambda: self._unwatch(uri)

    def _watch(self, uri: str) -> None:
        """Open a stream for one more URI before the one in use is closed, so that no change falls between the two."""
        if self._lease is None:
            raise ConnectionLost(f"The server {self.settings.name!r} is not there", "always")
        old = self._listen
        self._listen = self._lease.client.listen(tools=True, prompts=True, resources=True, uris=list(self._watched))
        if old is not None:
            old.close()

    def _unwatch(self, uri: str) -> None:
        """End one subscription; the server is told with the next one."""
        with self._watching:
            left = self._watched.pop(uri, 1) - 1
            if left:
                self._watched[uri] = left

    def _subscribable(self, lease: Lease) -> list[str]:
        wanted = self._watched if lease.is_modern else lease.watched
        return list(wanted) if lease.client.peer.offers("resources", "subscribe") else []

    # For people

    def snapshot(self) -> Message:
        """Return its state as the status page shows it."""
        replicas = [self._replica_snapshot(replica) for replica in self.replicas]
        up = self.tried and self.error is None
        known = any(self.entries.values())
        return {
            "name": self.settings.name,
            "state": "up" if up else "down" if self.tried else "starting",
            "error": self.error,
            "stale": self.error is not None and known,
            "prefix": self.settings.prefix,
            "transport": self.transport,
            "revision": self.revision,
            "tools": len(self.entries["tools"]),
            "resources": len(self.entries["resources"]),
            "templates": len(self.entries["resourceTemplates"]),
            "prompts": len(self.entries["prompts"]),
            "sessions": sum(replica.sessions for replica in self.replicas),
            "replicas": replicas,
        }

    def _replica_snapshot(self, replica: Replica) -> Message:
        return {"name": replica.name, "where": self._where(replica), **replica.health.snapshot()}

    def _where(self, replica: Replica) -> str:
        return replica.own().client.target.shown
