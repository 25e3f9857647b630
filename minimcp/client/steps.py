"""Going step by step, to see and to say everything oneself: `Client(target, auto=False)`.

    client = Client(["python", "server.py"], auto=False, trace=True)
    client.start()                                            # state "started"
    client.initialize("2025-11-25")                           # "initializing"
    client.initialized()                                      # "ready"
    client.send({"jsonrpc": "2.0", "id": "mine", "method": "tools/list"})
    client.receive()
    client.list_tools()

With a modern server `client.discover()` takes the place of the two: "discovered". From then on the methods of every
client work too. What is sent by hand goes out as it is, however wrong, and changes no state. What comes in goes to
`receive`, in order, unless one of the other methods is waiting for it.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ..protocol import spec
from ..protocol.errors import InvalidRequest
from ..protocol.wire import check
from . import modern, negotiation
from .connection import Connection
from .inbox import Inbox
from .peer import Peer
from .results import Result
from .transports.transport import MOST_WAITING, Clock, Exchange, Mailbox, Steps, Transport

if TYPE_CHECKING:
    from .trace import Recorder

Message = dict[str, Any]

# Their exchanges are read on a thread; what the others receive comes by itself.
_READ_BY_CALLER = ("http", "wsgi")


class StepByStep:
    """The steps of a client made with `auto=False`; any other client takes them by itself.

    In the wrong order they raise `ProtocolError` with the rule that forbids it.
    """

    _timeout: float | None

    def _connect(self) -> Connection:
        raise NotImplementedError

    def _discard_closed(self) -> None:
        raise NotImplementedError

    def _manual(self) -> Manual:
        conn = self._connect()
        if not isinstance(conn, Manual):
            raise ProtocolError(
                "This client takes the steps by itself; make it with auto=False to take them one by one"
            )
        return conn

    def start(self) -> None:
        """Start the process, or make ready for HTTP; nothing is said yet."""
        self._discard_closed()
        self._manual().begin()

    def send(self, message: Any, headers: dict[str, str] | None = None) -> None:
        """Send a message exactly as it is, be it wrong.

        :param headers: for HTTP, beside or in place of those of the transport and those that mirror a modern message.
        :raises ClientError: when it could not be sent, or, for what is no request, HTTP did not accept it.
        """
        self._manual().send(message, headers or {})

    def receive(self, timeout: Any = ...) -> Message:
        """Return the next message of the server: responses to what was sent, its own requests and notifications.

        :param timeout: in seconds, by default that of the client.
        :raises Timeout: when none came in time.
        :raises ClientError: when a message that was sent has no response, or the connection is lost.
        """
        return self._manual().receive(self._timeout if timeout is ... else timeout)

    def discover(self, version: str = spec.MODERN_VERSIONS[-1]) -> Result:
        """Ask a modern server what it is, and return its answer. Spec: BASE-073, BASE-087

        :raises ProtocolError: when it is of the legacy era; `initialize` is the next step then.
        """
        return self._manual().discover(version)

    def initialize(self, version: str = spec.LATEST_LEGACY) -> Result:
        """Begin a legacy session, and return the server's answer. Spec: BASE-096"""
        return self._manual().initialize(version)

    def initialized(self) -> None:
        """Tell a legacy server that the session has begun. Spec: BASE-098"""
        self._manual().initialized()


class ByHand(dict):  # type: ignore[type-arg]
    """A message as someone wrote it; a transport may ask it for members it does not have."""

    def __missing__(self, key: str) -> None:
        return None


