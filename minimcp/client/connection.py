"""An open connection: its transport, the negotiated server, and the messages in both directions."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Optional, Protocol

from ..engines.errors import ClientError, ConnectionLost, Timeout
from ..protocol import revisions, spec, wire
from ..protocol.errors import InternalError, McpError
from .eras import Peer, result_of
from .errors import HTTPStatus, RemoteError, unauthorized
from .inbox import Inbox
from .options import Settings
from .tools import Tools
from .transports.transport import Exchange, Transport
from .transports.waiting import Deadline

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Reply = Callable[[Message], None]

HANG_UP_S = 2.0  # for a last message to a server that may not be listening


class OpenCall(Protocol):
    """A call while one of its requests is open: a `ClientCall` or a `RawCall`.

    :ivar headers: headers for HTTP beside those of the era, or None.
    """

    headers: Optional[dict[str, str]]

    def started(self, exchange: Exchange) -> None:
        """Take the exchange, once the request is sent."""

    def take(self, conn: Connection, id: int, incoming: Message) -> None:
        """Take a message that came before the answer to the request with this id."""

    def answer(self, conn: Connection, request: Message, reply: Reply) -> None:
        """Answer a request of the server that came with this call, through `reply({"result" or "error": ...})`."""


class Listener(Protocol):
    """A subscription that is told of the notifications of a connection, and of its end."""

    def put(self, message: Message) -> None:
        """Take a notification."""

    def fail(self, error: ClientError) -> None:
        """Take the end of the connection."""


class Connection:
    """The connection of a client in one process; after a fork the child makes its own.

    :param negotiate: opens one of the transports and finds out which server is behind it.
    :param relist: lists the tools again, because the server says that a call does not fit their definition.
    :ivar lost: the error that ended it, or None.
    """

    def __init__(self, settings: Settings, negotiate: Callable[[Connection], Peer], relist: Callable[[], Any]) -> None:
        self.pid = os.getpid()
        self.settings = settings
        self.relist = relist
        self.tools = Tools()
        self.closed = False
        self.lost: ClientError | None = None
        self.inbox = Inbox(self._answer, self._answer_briefly, self.take_notification)
        self.transport: Transport = Transport()
        self.peer: Peer | None = None
        self._negotiate = negotiate
        self._opening = threading.RLock()  # held while opening, so that others wait for the outcome; guards peer
        self._losing = threading.Lock()  # guards transport and lost, so that a loss counts for its own transport only
        self._ids = itertools.count(1)
        self._capabilities: dict[str, Message] = {}
        # No lock guards these three: single operations of a dict or set, which are atomic.
        self.listeners: set[Listener] = set()
        self._calls: set[OpenCall] = set()
        self._wanted: dict[Any, bool] = {}  # questions that are being answered: whether the server still waits

    def ready(self) -> Peer:
        """Return the server, after opening and negotiating if that has not happened yet.

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
                    self.peer = None
                    self.transport.close()
                    raise
                if self.closed:
                    self.transport.close()
                    raise ConnectionLost("The client was closed while it opened", "always")
            return self.peer

    def renew(self, stale: Peer) -> Peer:
        """Negotiate again after the server forgot the session, once for all threads that noticed. Spec: TRN-149"""
        with self._opening:
            if self.peer is stale:
                self.peer = None
                self.tools.forget()
                for listener in list(self.listeners):
                    listener.fail(ConnectionLost("The server forgot the session, and with it what was listened to"))
            return self.ready()

    def use(self, make: Callable[[], Transport]) -> None:
        """Open a transport in place of the one in use, if any; the loss of that one is forgotten."""
        self.transport.close()
        transport = make()
        record = self.settings.record
        transport.record = record and record.bind(transport.kind)
        transport.on_message = self.inbox.put
        transport.on_lost = lambda error: self._lose(transport, error)
        with self._losing:
            self.transport, self.lost = transport, None
        transport.open(self.settings.own_timeout_s)

    def adopt(self, transport: Transport, peer: Peer, newest_id: int) -> None:
        """Go on with a transport that is open, to a server that is known.

        :param newest_id: the highest request id that was used on it.
        """
        self._ids = itertools.count(newest_id + 1)
        self.use(lambda: transport)
        self.peer = peer

    def _lose(self, transport: Transport, error: ClientError) -> None:
        with self._losing:
            if transport is not self.transport or self.closed:
                return
            self.lost = error
        for listener in list(self.listeners):
            listener.fail(error)

    def capabilities(self, version: str) -> Message:
        """Return the capabilities that this client declares in a revision."""
        found = self._capabilities.get(version)
        if found is None:
            declared = self.settings.capabilities
            found = self.settings.answers.capabilities(version)
            if declared is not None:
                found = revisions.declaration(version, declared)
            # Tasks are not for the legacy era. Spec: EXT-013
            extensions = dict(self.settings.extensions)
            if version in spec.LEGACY_VERSIONS:
                extensions.pop(spec.TASKS, None)
            if extensions:
                found["extensions"] = extensions
            self._capabilities[version] = found
        return found

    def next_id(self) -> int:
        """Return a request id that was never used on this connection. Spec: BASE-004"""
        return next(self._ids)

    # Requests of the client

    def exchange(self, peer: Peer, message: Message, deadline: Deadline, call: OpenCall | None = None) -> Message:
        """Send a request and return its result.

        When it ends in any other way the server is told that the answer is no longer awaited.

        :param call: takes the messages that come before the answer; without one they go to the inbox.
        :raises ClientError: when there is no answer, or an error.
        """
        answered = False
        headers = peer.era.headers(self, message)
        exchange = None
        if call is not None:
            self._calls.add(call)
            if call.headers:
                headers = {**call.headers, **headers}
        try:
            exchange = self.transport.start(message, headers, deadline.left())
            if call is not None:
                call.started(exchange)
            response = self.response(exchange, message, deadline, call)
            answered = True
            return result_of(response)
        except HTTPStatus as problem:
            answered = True
            if problem.status == 401:
                raise unauthorized(problem) from problem
            raise
        except ConnectionLost:
            answered = True
            raise
        except RemoteError as problem:
            problem.status = None if exchange is None else exchange.status
            raise
        finally:
            if call is not None:
                self._calls.discard(call)
            if exchange is not None:
                exchange.close()
                if not answered and message["method"] != "initialize":
                    self._cancel(message["id"])

    def response(
        self, exchange: Exchange, message: Message, deadline: Deadline, call: OpenCall | None = None
    ) -> Message:
        """Wait for the response to a request that was sent; see `exchange`."""
        paused_s = 0.0
        asked = self.inbox.answered
        while True:
            if exchange.paused_s > paused_s:
                deadline.extend(exchange.paused_s - paused_s)
                paused_s = exchange.paused_s
            left = deadline.left()
            try:
                incoming = exchange.receive(left)
            except Timeout:
                # While a person is asked, a legacy server cannot answer.
                if (self.inbox.busy or self.inbox.answered != asked) and deadline.can_extend():
                    deadline.restart()
                    asked = self.inbox.answered
                    continue
                raise Timeout(f"The server did not answer {message['method']} in {deadline.timeout_s} s") from None
            if "method" not in incoming:
                return incoming
            if left == 0:
                raise Timeout(f"The server sent much, but no answer to {message['method']}")
            if call is None:
                self.inbox.put(incoming)
            else:
                call.take(self, message["id"], incoming)
            asked = self.inbox.answered

    def ask(
        self, method: str, params: Message | None = None, timeout_s: float | None = None, peer: Peer | None = None
    ) -> Message:
        """Send a request that the client makes for itself, outside any call, and return its result.

        :param peer: the server, where negotiation has not ended yet.
        :raises ClientError: when there is no answer, or an error.
        """
        peer = peer or self.ready()
        message = wire.request(self.next_id(), method, params)
        peer.era.write_meta(self, message, peer.version, None, False)
        return self.exchange(peer, message, Deadline(timeout_s or self.settings.own_timeout_s, None))

    def _cancel(self, id: Any) -> None:
        """Tell the server that an answer is no longer awaited. Spec: BASE-125, BASE-126"""
        if self.transport.closing_cancels:
            return
        params = {"requestId": id, "reason": "no longer awaited"}
        try:
            self.send_notification("notifications/cancelled", params, HANG_UP_S)
        except ClientError as problem:
            log.debug("the server could not be told of a cancellation: %s", problem)

    def send_notification(self, method: str, params: Message | None = None, timeout_s: float | None = None) -> None:
        """Send a notification."""
        message = wire.notification(method, params)
        headers = self.peer.era.headers(self, message) if self.peer is not None else {}
        self.transport.send(message, headers, timeout_s or self.settings.own_timeout_s)

    # Unasked messages of the server

    def _answer(self, request: Message, call: OpenCall | None) -> None:
        """Answer a legacy server's request. Spec: BASE-018

        :param call: the call on whose stream it came, if the transport knows.
        """
        id, method = request["id"], request["method"]
        if not self._may_answer(request):
            return
        if call is None:
            # On a transport with one channel a question names no call; it belongs to the only one there is.
            calls = list(self._calls)
            call = calls[0] if len(calls) == 1 else None
        key = (type(id), id)

        def reply(response: Message) -> None:
            if not self._wanted.pop(key, False):
                return
            try:
                self.transport.send({**response, "jsonrpc": "2.0", "id": id}, {}, self.settings.own_timeout_s)
            except ConnectionLost as lost:
                log.debug("the answer to %s came too late: %s", method, lost)
            except ValueError:
                self._wanted[key] = True  # not JSON, so nothing was sent and an error still can be
                raise
            except ClientError:
                log.exception("the answer to %.100r could not be sent", method)

        self._wanted[key] = True
        try:
            if call is not None:
                call.answer(self, request, reply)
            else:
                reply({"result": self.result_for(request)})
        except McpError as problem:
            reply(wire.error(id, problem))
        except Exception:
            log.exception("the callback for %.100r failed", method)
        reply(wire.error(id, InternalError("The client could not answer")))  # does nothing after another reply

    def result_for(self, question: Message, call: Optional[Message] = None) -> Message:
        """Put a question of the server to the callback for it, and return its result.

        :param question: `{"method": str, "params"?: {...}}`.
        :param call: `{"method": str, "params": {...}}` of the call that it came with, if known.
        :raises McpError: when it cannot be answered.
        """
        if self.settings.on_request is not None:
            return self.settings.on_request(question)
        name, version = (self.peer.name, self.peer.version) if self.peer is not None else ("the server", "")
        version = version or spec.LATEST_LEGACY
        return self.settings.answers.answer(question["method"], question.get("params"), name, call, version)

    def _answer_briefly(self, request: Message, problem: Optional[InternalError]) -> None:
        """Answer a ping, or refuse a question. Spec: BASE-117"""
        id = request["id"]
        if self._may_answer(request):
            answer = wire.result(id, {}) if problem is None else wire.error(id, problem)
            self.transport.send(answer, {}, HANG_UP_S)

    def _may_answer(self, request: Message) -> bool:
        if self.peer is None or self.peer.era.answers:
            return True
        log.warning("a request of the server is ignored, which may send none: %.100r", request["method"])
        return False

    def take_notification(self, message: Message) -> None:
        """Take a notification that belongs to no call, and give it to the client's callbacks."""
        self.note(message)
        settings = self.settings
        if message["method"] == "notifications/message" and settings.on_log is not None:
            settings.on_log(message.get("params", {}))
        elif settings.on_notification is not None:
            settings.on_notification(message)

    def note(self, message: Message) -> None:
        """Act on a notification: drop withdrawn questions, changed lists and resources, and tell the listeners."""
        settings = self.settings
        if message["method"] == "notifications/cancelled":
            # Spec: BASE-131, BASE-134, BASE-137
            params = message.get("params")
            params = params if isinstance(params, dict) else {}
            id = params.get("requestId")
            if wire.is_id(id) and (type(id), id) in self._wanted:
                self._wanted[(type(id), id)] = False
                log.debug("the server withdrew its question %.100r: %.200r", id, params.get("reason"))
        if settings.cache is not None:
            settings.cache.changed(settings.target.key, message)
        if message["method"] == "notifications/tools/list_changed":
            self.tools.forget()
        for listener in list(self.listeners):
            listener.put(message)

    def close(self) -> None:
        """Hang up. Never waits for a thread that is opening."""
        self.closed = True
        self.inbox.clear()
        if self.pid == os.getpid():
            for listener in list(self.listeners):
                listener.fail(ConnectionLost("The client was closed"))
            self.transport.close()
