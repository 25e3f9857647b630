"""`RedisBus`: changes, tasks and legacy sessions of several processes behind one address, over Redis."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..engines.fork import PerProcess
from .bus import Data, Fields, Listener
from .hooks import notify
from .redis_client import LinkSettings, check
from .redis_link import RedisLink

_MIB = 1024 * 1024
_TRIMMED = 100  # records at once
_INDEX_S = 2 * 86_400


class RedisBus:
    """A bus between the processes that use the same Redis and prefix: `Server(bus=RedisBus("redis://localhost"))`.

    Listeners of this process are told at once, also while Redis is gone. Those of others are told when it is back,
    and then that everything may have changed, since nobody knows what they have missed. A process that forks needs
    nothing; each makes connections of its own, on first use. Everything in Redis expires.

    :param url: such as "redis://localhost:6379/0", "rediss://..." or "unix:///run/redis.sock".
    :param prefix: the beginning of every key and channel; servers that differ in what they offer need different ones.
    :param timeout_s: the longest time that one step may take.
    :param most_bytes: of one message, such as an answer to a question that came to another process.
    :param most_records: the number of sessions that Redis keeps.
    :raises ImportError: without the package `redis`.
    :raises ValueError: for a URL that is not one of Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "minimcp",
        timeout_s: float = 1.0,
        most_bytes: int = 10 * _MIB,
        most_records: int = 100_000,
    ) -> None:
        check(url, "RedisBus")
        self._prefix = prefix
        self._most_records = most_records
        # Guards _counts, and _topics and _listeners, which are replaced and never changed.
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._topics: frozenset[str] = frozenset()
        self._listeners: tuple[tuple[frozenset[str], Listener], ...] = ()
        settings = LinkSettings(url, prefix, timeout_s, most_bytes)
        self._link = PerProcess(lambda: RedisLink(settings, lambda: self._topics, self._hear, self._missed))

    # The interface of a bus

    def publish(self, topic: str, data: Data = None) -> None:
        """Call every listener of the topic with `(topic, data)`, those of this process before it returns.

        :raises ValueError: for data that is not JSON, or too large.
        """
        link = self._link()
        raw = link.encode(data)
        for topics, listener in self._listeners:
            if topic in topics:
                listener(topic, data)
        link.publish(topic, raw)

    def subscribe(self, topics: Collection[str], listener: Listener) -> Callable[[], None]:
        """Add a listener of some topics and return the function that removes it; it must not block.

        When messages may have been missed it is called with each of its topics and None.
        """
        added = (frozenset(topics), listener)
        with self._lock:
            self._listeners = (*self._listeners, added)
            news = any(not self._counts[topic] for topic in added[0])
            self._counts.update(added[0])
            if news:
                self._topics = frozenset(self._counts)
        self._link().listen(added[0], news)

        def unsubscribe() -> None:
            with self._lock:
                left = tuple(other for other in self._listeners if other is not added)
                if len(left) == len(self._listeners):
                    return
                self._listeners = left
                self._counts.subtract(added[0])
                if not all(self._counts[topic] for topic in added[0]):
                    self._counts = +self._counts
                    self._topics = frozenset(self._counts)

        return unsubscribe

    def close(self) -> None:
        """Stop listening in this process; what is published then reaches the listeners of this process alone."""
        self._link().close()

    def __enter__(self) -> RedisBus:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # What legacy sessions use; see `SharedBus`

    @property
    def node(self) -> str:
        """The name of this process."""
        return self._link().node

    @property
    def up(self) -> bool:
        """Whether this process is connected to Redis, as readiness checks may want to know."""
        return self._link().up

    def start(self) -> None:
        """Begin to listen in this process, unless it does."""
        self._link().start()

    def send(self, topic: str, data: Data, node: str = "", wait_s: float = 0.0) -> int:
        """Publish to other processes alone, or to one of them, and return how many have got it.

        :param wait_s: how long to wait until their listeners have returned.
        :raises BusDown: when that cannot be done, as do all functions below.
        """
        return self._link().send(topic, data, node, wait_s)

    def read(self, keys: Sequence[str]) -> list[dict[str, str]]:
        """Return records, empty where there is none."""

        def work(redis: Any) -> Any:
            pipeline = redis.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(self._key(key))
            return pipeline.execute()

        found = [{_text(name): _text(value) for name, value in each.items()} for each in self._link().run(work)]
        return [each if "at" in each else {} for each in found]

    def put(self, key: str, fields: Fields, ttl_s: float, used: bool = True) -> None:
        """Make or replace a record; where there are too many, those never used go first."""
        mapping = {name: value for name, value in fields.items() if value is not None}

        def work(redis: Any) -> Any:
            pipeline = redis.pipeline()
            pipeline.delete(self._key(key))
            pipeline.hset(self._key(key), mapping=mapping)
            # Those never used count as if they had been, long ago.
            self._note_use(pipeline, key, ttl_s, 0.0 if used else ttl_s)
            pipeline.zcard(self._index)
            excess = pipeline.execute()[-1] - self._most_records
            if excess > 0:
                oldest = redis.zpopmin(self._index, min(excess, _TRIMMED))
                redis.delete(*(self._key(_text(name)) for name, _ in oldest))

        self._link().run(work)

    def _note_use(self, pipeline: Any, key: str, ttl_s: float, ago_s: float = 0.0) -> None:
        pipeline.expire(self._key(key), max(1, int(ttl_s)))
        pipeline.zadd(self._index, {key: time.time() - ago_s})
        pipeline.expire(self._index, _INDEX_S)

    def change(self, key: str, fields: Fields, ttl_s: float) -> bool:
        """Change fields of a record, where None removes one, and say whether there is such a record."""
        new = {name: value for name, value in fields.items() if value is not None}
        old = [name for name, value in fields.items() if value is None]

        def work(redis: Any) -> Any:
            pipeline = redis.pipeline()
            if new:
                pipeline.hset(self._key(key), mapping=new)
            if old:
                pipeline.hdel(self._key(key), *old)
            self._note_use(pipeline, key, ttl_s)
            pipeline.hexists(self._key(key), "at")
            return pipeline.execute()[-1]

        return bool(self._link().run(work))

    def swap(self, key: str, field: str, value: str, ttl_s: float, over: bool = True) -> str:
        """Set a field of a record and return what it was before, or ""; without `over` one with a value is left."""

        def work(redis: Any) -> Any:
            pipeline = redis.pipeline()
            pipeline.hget(self._key(key), field)
            (pipeline.hset if over else pipeline.hsetnx)(self._key(key), field, value)
            self._note_use(pipeline, key, ttl_s)
            return pipeline.execute()[0]

        before = self._link().run(work)
        return "" if before is None else _text(before)

    def _key(self, key: str) -> str:
        return f"{self._prefix}:session:{key}"

    @property
    def _index(self) -> str:
        return f"{self._prefix}:sessions"

    def _hear(self, topic: str, data: Data) -> None:
        for topics, listener in self._listeners:
            if topic in topics:
                notify(listener, topic, data)

    def _missed(self) -> None:
        for topics, listener in self._listeners:
            for topic in topics:
                notify(listener, topic, None)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
