"""A request whose result is handed on as it came, for a relay between a client and a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..protocol import spec, wire
from .errors import CallCancelled
from .transports.transport import Exchange, SessionExpired
from .transports.waiting import Deadline

if TYPE_CHECKING:
    from .connection import Connection, Reply
    from .eras import Peer

Message = dict[str, Any]


class RawCall:
    """One request of `Client.exchange`; `run` blocks until its result is there, and `cancel` ends it from any thread.

    :param meta: the request's `_meta`, None for that in the params.
    :param on_message: `f(message, reply or None)`; see `Client.exchange`.
    :ivar headers: headers for HTTP beside those of the client.
    """

    def __init__(
        self,
        method: str,
        params: Message,
        meta: Message | None,
        on_message: Optional[Callable[[Message, Optional[Reply]], Any]],
        timeout_s: float | None,
        max_timeout_s: float | None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.headers = headers
        self._method = method
        self._params = params
        self._meta: Message = (params.get("_meta") or {}) if meta is None else meta
        self._on_message = on_message
        self._deadline = Deadline(timeout_s, max_timeout_s)
        self._cancelled = False
        self._exchange: Optional[Exchange] = None

    def run(self, conn: Connection) -> Message:
        """Send the request on this thread and return its result.

        :raises ClientError: when the answer is an error, or there is none.
        """
        peer = conn.ready()
        try:
            return self._send(conn, peer)
        except SessionExpired:
            # It was not run. Spec: TRN-149
            return self._send(conn, conn.renew(peer))

    def cancel(self) -> None:
        """End the call from any thread: `run` raises CallCancelled, and the server is told."""
        self._cancelled = True
        exchange = self._exchange
        if exchange is not None:
            exchange.abort(self._cancellation())

    def _cancellation(self) -> CallCancelled:
        return CallCancelled(f"{self._method} was cancelled")

    def _send(self, conn: Connection, peer: Peer) -> Message:
        if self._cancelled:
            raise self._cancellation()
        params = {name: value for name, value in self._params.items() if name != "_meta"}
        message = wire.request(conn.next_id(), self._method, params or None)
        peer.era.write_meta(conn, message, peer.version, None, "progressToken" in self._meta)
        ours = message.get("params", {}).get("_meta", {})
        given = {key: value for key, value in self._meta.items() if key not in (spec.META_VERSION, "progressToken")}
        if ours or given:
            kept = {key: ours[key] for key in (spec.META_VERSION, "progressToken") if key in ours}
            message["params"] = {**params, "_meta": {**ours, **given, **kept}}
        return conn.exchange(peer, message, self._deadline, self)

    def started(self, exchange: Exchange) -> None:
        """Take note of the exchange, for `cancel`."""
        self._exchange = exchange
        if self._cancelled:
            exchange.abort(self._cancellation())

    def take(self, conn: Connection, id: int, incoming: Message) -> None:
        """Hand on a message that came before the answer to the request with this id."""
        if "id" in incoming or self._on_message is None:
            conn.inbox.put(incoming, self)
            return
        params = incoming.get("params")
        if incoming["method"] == "notifications/progress":
            if not isinstance(params, dict) or params.get("progressToken") != id:
                return
            self._deadline.restart()
            incoming = {**incoming, "params": {**params, "progressToken": self._meta.get("progressToken")}}
        conn.note(incoming)
        self._on_message(incoming, None)

    def answer(self, conn: Connection, request: Message, reply: Reply) -> None:
        """Hand on a request of the server that came with this one."""
        if self._on_message is not None:
            self._on_message(request, reply)
        else:
            reply({"result": conn.result_for(request, {"method": self._method, "params": self._params})})
