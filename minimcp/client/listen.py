"""Change notifications of a server as an iterator, the same for both eras.

In 2026-07-28 they come on a stream that `subscriptions/listen` opens; before, they come unasked, and single resources
are subscribed to. Spec: 26:basic/patterns/subscriptions, 11:server/resources#subscriptions
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ..protocol import spec, wire
from .connection import HANG_UP_S
from .eras import MODERN, result_of
from .transports.waiting import Deadline, Mailbox

if TYPE_CHECKING:
    from .connection import Connection
    from .eras import Peer

Message = dict[str, Any]

_UPDATED = "notifications/resources/updated"
_TRIES = 5
_BACKOFF_S = 0.5
_MOST_BACKOFF_S = 30.0


class Listen:
    """An open subscription: iterate over it for notifications, `{"method": ..., "params"?: ...}`.

    Iteration ends when the server ends the stream, or when any thread calls `close`. A subscription that is dropped
    stays open until the client is closed.

    :param connect: returns the connection to use, another one after the server was started again.
    :ivar accepted: the filter of `subscriptions/listen` as the server agreed to it. Spec: BASE-161
    """

    def __init__(self, connect: Callable[[], Connection], wanted: Message, reconnect: bool) -> None:
        self._connect = connect
        self._wanted = wanted
        self._reconnect = reconnect
        self._closed = threading.Event()
        self._stream: Any = None
        self.accepted: Message = {}
        self._open()

    def _open(self) -> None:
        conn = self._connect()
        peer = conn.ready()
        self._stream = (_ModernListen if peer.era is MODERN else _LegacyListen)(conn, peer, self._wanted)
        self.accepted = self._stream.accepted
        if self._closed.is_set():
            self._stream.close()

    def __enter__(self) -> Listen:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        event = self.receive()
        if event is None:
            raise StopIteration
        return event

    def receive(self, timeout: Optional[float] = None) -> Message | None:
        """Return the next notification, or None at the end.

        :param timeout: in seconds.
        :raises Timeout: when none came in time.
        :raises ConnectionLost: when the stream broke off, unless `reconnect` was asked for.
        """
        while not self._closed.is_set():
            try:
                event: Message | None = self._stream.receive(timeout)
            except ConnectionLost:
                if self._closed.is_set():
                    break
                if not self._reconnect:
                    raise
                event = None
            if self._closed.is_set():
                break
            if event is not None:
                return event
            if not self._reconnect or not self.accepted:
                break
            self._again()
        return None

    def _again(self) -> None:
        """Listen again after the stream ended; changes in between are missed. Spec: BASE-166, BASE-167, FEAT-133"""
        self._stream.close()
        for number in range(_TRIES):
            pause = min(_BACKOFF_S * 2**number, _MOST_BACKOFF_S) * random.uniform(0.5, 1)
            if self._closed.wait(pause):
                return
            try:
                self._open()
                return
            except ClientError as problem:
                # A connection that is lost or closed is not opened by waiting, but another may take its place.
                conn = self._connect()
                gone = conn.closed or (conn.lost is not None and not conn.settings.restart)
                if number == _TRIES - 1 or gone or problem.retry == "never":
                    raise

    def close(self) -> None:
        """End the subscription; any thread may call it, any number of times."""
        self._closed.set()
        self._stream.close()


class _ModernListen:
    """A `subscriptions/listen` request that is not answered until it ends."""

    def __init__(self, conn: Connection, peer: Peer, wanted: Message) -> None:
        self._conn = conn
        message = wire.request(conn.next_id(), "subscriptions/listen", {"notifications": wanted})
        peer.era.write_meta(conn, message, peer.version, None, False)
        self._id = message["id"]
        self._ended = False
        deadline = Deadline(conn.settings.own_timeout_s, None)
        self._exchange = conn.transport.start(message, peer.era.headers(conn, message), deadline.left())
        try:
            self.accepted = self._acknowledgement(deadline)
        except BaseException:
            self.close()
            raise

    def _acknowledgement(self, deadline: Deadline) -> Message:
        while True:
            first = self._exchange.receive(deadline.left())
            if "method" not in first:
                self._ended = True
                result_of(first)
                raise ProtocolError("The server ended the listen stream without acknowledging it")
            if first["method"] == "notifications/subscriptions/acknowledged":
                params = first.get("params")
                accepted = params.get("notifications") if isinstance(params, dict) else None
                return accepted if isinstance(accepted, dict) else {}

    def receive(self, timeout: float | None) -> Message | None:
        if self._ended:
            return None
        incoming = self._exchange.receive(timeout)
        if "method" not in incoming:
            self._ended = True
            result_of(incoming)
            return None
        if incoming["method"] == "notifications/cancelled":
            self._ended = True
            return None
        self._conn.take_notification(incoming)
        return incoming

    def close(self) -> None:
        ended, self._ended = self._ended, True
        self._exchange.abort(ConnectionLost("The subscription was closed"))
        self._exchange.close()
        if not ended and not self._conn.transport.closing_cancels:
            # Spec: BASE-168
            try:
                self._conn.send_notification("notifications/cancelled", {"requestId": self._id}, HANG_UP_S)
            except ClientError:
                pass


class _LegacyListen:
    """The change notifications of a legacy connection, filtered."""

    def __init__(self, conn: Connection, peer: Peer, wanted: Message) -> None:
        self._conn = conn
        self._peer = peer
        self._messages = Mailbox()
        self._uris = list(wanted.get("resourceSubscriptions", ()))
        if self._uris:
            peer.require("resources/subscribe", "resources", "subscribe")
        # Servers of the official SDK declare no listChanged, and tell of changes all the same.
        self._methods = {notification for notification, field in spec.CHANGES.values() if wanted.get(field)}
        self.accepted: Message = {
            field: True
            for kind, (notification, field) in spec.CHANGES.items()
            if notification in self._methods and peer.offers(kind, "listChanged")
        }
        conn.listeners.add(self)
        try:
            conn.transport.listen()
            for uri in self._uris:
                conn.ask("resources/subscribe", {"uri": uri}, peer=peer)
        except BaseException:
            conn.listeners.discard(self)
            raise
        if self._uris:
            self.accepted["resourceSubscriptions"] = self._uris

    def put(self, message: Message) -> None:
        """Take a notification, if it is wanted."""
        params = message.get("params")
        uri = params.get("uri") if isinstance(params, dict) else None
        updated = message["method"] == _UPDATED and isinstance(uri, str) and uri.startswith(tuple(self._uris))
        wanted = (updated and self._uris) or message["method"] in self._methods
        if wanted:
            self._messages.offer(message)

    def fail(self, error: ClientError) -> None:
        """Take the end of the connection."""
        self._messages.put(error)

    def receive(self, timeout: float | None) -> Message | None:
        try:
            found = self._messages.get(timeout)
        except queue.Empty:
            raise Timeout("No change was told in time") from None
        if isinstance(found, ClientError):
            raise found
        return found  # type: ignore[no-any-return]

    def close(self) -> None:
        if self not in self._conn.listeners:
            return
        self._conn.listeners.discard(self)
        self._messages.put(None)
        try:
            for uri in self._uris:
                self._conn.ask("resources/unsubscribe", {"uri": uri}, peer=self._peer)
        except ClientError:
            pass


def wanted(tools: bool, prompts: bool, resources: bool, uris: Iterable[str], tasks: Iterable[str]) -> Message:
    """Return the filter of `subscriptions/listen`. Spec: BASE-155, EXT-056"""
    if isinstance(uris, str):
        uris = [uris]
    given: Message = {"toolsListChanged": tools, "promptsListChanged": prompts, "resourcesListChanged": resources}
    found = {name: True for name, value in given.items() if value}
    lists = {"resourceSubscriptions": list(uris), "taskIds": list(tasks)}
    return {**found, **{name: value for name, value in lists.items() if value}}
