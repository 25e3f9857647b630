"""Tasks extension: poll a task to its end, answer its questions, cancel it. Spec: EXT-013 to EXT-046"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Optional, Protocol

from ..engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from .connection import HANG_UP_S, Connection
from .eras import Peer, result_of
from .errors import CallCancelled, HTTPStatus, RemoteError

log = logging.getLogger("minimcp")

Message = dict[str, Any]

_POLL_S = 1.0
_LEAST_POLL_S = 0.02
_MOST_POLL_S = 60.0
# Half a minute in all, in which a server may be started anew.
_TRIES = 11
_BACKOFF_S = 0.1
_MOST_BACKOFF_S = 5.0
_PASSING = (429, 502, 503, 504)


class Caller(Protocol):
    """The part of a `call.ClientCall` that a task uses."""

    on_progress: Callable[[Message], Any]
    on_task: Callable[[str], object]
    task_id: Optional[str]
    detached: bool

    def wait(self, seconds: float) -> None:
        """Wait before asking again."""

    def answers(self, conn: Connection, peer: Peer, questions: Any) -> Message:
        """Put the server's questions to the callbacks."""

    def request(self, conn: Connection, peer: Peer, method: str, params: Message) -> Message:
        """Send a request and return its result."""


def drive(call: Caller, conn: Connection, peer: Peer, id: Any, task: Message | None = None) -> Message:
    """Follow a task to its end and return the result of the call it stands for.

    Status messages are told as progress without a number: `{"message": ...}`. When the call is given up, the task is
    cancelled; not so when it is detached, or the server cannot be reached any more.

    :param task: the task as the server has just described it.
    :raises RemoteError: when the task failed, or is unknown.
    :raises ClientError: when it was cancelled, vanished or took too long.
    """
    if not isinstance(id, str):
        raise ProtocolError("The server answered with a task that has no taskId")
    call.task_id = id
    call.on_task(id)
    answered: set[str] = set()
    told = None
    ended = False
    try:
        while True:
            if task is None:
                task = _request(call, conn, peer, "tasks/get", {"taskId": id})
            status = task.get("status")
            if task.get("statusMessage") != told and isinstance(task.get("statusMessage"), str):
                told = task["statusMessage"]
                call.on_progress({"message": told})
            if status in ("completed", "failed", "cancelled"):
                ended = True
                return _outcome(task)
            if status == "input_required":
                _answer(call, conn, peer, id, task.get("inputRequests"), answered)
            elif status != "working":
                raise ProtocolError(f"The task has the unknown status {str(status)[:50]!r}")
            call.wait(_pause_s(task))
            task = None
    except (ConnectionLost, HTTPStatus) as problem:
        ended = True
        problem.args = (f"{problem}; client.task({id[:100]!r}) comes back to the task",)
        raise
    except Timeout:
        raise Timeout(f"The task {id[:100]!r} did not end in time; it was cancelled") from None
    finally:
        if not ended and not call.detached:
            _cancel(conn, peer, id)


def _request(call: Caller, conn: Connection, peer: Peer, method: str, params: Message) -> Message:
    """Ask, again if need be: where a server, or its store of tasks, is started anew, the task is there all the same."""
    for number in range(_TRIES + 1):
        try:
            return call.request(conn, peer, method, params)
        except (ConnectionLost, HTTPStatus, RemoteError) as problem:
            if number == _TRIES or not _passes(problem) or conn.closed or conn.lost is not None:
                raise
            call.wait(min(_BACKOFF_S * 2**number, _MOST_BACKOFF_S))
    raise AssertionError


def _passes(problem: ConnectionLost | HTTPStatus | RemoteError) -> bool:
    """Say whether it may be different a moment later."""
    if isinstance(problem, RemoteError):
        return isinstance(problem.data, dict) and "retryAfterMs" in problem.data
    return isinstance(problem, ConnectionLost) or problem.status in _PASSING


def _pause_s(task: Message) -> float:
    """Return the seconds to wait before the next poll. Spec: EXT-030"""
    given = task.get("pollIntervalMs")
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return _POLL_S
    # Compared before it is divided: an integer of JSON may be larger than any float.
    return min(max(given, _LEAST_POLL_S * 1000), _MOST_POLL_S * 1000) / 1000


def _answer(call: Caller, conn: Connection, peer: Peer, id: str, questions: Any, answered: set[str]) -> None:
    """Answer each question once, however often it is repeated. Spec: EXT-035, EXT-041, EXT-042"""
    if not isinstance(questions, dict):
        raise ProtocolError("The task requires input but has no inputRequests")
    fresh = {key: question for key, question in questions.items() if key not in answered}
    if fresh:
        answers = call.answers(conn, peer, fresh)
        answered.update(fresh)
        _request(call, conn, peer, "tasks/update", {"taskId": id, "inputResponses": answers})


def _outcome(task: Message) -> Message:
    if task["status"] == "completed":
        result = task.get("result")
        if not isinstance(result, dict):
            raise ProtocolError("The task is completed but has no result")
        return result
    if task["status"] == "cancelled":
        raise CallCancelled("The server cancelled the task")
    return result_of({"error": task.get("error") or {"code": -32603, "message": "The task failed"}})


def _cancel(conn: Connection, peer: Peer, id: str) -> None:
    """Cancel the task on the server, which may end otherwise. Spec: EXT-044 to EXT-046"""
    try:
        conn.ask("tasks/cancel", {"taskId": id}, HANG_UP_S, peer)
    except ClientError as problem:
        log.debug("the task could not be cancelled: %s", problem)
