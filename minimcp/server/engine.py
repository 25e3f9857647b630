"""The engine of a server: what transports, eras and handlers use of it; its author uses `Server`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Optional, Union

from ..engines.budget import Budget
from ..protocol import headers, spec, wire
from ..protocol.errors import InvalidRequest, McpError
from ..protocol.principal import Authenticated, Principal, as_principal
from ..protocol.served import Authentication
from . import hooks, legacy, makers, modern
from .asking import Choose, Strategy
from .batch import Batch, read_batch
from .bus import Bus, LocalBus, Subscription
from .catalog import Catalog, Policy
from .context import Context
from .dispatcher import Call
from .lifespan import Lifespans
from .mount import Mount
from .registry import Registry
from .seal import Sealer, Secret
from .session import Session
from .sessions import Sessions
from .tasked import Background

if TYPE_CHECKING:
    from .sharing import Sharing

Message = dict[str, Any]


class Engine:
    """The state and settings of a server, and the functions that take its messages.

    :ivar methods: the method rows of each era, by its name; extensions add theirs.
    :ivar notifications: the handlers of notifications of each era, by its name.
    :ivar registry: the dicts that the decorators fill.
    :ivar catalog: answers the handlers: the registry, unless the author has handed in another one.
    :ivar routes: the handlers of further paths over HTTP, by path and HTTP method; see `Server.route`.
    :ivar auth: finds the caller of each HTTP request; None for a server that does not ask who is calling.
    :ivar public: whether the author wrote that everybody may call, so that it may be served beyond loopback.
    :ivar on_denied: "hide" or "challenge", see `Server`.
    :ivar caching: the caching hints of results that have none of their own. Spec: FEAT-121, FEAT-123, FEAT-124
    :ivar serving: whether a message has been taken; before that no change is published.
    :ivar starting: functions to call when the first message is taken.
    :ivar sharing: the sessions of the other processes, where there are any.
    :ivar tasks: runs tools as tasks, where the tasks extension is in use.
    """

    def __init__(
        self,
        identity: Message,
        *,
        limits: dict[str, float] | None = None,
        secret: Secret | Sequence[Secret] | None = None,
        bus: Bus | None = None,
        ttl_ms: int = 0,
        cache_scope: str = "private",
    ) -> None:
        unknown = set(limits or ()) - set(spec.LIMITS)
        if unknown:
            raise ValueError(f"Unknown limits {sorted(unknown)}; there are {sorted(spec.LIMITS)}")
        self.identity, self.identity_meta = identity, {spec.META_SERVER: identity}
        self.instructions: str | None = None
        self.limits = limits = {**spec.LIMITS, **(limits or {})}
        self.page_size: int | None = None
        self.auth: Authentication | None = None
        self.public, self.on_denied = False, "hide"
        self.routes: dict[str, dict[str, hooks.Route]] = {}
        self.around_call: Callable[[Context], AbstractContextManager[Any]] | None = None
        self.around_request: hooks.AroundRequest | None = None
        self.strategy: Choose | None = None
        self.allowed_hosts: frozenset[str] | None = None
        self.allowed_origins: frozenset[str] = frozenset()
        self.debug: bool | None = None
        self.tasks: Background | None = None
        # The servers within this one, those that it is within, and what is called with each of the latter.
        self.mounts: list[Mount] = []
        self.mounted_in: list[Mount] = []
        self.on_mount: list[Callable[[Engine], None]] = []
        self.lifespans = Lifespans()
        self.starting: list[Callable[[], None]] = []
        self.serving = False
        self.methods = {era.name: dict(era.methods) for era in (modern.ERA, legacy.ERA)}
        self.notifications = {era.name: dict(era.notifications) for era in (modern.ERA, legacy.ERA)}
        # The settings of each extension, those in force in each era, and the extension that a result type belongs to.
        self.extensions: dict[str, Message] = {}
        self.in_force: dict[str, set[str]] = {era: set() for era in self.methods}
        self.result_types: dict[str, str] = {}
        self.bus: Bus = bus or LocalBus()
        self.registry = Registry(self._announce)
        self.catalog: Catalog = self.registry
        self.policy: Policy | None = None
        self.sealer = Sealer(secret)
        self.sessions = Sessions(self.sealer, int(limits["sessions"]), limits["session_idle_s"], limits["session_s"])
        self.sharing: Sharing | None = None
        if not isinstance(self.bus, LocalBus):
            from .sharing import share

            share(self)
        self.caching = makers.caching_hints(ttl_ms, cache_scope)
        self.subscribed = Budget()  # the bytes of subscribed URIs
        self._lock = threading.Lock()  # guards _streams
        self._streams: set[Subscription | Session] = set()

    def call(
        self,
        message: Any,
        *,
        get_header: headers.Get | None = None,
        session: Session | None = None,
        principal: Principal | None = None,
        request: Any = None,
    ) -> Optional[Union[Call, Batch]]:
        """Take a parsed message: a request becomes a Call to run; notifications and responses are dealt with here.

        :param get_header: looks up an HTTP header; given, the headers of a modern request are held against its body.
        :raises McpError: when the envelope is wrong; answer it with `refuse`.
        """
        if not self.serving:
            self.serving = True
            self.start()
            for start in self.starting:
                hooks.notify(start)
        if isinstance(message, list):
            return read_batch(self, message, session, principal, request)
        kind = wire.check(message)
        if kind == "response":
            if session is None:
                raise InvalidRequest("A response was sent, but nothing was asked")
            session.resolve(message)
            return None
        era = modern.ERA if headers.is_modern(message, get_header, bool(session and session.version)) else legacy.ERA
        if kind == "notification":
            handler = self.notifications[era.name].get(message["method"])
            if session is None and era is modern.ERA:
                session = Session(principal)
            if handler is not None:
                hooks.notify(handler, self, session, message.get("params") or {})
            return None
        ctx = Context(self, era, message, session, principal, request)
        return Call(ctx, get_header if era is modern.ERA else None)

    def start(self) -> None:
        """Go on with the tasks that are kept, as the first message does too."""
        if self.tasks is not None:
            self.tasks.start()

    def refuse(
        self, message: Any, problem: McpError, principal: Principal | None = None, request: Message | None = None
    ) -> Message:
        """Build the reply to a message that `call` or the parser refused; None stands for one that was not read."""
        if self.around_request is not None:
            return hooks.refused(self.around_request, message, problem, principal, request)
        return wire.error(wire.readable_id(message), problem)

    def open_session(
        self, send: Callable[[Message], None] | None = None, id: str | None = None, principal: Authenticated = None
    ) -> Session:
        """Open a new session, or find the one with an id.

        :param send: takes messages that belong to no request.
        :raises SessionNotFound: when the id is not a session of this principal.
        """
        if id is not None:
            return self.sessions.get(id, as_principal(principal))
        return Session(as_principal(principal), send)

    def keep_session(self, session: Session) -> str:
        """Give an initialized session an id under which it can be found again, and return the id."""
        self.sessions.add(session)
        return session.id

    def close_session(self, session: Session) -> None:
        """End a session, in every process: its calls are cancelled and its streams end."""
        self.sessions.remove(session)

    def close(self, wait_s: float = 0.0) -> None:
        """End every stream gracefully, and every session of this process, whose calls have `wait_s` seconds to end."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            if not isinstance(stream, Session):
                hooks.notify(stream.close)
        self.sessions.close([stream for stream in streams if isinstance(stream, Session)], wait_s)

    def add_stream(self, stream: Subscription | Session) -> None:
        """Remember an open listen stream, or a session that is one, so that `close` can end it.

        A connection on stdio is none: its listen streams end, and then it is for its client to hang up.
        """
        with self._lock:
            self._streams.add(stream)

    def remove_stream(self, stream: Subscription | Session) -> None:
        """Forget a stream that has ended."""
        with self._lock:
            self._streams.discard(stream)

    def _announce(self, topic: str) -> None:
        # A worker that starts has changed nothing for the clients of the other workers on its bus.
        if self.serving:
            self.bus.publish(topic)

    def choose_strategy(self, ctx: Context) -> Strategy:
        """Return the way in which a call asks the client: the server's choice, or else its era's."""
        chosen = self.strategy(ctx, ctx._entry) if self.strategy is not None else None
        return chosen or ctx._era.strategy(ctx)
