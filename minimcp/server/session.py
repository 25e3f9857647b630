"""A legacy session: the results of `initialize`, the calls and questions in flight, and what it subscribed to.

A stdio connection has one session for its whole life; those of HTTP clients are in `Sessions`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ..engines.budget import Budget
from ..protocol import wire
from ..protocol.errors import (
    Cancelled,
    ClientRefused,
    InternalError,
    InvalidParams,
)
from ..protocol.principal import Principal
from .hooks import notify

if TYPE_CHECKING:
    from .sharing import Sharing

Message = dict[str, Any]


class Session:
    """The legacy era's state of one client.

    :ivar version: the negotiated revision, None before `initialize`.
    :ivar send: takes messages that belong to no request, or None while there is no way to deliver them.
    :ivar peer: the address that opened it, where that is known.
    :ivar uri_bytes: the bytes of `uris`, which were taken from the budget `subscribed`.
    :ivar transport: "stdio", "http", "sse" or "memory", for the trace.
    :ivar local: whether its client has this process to itself, so that it may see what a handler raised.
    :ivar note: takes an encoded message under a key, where one that was not read yet is replaced by a newer one.
    :ivar record: takes `(direction, message)` of what `send` sends, for the trace, or None.
    :ivar calls: the calls in flight by request id, for `notifications/cancelled`.
    :ivar listening: whether a client reads the session's own stream at this moment.
    :ivar watched: whether changes are passed on to it.
    :ivar shared: tells the other processes of it, or None where there are none.
    :ivar key: its name among processes, which does not show its id; "" where it is this one's alone.
    :ivar told: counts the changes of what its record has; one that was read before the newest of them is stale.
    :ivar away: whether another process has its own stream, so that changes are passed on there.
    :ivar tell_all: tells it of a change of everything, for one that may have been told of nothing for a while.
    :ivar end_stream: makes a client that reads the session's own stream come back later, perhaps to another process.
    """

    def __init__(self, principal: Principal | None = None, send: Callable[[Message], None] | None = None) -> None:
        self.id = ""
        self.principal = principal
        self.send = send
        self.transport = "http" if send is None else "memory"
        self.local = False
        self.record: Callable[..., None] | None = None
        self.version: str | None = None
        self.capabilities: Message = {}
        self.client_info: Message = {}
        self.log_level = "info"
        self.peer = ""
        self.uris: set[str] = set()
        self.uri_bytes = 0
        self.subscribed: Budget | None = None
        self.note: Callable[[object, bytes], None] | None = None
        self.calls: dict[Any, Any] = {}
        self._doubles: tuple[Any, ...] = ()
        self.listening = False
        self.watched = False
        self.shared: Sharing | None = None
        self.key = ""
        self.told = 0
        self.away = False
        self.tell_all: Callable[[], None] | None = None
        self.end_stream: Callable[[], None] | None = None
        self.used = self.kept = time.monotonic()
        self.closed = False
        self.on_close: list[Callable[[], None]] = []
        self._lock = threading.Lock()  # guards _waiting, _asked, calls, _doubles, uris and closed
        self._waiting: dict[Any, Future[Any]] = {}
        self._asked = 0

    def add_call(self, call: Any, limit: float = math.inf) -> None:
        """Remember a call in flight, or those of a batch; where its id is in use, the earlier call keeps it.

        :raises InternalError: with HTTP status 429 when `limit` are in flight; one that is quick is always taken.
        """
        with self._lock:
            if len(self.calls) + len(self._doubles) >= limit and not call.quick:
                problem = InternalError("This session has too many calls in progress; try again when one has ended")
                problem.http = (429, [("Retry-After", "1")])
                raise problem
            for each in getattr(call, "calls", (call,)):
                if self.calls.setdefault(each.id, each) is not each:
                    self._doubles = (*self._doubles, each)

    def remove_call(self, call: Any) -> None:
        """Forget a call that has ended, or those of a batch."""
        with self._lock:
            for each in getattr(call, "calls", (call,)):
                id = each.id
                if self.calls.get(id) is each:
                    del self.calls[id]
                elif self._doubles:
                    self._doubles = tuple(other for other in self._doubles if other is not each)

    def set_level(self, level: str) -> None:
        """Set the least level of log messages.

        :raises InternalError: when other processes cannot be told.
        """
        if self.shared is not None:
            self.shared.set_level(self, level)
        self.log_level = level

    def subscribe(self, uri: str, budget: Budget, limits: Mapping[str, float]) -> None:
        """Subscribe to a resource.

        :raises InvalidParams: when the session has too many subscriptions.
        :raises InternalError: when all sessions together have, or other processes cannot be told.
        """
        if self.add_uri(uri, budget, limits) and self.shared is not None:
            try:
                self.shared.subscribe(self, uri)
            except InternalError:
                self.remove_uri(uri)
                raise

    def add_uri(self, uri: str, budget: Budget, limits: Mapping[str, float]) -> bool:
        """Subscribe to a resource in this process, and say whether that is new; see `subscribe`."""
        size = len(uri)
        with self._lock:
            if uri in self.uris or self.closed:
                return False
            if len(self.uris) >= limits["subscriptions"] or self.uri_bytes + size > limits["subscription_bytes"]:
                raise InvalidParams("This session has too many subscriptions")
            if not budget.take(size, limits["all_subscription_bytes"]):
                raise InternalError("There are too many subscriptions here; try again later")
            self.subscribed = budget
            self.uris.add(uri)
            self.uri_bytes += size
            return True

    def unsubscribe(self, uri: str) -> None:
        """End a subscription; one that does not exist is no error.

        :raises InternalError: when other processes cannot be told.
        """
        if self.shared is not None:
            self.shared.unsubscribe(self, uri)
        self.remove_uri(uri)

    def remove_uri(self, uri: str) -> None:
        """End a subscription in this process."""
        with self._lock:
            if uri in self.uris and self.subscribed is not None and not self.closed:
                self.uris.discard(uri)
                self.uri_bytes -= len(uri)
                self.subscribed.give(len(uri))

    def ask(self, ctx: Any, question: Message) -> tuple[str, Future[Any]]:
        """Send the client a request on the stream of the call in `ctx`; return its id and the future of its result.

        The future fails with Cancelled when the call is cancelled or the session closes, and with ClientRefused when
        the client answers with an error.
        """
        with self._lock:
            if self.closed:
                raise Cancelled
            self._asked += 1
            # A string, so that it is never taken for one of the client's own ids; the answer may reach another process.
            id = f"s{self._asked}" if self.shared is None else f"s{self._asked}.{self.shared.node}"
            future: Future[Any] = Future()
            self._waiting[id] = future
        ctx.on_cancel(lambda: self._settle(id, error=Cancelled()))
        ctx._send(wire.request(id, question["method"], question.get("params")))
        return id, future

    def give_up(self, ctx: Any, id: str) -> None:
        """Tell the client that its answer is no longer awaited."""
        if self._settle(id, error=Cancelled()):
            ctx._emit("notifications/cancelled", {"requestId": id, "reason": "timeout"})

    def _settle(self, id: Any, result: Any = None, error: BaseException | None = None) -> bool:
        with self._lock:
            future = self._waiting.pop(id, None)
        if future is None:
            return False
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
        return True

    def resolve(self, response: Message) -> bool:
        """Pass a response to the call that waits for it; one that no call has asked for is ignored.

        :raises InternalError: when that call is in another process, which cannot be reached.
        """
        if self.shared is not None and self.shared.pass_answer(self, response):
            return True
        problem = response.get("error")
        if problem is None:
            return self._settle(response["id"], response["result"])
        text = problem.get("message") if isinstance(problem, dict) else None
        return self._settle(response["id"], error=ClientRefused(f"The client refused: {str(text)[:500]}", problem))

    def close(self) -> None:
        """End the session: calls are cancelled, questions fail, streams end. Calling it twice is fine."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if self.subscribed is not None:
                self.subscribed.give(self.uri_bytes)
            waiting, calls = list(self._waiting), [*self.calls.values(), *self._doubles]
        for call in calls:
            call.cancel("the session ended")
        for id in waiting:
            self._settle(id, error=Cancelled())
        for callback in list(self.on_close):
            notify(callback)
