"""A transport to a `Server` in the same process; messages are encoded and parsed both ways, as on any other."""

from __future__ import annotations

import threading
from typing import Any, Generic

from ...engines.errors import ConnectionLost, ProtocolError
from ...protocol import wire
from ...protocol.errors import McpError
from ...protocol.served import S, Served, ServedCall
from .transport import Exchange, Message, Transport, written
from .waiting import Pending


class MemoryTransport(Transport, Generic[S]):
    """Hands messages to a server's `call`; what may emit or ask runs on a thread of its own, the rest on the caller."""

    kind = "memory"
    survives_fork = True

    def __init__(self, engine: Served[S]) -> None:
        super().__init__()
        self._engine = engine
        self._session: S | None = None
        self._pending = Pending()

    def open(self, timeout_s: float) -> None:
        """Open the session that stands for the connection."""
        if self._session is None:
            self._pending = Pending()
            self._session = self._engine.open_session(self._receive)
            self._session.local = True

    def start(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> Exchange:
        """Run a request."""
        session = self._opened()
        exchange = self._pending.add(message)
        copy = self._copy("sent", message)
        try:
            call = self._engine.call(copy, session=session)
        except McpError as problem:
            self._receive(self._engine.refuse(message, problem))
            return exchange
        if call is None:
            raise ProtocolError("A request needs a method and an id")
        session.add_call(call)
        id = message["id"]
        if call.interactive or call.streams:
            threading.Thread(target=self._run, args=(call, id), name="minimcp-memory", daemon=True).start()
        else:
            self._run(call, id)
        return exchange

    def _run(self, call: ServedCall, id: Any) -> None:
        try:
            reply = call.run(lambda message: self._receive(message, id))
        finally:
            session = self._session
            if session is not None:
                session.remove_call(call)
        if isinstance(reply, dict):
            self._receive(reply)

    def send(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> None:
        """Deliver a notification or a response."""
        session = self._opened()
        try:
            self._engine.call(self._copy("sent", message), session=session)
        except McpError as problem:
            raise ProtocolError(f"The server refused the message: {problem}") from None

    def _opened(self) -> S:
        if self._session is None:
            raise ConnectionLost("The transport is not open", "always")
        return self._session

    def _copy(self, direction: str, message: Message) -> Message:
        copy: Message = wire.loads(written(message), 10_000, 10_000_000)
        if self.record is not None:
            self.record(direction, copy)
        return copy

    def _receive(self, message: Message, request_id: Any = None) -> None:
        copy: Message = wire.loads(wire.encode(message), 10_000, 10_000_000)
        if self.record is not None:
            self.record("received", copy)
        if not self._pending.take(copy, request_id):
            self.on_message(copy)

    def close(self) -> None:
        """End the session; calls in progress are told."""
        session, self._session = self._session, None
        self._pending.fail(ConnectionLost("The client was closed"))
        if session is not None:
            session.close()
            self._engine.close_session(session)
