"""Legacy sessions: the results of `initialize`, and the sessions of HTTP clients by their ids.

A stdio connection has one session for its whole life. Over HTTP a session is found by its id, which is itself a sealed
copy of the results of `initialize`: a worker that shares the secret can restore a session that it has never seen.
Spec: TRN-141 to TRN-155
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..protocol import wire
from ..protocol.errors import Cancelled, InternalError, InvalidParams, SessionNotFound, ToolError, TooManySessions
from ..protocol.principal import Principal, key_of
from .hooks import notify
from .seal import BadSeal, Sealer, digest

Message = dict[str, Any]


class Session:
    """The legacy era's state of one client.

    :ivar version: the negotiated revision, None before `initialize`.
    :ivar send: takes messages that belong to no request, or None while there is no way to deliver them.
    :ivar transport: "stdio", "http", "sse" or "memory", for the trace.
    :ivar note: takes an encoded message under a key, where one that was not read yet is replaced by a newer one.
    :ivar record: takes `(direction, message)` of what `send` sends, for the trace, or None.
    :ivar calls: the calls in flight by request id, for `notifications/cancelled`.
    :ivar listening: whether a client reads the session's own stream at this moment.
    :ivar watched: whether changes are passed on to it.
    """

    def __init__(self, principal: Principal | None = None, send: Callable[[Message], None] | None = None) -> None:
        self.id = ""
        self.principal = principal
        self.send = send
        self.transport = "http" if send is None else "memory"
        self.record: Callable[..., None] | None = None
        self.version: str | None = None
        self.capabilities: Message = {}
        self.client_info: Message = {}
        self.log_level = "info"
        self.uris: set[str] = set()
        self.note: Callable[[object, bytes], None] | None = None
        self.calls: dict[Any, Any] = {}
        self._doubles: tuple[Any, ...] = ()
        self.listening = False
        self.watched = False
        self.used = time.monotonic()
        self.closed = False
        self.on_close: list[Callable[[], None]] = []
        self._lock = threading.Lock()  # guards _waiting, _asked, calls, _doubles and closed
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

    def ask(self, ctx: Any, question: Message) -> tuple[str, Future[Any]]:
        """Send the client a request on the stream of the call in `ctx`; return its id and the future of its result.

        The future fails with Cancelled when the call is cancelled or the session closes, and with ToolError when the
        client answers with an error.
        """
        with self._lock:
            if self.closed:
                raise Cancelled
            self._asked += 1
            # A string, so that it is never taken for one of the client's own ids.
            id = f"s{self._asked}"
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
        """Pass a response to the call that waits for it; one that no call has asked for is ignored."""
        problem = response.get("error")
        if problem is None:
            return self._settle(response["id"], response["result"])
        text = problem.get("message") if isinstance(problem, dict) else None
        return self._settle(response["id"], error=ToolError(f"The client refused: {str(text)[:500]}"))

    def close(self) -> None:
        """End the session: calls are cancelled, questions fail, streams end. Calling it twice is fine."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            waiting, calls = list(self._waiting), [*self.calls.values(), *self._doubles]
        for call in calls:
            call.cancel("the session ended")
        for id in waiting:
            self._settle(id, error=Cancelled())
        for callback in list(self.on_close):
            notify(callback)


class Sessions:
    """The sessions of HTTP clients: at most `cap`, each forgotten after `idle_s` seconds without use."""

    def __init__(self, sealer: Sealer, cap: int, idle_s: float, lifetime_s: float) -> None:
        self._sealer = sealer
        self._cap = cap
        self._idle_s = idle_s
        self._lifetime_s = lifetime_s
        self._lock = threading.Lock()  # guards _sessions and _ended
        self._sessions: dict[str, Session] = {}
        # Ids that were deleted here, the last `cap` of them; a sealed id would otherwise be restored until it expires.
        self._ended: dict[str, None] = {}

    def add(self, session: Session) -> None:
        """Give a session that has been initialized its id and keep it.

        :raises TooManySessions: when `cap` sessions are in use.
        """
        owner, nonce = _mark(session.principal), os.urandom(16).hex()
        payload = {"v": session.version, "c": session.capabilities, "p": owner, "n": nonce}
        session.id = self._sealer.seal("session", payload, self._lifetime_s)
        if len(session.id) > 4096:
            raise InvalidParams("The client's capabilities are too large for a session")
        with self._lock:
            dropped = self._make_room()
            self._sessions[session.id] = session
        for other in dropped:
            other.close()

    def _make_room(self) -> list[Session]:
        """Take out the sessions that have been idle too long, or else, at the cap, the one used least recently."""
        dropped = self._expire()
        if len(self._sessions) >= self._cap:
            oldest = next((other for other in self._sessions.values() if not _busy(other)), None)
            if oldest is None:
                raise TooManySessions("Too many sessions; try again later")
            dropped.append(self._sessions.pop(oldest.id))
        return dropped

    def _expire(self) -> list[Session]:
        """Take out the sessions that have been idle too long; they are in order of use, so no others are looked at."""
        dropped = []
        oldest = time.monotonic() - self._idle_s
        for session in self._sessions.values():
            if session.used > oldest:
                break
            if not _busy(session):
                dropped.append(session)
        for session in dropped:
            del self._sessions[session.id]
        return dropped

    def get(self, id: str, principal: Principal | None) -> Session:
        """Find a session, or restore it from its id.

        :raises SessionNotFound: when the id is unknown, ended, expired or another principal's.
        """
        with self._lock:
            dropped = self._expire()
            session = self._sessions.pop(id, None)
            if session is not None:
                session.used = time.monotonic()
                self._sessions[id] = session
            ended = id in self._ended
        for other in dropped:
            other.close()
        if session is None and not ended and self._sealer.shared:
            session = self._restore(id, principal)
        if session is None or session.principal != principal:
            raise SessionNotFound("Session not found; start again with initialize")
        return session

    def _restore(self, id: str, principal: Principal | None) -> Session | None:
        try:
            payload = self._sealer.unseal("session", id)
        except BadSeal:
            return None
        if payload["p"] != _mark(principal):
            return None
        session = Session(principal)
        session.id, session.version, session.capabilities = id, payload["v"], payload["c"]
        with self._lock:
            dropped = self._make_room() if id not in self._sessions else []
            session = self._sessions.setdefault(id, session)
        for other in dropped:
            other.close()
        return session

    def remove(self, session: Session) -> None:
        """End a session for good."""
        with self._lock:
            self._sessions.pop(session.id, None)
            if self._sealer.shared:
                self._ended[session.id] = None
                while len(self._ended) > self._cap:
                    del self._ended[next(iter(self._ended))]
        session.close()

    def all(self) -> list[Session]:
        """Return a snapshot of the sessions."""
        with self._lock:
            return list(self._sessions.values())


def _busy(session: Session) -> bool:
    """Say whether a client waits for this session at this moment."""
    return bool(session.calls) or session.listening


def _mark(principal: Principal | None) -> str | None:
    """Return a fingerprint of a principal, since a session id can be read by its holder."""
    return None if principal is None else digest(key_of(principal))
