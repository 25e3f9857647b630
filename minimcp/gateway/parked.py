"""Parked calls: a legacy server has asked in the middle of a call, and its client, a modern one, answers by a retry.

The call to the server goes on, on a thread of its own, while no thread of the client's waits. The retry finds it by the
sealed `requestState`, delivers the answers, and waits for what comes next.

Spec: 26:basic/patterns/mrtr, 11:client/elicitation
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..engines.fork import PerProcess
from ..protocol.errors import Cancelled, InternalError, InvalidParams
from ..transports.workers import Workers

if TYPE_CHECKING:
    from ..server.context import Context

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Reply = Callable[[Message], None]

MOST_PARKED = 1000
MOST_OF_A_CALLER = 32
_workers = PerProcess(lambda: Workers(MOST_PARKED, 0, 0, "minimcp-parked"))


class ParkedCall:
    """A call to a legacy server that may ask; `wait` returns its result, or the questions that are open.

    :ivar ctx: the context of the client's newest request, which gets progress and log messages.
    :ivar key: names it in a state; another one each time that it is parked.
    """

    def __init__(self, ctx: Context, owner: Any) -> None:
        self.key = ""
        self.ctx = ctx
        self.owner = owner
        self.until = 0.0
        self._changed = threading.Condition()  # guards everything below
        self._asked = 0
        self._open: dict[str, tuple[Message, threading.Event, list[Message]]] = {}
        self._done = False
        self._result: Optional[Message] = None
        self._error: Optional[BaseException] = None
        self._cancel: Optional[Callable[[], None]] = None
        self._cancelled = False

    def run(self, work: Callable[[ParkedCall], Message]) -> None:
        """Run the call to its end; on a thread of its own."""
        result, error = None, None
        try:
            result = work(self)
        except BaseException as problem:
            error = problem
        with self._changed:
            self._result, self._error, self._done = result, error, True
            self._changed.notify_all()

    def on_start(self, cancel: Callable[[], None]) -> None:
        """Take the function that cancels the call to the server."""
        with self._changed:
            self._cancel = cancel
            cancelled = self._cancelled
        if cancelled:
            cancel()

    def cancel(self) -> None:
        """Cancel the call to the server; its questions are answered with an error."""
        with self._changed:
            self._cancelled = True
            cancel, waiting, self._open = self._cancel, list(self._open.values()), {}
            self._changed.notify_all()
        if cancel is not None:
            cancel()
        for _, answered, _ in waiting:
            answered.set()

    def ask(self, question: Message, seconds: float) -> Optional[Message]:
        """Put a question to the client and wait for its answer; None when there is none. On the server's thread."""
        answered, answers = threading.Event(), list[Message]()
        with self._changed:
            if self._cancelled or self._done:
                return None
            self._asked += 1
            self._open[f"q{self._asked}"] = ({**question}, answered, answers)
            self._changed.notify_all()
        answered.wait(seconds)
        return answers[0] if answers else None

    def answer(self, responses: Message) -> None:
        """Deliver the answers that came with a retry; an unknown key is ignored."""
        with self._changed:
            for key, response in responses.items():
                waiting = self._open.pop(key, None)
                if waiting is not None:
                    waiting[2].append(response)
                    waiting[1].set()

    def wait(self) -> tuple[Optional[Message], Optional[Message]]:
        """Wait until the call has ended or asks something: return its result, or `{key: question}`.

        :raises Cancelled: when the client cancelled its request meanwhile.
        """
        with self._changed:
            while not self._done and not self._open and not self._cancelled:
                self._changed.wait()
            if self._done:
                if self._error is not None:
                    raise self._error
                return self._result, None
            if self._cancelled:
                raise Cancelled
            return None, {key: question for key, (question, _, _) in self._open.items()}


class Parked:
    """The calls of a gateway that wait for an answer, bounded in number and in time.

    :param seconds: how long a question waits for its answer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()  # guards _calls
        self._calls: dict[str, ParkedCall] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def start(self, ctx: Context, work: Callable[[ParkedCall], Message]) -> ParkedCall:
        """Start a call on a thread of its own.

        :raises InternalError: when there are too many.
        """
        call = ParkedCall(ctx, ctx.principal)
        try:
            _workers().submit(lambda: call.run(work))
        except RuntimeError:
            raise InternalError("Too many calls wait for answers here; try again later") from None
        return call

    def finish(self, ctx: Context, call: ParkedCall, seal: Callable[[str], str]) -> Message:
        """Return the result of a call, or the result that asks the client its questions.

        :param seal: makes the `requestState` that finds the call again.
        """
        ctx.on_cancel(call.cancel)
        result, questions = call.wait()
        if result is not None:
            return result
        self._park(call)
        return {"resultType": "input_required", "inputRequests": questions, "requestState": seal(call.key)}

    def _park(self, call: ParkedCall) -> None:
        self.tidy()
        with self._lock:
            mine = sum(each.owner == call.owner for each in self._calls.values())
            full = len(self._calls) >= MOST_PARKED or mine >= MOST_OF_A_CALLER
            if not full:
                call.key = os.urandom(12).hex()
                call.until = time.monotonic() + self.seconds
                self._calls[call.key] = call
        if full:
            call.cancel()
            raise InternalError("Too many calls wait for answers here; try again later")

    def resume(self, ctx: Context, key: str) -> ParkedCall:
        """Take a call that waits for the answers in a retry, once.

        :raises InvalidParams: when it no longer waits.
        """
        with self._lock:
            call = self._calls.pop(key, None)
        if call is None:
            raise InvalidParams("This call no longer waits for an answer; start again without the request state")
        call.ctx = ctx
        call.answer(ctx.params.get("inputResponses") or {})
        return call

    def tidy(self) -> None:
        """Cancel the calls whose time is up."""
        now = time.monotonic()
        with self._lock:
            late = [key for key, call in self._calls.items() if call.until < now]
            calls = [self._calls.pop(key) for key in late]
        for call in calls:
            log.info("a call is given up, since nobody answered its question")
            call.cancel()

    def close(self) -> None:
        """Cancel every call."""
        with self._lock:
            calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.cancel()