class Manual(Connection):
    """A connection that does nothing by itself.

    :ivar stage: "new", "started", "discovered", "initializing" or "ready".
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.stage = "new"
        self._trace: Recorder | None = self._record
        self._record = self  # type: ignore[assignment]  # to see what comes in before it is handed out
        self.inbox = _WhileWaiting(self, self._answer, self._refuse, self.notice)
        self._heard = Mailbox()
        self._greeted: Peer | None = None
        self._lock = threading.Lock()  # guards the two below
        self._mine: set[int] = set()  # ids of requests that were not sent by hand and have no response yet
        self.waiting = 0  # methods that wait for an answer

    @property
    def state(self) -> str:
        """The stage, or "lost" or "closed"."""
        return "closed" if self.closed else self.stage if self.lost is None else "lost"

    def bind(self, kind: str) -> Callable[..., None]:
        """Make what a transport calls with every message; it gives to `receive` what no method waits for."""
        record = None if self._trace is None else self._trace.bind(kind)

        def hear(direction: str, message: Any, **facts: Any) -> None:
            if record is not None:
                record(direction, message, **facts)
            if direction != "received" or not isinstance(message, dict) or self._is_awaited(message):
                return
            if "method" not in message or "id" in message or len(self._heard) < MOST_WAITING:
                self._heard.put(message)

        return hear

    def _is_awaited(self, message: Message) -> bool:
        """Whether one of the client's other methods waits for this."""
        if "method" in message:
            return bool(self.waiting or self.listeners)
        id = message.get("id")
        with self._lock:
            if type(id) is not int or id not in self._mine:
                return False
            self._mine.discard(id)
            return True

    def receive(self, timeout_s: float | None) -> Message:
        """See `StepByStep`."""
        self._expect("receive", "started", "discovered", "initializing", "ready")
        try:
            found = self._heard.get(timeout_s)
        except queue.Empty:
            raise Timeout(f"The server sent nothing in {timeout_s} s") from None
        if isinstance(found, ClientError):
            if self.closed or self.lost is not None:
                self._heard.put(found)
            raise found
        return found  # type: ignore[no-any-return]

    def _lose(self, transport: Transport, error: ClientError) -> None:
        super()._lose(transport, error)
        if self.lost is error:
            self._heard.put(error)

    def close(self) -> None:
        """Hang up."""
        super().close()
        self._heard.put(ConnectionLost("The client was closed"))

    def send(self, message: Any, headers: dict[str, str]) -> None:
        """See `StepByStep`."""
        self._expect("send", "started", "discovered", "initializing", "ready")
        if not isinstance(message, dict):
            self.transport.send(message, headers, self.timeout_s)
            return
        message = ByHand(message)
        try:
            kind = check(message)
        except InvalidRequest:
            kind = "wrong"  # which may be answered
        headers = {**self._mirrored(message), **headers}
        if kind in ("notification", "response"):
            self.transport.send(message, headers, self.timeout_s)
            return
        if type(message["id"]) is int:
            # So that it is not used again. Spec: BASE-004
            self._ids = itertools.count(max(next(self._ids), message["id"] + 1))
        exchange = self.transport.start(message, headers, self.timeout_s)
        if self.transport.kind in _READ_BY_CALLER:
            threading.Thread(target=self._read, args=(exchange,), name="minimcp-steps", daemon=True).start()
        else:
            exchange.close()

    def _mirrored(self, message: Message) -> dict[str, str]:
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        if not isinstance(meta, dict) or not isinstance(meta.get(spec.META_VERSION), str):
            return {}
        try:
            return modern.ERA.headers(self, message)
        except (AttributeError, TypeError, ValueError):
            return {}

    def _read(self, exchange: Exchange) -> None:
        try:
            while "method" in exchange.receive(None):
                pass
        except ClientError as error:
            if not self.closed:
                self._heard.put(error)
        finally:
            exchange.close()

    def next_id(self) -> int:
        """An id that was never used, by hand or otherwise."""
        with self._lock:
            id = super().next_id()
            self._mine.add(id)
            return id

    def exchange(
        self, peer: Peer, message: Message, clock: Clock, started: Callable[[Exchange], None] | None = None
    ) -> Steps:
        """See `Connection`."""
        with self._waits():
            return (yield from super().exchange(peer, message, clock, started))

    @contextmanager
    def _waits(self) -> Iterator[None]:
        with self._lock:
            self.waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self.waiting -= 1

    # The steps

    def begin(self) -> None:
        """Open the transport."""
        self._expect("start", "new")
        self.use(self.transports[0])
        self.stage = "started"

    def discover(self, version: str) -> Result:
        """See `StepByStep`."""
        self._expect("discover", "started")
        try:
            with self._waits():
                peer = negotiation.discover(self, version)
        except negotiation.SpeaksLegacy as verdict:
            if verdict.probe is not None:
                verdict.probe.close()
            raise ProtocolError(
                'The server is of the legacy era, call initialize(): "any other error, or no answer within a '
                'reasonable timeout: the server is legacy; send initialize" (BASE-089)'
            ) from None
        self.transport.settle(peer.version)
        self.peer, self.stage = peer, "discovered"
        return Result(peer.greeting)

    def initialize(self, version: str) -> Result:
        """See `StepByStep`."""
        self._expect("initialize", "started")
        self._greeted = negotiation.initialize(self, version)
        self.transport.settle(self._greeted.version)
        self.stage = "initializing"
        return Result(self._greeted.greeting)

    def initialized(self) -> None:
        """See `StepByStep`."""
        self._expect("initialized", "initializing")
        self.peer = self._greeted
        self.notify("notifications/initialized")
        self.stage = "ready"
        self.transport.listen()

    def ready(self) -> Peer:
        """The server, once the steps to it were taken."""
        if not self.closed and self.lost is None:
            self._expect("This", "discovered", "ready")
        return super().ready()

    def renew(self, stale: Peer) -> Peer:
        """The session is over, and a new one is begun by hand. Spec: TRN-149"""
        self.peer, self.stage = None, "started"
        return self.ready()

    def _expect(self, step: str, *stages: str) -> None:
        """Refuse a step that does not come at this stage, with the rule."""
        if self.stage not in stages:
            name = step if step == "This" else f"{step}()"
            rule = _RULES.get((step, self.stage)) or _RULES.get(("", self.stage)) or _RULES[(step, "")]
            raise ProtocolError(f"{name} cannot come while the client is {self.stage!r}: {rule}")


