"""Records of tasks in Redis, which processes of several machines may share."""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Optional, TypeVar

from ...engines.addresses import without_secrets
from ...engines.fork import PerProcess
from ...protocol import wire
from ...server.redis_client import LinkSettings, check, connect, errors, is_disconnection
from .redis_scripts import SCRIPTS
from .task_records import TaskRecord, UnusableStore

T = TypeVar("T")

_CONNECTIONS = 16
# How much longer than it has to Redis keeps a record, for processes that are started again later.
_MARGIN_S = 86_400.0
# How long a request waits for another one that tries whether Redis is back.
_PATIENCE_S = 0.1
_BUT_REQUEST = ("id", "status", "version", "owner", "principal", "created", "updated", "expires", "state", "outcome")
_ADVICE = (
    (("OOM", "OutOfMemory", "maxmemory"), "give it more memory, or wait until tasks have ended"),
    (("READONLY", "ReadOnly", "read only replica"), "name the primary, not a replica"),
)


class RedisStore:
    """Keeps records in Redis: `Tasks(RedisStore("redis://localhost"))`, or in short `Tasks("redis://localhost")`.

    Redis should write what it has to a disk ("appendonly yes"), and must not drop what is in use ("maxmemory-policy
    noeviction"). All of it expires a day after the time of its task; with `Tasks(ttl_s=None)` nothing does. While Redis
    is gone every method raises `UnusableStore`, mostly at once, until it is back.

    :param url: such as "redis://localhost:6379/0", "rediss://..." or "unix:///run/redis.sock".
    :param prefix: the beginning of every key, in braces; servers that differ in what they offer need different ones.
    :param timeout_s: the longest time that one step may take, also with the largest result.
    :raises ImportError: without the package `redis`.
    :raises ValueError: for a URL that is not one of Redis.
    """

    lasting = True

    def __init__(self, url: str, *, prefix: str = "minimcp", timeout_s: float = 1.0) -> None:
        check(url, "RedisStore")
        self.path = without_secrets(url)
        # In braces, so that all keys are on the same node of a cluster.
        self._base = f"{{{prefix}}}:"
        self._settings = LinkSettings(url, self._base, timeout_s, 0)
        self._reached = PerProcess(self._connect)

    def _connect(self) -> _Reached:
        return _Reached(self._settings, self.path)

    def close(self) -> None:
        """Close the connections of this process, once no thread uses them; they are made anew on use."""
        self._reached = PerProcess(self._connect)

    def add(self, record: TaskRecord) -> None:
        """Keep a new record.

        :raises ValueError: when there is one with its id.
        """
        fields = _fields(record)
        fields.update(id=record.id, principal=record.principal, created=repr(record.created))
        fields.update(request=wire.dumps(record.request))
        if not self._script("add", record.id, *_lifetime(record), *_flat(fields)):
            raise ValueError(f"There is a task {record.id} already")

    def get(self, id: str, whole: bool = False) -> TaskRecord | None:
        """Return a record, or None; its `request` is {} unless `whole`."""
        names = (*_BUT_REQUEST, "request") if whole else _BUT_REQUEST
        return _record(self._run(lambda redis: redis.hmget(f"{self._base}task:{id}", names)))

    def replace(self, record: TaskRecord) -> bool:
        """Put a record in the place of the one with the version just before its own; say whether there was that one."""
        return bool(self._script("replace", record.id, *_lifetime(record), record.version - 1, *_flat(_fields(record))))

    def remove(self, id: str) -> None:
        """Forget a record."""
        self._script("remove", id)

    def queued(self, limit: int) -> Sequence[str]:
        """Return the ids of queued records without an owner, the oldest first."""
        if limit <= 0:
            return []
        return [_text(id) for id in self._run(lambda redis: redis.zrange(f"{self._base}queued", 0, limit - 1))]

    def owned(self, owner: str) -> dict[str, int]:
        """Return the ids of the unfinished records of an owner, each with its version."""
        found = self._run(lambda redis: redis.hgetall(f"{self._base}owned:{owner}"))
        return {_text(id): int(version) for id, version in found.items()}

    def owners(self) -> dict[str, int]:
        """Return the owners of unfinished records, each with the number of its heartbeats so far."""
        found = self._script("owners")
        return {_text(owner): int(beats) for owner, beats in zip(found[::2], found[1::2])}

    def beat(self, owner: str) -> None:
        """Count a heartbeat of an owner."""
        self._script("beat", owner, round(_MARGIN_S * 1000))

    def expired(self, now: float, limit: int) -> Sequence[str]:
        """Return ids of records that have ended, or are queued, whose time is over."""
        return [_text(id) for id in self._script("expired", repr(now), limit)]

    def find(self, principal: str | None, statuses: Sequence[str], limit: int) -> Sequence[TaskRecord]:
        """Return the newest records with one of these statuses, the newest first, without `request`."""
        of_one, count = (0, "") if principal is None else (1, principal), len(_BUT_REQUEST)
        found = self._script("find", *of_one, limit, count, *_BUT_REQUEST, *statuses)
        return [record for record in map(_record, found) if record is not None]

    def count(self, principal: str, most: int) -> tuple[int, int, int]:
        """Count the unfinished records of a principal, the unfinished ones and all of them, each up to `most`."""
        own, unfinished, total = (min(int(each), most) for each in self._script("count", principal))
        return own, unfinished, total

    def _script(self, name: str, *values: Any) -> Any:
        """Run a script, which Redis carries out as a whole or not at all."""
        reached = self._reached()
        return reached.run(lambda: reached.scripts[name](keys=[self._base], args=values))

    def _run(self, work: Callable[[Any], T]) -> T:
        reached = self._reached()
        return reached.run(lambda: work(reached.client))


