"""The two hooks of a server: around every handler, and around every request with its outcome."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import MinimcpError
from ..protocol import wire
from ..protocol.errors import HttpAnswer, InternalError, McpError

if TYPE_CHECKING:
    from ..protocol.principal import Principal
    from .context import Context
    from .dispatcher import Call

log = logging.getLogger("minimcp")

Message = dict[str, Any]
# The handler of a further path: from a WSGI environ to the status, the headers and the body of a response.
Route = Callable[[Message], tuple[int, list[tuple[str, str]], Iterable[bytes]]]


def around_call(hooks: Iterable[Any], ctx: Context, handler: Callable[..., Any]) -> Any:
    """Run a handler inside the context managers that `f(ctx)` of each hook makes; None stands for no hook."""
    result = None
    try:
        with ExitStack() as stack:
            for hook in hooks:
                if hook is not None:
                    stack.enter_context(hook(ctx))
            result = handler(ctx, ctx.params)
            if ctx._error is not None:
                # A tool that failed has a result all the same; a transaction around it must not commit.
                raise ctx._error
    except Exception as error:
        if error is not ctx._error:
            raise
    return result


def describe(ctx: Context, failure: str, error: BaseException) -> str:
    """Return the text that a client gets of an exception: with what was raised, or with the place that has it.

    By default only a client that has this process to itself is told, over stdio or in memory; see `Server(debug=...)`.
    """
    debug, session = ctx._engine.debug, ctx.session
    if debug or (debug is None and session is not None and session.local):
        kind = "" if isinstance(error, MinimcpError) else type(error).__name__
        said = ": ".join(part for part in (failure, kind, str(error)) if part)
        if kind == "ProgrammingError" and "that same thread" in said:
            said += ". Functions run on several threads: open a connection in each call"
        return said
    return f'{failure}; the logger "minimcp" of the server has the details'


def notify(callback: Callable[..., object], *arguments: object) -> None:
    """Call a function that is told of something; its failure is logged and stops nothing else, nor does its exit."""
    try:
        callback(*arguments)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        log.exception("%r failed", callback)


def notify_once(callbacks: list[Callable[[], None]]) -> None:
    """Call each function of a list, and take it from there, so that of several threads one alone calls it."""
    while callbacks:
        try:
            callback = callbacks.pop(0)
        except IndexError:
            return
        notify(callback)


class Outcome:
    """One request as `Server(around_request=...)` sees it.

    :ivar method: the method, or None when the message could not be read so far.
    :ivar name: the tool's or prompt's name, the resource's URI, or None.
    :ivar principal: the `Principal` of the authenticated caller, or None.
    :ivar ctx: the request's Context; None when it was refused before there was one.
    :ivar request: the WSGI environ of an HTTP request, else None.
    :ivar reply: the reply as it goes out, once the request has been answered; None for a call that was cancelled.
    :ivar http: the HTTP status and headers of an error that has its own, such as those of `Unauthorized`, else None.
    :ivar duration_s: the seconds from the start to the reply; for a stream, to its end.
    """

    def __init__(
        self, message: Any, principal: Principal | None, request: Message | None, ctx: Context | None = None
    ) -> None:
        found = message if isinstance(message, dict) else {}
        method, params = found.get("method"), found.get("params")
        params = params if isinstance(params, dict) else {}
        name = params.get("name", params.get("uri"))
        self.method: str | None = method if isinstance(method, str) else None
        self.name: str | None = name if isinstance(name, str) else None
        self.principal = principal
        self.ctx = ctx
        self.request = request
        self.reply: Message | None = None
        self.http: HttpAnswer | None = None
        self.duration_s = 0.0
        self._started = time.monotonic()

    @property
    def error(self) -> Message | None:
        """The error of the reply, `{"code", "message", "data"?}`, or None; a tool that failed has a result."""
        return self.reply.get("error") if self.reply is not None else None

    def _end(self, reply: Message | None, http: HttpAnswer | None) -> None:
        self.reply, self.http = reply, http
        self.duration_s = time.monotonic() - self._started


AroundRequest = Callable[[Outcome], "AbstractContextManager[Any]"]


def stacked(hooks: Iterable[AroundRequest]) -> AroundRequest:
    """Make one hook of several for `Server(around_request=...)`, the first one outermost."""
    found = list(hooks)

    def around(outcome: Outcome) -> AbstractContextManager[Any]:
        return _Stack(outcome, found)

    return around


class _Stack:
    """The hooks around one request, each inside the one before; quicker than an ExitStack."""

    __slots__ = ("_entered", "_hooks", "_outcome")

    def __init__(self, outcome: Outcome, hooks: list[AroundRequest]) -> None:
        self._outcome = outcome
        self._hooks = hooks
        self._entered: list[AbstractContextManager[Any]] = []

    def __enter__(self) -> None:
        try:
            for hook in self._hooks:
                manager = hook(self._outcome)
                manager.__enter__()
                self._entered.append(manager)
        except BaseException as problem:
            if self.__exit__(type(problem), problem, problem.__traceback__):
                raise RuntimeError("A hook around a request cannot go on after a refusal") from None
            raise

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        first = problem
        for manager in reversed(self._entered):
            try:
                if manager.__exit__(kind, problem, trace):
                    kind, problem, trace = None, None, None
            except BaseException as other:
                kind, problem, trace = type(other), other, other.__traceback__
        if problem is not None and problem is not first:
            raise problem
        return problem is None and first is not None


def _begin(call: Call) -> tuple[Outcome, AbstractContextManager[Any]]:
    around, call._around = call._around, None
    assert around is not None
    ctx = call.ctx
    outcome = Outcome({"method": ctx.method, "params": ctx.params}, ctx.principal, ctx.request, ctx)
    return outcome, around(outcome)


def run(call: Call, send: Callable[[Message], None] | None) -> Message | None:
    """Run a call inside the hook, whose exception takes the reply's place."""
    try:
        outcome, hook = _begin(call)
        with hook:
            outcome._end(call.run(send), call.http)
        return outcome.reply
    except BaseException as error:
        return call._failed(error)


def messages(call: Call, send: Callable[[Message], None] | None) -> Generator[Optional[Message], None, None]:
    """Run a long-lived call inside the hook."""
    reply = None
    try:
        outcome, hook = _begin(call)
        with hook, closing(call.messages(send)) as stream:
            try:
                for message in stream:
                    if message is not None and "method" not in message:
                        reply = message
                    else:
                        yield message
            except GeneratorExit:
                # The client has left: an end like any other to the hook, not an error in its body.
                pass
            finally:
                outcome._end(reply, call.http)
    except BaseException as error:
        reply = call._failed(error)
    if reply is not None:
        yield reply


def refused(
    around: AroundRequest, message: Any, problem: McpError, principal: Principal | None, request: Message | None
) -> Message:
    """Answer a message that was refused before a call was made of it, inside the hook."""
    id = wire.readable_id(message)
    outcome = Outcome(message, principal, request)
    try:
        with around(outcome):
            outcome._end(wire.error(id, problem), problem.http)
    except McpError as other:
        problem.http = other.http or problem.http
        return wire.error(id, other)
    except Exception:
        log.exception("around_request failed")
        return wire.error(id, InternalError("Internal error"))
    assert outcome.reply is not None
    return outcome.reply
