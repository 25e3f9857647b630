"""Calls of the client, from their params to their result: rounds of questions, progress, retries, cancellation.

Spec: 26:basic/patterns/mrtr, 26:basic/patterns/cancellation
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import ConnectionLost, ProtocolError, Timeout
from ..protocol import spec, wire
from ..protocol.errors import McpError
from . import negotiation, tasks
from .errors import CallCancelled, RemoteError
from .results import Result
from .transports.transport import Exchange, SessionExpired
from .transports.waiting import Deadline

if TYPE_CHECKING:
    from .connection import Connection, Reply
    from .eras import Peer
    from .options import Settings

Message = dict[str, Any]

MAX_ROUNDS = 10
_BACKOFF_S = 0.1


class ClientCall:
    """A request with its rounds, retries and tasks; `run` blocks until the result is there.

    :param connect: returns the connection to use.
    :param timeout: seconds without a sign of life, `max_timeout` in all; by default those of the settings.
    :param deadline: instead of the two, one that several calls share.
    :param meta: further members of the request's `_meta`.
    :param progress: whether progress is asked for.
    :param needs: the capability that the server must have declared.
    :param finish: `f(connection, result) -> outcome of the call`.
    :param follow: whether the params name a task that was made before, to follow to its end.
    :ivar task_id: the id of the task that the server made of the call, None before and without one.
    :ivar detached: whether that task is followed no longer, and goes on.
    :ivar on_task: takes that id, on the thread that runs the call.
    :ivar asked: whether the server asked something, so that the result is for this call alone. Spec: FEAT-129
    :ivar advise: returns what is to be added to the message of an error of the server.
    :ivar on_progress: takes the params of each progress notification, on the thread that runs the call.
    """

    headers: Optional[dict[str, str]] = None  # see `OpenCall`

    def __init__(
        self,
        connect: Callable[[], Connection],
        settings: Settings,
        method: str,
        params: Message,
        *,
        timeout: Any = ...,
        max_timeout: Any = ...,
        deadline: Deadline | None = None,
        meta: Message | None = None,
        progress: bool = False,
        needs: tuple[str, ...] = (),
        finish: Callable[[Connection, Result], Any] | None = None,
        follow: bool = False,
    ) -> None:
        self.method = method
        self.params = params
        self.task_id: Optional[str] = None
        self.detached = False
        self.on_task: Callable[[str], object] = _ignore
        self.asked = False
        self.on_progress: Callable[[Message], Any] = _ignore
        self.advise: Optional[Callable[[RemoteError], str]] = None
        self._connect = connect
        self._deadline = deadline or Deadline(
            settings.timeout_s if timeout is ... else timeout,
            settings.max_timeout_s if max_timeout is ... else max_timeout,
        )
        self._on_log = settings.on_log
        self._meta = meta
        self._progress = progress
        self._needs = needs
        self._finish = finish
        self._follow = follow
        self._cancelled = threading.Event()
        self._exchange: Optional[Exchange] = None

    def run(self, on_progress: Callable[[Message], Any] | None = None) -> Any:
        """Send the request on this thread and return its outcome.

        :param on_progress: called with each progress on this thread; an exception of it ends the call.
        :raises ClientError: when there is no answer, or a wrong one.
        """
        if on_progress is not None:
            self.on_progress = on_progress
        conn = self._connect()
        peer = conn.ready()
        peer.require(self.method, *self._needs)
        for attempt in (1, 2):
            try:
                result = self._rounds(conn, peer)
                break
            except SessionExpired:
                if attempt == 2:
                    raise
                peer = conn.renew(peer)
            except ConnectionLost as problem:
                if attempt == 2 or not self._repeatable(conn, problem):
                    raise
            except RemoteError as problem:
                if attempt == 2 or not self._recover(conn, peer, problem):
                    if self.advise is not None:
                        problem.args = (f"{problem}{self.advise(problem)}",)
                    raise
                peer = conn.ready()
        return result if self._finish is None else self._finish(conn, result)

    @property
    def identity(self) -> str:
        """A fingerprint of what the newest request was sent with; see `Exchange`."""
        return self._exchange.identity if self._exchange is not None else ""

    def cancel(self) -> None:
        """End the call from any thread: `run` raises CallCancelled, after it has told the server."""
        self._stop()

    def detach(self) -> None:
        """Follow the task no longer: `run` raises CallCancelled, and the server is told nothing."""
        self.detached = True
        self._stop()

    def _stop(self) -> None:
        self._cancelled.set()
        exchange = self._exchange
        if exchange is not None:
            exchange.abort(self._cancellation())

    def _cancellation(self) -> CallCancelled:
        if self.detached:
            return CallCancelled(f"The call was detached; client.task({self.task_id!r}) comes back to its task")
        return CallCancelled(f"{self.method} was cancelled")

    def _repeatable(self, conn: Connection, problem: ConnectionLost) -> bool:
        """Say whether to send the request again, since its stream broke and it only reads. Spec: TRN-051

        A legacy stream is resumed instead; what may have changed something is left to the caller.
        """
        row = spec.METHODS.get(self.method)
        reads = row is not None and row.cacheable
        return reads and problem.retry == "idempotent" and conn.transport.closing_cancels and not conn.closed

    def _recover(self, conn: Connection, peer: Peer, problem: RemoteError) -> bool:
        """Repair what the error names and say whether to send the request again."""
        if problem.code == spec.HEADER_MISMATCH and self.method == "tools/call":
            # The tool's annotations are not those we know. Spec: TRN-092
            conn.relist()
            return True
        if problem.code == spec.UNSUPPORTED_VERSION:
            # The server was exchanged for one of another revision. Spec: BASE-076
            negotiation.forget(conn.settings.target.key)
            conn.settings = conn.settings._replace(discovery=None)
            conn.renew(peer)
            return True
        if problem.code == spec.URL_ELICITATION_REQUIRED:
            return self._visited(conn, problem.data)
        return False

    def _visited(self, conn: Connection, data: Any) -> bool:
        """Put the pages that a 2025-11-25 server requires to the callback, and say whether it consented to all.

        Spec: FEAT-208
        """
        pages = data.get("elicitations") if isinstance(data, dict) else None
        if not isinstance(pages, list) or not pages or len(pages) > MAX_ROUNDS:
            return False
        try:
            found = [self._put(conn, {"method": "elicitation/create", "params": page}) for page in pages]
        except McpError:
            return False
        return all(answer.get("action") == "accept" for answer in found)

    def _rounds(self, conn: Connection, peer: Peer) -> Result:
        """Send the request as often as the server has questions, and return the result. Spec: BASE-188 to BASE-195"""
        if self._follow:
            return Result(tasks.drive(self, conn, peer, self.params["taskId"]))
        more: Message = {}
        for number in range(MAX_ROUNDS + 1):
            result = self._round(conn, peer, {**self.params, **more})
            outcome = peer.era.outcome(self.method, result, spec.TASKS in conn.settings.extensions)
            if outcome == "complete":
                return Result(result)
            if outcome == "task":
                return Result(tasks.drive(self, conn, peer, result.get("taskId"), result))
            if number == MAX_ROUNDS:
                break
            more = {}
            self.asked = True
            questions = result.get("inputRequests")
            if questions is not None:
                more["inputResponses"] = self.answers(conn, peer, questions)
            else:
                self._pause(_BACKOFF_S * 2**number)
            state = result.get("requestState")
            if state is not None:
                if not isinstance(state, str):
                    raise ProtocolError("The server's requestState is not text, and cannot be sent back")
                more["requestState"] = state
        raise ProtocolError(f"The server asked for input more than {MAX_ROUNDS} times in one call")

    def _round(self, conn: Connection, peer: Peer, params: Message) -> Message:
        message = wire.request(conn.next_id(), self.method, params)
        peer.era.write_meta(conn, message, peer.version, self._meta, self._progress)
        if self._cancelled.is_set():
            raise self._cancellation()
        return self._send(conn, peer, message)

    def _send(self, conn: Connection, peer: Peer, message: Message) -> Message:
        """Send one request of this call and return its result."""
        return conn.exchange(peer, message, self._deadline, self)

    def started(self, exchange: Exchange) -> None:
        """Take note of the exchange, for `cancel`."""
        self._exchange = exchange
        if self._cancelled.is_set():
            exchange.abort(self._cancellation())

    def take(self, conn: Connection, id: int, incoming: Message) -> None:
        """Take a message that came before the answer to the request with this id."""
        params = incoming.get("params")
        method = incoming["method"]
        if "id" in incoming:
            conn.inbox.put(incoming, self)
        elif method == "notifications/progress":
            if isinstance(params, dict) and params.get("progressToken") == id and _is_number(params.get("progress")):
                self._deadline.restart()
                self.on_progress(params)
        elif method == "notifications/message" and self._on_log is not None and isinstance(params, dict):
            self._on_log(params)
        else:
            conn.inbox.put(incoming)

    def answer(self, conn: Connection, request: Message, reply: Reply) -> None:
        """Answer a request of the server that came with this call, through the client's callbacks."""
        reply({"result": conn.result_for(request, {"method": self.method, "params": self.params})})

    def answers(self, conn: Connection, peer: Peer, questions: Any) -> Message:
        """Put each of the server's questions to the callback for it, on this thread. Spec: BASE-188, BASE-190

        :raises ProtocolError: when they are not questions, or of a kind that was not declared.
        """
        if not isinstance(questions, dict) or len(questions) > 100:
            raise ProtocolError("inputRequests must be an object of questions, at most 100 at once")
        began = time.monotonic()
        try:
            return {key: self._put(conn, question) for key, question in questions.items()}
        except McpError as problem:
            raise ProtocolError(f"The server's question cannot be answered: {problem}") from problem
        finally:
            self._deadline.extend(time.monotonic() - began)

    def _put(self, conn: Connection, question: Any) -> Message:
        if not isinstance(question, dict) or not isinstance(question.get("method"), str):
            raise ProtocolError("A question of the server has no method")
        return conn.result_for(question, {"method": self.method, "params": self.params})

    def wait(self, seconds: float) -> None:
        """Wait before asking again; a cancellation ends it.

        :raises CallCancelled: when the call was cancelled.
        :raises Timeout: when its time is up.
        """
        if not self._deadline.can_extend():
            raise Timeout(f"{self.method} took too long")
        left = self._deadline.left()
        self._pause(seconds if left is None else min(seconds, left))

    def _pause(self, seconds: float) -> None:
        if self._cancelled.wait(seconds):
            raise self._cancellation()

    def request(self, conn: Connection, peer: Peer, method: str, params: Message) -> Message:
        """Send another request on behalf of this call, such as a poll for its task, and return the result."""
        message = wire.request(conn.next_id(), method, params)
        peer.era.write_meta(conn, message, peer.version, None, False)
        self._deadline.restart()
        return self._send(conn, peer, message)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ignore(found: Any) -> None:
    pass
