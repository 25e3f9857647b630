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
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ..engines.bounds import exceeded
from ..engines.budget import Budget
from ..protocol import wire
from ..protocol.errors import (
    Cancelled,
    ClientRefused,
    InternalError,
    InvalidParams,
    SessionNotFound,
    TooManySessions,
)
from ..protocol.principal import Principal, key_of
from .hooks import notify
from .seal import BadSeal, Sealer, digest

Message = dict[str, Any]

# The ids of ended sessions that are remembered, at some 100 bytes each.
_MOST_ENDED = 100_000


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
        self.used = time.monotonic()
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

    def subscribe(self, uri: str, budget: Budget, limits: Mapping[str, float]) -> None:
        """Subscribe to a resource.

        :raises InvalidParams: when the session has too many subscriptions.
        :raises InternalError: when all sessions together have.
        """
        size = len(uri)
        with self._lock:
            if uri in self.uris or self.closed:
                return
            if len(self.uris) >= limits["subscriptions"] or self.uri_bytes + size > limits["subscription_bytes"]:
                raise InvalidParams("This session has too many subscriptions")
            if not budget.take(size, limits["all_subscription_bytes"]):
                raise InternalError("There are too many subscriptions here; try again later")
            self.subscribed = budget
            self.uris.add(uri)
            self.uri_bytes += size

    def unsubscribe(self, uri: str) -> None:
        """End a subscription; one that does not exist is no error."""
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


class Sessions:
    """The sessions of HTTP clients: at most `cap`, each forgotten after `idle_s` seconds without use.

    At the cap those of peers or principals that have more than their share go first; among these, or else among all,
    first those that were never used after `initialize`, then the one used least recently.
    """

    def __init__(self, sealer: Sealer, cap: int, idle_s: float, lifetime_s: float) -> None:
        self._sealer = sealer
        self._cap = cap
        self._idle_s = idle_s
        self._lifetime_s = lifetime_s
        self._lock = threading.Lock()  # guards everything below
        # In order of use: those that were never used after `initialize`, and the others.
        self._fresh: dict[str, Session] = {}
        self._used: dict[str, Session] = {}
        self._owners: dict[Any, int] = {}  # how many sessions each peer or principal has
        # When the ids expire that must not be restored, by their hashes; ids that expire before `_restorable` are not
        # restored either, so that this may be bounded.
        self._ended: dict[bytes, float] = {}
        self._restorable = 0.0

    def add(self, session: Session) -> None:
        """Give a session that has been initialized its id and keep it.

        :raises TooManySessions: when `cap` sessions are in use.
        """
        owner, nonce = _mark(session.principal), os.urandom(16).hex()
        payload = {"v": session.version, "c": session.capabilities, "p": owner, "n": nonce}
        session.id = self._sealer.seal("session", payload, self._lifetime_s)
        if len(session.id) > 4096 or exceeded(session.capabilities, 16, 200):
            raise InvalidParams("The client's capabilities are too large for a session")
        with self._lock:
            dropped = self._make_room(session)
            self._fresh[session.id] = session
        for other in dropped:
            other.close()

    def _make_room(self, session: Session) -> list[Session]:
        """Take out what has been idle too long, or else one session at the cap, and count the new one."""
        dropped, owner = self._expire(), _owner(session)
        if len(self._fresh) + len(self._used) >= self._cap:
            share = self._cap / max(1, len(self._owners))
            idle = [each for pool in (self._fresh, self._used) for each in pool.values() if not _busy(each)]
            found = next((each for each in idle if self._owners[_owner(each)] > share), idle[0] if idle else None)
            if found is None:
                raise TooManySessions("Too many sessions; try again later")
            self._take_out(found)
            dropped.append(found)
        self._owners[owner] = self._owners.get(owner, 0) + 1
        return dropped

    def _expire(self) -> list[Session]:
        """Take out the sessions that have been idle too long; they are in order of use, so no others are looked at."""
        dropped = []
        oldest = time.monotonic() - self._idle_s
        for pool in (self._fresh, self._used):
            for session in pool.values():
                if session.used > oldest:
                    break
                if not _busy(session):
                    dropped.append(session)
        for session in dropped:
            self._take_out(session)
        return dropped

    def _take_out(self, session: Session, ended: bool = False) -> None:
        """Take out a session; what its id does not say would be lost if it were restored, so then it is not."""
        if (self._fresh.pop(session.id, None) or self._used.pop(session.id, None)) is not None:
            owner = _owner(session)
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
        if self._sealer.shared and (ended or session.uris or session.log_level != "info"):
            self._ended[_hash(session.id)] = time.time() + self._lifetime_s + 1
            while len(self._ended) > _MOST_ENDED:
                self._restorable = max(self._restorable, self._ended.pop(next(iter(self._ended))))

    def get(self, id: str, principal: Principal | None) -> Session:
        """Find a session, or restore it from its id.

        :raises SessionNotFound: when the id is unknown, ended, expired or another principal's.
        """
        with self._lock:
            dropped = self._expire()
            session = self._fresh.pop(id, None) or self._used.pop(id, None)
            if session is not None:
                session.used = time.monotonic()
                self._used[id] = session
        for other in dropped:
            other.close()
        if session is None and self._sealer.shared:
            session = self._restore(id, principal)
        if session is None or session.principal != principal:
            raise SessionNotFound("Session not found; start again with initialize")
        session.principal = principal  # with the scopes and roles of this request
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
        dropped: list[Session] = []
        with self._lock:
            if _hash(id) in self._ended or payload["exp"] <= self._restorable:
                return None
            known = self._used.get(id)
            if known is None:
                dropped = self._make_room(session)
                self._used[id] = known = session
        for other in dropped:
            other.close()
        return known

    def remove(self, session: Session) -> None:
        """End a session for good."""
        with self._lock:
            self._take_out(session, ended=True)
        session.close()

    def all(self) -> list[Session]:
        """Return a snapshot of the sessions."""
        with self._lock:
            return [*self._fresh.values(), *self._used.values()]


def _busy(session: Session) -> bool:
    """Say whether a client waits for this session at this moment."""
    return bool(session.calls) or session.listening


def _owner(session: Session) -> Any:
    """Return whom a session counts for: its principal, or else the address that opened it."""
    return session.peer if session.principal is None else session.principal.key


def _hash(id: str) -> bytes:
    from hashlib import sha256

    return sha256(id.encode("utf-8", "surrogatepass")).digest()[:16]


def _mark(principal: Principal | None) -> str | None:
    """Return a fingerprint of a principal, since a session id can be read by its holder."""
    return None if principal is None else digest(key_of(principal))
