"""One call of the client, from its params to its result: rounds of questions, progress, retries, cancellation.

Spec: 26:basic/patterns/mrtr, 26:basic/patterns/cancellation
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import ProtocolError, Timeout
from ..protocol import spec, wire
from ..protocol.errors import McpError
from . import negotiation, tasks
from .errors import CallCancelled, RemoteError
from .results import Result
from .transports.transport import Clock, Exchange, SessionExpired, Steps, drain

if TYPE_CHECKING:
    from .connection import Connection
    from .peer import Peer

log = logging.getLogger("minimcp")

Message = dict[str, Any]

MAX_ROUNDS = 10
_BACKOFF_S = 0.1


class Call:
    """A request in flight: iterate over it for its progress, ask it for its `result()`, or `cancel()` it.

    It runs on the threads that iterate it or wait for its result, one at a time; `cancel` may come from any thread.
    As a context it is given up at the end, if it has not ended by then.

    :param connect: returns the connection to use.
    :param options: `timeout_s` without a sign of life, `max_timeout_s` in all, `meta` for the request's `_meta`,
        `progress` whether progress is asked for.
    :param finish: `f(connection, result) -> what result() returns`.
    :param on_log: takes the params of the log messages that come with this call.
    :ivar asked: whether the server asked something, so that the result is for this call alone. Spec: FEAT-129
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        method: str,
        params: Message,
        *,
        timeout_s: float | None,
        max_timeout_s: float | None,
        meta: Message | None = None,
        progress: bool = False,
        needs: tuple[str, ...] = (),
        finish: Callable[[Connection, Result], Any] | None = None,
        on_log: Callable[[Message], None] | None = None,
    ) -> None:
        self.method = method
        self.params = params
        self._connect = connect
        self._clock = Clock(timeout_s, max_timeout_s)
        self._meta = meta
        self._progress = progress
        self._needs = needs
        self._finish = finish
        self._on_log = on_log
        self.asked = False
        self._cancelled = threading.Event()
        self._exchange: Optional[Exchange] = None
        self._steps = self._run()
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._done = False

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._done:
            self.close()

    def __iter__(self) -> Iterator[Message]:
        """Yield `{"progress": number, "total"?: number, "message"?: str}` until the answer is there."""
        return self

    def __next__(self) -> Message:
        if self._done:
            raise StopIteration
        try:
            return next(self._steps)
        except StopIteration as stop:
            self._done = True
            self._outcome = stop.value
            if stop.value is not None:
                raise
            self._error = self._cancellation()
        except BaseException as error:
            self._done = True
            self._error = error
            # What `cancel` is ending on another thread cannot be gone on with.
            if not (isinstance(error, ValueError) and self._cancelled.is_set()):
                raise
            self._error = self._cancellation()
        raise self._error

    def result(self, on_progress: Callable[[Message], Any] | None = None) -> Any:
        """Wait for the answer.

        :param on_progress: called with each progress on this thread; what it raises ends the call.
        :raises ClientError: whatever went wrong.
        """
        try:
            for progress in self:
                if on_progress is not None:
                    on_progress(progress)
        except BaseException:
            # An interrupt may come anywhere.
            if not self._done:
                self.close()
            raise
        if self._error is not None:
            raise self._error
        return self._outcome

    def cancel(self) -> None:
        """Stop waiting and tell the server; whoever waits for the result gets `CallCancelled`. From any thread."""
        self._cancelled.set()
        exchange = self._exchange
        if exchange is not None:
            exchange.abort(self._cancellation())
        try:
            # A call that no thread waits for has nobody else to tell the server.
            self._steps.close()
        except ValueError:
            pass  # A thread waits inside, and does.

    def _cancellation(self) -> CallCancelled:
        return CallCancelled(f"{self.method} was cancelled")

    def close(self) -> None:
        """Give the call up, as `cancel` does, on the thread that runs it."""
        self._done = True
        self._steps.close()

    def _run(self) -> Steps:
        conn = self._connect()
        peer = conn.ready()
        peer.need(self.method, *self._needs)
        for attempt in (1, 2):
            try:
                result = yield from self._rounds(conn, peer)
                break
            except SessionExpired:
                if attempt == 2:
                    raise
                peer = conn.renew(peer)
            except RemoteError as problem:
                if attempt == 2 or not self._mended(conn, peer, problem):
                    raise
                peer = conn.ready()
        return result if self._finish is None else self._finish(conn, result)

    def _mended(self, conn: Connection, peer: Peer, problem: RemoteError) -> bool:
        """Do what makes a second try worth while; False when nothing does."""
        if problem.code == spec.HEADER_MISMATCH and self.method == "tools/call":
            # The tool's annotations are not those we know. Spec: TRN-092
            conn.relist()
            return True
        if problem.code == spec.UNSUPPORTED_VERSION:
            # The server was exchanged for one of another revision. Spec: BASE-076
            negotiation.forget(conn.key)
            conn.renew(peer)
            return True
        if problem.code == spec.URL_ELICITATION_REQUIRED:
            return self._visited(conn, peer, problem.data)
        return False

    def _visited(self, conn: Connection, peer: Peer, data: Any) -> bool:
        """Put the pages a 2025-11-25 server requires to the callback; True when it consented to all. Spec: FEAT-208"""
        pages = data.get("elicitations") if isinstance(data, dict) else None
        if not isinstance(pages, list) or not pages or len(pages) > MAX_ROUNDS:
            return False
        try:
            found = [self._put(conn, peer, {"method": "elicitation/create", "params": page}) for page in pages]
        except McpError:
            return False
        return all(answer.get("action") == "accept" for answer in found)

    def _rounds(self, conn: Connection, peer: Peer) -> Steps:
        """Send the request as often as the server has questions, and return the result. Spec: BASE-188 to BASE-195"""
        more: Message = {}
        for number in range(MAX_ROUNDS + 1):
            result = yield from self._round(conn, peer, {**self.params, **more})
            outcome = peer.era.outcome(self.method, result, spec.TASKS in conn.extensions)
            if outcome == "complete":
                return Result(result)
            if outcome == "task":
                return Result((yield from tasks.drive(self, conn, peer, result)))
            if number == MAX_ROUNDS:
                break
            more = {}
            self.asked = True
            questions = result.get("inputRequests")
            if questions is not None:
                more["inputResponses"] = self.answers(conn, peer, questions)
            elif self._cancelled.wait(_BACKOFF_S * 2**number):
                raise self._cancellation()
            if "requestState" in result:
                more["requestState"] = result["requestState"]
        raise ProtocolError(f"The server asked for input more than {MAX_ROUNDS} times in one call")

    def _round(self, conn: Connection, peer: Peer, params: Message) -> Steps:
        message = wire.request(conn.next_id(), self.method, params)
        peer.era.dress(conn, message, peer.version, self._meta, self._progress)
        if self._cancelled.is_set():
            raise self._cancellation()
        return (yield from self.exchange(conn, peer, message))

    def exchange(self, conn: Connection, peer: Peer, message: Message) -> Steps:
        """Send one request of this call, yield the progress that comes with it, and return its result."""
        steps = conn.exchange(peer, message, self._clock, self._started)
        try:
            while True:
                try:
                    incoming = next(steps)
                except StopIteration as stop:
                    return stop.value
                progress = self._sort(conn, message["id"], incoming)
                if progress is not None:
                    self._clock.progress()
                    yield progress
        finally:
            steps.close()

    def _started(self, exchange: Exchange) -> None:
        self._exchange = exchange
        if self._cancelled.is_set():
            exchange.abort(self._cancellation())

    def _sort(self, conn: Connection, id: Any, incoming: Message) -> Message | None:
        """The progress in a message that came with this call, or None after it was dealt with otherwise."""
        params = incoming.get("params")
        method = incoming["method"]
        if "id" in incoming:
            conn.inbox.put(incoming)
        elif method == "notifications/progress":
            if isinstance(params, dict) and params.get("progressToken") == id and _is_number(params.get("progress")):
                return params
        elif method == "notifications/message" and self._on_log is not None and isinstance(params, dict):
            self._on_log(params)
        else:
            conn.inbox.put(incoming)
        return None

    def answers(self, conn: Connection, peer: Peer, questions: Any) -> Message:
        """Put each of the server's questions to the callback for it, on this thread. Spec: BASE-188, BASE-190

        :raises ProtocolError: when they are not questions, or of a kind that was not declared.
        """
        if not isinstance(questions, dict) or len(questions) > 100:
            raise ProtocolError("inputRequests must be an object of questions, at most 100 at once")
        began = time.monotonic()
        try:
            return {key: self._put(conn, peer, question) for key, question in questions.items()}
        except McpError as problem:
            raise ProtocolError(f"The server's question cannot be answered: {problem}") from problem
        finally:
            self._clock.stop(time.monotonic() - began)

    def _put(self, conn: Connection, peer: Peer, question: Any) -> Message:
        if not isinstance(question, dict) or not isinstance(question.get("method"), str):
            raise ProtocolError("A question of the server has no method")
        return conn.answers.answer(question["method"], question.get("params"), peer.name)

    def wait(self, seconds: float) -> None:
        """Wait before asking again; a cancellation ends it.

        :raises CallCancelled: when the call was cancelled.
        :raises Timeout: when its time is up.
        """
        if not self._clock.extendable():
            raise Timeout(f"{self.method} took too long")
        left = self._clock.left()
        if self._cancelled.wait(seconds if left is None else min(seconds, left)):
            raise self._cancellation()

    def request(self, conn: Connection, peer: Peer, method: str, params: Message) -> Message:
        """Send another request on behalf of this call, such as a poll for its task, and return the result."""
        message = wire.request(conn.next_id(), method, params)
        peer.era.dress(conn, message, peer.version, None, False)
        self._clock.progress()
        return drain(self.exchange(conn, peer, message), lambda progress: None)  # type: ignore[no-any-return]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
