"""The trace of a server: records every message that it receives and sends, in the format of `engines.trace`.

It stands around two functions of the engine: `call`, which takes each message that arrives, and `refuse`, which answers
those that are not taken. What a session sends on its own is recorded by `Session.record`. Spec: FEAT-038
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Optional

from ..engines.trace import Trace, recorder
from ..protocol.errors import McpError
from ..protocol.redaction import NAMES
from .batch import Batch
from .engine import Engine
from .session import Session

Message = dict[str, Any]
Send = Callable[[Message], None]
Record = Callable[..., None]


class Tracing:
    """Records the messages of an engine from now on.

    :param trace: True, a path, a file object or a callable; see `engines.trace`.
    """

    def __init__(self, engine: Engine, trace: Trace) -> None:
        self._recorder = recorder(trace, NAMES)
        self._call, self._refuse, self._open_session = engine.call, engine.refuse, engine.open_session
        # On the engine itself, so that a server without a trace pays nothing for it.
        vars(engine).update(call=self.call, refuse=self.refuse, open_session=self.open_session)

    def open_session(self, *arguments: Any, **more: Any) -> Session:
        """Open a session whose own messages are recorded."""
        session = self._open_session(*arguments, **more)
        if session.record is None:
            session.record = self._of(session)
        return session

    def _of(self, session: Session) -> Record:
        def record(direction: str, message: Any, **facts: Any) -> None:
            self._recorder(session.transport, direction, message, scope=id(session), **facts)

        return record

    def call(
        self, message: Any, *, session: Session | None = None, request: Message | None = None, **more: Any
    ) -> PassedCall | Batch | None:
        """Record a message that arrives, and return its call, which records the messages that answer it.

        :raises McpError: as `Engine.call` does.
        """
        if isinstance(message, list):
            # Its members come one by one.
            return self._call(message, session=session, request=request, **more)  # type: ignore[return-value]
        if session is not None:
            record = self._of(session)
        else:
            # Ids are unique only per client, so a request without a session is matched with its own answer alone.
            record = self._recorder.bind("memory" if request is None else "http", object())
        # A transport may call for a session of HTTP itself, without a request; the client sent no such message.
        if session is None or request is not None or session.transport not in ("http", "sse"):
            record("received", message, **_http(request))
        try:
            call = self._call(message, session=session, request=request, **more)
        except McpError as problem:
            problem.record = record  # type: ignore[attr-defined]
            raise
        if call is None:
            return None

        def outgoing(sent: Message) -> Message:
            record("sent", sent)
            return sent

        return PassedCall(call, outgoing)

    def refuse(self, message: Any, problem: McpError, principal: Any = None, request: Message | None = None) -> Message:
        """Record the reply to a message that was not taken, and the message unless `call` has seen it."""
        record: Record | None = getattr(problem, "record", None)
        if record is None:
            record = self._recorder.bind("http" if request is not None else "stdio", object())
            record("received", message, **_http(request))
        reply = self._refuse(message, problem, principal, request)
        record("sent", reply, **({} if problem.http is None else {"status": problem.http[0]}))
        return reply


class PassedCall:
    """A call whose messages pass a function on their way out; in all else it is that call.

    :param outgoing: takes each message that it sends and its reply, and returns what is sent in its place.
    """

    __slots__ = ("_call", "_outgoing")

    def __init__(self, call: Any, outgoing: Callable[[Message], Message]) -> None:
        object.__setattr__(self, "_call", call)
        object.__setattr__(self, "_outgoing", outgoing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._call, name, value)

    def _sending(self, send: Send | None) -> Send | None:
        return None if send is None else lambda message: send(self._outgoing(message))

    def run(self, send: Send | None = None) -> Any:
        """Run the call, and pass what it sends and its reply."""
        reply = self._call.run(self._sending(send))
        return None if reply is None else self._outgoing(reply)

    def messages(self, send: Send | None = None) -> Generator[Optional[Message], None, None]:
        """Run a long-lived call, and pass what it yields."""
        messages = self._call.messages(self._sending(send))
        try:
            for message in messages:
                yield None if message is None else self._outgoing(message)
        finally:
            messages.close()


def _http(request: Message | None) -> Message:
    """The HTTP method and headers in a WSGI environ."""
    if request is None:
        return {}
    names = {name: name[5:] for name in request if name.startswith("HTTP_")}
    names.update({name: name for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if request.get(name)})
    headers = {shown.replace("_", "-").title(): str(request[name]) for name, shown in names.items()}
    return {"method": request.get("REQUEST_METHOD"), "headers": headers}