class _WhileWaiting(Inbox):
    """The inbox for what comes while a method waits; at other times `receive` has it."""

    def __init__(self, conn: Manual, *args: Any) -> None:
        super().__init__(*args)
        self._conn = conn

    def put(self, message: Message) -> None:
        """Take a message."""
        if self._conn.waiting or self._conn.listeners:
            super().put(message)


_FIRST = '"after a successful answer send notifications/initialized" (BASE-098)'
_PROBE = '"probe with server/discover before any other request" (TRN-028)'
# By step and stage; then by stage for any step, then by step at any other stage.
_RULES = {
    ("start", "started"): "it was started already; close() ends it",
    ("start", ""): "it was started already; close() ends it",
    ("", "new"): 'call start() first, "launch the server as a subprocess and exchange messages over it" (TRN-009)',
    ("initialized", "started"): f"call initialize() first, {_FIRST}",
    ("discover", "initializing"): f"{_PROBE}; close() it to begin anew",
    ("discover", "ready"): f"{_PROBE}; close() it to begin anew",
    ("discover", "discovered"): f"{_PROBE}; close() it to begin anew",
    ("", "discovered"): 'the server is modern, and "modern revisions have no handshake" (BASE-106)',
    ("initialize", ""): '"initialize is the first interaction" (BASE-096), and it took place',
    ("initialized", "ready"): f"{_FIRST[:-1]}, and it was sent)",
    ("This", "initializing"): f"call initialized() first, {_FIRST}",
    ("This", ""): (
        f'call discover(), or initialize() and initialized(), first: {_PROBE}, and send no "request other than ping '
        'before the initialize answer" (BASE-099)'
    ),
}
