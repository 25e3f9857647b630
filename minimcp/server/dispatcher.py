"""The one path every message takes: era, context, method table, handler, reply."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from typing import Any, Optional

from ..protocol import headers, spec, wire
from ..protocol.errors import Cancelled, InputRequired, InternalError, InvalidRequest, McpError, MethodNotFound
from . import methods
from .context import Context

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Send = Callable[[Message], None]
Handler = Callable[[Context, Message], Any]


class Era:
    """A method table plus an envelope.

    :ivar methods: method -> `f(ctx, params) -> result`; a long-lived one is a generator that yields what it emits.
    :ivar notifications: method -> `f(server, session, params)`.
    :ivar open: `f(ctx)` fills the context from the message or the session, or raises.
    :ivar close: `f(ctx, result) -> result` dresses a result for the wire.
    :ivar problem: `f(ctx, error) -> error` turns an error into one this era may send.
    :ivar bad_arguments: `f(ctx, text) -> result` answers tool arguments that do not fit, or raises.
    :ivar extensible: whether extensions may add methods.
    """

    __slots__ = (
        "bad_arguments",
        "close",
        "extensible",
        "long_lived",
        "methods",
        "name",
        "notifications",
        "open",
        "problem",
        "versions",
    )

    def __init__(
        self,
        name: str,
        versions: Sequence[str],
        methods: dict[str, Handler],
        notifications: dict[str, Callable[[Any, Any, Message], None]],
        open: Callable[[Context], None],
        close: Callable[[Context, Message], Message],
        problem: Callable[[Context, McpError], McpError],
        bad_arguments: Callable[[Context, str], Message],
        extensible: bool = False,
    ) -> None:
        self.name = name
        self.versions = versions
        self.methods = methods
        self.long_lived = frozenset(name for name, handler in methods.items() if inspect.isgeneratorfunction(handler))
        self.notifications = notifications
        self.open = open
        self.close = close
        self.problem = problem
        self.bad_arguments = bad_arguments
        self.extensible = extensible


class Call:
    """One request in flight: made when it arrives, run once, cancelled at most once.

    :ivar interactive: whether the handler may emit or ask before it answers; one that cannot may run on any thread.
    :ivar streams: whether the handler is long-lived, so that `messages` is the way to run it.
    """

    __slots__ = ("_dropped", "_handler", "_problem", "ctx", "http", "id", "interactive", "streams")

    def __init__(self, ctx: Context, era: Era, get_header: headers.Get | None) -> None:
        self.id = ctx.request_id
        self.ctx = ctx
        self.interactive = self.streams = self._dropped = False
        self.http: tuple[int, list[tuple[str, str]]] | None = None
        self._problem: McpError | None = None
        self._handler: Handler | None = None
        ctx.era = era
        try:
            self._prepare(era, get_header)
        except McpError as problem:
            self._problem = problem

    def _prepare(self, era: Era, get_header: headers.Get | None) -> None:
        ctx = self.ctx
        server, method = ctx.server, ctx.method
        ctx.entry = entry = server.registry.find(method, ctx.params)
        if get_header is not None:
            name = spec.NAME_PARAM.get(method) or server.name_params.get(method)
            headers.check(get_header, {"method": method, "params": ctx.params}, name, entry.headers if entry else [])
        era.open(ctx)
        handler = era.methods.get(method)
        capability = methods.CAPABILITY.get(method)
        added = None if handler is not None or not era.extensible else server.extension_methods.get(method)
        handler = handler or added
        if handler is None or (capability is not None and capability not in server.registry.offers):
            raise MethodNotFound(f"Method not found: {method[:100]}")
        self._handler = handler
        self.streams = method in era.long_lived
        self.interactive = self.streams or added is not None or (entry is not None and entry.context is not None)
        if self.interactive:
            # Only these can look at it; the others are spared the cost of an Event.
            ctx.cancelled = threading.Event()

    @property
    def deadline(self) -> float | None:
        """The time on the monotonic clock at which a long-lived stream has to end; None for never."""
        return self.ctx.deadline

    @deadline.setter
    def deadline(self, when: float | None) -> None:
        self.ctx.deadline = when

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
        ctx = self.ctx
        ctx.begin(send)
        try:
            return self._done(self._invoke())
        except BaseException as error:
            return self._failed(error)
        finally:
            ctx.finished = True

    def messages(self, send: Send | None = None) -> Generator[Optional[Message], None, None]:
        """Run a long-lived handler on this thread: yield what it emits, None when it idles, and the reply last."""
        ctx = self.ctx
        ctx.begin(send)
        try:
            reply = self._done((yield from self._invoke()))
        except GeneratorExit:
            # Raised again by a function that holds it, it would keep the whole request until the next collection.
            raise
        except BaseException as error:
            reply = self._failed(error)
        finally:
            ctx.finished = True
        if reply is not None:
            yield reply

    def _invoke(self) -> Any:
        if self._problem is not None:
            raise self._problem
        assert self._handler is not None
        ctx = self.ctx
        # A door may bring its own hook: a framework's view does, so that handlers on a worker are in its context.
        door = ctx.request.get("minimcp.around_call") if ctx.request is not None else None
        if self.streams or (door is None and ctx.server.around_call is None):
            return self._handler(ctx, ctx.params)
        result = None
        try:
            with ExitStack() as hooks:
                for around in (door, ctx.server.around_call):
                    if around is not None:
                        hooks.enter_context(around(ctx))
                result = self._handler(ctx, ctx.params)
                if ctx.error is not None:
                    # A tool that failed has a result all the same; a transaction around it must not commit.
                    raise ctx.error
        except Exception as error:
            if error is not ctx.error:
                raise
        return result

    def _done(self, result: Message) -> Message | None:
        if self._dropped:
            return None
        return wire.result(self.id, self.ctx.era.close(self.ctx, result))

    def _failed(self, error: BaseException) -> Message | None:
        """The reply to a call that ended by an exception."""
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise error
        if isinstance(error, Cancelled) or self._dropped:
            return None
        if isinstance(error, InputRequired):
            asked = {"resultType": "input_required", "inputRequests": error.requests, "requestState": error.state}
            return self._done(asked)
        if isinstance(error, McpError):
            self.http = error.http
            return wire.error(self.id, self.ctx.era.problem(self.ctx, error))
        # SystemExit and its like from a handler must not take the server down.
        log.error("%s failed", self.ctx.method, exc_info=error)
        return wire.error(self.id, InternalError(self.ctx.server.describe("Internal error", error)))

    def cancel(self, reason: Any = None) -> None:
        """Cancel the call: no reply is sent for it, and a handler that looks is told."""
        self._dropped = True
        self.ctx.cancel(reason)


class Batch:
    """The calls of a 2025-03-26 batch, run one after the other, with the interface of a Call. Spec: BASE-022"""

    streams = False
    deadline: float | None = None
    http: tuple[int, list[tuple[str, str]]] | None = None

    def __init__(self, calls: list[Call], refused: list[Message]) -> None:
        self.calls = calls
        self.id = None
        self.refused = refused
        self.ctx = calls[0].ctx if calls else None
        self.interactive = any(call.interactive for call in calls)

    def run(self, send: Send | None = None) -> list[Message] | None:
        """Run every call and return their replies as one array, or None when there is nothing to say."""
        replies = [reply for reply in (call.run(send) for call in self.calls) if reply is not None]
        return self.refused + replies or None

    def messages(self, send: Send | None = None) -> Generator[Optional[Message], None, None]:
        """Yield nothing: no call of a batch is long-lived."""
        yield from ()

    def cancel(self, reason: Any = None) -> None:
        """Cancel every call."""
        for call in self.calls:
            call.cancel(reason)


def cancelled(server: Any, session: Any, params: Message) -> None:
    """Take `notifications/cancelled`: cancel that call of the session; anything unknown is ignored.

    Spec: BASE-133, BASE-134
    """
    id = params.get("requestId")
    call = session.calls.get(id) if session is not None and wire.is_id(id) else None
    if call is not None:
        call.cancel(params.get("reason"))


def check_batch(values: list[Any], limit: int) -> None:
    """Refuse a batch that is empty or too long before looking at its members.

    :raises InvalidRequest: with one sentence.
    """
    if not 0 < len(values) <= limit:
        raise InvalidRequest(f"A batch has 1 to {limit} messages")
