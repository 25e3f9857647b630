"""One open way to a server: the transport, what negotiation found, and the messages that go to and fro."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..engines.errors import AuthorizationError, ClientError, ConnectionLost, Timeout
from ..protocol import spec, wire
from ..protocol.errors import InternalError, McpError
from .answers import Answers
from .cache import Cache
from .errors import HTTPStatus
from .inbox import Inbox
from .peer import Peer, result_of
from .tools import Tools
from .transports.transport import Exchange, OnMessage, Transport
from .transports.waiting import Deadline

if TYPE_CHECKING:
    from ..engines.trace import Recorder

log = logging.getLogger("minimcp")

Message = dict[str, Any]

UNAUTHORIZED = "The server wants authorization (HTTP 401), and none was given or it was not accepted; see auth="
HANG_UP_S = 2.0  # for a last word to a server that may not be listening


class Connection:
    """What a client has in one process; after a fork the child makes its own.

    :param negotiate: opens one of the transports and finds out what is behind it.
    :ivar transports: makes the transport to try first, then those to fall back to.
    :ivar key: names the server in the shared cache and among the remembered eras.
    """

    def __init__(
        self,
        transports: list[Callable[[], Transport]],
        key: str,
        negotiate: Callable[[Connection], Peer],
        *,
        mode: str,
        greeting: Message | None,
        info: Message | None,
        answers: Answers,
        extensions: Message,
        record: Recorder | None,
        cache: Cache | None,
        timeout_s: float,
        probe_timeout_s: float,
        watch: bool,
        on_notice: Callable[[Message], None],
    ) -> None:
        self.pid = os.getpid()
        self.transports = transports
        self.key = key
        self.mode = mode
        self.greeting = greeting
        self.info = info
        self.answers = answers
        self.extensions = extensions
        self.cache = cache
        self.timeout_s = timeout_s
        self.probe_timeout_s = probe_timeout_s
        self.watch = watch
        self.log_level: str | None = None
        self.tools = Tools()
        self.identity = ""
        self.closed = False
        self.lost: ClientError | None = None
        self._negotiate = negotiate
        self._record = record
        self._on_notice = on_notice
        self._opening = threading.RLock()  # held while opening, so that others wait for the outcome
        self._ids = itertools.count(1)
        self._capabilities: dict[bool, Message] = {}
        self.listeners: set[Any] = set()
        self.relist: Callable[[], Any] = self.tools.forget
        # Questions that are being answered, and whether the server still wants the answer.
        self._wanted: dict[Any, bool] = {}
        self.inbox = Inbox(self._answer, self._refuse, self.notice)
        self.transport: Transport = Transport()
        self.peer: Peer | None = None

    def ready(self) -> Peer:
        """The server, after opening and negotiating if that has not happened yet.

        :raises ClientError: when it fails, or the connection was lost or closed.
        """
        peer = self.peer
        if peer is not None and self.lost is None and not self.closed:
            return peer
        with self._opening:
            if self.closed:
                raise ConnectionLost("The client is closed; open() it again to use it", "always")
            if self.lost is not None:
                raise self.lost
            if self.peer is None:
                try:
                    self.peer = self._negotiate(self)
                except BaseException:
                    self.transport.close()
                    raise
                if self.closed:
                    self.transport.close()
                    raise ConnectionLost("The client was closed while it opened", "always")
            return self.peer

    def renew(self, stale: Peer) -> Peer:
        """Negotiate again after the server forgot the session, once for all threads that noticed.

        Spec: TRN-149
        """
        with self._opening:
            if self.peer is stale:
                self.peer = None
                self.tools.forget()
            return self.ready()

    def use(self, make: Callable[[], Transport]) -> Transport:
        """Open a transport in place of the one in use, if any."""
        self.transport.close()
        transport = make()
        transport.record = self._record and self._record.bind(transport.kind)
        transport.on_message = self.inbox.put
        transport.on_lost = lambda error: self._lose(transport, error)
        self.transport = transport
        transport.open(self.timeout_s)
        return transport

    def adopt(self, transport: Transport, peer: Peer, newest_id: int) -> None:
        """Go on with a transport that is open, to a server that is known.

        :param newest_id: the highest request id that was used on it.
        """
        self._ids = itertools.count(newest_id + 1)
        self.use(lambda: transport)
        self.peer = peer

    def _lose(self, transport: Transport, error: ClientError) -> None:
        if transport is self.transport and not self.closed:
            self.lost = error
            for listener in list(self.listeners):
                listener.fail(error)

    def capabilities(self, legacy: bool) -> Message:
        """What this client declares."""
        found = self._capabilities.get(legacy)
        if found is None:
            found = self.answers.capabilities(legacy)
            # Tasks are not for the legacy era. Spec: EXT-013
            extensions = dict(self.extensions)
            if legacy:
                extensions.pop(spec.TASKS, None)
            if extensions:
                found["extensions"] = extensions
            self._capabilities[legacy] = found
        return found

    def next_id(self) -> int:
        """A request id that was never used on this connection. Spec: BASE-004"""
        return next(self._ids)

    def exchange(
        self,
        peer: Peer,
        message: Message,
        deadline: Deadline,
        on_message: OnMessage | None = None,
        started: Callable[[Exchange], None] | None = None,
    ) -> Message:
        """Send a request, give what arrives for it before its answer to `on_message`, and return the result.

        When it ends in any other way the server is told that the answer is no longer awaited.

        :param on_message: by default the inbox takes these messages.
        :param started: takes the exchange once the request is sent.

        :raises ClientError: whatever went wrong.
        """
        answered = False
        headers = peer.era.headers(self, message)
        exchange = None
        take = on_message or self.inbox.put
        try:
            exchange = self.transport.start(message, headers, deadline.left())
            if started is not None:
                started(exchange)
            paused_s = 0.0
            while True:
                asked = self.inbox.answered
                left = deadline.left()
                try:
                    incoming = exchange.receive(left)
                except Timeout:
                    # While a person is asked, a legacy server cannot answer.
                    if (self.inbox.busy or self.inbox.answered != asked) and deadline.can_extend():
                        deadline.restart()
                        continue
                    raise Timeout(f"The server did not answer {message['method']} in {deadline.timeout_s} s") from None
                if exchange.paused_s > paused_s:
                    deadline.extend(exchange.paused_s - paused_s)
                    paused_s = exchange.paused_s
                if "method" in incoming:
                    if left == 0:
                        raise Timeout(f"The server sent much, but no answer to {message['method']}")
                    take(incoming)
                    continue
                answered = True
                if exchange.identity:
                    self.identity = exchange.identity
                return result_of(incoming)
        except HTTPStatus as problem:
            answered = True
            if problem.status == 401:
                raise AuthorizationError(UNAUTHORIZED) from problem
            raise
        except ConnectionLost:
            answered = True
            raise
        finally:
            if exchange is not None:
                exchange.close()
                if not answered and message["method"] != "initialize":
                    self._cancel(message["id"])

    def ask(self, peer: Peer, method: str, params: Message | None = None, timeout_s: float | None = None) -> Message:
        """Send a request of the client's own, outside any call, and return its result.

        :raises ClientError: when there is no answer, or an error.
        """
        message = wire.request(self.next_id(), method, params)
        peer.era.dress(self, message, peer.version, None, False)
        return self.exchange(peer, message, Deadline(timeout_s or self.timeout_s, None))

    def _cancel(self, id: Any) -> None:
        """Tell the server that an answer is no longer awaited. Spec: BASE-125, BASE-126"""
        if self.transport.closing_cancels:
            return
        try:
            self.notify("notifications/cancelled", {"requestId": id, "reason": "no longer awaited"}, HANG_UP_S)
        except ClientError as problem:
            log.debug("the server could not be told of a cancellation: %s", problem)

    def notify(self, method: str, params: Message | None = None, timeout_s: float | None = None) -> None:
        """Send a notification."""
        message = wire.notification(method, params)
        headers = self.peer.era.headers(self, message) if self.peer is not None else {}
        self.transport.send(message, headers, timeout_s or self.timeout_s)

    def _answer(self, request: Message) -> None:
        """Answer a legacy server's request. Spec: BASE-018, BASE-117"""
        id, method = request["id"], request["method"]
        if self.peer is not None and not self.peer.era.answers:
            log.warning("a request of the server is ignored, which may send none: %.100r", method)
            return
        key = (type(id), id)
        self._wanted[key] = True
        try:
            if method == "ping":
                reply = wire.result(id, {})
            else:
                name = self.peer.name if self.peer is not None else "the server"
                reply = wire.result(id, self.answers.answer(method, request.get("params"), name))
        except McpError as problem:
            reply = wire.error(id, problem)
        except Exception:
            log.exception("the callback for %s failed", method)
            reply = wire.error(id, InternalError("The client could not answer"))
        if not self._wanted.pop(key, False):
            return
        try:
            self.transport.send(reply, {}, self.timeout_s)
        except ConnectionLost as lost:
            log.debug("the answer to %s came too late: %s", method, lost)

    def _refuse(self, request: Message, problem: InternalError) -> None:
        if self.peer is not None and not self.peer.era.answers:
            return
        self.transport.send(wire.error(request["id"], problem), {}, HANG_UP_S)

    def notice(self, message: Message) -> None:
        """Take a notification that belongs to no call."""
        if message["method"] == "notifications/cancelled":
            # Spec: BASE-131
            id = (message.get("params") or {}).get("requestId")
            if wire.is_id(id) and (type(id), id) in self._wanted:
                self._wanted[(type(id), id)] = False
        if self.cache is not None:
            self.cache.changed(self.key, message)
        if message["method"] == "notifications/tools/list_changed":
            self.tools.forget()
        for listener in list(self.listeners):
            listener.put(message)
        self._on_notice(message)

    def close(self) -> None:
        """Hang up. Never waits for a thread that is opening."""
        self.closed = True
        self.inbox.clear()
        if self.pid == os.getpid():
            for listener in list(self.listeners):
                listener.fail(ConnectionLost("The client was closed"))
            self.transport.close()
