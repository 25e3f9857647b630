"""Step-by-step mode: `Steps(target)` sends and receives one message at a time, so that a learner sees and says it all.

    steps = Steps(["python", "server.py"], trace=True)
    steps.start()                                            # state "started"
    steps.initialize("2025-11-25")                           # "initializing"
    steps.initialized()                                      # "ready"
    steps.send({"jsonrpc": "2.0", "id": "mine", "method": "tools/list"})
    steps.receive()
    client = steps.client()                                  # "handed over": a Client on the same connection

With a modern server `discover()` takes the place of the two: "discovered". A message sent by hand goes out as it is,
even if it is wrong, and changes no state.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ..protocol import headers as mirrored
from ..protocol import spec, wire
from ..protocol.errors import InvalidRequest
from . import legacy, modern, targets
from .errors import HTTPStatus
from .peer import Peer, result_of
from .results import Result
from .transports.transport import Exchange, SessionExpired, Transport

if TYPE_CHECKING:
    from .client import Client

Message = dict[str, Any]

MOST_WAITING = 1000  # notifications that nobody has received yet
# The thread that waits for a reply reads it; the other transports have a reader of their own.
_READ_BY_CALLER = ("http", "wsgi")
# Errors that only a modern server sends. Spec: BASE-087 to BASE-092
_MODERN_CODES = (spec.HEADER_MISMATCH, spec.MISSING_CAPABILITY, spec.UNSUPPORTED_VERSION)


class ByHand(dict):  # type: ignore[type-arg]
    """A message written by hand; a transport that looks for a missing member finds None."""

    def __missing__(self, key: str) -> None:
        return None


class Steps:
    """Takes a connection step by step and does nothing by itself.

    A step in the wrong order raises `ProtocolError` with the rule that forbids it.

    :param target: as of `Client`, and so are `server headers auth session env cwd stderr limits trace`.
    :param info: the client's own name and version, `{"name": ..., "version": ...}`.
    :param capabilities: what `discover` and `initialize` declare, such as `{"elicitation": {}}`.
    :param timeout: seconds to wait for an answer; `probe_timeout` for that to `discover`, except over HTTP.
    :ivar state: "new", "started", "discovered", "initializing", "ready", "handed over", "lost" or "closed".
    """

    def __init__(
        self,
        target: Any,
        *,
        server: str | None = None,
        info: Message | None = None,
        capabilities: Message | None = None,
        timeout: float = 60.0,
        probe_timeout: float = 5.0,
        trace: Any = None,
        **options: Any,
    ) -> None:
        unknown = options.keys() - {"headers", "auth", "session", "env", "cwd", "stderr", "limits"}
        if unknown:
            raise TypeError(f"Steps has no option {sorted(unknown)[0]!r}")
        self.target = targets.read(target, server, options)
        self.state = "new"
        self.transport = Transport()
        self._info = {"name": "minimcp", "version": __version__} if info is None else info
        self._capabilities = capabilities or {}
        self._timeout = timeout
        self._probe_timeout = probe_timeout
        self._for_client = {**options, "server": server, "info": info, "trace": trace}
        self._client: Client | None = None
        self._given = target
        self._recorder: Any = None
        if trace:
            from ..engines.trace import recorder
            from ..protocol.redaction import NAMES

            self._recorder = recorder(trace, NAMES)
        self._awaited: int | None = None  # the id of a step's own request, whose answer is not for `receive`
        self._lock = threading.Lock()  # guards the next two, and `state` against what other threads find out
        self._newest_id = 0
        self._over: ClientError | None = None  # why nothing can be sent any more
        self._heard: queue.Queue[Message | ClientError] = queue.Queue()
        self._peer = Peer(legacy.ERA, "", {})

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Steps to {self.target.name!r}: {self.state}>"

    def start(self) -> None:
        """Start the process, or get ready for HTTP; no message is sent. After `close` it starts again."""
        if self.state != "closed":
            self._expect("start", "new")
        with self._lock:
            self._newest_id, self._over = 0, None
        self._heard = queue.Queue()
        self.use(self.target.transports[0])
        with self._lock:
            if self._over is None:
                self.state = "started"

    def use(self, make: Callable[[], Transport]) -> Transport:
        """Make a transport and open it."""
        transport = self.transport = make()
        record = None if self._recorder is None else self._recorder.bind(transport.kind)

        def hear(direction: str, message: Any, **facts: Any) -> None:
            # Messages pass here in the order of their arrival, whatever they belong to.
            if record is not None:
                record(direction, message, **facts)
            if direction == "received" and isinstance(message, dict):
                self._hear(message)

        transport.record = hear
        transport.on_lost = lambda error: self._end("lost", error) if transport is self.transport else None
        transport.open(self._timeout)
        return transport

    def _hear(self, message: Message) -> None:
        if "method" in message:
            if "id" in message or self._heard.qsize() < MOST_WAITING:
                self._heard.put(message)
        elif type(message.get("id")) is not int or message["id"] != self._awaited:
            self._heard.put(message)

    def _end(self, state: str, error: ClientError) -> None:
        with self._lock:
            if self._over is not None and state == "lost":
                return
            self.state, self._over = state, error
        self._heard.put(error)

    def close(self) -> None:
        """Close the connection, and the client that it was handed over to; `receive` raises. From any thread."""
        client, self._client = self._client, None
        if self.state not in ("new", "closed"):
            self._end("closed", ConnectionLost("The connection was closed"))
        if client is not None:
            client.close()
        self.transport.close()

    def send(self, message: Any, headers: dict[str, str] | None = None) -> None:
        """Send a message exactly as it is, even if it is wrong.

        :param headers: for HTTP, beside or in place of those of the transport and those that mirror a modern message.
        :raises ClientError: when it could not be sent, or when HTTP refused a notification or a response.
        """
        self._expect("send", "started", "discovered", "initializing", "ready")
        if not isinstance(message, dict):
            self._deliver(message, headers or {})
            return
        message = ByHand(message)
        headers = {**_mirrored(message), **(headers or {})}
        try:
            if wire.check(message) in ("notification", "response"):
                self._deliver(message, headers)
                return
        except InvalidRequest:
            pass  # It may be answered like a request.
        self._newest(message["id"])
        exchange = self.transport.start(message, headers, self._timeout)
        if self.transport.kind in _READ_BY_CALLER:
            threading.Thread(target=self._read, args=(exchange,), name="minimcp-steps", daemon=True).start()
        else:
            exchange.close()

    def _deliver(self, message: Any, headers: dict[str, str]) -> None:
        try:
            self.transport.send(message, headers, self._timeout)
        except SessionExpired:
            self._expire()
            raise

    def _read(self, exchange: Exchange) -> None:
        try:
            while "method" in exchange.receive(None):
                pass
        except ClientError as error:
            if isinstance(error, SessionExpired):
                self._expire()
            if self._over is None:
                self._heard.put(error)
        finally:
            exchange.close()

    def _expire(self) -> None:
        """Go back to where a new session can begin. Spec: TRN-149"""
        with self._lock:
            if self._over is None:
                self.state = "started"

    def receive(self, timeout: Any = ...) -> Message:
        """Return the next message of the server: a response to what was sent by hand, a request or a notification.

        :param timeout: in seconds, None for no limit; default: that of the constructor.
        :raises Timeout: when none came in time.
        :raises ClientError: when a message that was sent has no response, or the connection is lost.
        """
        if self.state not in ("lost", "closed"):
            self._expect("receive", "started", "discovered", "initializing", "ready")
        timeout = self._timeout if timeout is ... else timeout
        heard = self._heard
        try:
            found = heard.get(timeout != 0, timeout)
        except queue.Empty:
            raise Timeout(f"The server sent nothing in {timeout} s") from None
        if isinstance(found, ClientError):
            if found is self._over:
                heard.put(found)
            raise found
        return found

    def discover(self, version: str = spec.MODERN_VERSIONS[-1]) -> Result:
        """Ask a modern server for its identity and capabilities, and return its answer. Spec: BASE-073, BASE-087

        :raises ProtocolError: when it is of the legacy era; `initialize` is the next step then.
        """
        self._expect("discover", "started")
        meta = {spec.META_VERSION: version, spec.META_CAPABILITIES: self._capabilities, spec.META_CLIENT: self._info}
        probing = self.transport.kind != "http"
        try:
            answer, status = self._ask("server/discover", {"_meta": meta}, probing)
        except (Timeout, HTTPStatus) as problem:
            status = problem.status if isinstance(problem, HTTPStatus) else 400 if probing else 0
            if not 400 <= status < 500 or status in (401, 403, 429):
                raise
            answer = {}
        result, error = answer.get("result"), answer.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        supported = result.get("supportedVersions") if isinstance(result, dict) else None
        if code in _MODERN_CODES:
            result_of(answer)
        if code == spec.METHOD_NOT_FOUND and status == 404:
            # A modern server that has no discovery. Spec: TRN-103
            result, supported = {}, [version]
        mutual = [each for each in spec.MODERN_VERSIONS if isinstance(supported, list) and each in supported]
        if result is None or not mutual:
            raise ProtocolError(f"The server is of the legacy era, call initialize(): {_LEGACY}")
        self._peer = Peer(modern.ERA, mutual[-1], result)
        self.transport.settle(mutual[-1])
        self.state = "discovered"
        return Result(result)

    def initialize(self, version: str = spec.LATEST_LEGACY) -> Result:
        """Begin a legacy session, and return the server's answer. Spec: BASE-096"""
        self._expect("initialize", "started")
        params = {"protocolVersion": version, "capabilities": self._capabilities, "clientInfo": self._info}
        result = result_of(self._ask("initialize", params, False)[0])
        found = result.get("protocolVersion")
        if found not in spec.LEGACY_VERSIONS:
            raise ProtocolError(f"The server answered initialize with an unknown revision: {str(found)[:50]!r}")
        self._peer = Peer(legacy.ERA, found, result)
        self.transport.settle(found)
        self.state = "initializing"
        return Result(result)

    def initialized(self) -> None:
        """Tell a legacy server that the session has begun. Spec: BASE-098"""
        self._expect("initialized", "initializing")
        self._deliver(wire.notification("notifications/initialized"), {})
        self.state = "ready"
        self.transport.listen()

    def _ask(self, method: str, params: Message, probing: bool) -> tuple[Message, int | None]:
        """Send the request of a step, and return its response and HTTP status; other messages go to `receive`."""
        message = wire.request(self._newest(), method, params)
        timeout_s = self._probe_timeout if probing else self._timeout
        end = time.monotonic() + timeout_s
        self._awaited = message["id"]
        exchange = self.transport.start(message, _mirrored(message), timeout_s)
        try:
            while True:
                answer = exchange.receive(max(0.0, end - time.monotonic()))
                if "method" not in answer:
                    return answer, exchange.status
        finally:
            self._awaited = None
            exchange.close()

    def _newest(self, used: Any = None) -> int:
        """Return a new request id, or take note of one used by hand, so that no id is used twice. Spec: BASE-004"""
        with self._lock:
            self._newest_id = max(self._newest_id, used) if type(used) is int else self._newest_id + (used is None)
            return self._newest_id

    def client(self, **options: Any) -> Client:
        """Hand the connection over to a `Client`, whose callbacks get the requests that nobody received yet.

        :param options: those of `Client`, such as `elicit` or `approve`.
        """
        from .client import Client

        self._expect("client", "discovered", "ready")
        client = self._client = Client(self._given, **{"timeout": self._timeout, **self._for_client, **options})
        connection = client._connect()
        connection.adopt(self.transport, self._peer, self._newest_id)
        self.state = "handed over"
        while not self._heard.empty():
            message = self._heard.get()
            if isinstance(message, dict) and "method" in message:
                connection.inbox.put(message)
        return client

    def _expect(self, step: str, *states: str) -> None:
        """Refuse a step that does not come in this state, with the rule."""
        if self._over is not None:
            raise self._over
        if self.state not in states:
            rule = _RULES.get((step, self.state)) or _RULES.get(("", self.state)) or _RULES[(step, "")]
            raise ProtocolError(f"{step}() cannot come while the client is {self.state!r}: {rule}")


