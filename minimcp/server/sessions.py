"""The legacy sessions of HTTP clients, by their ids.

An id is itself a sealed copy of the results of `initialize`: a worker that shares the secret can restore a session that
it has never seen. Spec: TRN-141 to TRN-155
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..engines.bounds import exceeded
from ..protocol.errors import InvalidParams, SessionNotFound, TooManySessions
from ..protocol.principal import Principal, key_of
from .hooks import notify
from .seal import BadSeal, Sealer, digest
from .session import Session

if TYPE_CHECKING:
    from .sharing import Sharing

# The ids of ended sessions that are remembered, at some 100 bytes each.
_MOST_ENDED = 100_000
_PAUSE_S = 0.02


class Sessions:
    """The sessions of HTTP clients: at most `cap`, each forgotten after `idle_s` seconds without use.

    At the cap those of peers or principals that have more than their share go first; among these, or else among all,
    first those that were never used after `initialize`, then the one used least recently.

    :ivar sharing: lets other processes restore all of a session, or None where there are none.
    """

    def __init__(self, sealer: Sealer, cap: int, idle_s: float, lifetime_s: float) -> None:
        self.sharing: Sharing | None = None
        self._sealer = sealer
        self._cap = cap
        self._idle_s = idle_s
        self._lifetime_s = lifetime_s
        self._lock = threading.Lock()  # guards everything below
        # In order of use: those that were never used after `initialize`, and the others.
        self._fresh: dict[str, Session] = {}
        self._used: dict[str, Session] = {}
        self._keys: dict[str, Session] = {}  # those that are shared, by their keys
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
            self._keep(session, self._fresh)
        for other in dropped:
            other.close()
        if self.sharing is not None:
            self.sharing.keep(session)

    def _keep(self, session: Session, pool: dict[str, Session]) -> None:
        pool[session.id] = session
        if self.sharing is not None:
            session.shared, session.key = self.sharing, _hash(session.id).hex()
            self._keys[session.key] = session

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
        """Take out a session; what only this process knows would be lost if it were restored, so then it is not."""
        if (self._fresh.pop(session.id, None) or self._used.pop(session.id, None)) is not None:
            owner = _owner(session)
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
            self._keys.pop(session.key, None)
        known = session.shared is None and (session.uris or session.log_level != "info")
        if self._sealer.shared and (ended or known):
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
        if session.shared is not None and session.used - session.kept > self._idle_s / 4:
            session.kept = session.used
            session.shared.touch(session)
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
        if self.sharing is not None and not self.sharing.fill(session, _hash(id).hex()):
            return None
        dropped: list[Session] = []
        with self._lock:
            if _hash(id) in self._ended or payload["exp"] <= self._restorable:
                return None
            known = self._used.get(id)
            if known is None:
                dropped = self._make_room(session)
                self._keep(session, self._used)
                known = session
        for other in dropped:
            other.close()
        if known is session and self.sharing is not None and not self.sharing.fill(session, session.key):
            # It was ended meanwhile, or changed, of which this process was not told before it had the session.
            self.drop(session, ended=True)
            return None
        return known

    def remove(self, session: Session) -> None:
        """End a session for good.

        :raises InternalError: when other processes cannot be told.
        """
        if session.shared is not None:
            session.shared.end(session)
        self.drop(session, ended=True)

    def drop(self, session: Session, ended: bool = False) -> None:
        """Close a session in this process; others go on with one that is shared, unless it has ended."""
        self.forget(session, ended)
        session.close()

    def forget(self, session: Session, ended: bool) -> None:
        """Take out a session, without closing it."""
        with self._lock:
            self._take_out(session, ended)

    def find(self, key: str) -> Session | None:
        """Return the session with a key, if this process has it."""
        with self._lock:
            return self._keys.get(key)

    def close(self, connections: Sequence[Session], wait_s: float) -> None:
        """Close all sessions in this process, and connections that are sessions, once their calls have ended.

        :param wait_s: how long to wait for that; with any patience, clients that listen are sent away at once.
        """
        sessions, until, pause = self.all(), time.monotonic() + wait_s, threading.Event()
        for session in sessions if wait_s > 0 else ():
            if session.end_stream is not None:
                notify(session.end_stream)
        while any(session.calls for session in (*sessions, *connections)) and time.monotonic() < until:
            pause.wait(_PAUSE_S)
        for session in self.all():
            if session.shared is not None and session.shared.on_leaving is not None:
                notify(session.shared.on_leaving, session)
            self.drop(session, ended=session.shared is None)
        for session in connections:
            notify(session.close)

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
