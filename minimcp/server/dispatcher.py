"""The path every request takes: context, envelope, method row, handler, reply."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..engines import fork
from ..protocol import headers, wire
from ..protocol.errors import Cancelled, HttpAnswer, InputRequired, InternalError, McpError, MethodNotFound
from ..protocol.spec import Method
from . import hooks

if TYPE_CHECKING:
    from ..protocol import types
    from ..protocol.principal import Principal
    from .asking import Strategy
    from .catalog import Entry
    from .context import Context
    from .engine import Engine

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Send = Callable[[Message], None]

# The row of a method that does not exist, and the event of a call that cannot be cancelled; nobody sets it.
_NO_METHOD = Method()
_NEVER = threading.Event()


def _no_stream(retry_ms: int | None = None) -> None:
    """Stands in for `close_stream` where there is no stream that a client could come back to."""


class Era(NamedTuple):
    """A method table and the envelope around it.

    :ivar methods: the rows that exist in this era, by the method's name.
    :ivar notifications: method -> `f(engine, session, params)`.
    :ivar read_envelope: `f(ctx)` fills the context from the message or the session, or raises.
    :ivar write_envelope: `f(ctx, result) -> result` adds what belongs to every result, or drops what cannot be said.
    :ivar write_error: `f(ctx, error) -> error` turns an error into one that this era may send.
    :ivar bad_arguments: `f(ctx, text) -> result` answers tool arguments that do not fit, or raises.
    :ivar strategy: `f(ctx) -> Strategy` returns the way in which a handler asks the client.
    """

    name: str
    versions: Sequence[str]
    methods: dict[str, Method]
    notifications: dict[str, Callable[..., None]]
    read_envelope: Callable[..., None]
    write_envelope: Callable[..., Message]
    write_error: Callable[..., McpError]
    bad_arguments: Callable[..., Message]
    strategy: Callable[..., Any]


class RequestContext:
    """The facts of one request; `Context` adds what its handler can do. Names with an underscore are the library's.

    :ivar method: the method of the request, such as "tools/call".
    :ivar params: its params, as they were sent.
    :ivar meta: the `_meta` of the request; trace context (`traceparent`, `tracestate`, `baggage`) is passed in here.
    :ivar request_id: the id of the request.
    :ivar version: the protocol revision in force.
    :ivar capabilities: the capabilities that the client declared.
    :ivar client_info: the name and version that the client claims; unverified, decide nothing by it. Spec: BASE-047
    :ivar principal: the `Principal` of the authenticated caller, or None.
    :ivar private: set it where a result depends on the caller: shared caches do not keep it for others. Spec: FEAT-226
    :ivar request: the WSGI environ of an HTTP request, else None.
    :ivar session: the legacy session or stdio connection, else None.
    :ivar cancelled: a `threading.Event`, set when the client cancels or goes away.
    """

    # fmt: off
    __slots__ = (
        "_asked", "_deadline", "_engine", "_entry", "_era", "_error", "_finished", "_last_progress", "_lifespan",
        "_log_level", "_denied", "_on_cancel", "_row", "_send", "_strategy", "_thread", "_unread_s", "cancelled",
        "capabilities", "client_info", "close_stream", "meta", "method", "params", "principal", "private", "request",
        "request_id", "session", "version",
    )
    # fmt: on

    def __init__(
        self, engine: Engine, era: Era, message: Message, session: Any, principal: Principal | None, request: Any
    ) -> None:
        self._engine = engine
        self._era = era
        self.session = session
        self.principal = principal
        self.private = False
        self.request = request
        self.request_id: types.RequestId | None = message.get("id")
        self.method: str = message["method"]
        self.params: Message = message.get("params") or {}
        meta = self.params.get("_meta")
        self.meta: Message = meta if isinstance(meta, dict) else {}
        self.version = ""
        self.capabilities: Message = {}
        self.client_info: Message = {}
        self.cancelled = _NEVER
        self.close_stream: Callable[..., None] = _no_stream
        self._unread_s: Callable[[], float] = float  # 0.0: whoever is there reads
        self._row = _NO_METHOD
        self._entry: Entry | None = None
        self._lifespan = engine.lifespans.own  # while a mounted server's function runs, that of this server
        self._log_level: str | None = None
        self._strategy: Strategy | None = None
        # Takes what the handler emits before its reply; None where it cannot be delivered.
        self._send: Send | None = None
        self._thread: int | None = None
        # The exception of a tool, whose failure is a result all the same.
        self._error: Exception | None = None
        # Whether a rule has refused the entry that the request is for.
        self._denied = False
        self._finished = False
        self._deadline: float | None = None
        self._on_cancel: list[Callable[[], None]] = []  # single operations, which are atomic
        self._last_progress: float | None = None
        self._asked = 0


class Call:
    """A request in progress: made when it arrives, run once on any thread, cancelled at most once.

    :param get_header: looks up the HTTP headers that are held against the request.
    :param handler: continues a request that was answered already; see `Context.detach`.
    :ivar interactive: whether the handler may emit or ask before it answers; one that cannot may run on any thread.
    :ivar streams: whether the handler is long-lived, so that `messages` is the way to run it.
    :ivar http: the HTTP status and headers of the error that it was answered with, if that has them.
    """

    __slots__ = ("_around", "_dropped", "_handler", "_problem", "ctx", "http", "id", "interactive", "streams")

    def __init__(
        self, ctx: Context, get_header: headers.Get | None = None, handler: Callable[..., Any] | None = None
    ) -> None:
        engine, era, method = ctx._engine, ctx._era, ctx.method
        self.id = ctx.request_id
        self.ctx = ctx
        self.interactive = self.streams = self._dropped = False
        self.http: HttpAnswer | None = None
        self._around = engine.around_request
        self._problem: Exception | None = None
        self._handler = handler
        if handler is not None:
            self.interactive, self._around, ctx.cancelled = True, None, threading.Event()
            return
        try:
            ctx._row = row = engine.methods[era.name].get(method, _NO_METHOD)
            params = ctx.params  # the catalog may replace them, and headers mirror what was sent
            ctx._entry = entry = engine.catalog.find(ctx)
            if get_header is not None:
                message = {"method": method, "params": params}
                headers.check(get_header, message, row.name_param, entry.headers if entry else [])
            era.read_envelope(ctx)
            handler, capability = row.handler, row.capability
            if handler is None or (capability is not None and capability not in engine.catalog.offers(ctx)):
                raise MethodNotFound(f"Method not found: {method[:100]}")
            interactive = row.interactive or (entry is not None and entry.context is not None)
            if row.may_ask and (interactive or "requestState" in ctx.params or "inputResponses" in ctx.params):
                ctx._strategy = engine.choose_strategy(ctx)
            self._handler = handler
            self.streams = streams = row.streams
            if interactive or streams:
                self.interactive = True
                # Only these can look at it; the others are spared the cost of an Event.
                ctx.cancelled = threading.Event()
        except Exception as problem:
            # Answered by `run` like a failure of the handler: a catalog or a strategy of the author's may fail too.
            self._problem = problem

    @property
    def contexts(self) -> Sequence[Context]:
        """The contexts of its requests."""
        return (self.ctx,)

    @property
    def quick(self) -> bool:
        """Whether it runs nothing of an author's, as `ping` does, so that it may always be answered at once."""
        return self.ctx._row.before_handshake

    @property
    def deadline(self) -> float | None:
        """The time on the monotonic clock at which a long-lived stream has to end; None for never."""
        return self.ctx._deadline

    @deadline.setter
    def deadline(self, when: float | None) -> None:
        self.ctx._deadline = when

    def run(self, send: Send | None = None) -> Message | None:
        """Run the handler on this thread and return the reply, or None when the call was cancelled.

        :param send: takes what the handler emits; None when there is no way to deliver it.
        """
        if self.streams:
            reply = None
            for message in self.messages(send):
                if message is None:
                    continue
                if "method" not in message:
                    reply = message
                elif send is not None:
                    send(message)
            return reply
        if self._around is not None:
            return hooks.run(self, send)
        ctx = self.ctx
        ctx._send, ctx._thread, since = send, threading.get_ident(), fork.generation
        try:
            reply = self._done(self._invoke())
        except BaseException as error:
            fork.end_child(since, error)
            reply = self._failed(error)
        fork.end_child(since, ctx._error)
        ctx._finished = True
        return reply

    def messages(self, send: Send | None = None) -> Generator[Optional[Message], None, None]:
        """Run a long-lived handler on this thread: yield what it emits, None when it idles, and the reply last."""
        if self._around is not None:
            return hooks.messages(self, send)
        return self._messages(send)

    def _messages(self, send: Send | None) -> Generator[Optional[Message], None, None]:
        ctx = self.ctx
        ctx._send, ctx._thread = send, threading.get_ident()
        try:
            reply = self._done((yield from self._invoke()))
        except GeneratorExit:
            # Raised again by a function that holds it, it would keep the whole request until the next collection.
            raise
        except BaseException as error:
            reply = self._failed(error)
        finally:
            ctx._finished = True
        if reply is not None:
            yield reply

    def _invoke(self) -> Any:
        if self._problem is not None:
            raise self._problem
        assert self._handler is not None
        ctx = self.ctx
        if ctx._engine.lifespans:
            ctx._engine.lifespans.enter()
        # A transport may bring its own hook: a framework's view does, so that handlers on a worker are in its context.
        own = ctx.request.get("minimcp.around_call") if ctx.request is not None else None
        if self.streams or (own is None and ctx._engine.around_call is None):
            return self._handler(ctx, ctx.params)
        return hooks.around_call((own, ctx._engine.around_call), ctx, self._handler)

    def _done(self, result: Message) -> Message | None:
        if self._dropped:
            return None
        return wire.result(self.id, self.ctx._era.write_envelope(self.ctx, result))

    def _failed(self, error: BaseException) -> Message | None:
        """Build the reply to a call that ended by an exception."""
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise error
        if isinstance(error, Cancelled) or self._dropped:
            return None
        if isinstance(error, InputRequired):
            asked = {"resultType": "input_required", "inputRequests": error.requests, "requestState": error.state}
            return self._done(asked)
        if isinstance(error, McpError):
            self.http = error.http
            return wire.error(self.id, self.ctx._era.write_error(self.ctx, error))
        # SystemExit and its like from a handler must not take the server down.
        log.error("%s failed", self.ctx.method, exc_info=error)
        return wire.error(self.id, InternalError(hooks.describe(self.ctx, "Internal error", error)))

    def cancel(self, reason: Any = None) -> None:
        """Cancel the call: no reply is sent for it, and the next progress, log or ask of its handler raises."""
        self._dropped = True
        ctx = self.ctx
        if ctx.cancelled is _NEVER:
            return
        log.info("%s %.100r cancelled: %.200r", ctx.method, self.id, reason)
        ctx.cancelled.set()
        hooks.notify_once(ctx._on_cancel)