class _Reached:
    """The client of one process; while Redis is gone one thread at a time tries, and the others do not wait for it.

    :param path: the address, as messages show it.
    """

    def __init__(self, settings: LinkSettings, path: str) -> None:
        # Tried again once, since a connection that was idle may have been closed.
        self.client = connect(settings, 1, _CONNECTIONS)
        self.scripts = {name: self.client.register_script(text) for name, text in SCRIPTS.items()}
        self._path = path
        self._gone = False
        self._trying = threading.Lock()  # held by the thread that tries, once _gone
        weakref.finalize(self, _disconnect, os.getpid(), self.client.connection_pool).atexit = False

    def run(self, work: Callable[[], T]) -> T:
        """Return what a function does with the client.

        :raises UnusableStore: when Redis is gone, or refuses that.
        """
        if not self._gone:
            return self._try(work)
        if not self._trying.acquire(timeout=_PATIENCE_S):
            raise self._lost("")
        try:
            if self._gone:
                return self._try(work)
        finally:
            self._trying.release()
        return self._try(work)

    def _try(self, work: Callable[[], T]) -> T:
        try:
            found = work()
        except errors() as problem:
            if is_disconnection(problem):
                self._gone = True
                raise self._lost(f" ({problem})") from problem
            raise UnusableStore(f"{self._path} cannot keep tasks ({problem}){_advice(problem)}") from problem
        self._gone = False
        return found

    def _lost(self, why: str) -> UnusableStore:
        error = UnusableStore(f"{self._path} cannot be reached at the moment{why}")
        error.passing = True
        return error


def _disconnect(pid: int, pool: Any) -> None:
    # In a child of a fork they are its parent's.
    if os.getpid() == pid:
        pool.disconnect()


def _advice(problem: Exception) -> str:
    said = f"{type(problem).__name__} {problem}"
    return next((f"; {advice}" for words, advice in _ADVICE if any(word in said for word in words)), "")


def _lifetime(record: TaskRecord) -> tuple[int, str]:
    """Return the milliseconds that Redis keeps a record, -1 for ever, and the time of this clock at which they end."""
    if record.expires is None:
        return -1, ""
    # Relative, so that neither the clock of Redis counts nor one that is set.
    now = time.time()
    kept_s = max(0.0, record.expires - now) + _MARGIN_S
    return round(kept_s * 1000), repr(now + kept_s)


def _fields(record: TaskRecord) -> dict[str, Any]:
    """Return what changes in a record; the mark tells a change that was sent again from one of somebody else."""
    return {
        "status": record.status,
        "version": record.version,
        "owner": record.owner,
        "updated": repr(record.updated),
        "expires": "" if record.expires is None else repr(record.expires),
        "state": wire.dumps(record.state),
        "outcome": b"" if record.outcome is None else wire.dumps(record.outcome),
        "mark": os.urandom(8),
    }


def _flat(fields: dict[str, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]


def _record(values: Sequence[Optional[bytes]]) -> TaskRecord | None:
    """Return a record of its fields in the order of `_BUT_REQUEST`, perhaps with `request` at the end."""
    texts = [_text(each or b"") for each in values[:8]]
    if not texts[0]:
        return None
    expires = float(texts[7]) if texts[7] else None
    parts: list[Any] = [json.loads(each) if each else None for each in (*values[8:], b"{}")]
    state, outcome, request = parts[:3]
    id, status, version, owner, principal, created, updated = texts[:7]
    times = float(created), float(updated), expires
    return TaskRecord(id, status, int(version), owner, principal, *times, request, state, outcome)


def _text(raw: bytes) -> str:
    return raw.decode()