def _mirrored(message: Message) -> dict[str, str]:
    """The headers that mirror a modern message, as far as it is well formed."""
    params: Any = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    if not isinstance(meta, dict) or not isinstance(meta.get(spec.META_VERSION), str):
        return {}
    try:
        name = spec.METHODS[message["method"]].name_param if message["method"] in spec.METHODS else None
        return mirrored.mirror(message, name if name in params else None, [])
    except (AttributeError, TypeError, ValueError):
        return {}


_FIRST = '"after a successful answer send notifications/initialized" (BASE-098)'
_PROBE = '"probe with server/discover before any other request" (TRN-028)'
_LEGACY = (
    '"any other error, or no answer within a reasonable timeout: the server is legacy; send initialize" (BASE-089)'
)
_MODERN = 'the server is modern, and "modern revisions have no handshake" (BASE-106)'
# By step and state; then by state for any step, then by step in any other state.
_RULES = {
    ("", "new"): 'call start() first, "launch the server as a subprocess and exchange messages over it" (TRN-009)',
    ("", "handed over"): "client() handed the connection to a Client; close() ends it",
    ("start", ""): "it was started already; close() ends it",
    ("discover", ""): f"{_PROBE}; close() and start() again",
    ("initialize", "discovered"): _MODERN,
    ("initialize", ""): '"initialize is the first interaction" (BASE-096), and it took place',
    ("initialized", "started"): f"call initialize() first, {_FIRST}",
    ("initialized", "discovered"): _MODERN,
    ("initialized", ""): f"{_FIRST[:-1]}, and it was sent)",
    ("client", "initializing"): f"call initialized() first, {_FIRST}",
    ("client", ""): (
        f'call discover(), or initialize() and initialized(), first: {_PROBE}, and send no "request other than ping '
        'before the initialize answer" (BASE-099)'
    ),
}
