"""The trace of a server: records every message that it receives and sends, in the format of `engines.trace`.

`Engine.call` sees each message that arrives and returns a `TracedCall`, which sees each message that leaves. Only what
a transport refuses before that, and what a session sends on its own, is recorded by `refused` and `Session.record`.
Spec: FEAT-038
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Optional, Union

from ..engines.trace import recorder
from ..protocol import wire
from ..protocol.errors import McpError
from ..protocol.redaction import NAMES
from .dispatcher import Batch, Call
from .session import Session

Message = dict[str, Any]
Send = Callable[[Message], None]
Record = Callable[..., None]

# Marks the environ of an HTTP request whose message and refusal `call` has recorded.
_SEEN = "minimcp.traced"


class Tracing:
    """The trace of one server.

    :param trace: True, a path, a file object or a callable; see `engines.trace`.
    """

    def __init__(self, trace: Any) -> None:
        self._recorder = recorder(trace, NAMES)

    def of(self, session: Session) -> Record:
        """Return the function that records the messages of a session."""

        def record(direction: str, message: Any, **facts: Any) -> None:
            self._recorder(session.transport, direction, message, scope=id(session), **facts)

        return record

    def call(
        self,
        take: Callable[..., Optional[Union[Call, Batch]]],
        message: Any,
        session: Session | None,
        request: Message | None,
        **more: Any,
    ) -> TracedCall | None:
        """Record a message that arrives, give it to `take`, and record what it is answered with.

        :param take: as `Engine.call`; `more` are its other arguments.
        :raises McpError: as `take` does.
        """
        if session is not None:
            record = self.of(session)
        else:
            # Ids are unique only per client, so a request without a session is matched with its own answer alone.
            record = self._recorder.bind("memory" if request is None else "http", object())
        if request is not None:
            request[_SEEN] = True
        # A transport may call for a session of HTTP itself, without a request; the client sent no such message.
        if session is None or request is not None or session.transport not in ("http", "sse"):
            for each in _each(message):
                record("received", each, **_http(request))
        try:
            call = take(message, session=session, request=request, **more)
        except McpError as problem:
            record("sent", wire.error(wire.readable_id(message), problem))
            raise
        return None if call is None else TracedCall(call, record)

    def refused(
        self, transport: str, message: Any, reply: Message, request: Message | None = None, status: int | None = None
    ) -> None:
        """Record a request that a transport refuses by itself; one that `call` has seen is not recorded again.

        :param message: None when it was not read, or is not JSON.
        """
        if request is None or _SEEN not in request:
            record = self._recorder.bind(transport, object())
            record("received", message, **_http(request))
            record("sent", reply, status=status)


class TracedCall:
    """A call, or a batch of them, whose messages are recorded; in all else it is that call."""

    __slots__ = ("_call", "_record")

    def __init__(self, call: Call | Batch, record: Record) -> None:
        object.__setattr__(self, "_call", call)
        object.__setattr__(self, "_record", record)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._call, name, value)

    def _sending(self, send: Send | None) -> Send | None:
        if send is None:
            return None

        def record_and_send(message: Message) -> None:
            self._record("sent", message)
            send(message)

        return record_and_send

    def run(self, send: Send | None = None) -> Any:
        """Run the call and record what it sends and its reply."""
        reply = self._call.run(self._sending(send))
        if reply is not None:
            for each in _each(reply):
                self._record("sent", each)
        return reply

    def messages(self, send: Send | None = None) -> Iterator[Optional[Message]]:
        """Run a long-lived call and record what it yields."""
        messages = self._call.messages(self._sending(send))
        try:
            for message in messages:
                if message is not None:
                    self._record("sent", message)
                yield message
        finally:
            messages.close()


def _each(message: Any) -> list[Any]:
    """The messages of a batch, or the one message."""
    return message if isinstance(message, list) and message else [message]


def _http(request: Message | None) -> Message:
    """The HTTP method and headers in a WSGI environ."""
    if request is None:
        return {}
    names = {name: name[5:] for name in request if name.startswith("HTTP_")}
    names.update({name: name for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if request.get(name)})
    headers = {shown.replace("_", "-").title(): str(request[name]) for name, shown in names.items()}
    return {"method": request.get("REQUEST_METHOD"), "headers": headers}
