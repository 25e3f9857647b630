"""A transport to a `Server` in the same process; messages are encoded and parsed both ways, as on any other."""

from __future__ import annotations

import threading
from typing import Any, Optional, Protocol

from ...engines.errors import ConnectionLost, ProtocolError
from ...protocol import wire
from ...protocol.errors import McpError
from .transport import Exchange, Message, OnMessage, Transport
from .waiting import Pending


class MemoryCall(Protocol):
    """The part of a server's call that this transport uses."""

    interactive: bool
    streams: bool

    def run(self, send: OnMessage) -> Optional[Message]:
        """Run the call, give `send` what it emits, and return its response, or None if there is none."""


class MemorySession(Protocol):
    """The part of a server's session that this transport uses."""

    def add_call(self, call: MemoryCall) -> None:
        """Take note of a call in progress."""

    def remove_call(self, call: MemoryCall) -> None:
        """Forget a call that ended."""

    def close(self) -> None:
        """End the session; its calls are told."""


class MemoryServer(Protocol):
    """The part of a server's engine that this transport uses."""

    def open_session(self, send: OnMessage) -> MemorySession:
        """Open a session; `send` takes messages that belong to no call."""

    def call(self, message: Message, *, session: MemorySession) -> Optional[MemoryCall]:
        """Return the call of a request, or None for any other message, which is handled at once."""

    def close_session(self, session: MemorySession) -> None:
        """Forget a session."""

    def refuse(self, message: Message, problem: McpError) -> Message:
        """Build the reply to a message that `call` refused."""


class MemoryTransport(Transport):
    """Hands messages to a server's `call`; what may emit or ask runs on a thread of its own, the rest on the caller."""

    kind = "memory"
    survives_fork = True

    def __init__(self, engine: MemoryServer) -> None:
        super().__init__()
        self._engine = engine
        self._session: Optional[MemorySession] = None
        self._pending = Pending()

    def open(self, timeout_s: float) -> None:
        """Open the session that stands for the connection."""
        if self._session is None:
            self._pending = Pending()
            self._session = self._engine.open_session(self._receive)

    def start(self, message: Message, headers: dict[str, str], timeout_s: float | None) -> Exchange:
        """Run a request."""
        session = self._opened()
        exchange = self._pending.add(message)
        copy = self._copy("sent", message)
        try:
            call: Optional[MemoryCall] = self._engine.call(copy, session=session)
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

    def _run(self, call: MemoryCall, id: Any) -> None:
        try:
            reply = call.run(lambda message: self._receive(message, id))
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
            self._engine.call(self._copy("sent", message), session=session)
        except McpError as problem:
            raise ProtocolError(f"The server refused the message: {problem}") from None

    def _opened(self) -> MemorySession:
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
