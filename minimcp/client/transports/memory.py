"""A transport to a `Server` in the same process: no transport, but real messages, encoded and parsed on both ways."""

from __future__ import annotations

import threading
from typing import Any

from ...engines.errors import ConnectionLost, ProtocolError
from ...protocol import wire
from ...protocol.errors import McpError
from .transport import Exchange, Message, Transport
from .waiting import Pending


class MemoryTransport(Transport):
    """Hands messages to a server's `call`; what may emit or ask runs on a thread of its own, the rest on the caller."""

    kind = "memory"
    survives_fork = True

    def __init__(self, server: Any) -> None:
        super().__init__()
        self._server = server
        self._session: Any = None
        self._pending = Pending()

    def open(self, timeout_s: float) -> None:
        """Open the session that stands for the connection."""
        if self._session is None:
            self._pending = Pending()
            self._session = self._server.open_session(self._receive)

    def start(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> Exchange:
        """Run a request."""
        session = self._opened()
        exchange = self._pending.add(message)
        copy = self._copy("sent", message)
        try:
            call = self._server.call(copy, session=session)
        except McpError as problem:
            self._receive(self._server.refuse(message, problem))
            return exchange
        if call is None:
            raise ProtocolError("A request needs a method and an id")
        session.add_call(call)
        if call.interactive or call.streams:
            threading.Thread(target=self._run, args=(call,), name="minimcp-memory", daemon=True).start()
        else:
            self._run(call)
        return exchange

    def _run(self, call: Any) -> None:
        try:
            reply = call.run(self._receive)
        finally:
            session = self._session
            if session is not None:
                session.remove_call(call)
        if reply is not None:
            self._receive(reply)

    def send(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> None:
        """Deliver a notification or a response."""
        session = self._opened()
        try:
            self._server.call(self._copy("sent", message), session=session)
        except McpError as problem:
            raise ProtocolError(f"The server refused the message: {problem}") from None

    def _opened(self) -> Any:
        if self._session is None:
            raise ConnectionLost("The transport is not open", "always")
        return self._session

    def _copy(self, direction: str, message: Message) -> Message:
        try:
            copy: Message = wire.loads(wire.dumps(message), 10_000, 10_000_000)
        except ValueError as problem:
            raise ProtocolError(f"The message cannot be written as JSON: {problem}") from None
        if self.record is not None:
            self.record(direction, copy)
        return copy

    def _receive(self, message: Message) -> None:
        copy: Message = wire.loads(wire.encode(message), 10_000, 10_000_000)
        if self.record is not None:
            self.record("received", copy)
        if not self._pending.take(copy):
            self.on_message(copy)

    def close(self) -> None:
        """End the session; calls in progress are told."""
        session, self._session = self._session, None
        self._pending.fail(ConnectionLost("The client was closed"))
        if session is not None:
            session.close()
            self._server.close_session(session)
