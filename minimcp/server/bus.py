"""The bus: publishes changes by topic, to listeners in this process or, with another `Bus`, in others.

Topics are "tools", "prompts" and "resources" (that list changed), "resource" (the one whose URI is the data changed, or
any of them where that is None), and free ones such as "tasks/<id>".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Optional, Protocol

from ..engines.errors import MinimcpError

# A JSON value, so that it can cross processes.
Data = Any
Listener = Callable[[str, Data], None]


class Bus(Protocol):
    """The interface of a bus; `Server(bus=...)` takes another one, for instance one that spans processes."""

    def publish(self, topic: str, data: Data = None) -> None:
        """Call every listener of the topic with `(topic, data)`; data is a JSON value."""

    def subscribe(self, topics: Collection[str], listener: Listener) -> Callable[[], None]:
        """Add a listener of some topics and return the function that removes it."""
        ...


class BusDown(MinimcpError):
    """Other processes cannot be reached at the moment."""


Fields = Mapping[str, Optional[str]]


class SharedBus(Bus, Protocol):
    """A bus between processes through which they share legacy sessions; it keeps a small record of each.

    A record is a dict of texts, has at least the field "at", and expires.
    """

    @property
    def node(self) -> str:
        """The name of this process, of lower-case letters and digits."""
        ...

    def start(self) -> None:
        """Begin to listen in this process, unless it does; publishing and subscribing do so by themselves."""

    def send(self, topic: str, data: Data, node: str = "", wait_s: float = 0.0) -> int:
        """Publish to other processes alone, or to one of them, and return how many have got it.

        :param wait_s: how long to wait until their listeners have returned.
        :raises BusDown: when that cannot be done.
        """
        ...

    def read(self, keys: Sequence[str]) -> list[dict[str, str]]:
        """Return records, empty where there is none.

        :raises BusDown: when that cannot be done, as do all functions below.
        """
        ...

    def put(self, key: str, fields: Fields, ttl_s: float, used: bool = True) -> None:
        """Make or replace a record; where there are too many, those never used go first."""

    def change(self, key: str, fields: Fields, ttl_s: float) -> bool:
        """Change fields of a record, where None removes one, and say whether there is such a record."""
        ...

    def swap(self, key: str, field: str, value: str, ttl_s: float, over: bool = True) -> str:
        """Set a field of a record and return what it was before, or "".

        :param over: False to leave a field alone that has a value.
        """
        ...


class LocalBus:
    """The bus of one process; listeners run on the publisher's thread, so they return quickly and never block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _listeners, which is replaced and never changed
        self._listeners: tuple[tuple[frozenset[str], Listener], ...] = ()

    def publish(self, topic: str, data: Data = None) -> None:
        """Call every listener of the topic with `(topic, data)`."""
        for topics, listener in self._listeners:
            if topic in topics:
                listener(topic, data)

    def subscribe(self, topics: Collection[str], listener: Listener) -> Callable[[], None]:
        """Add a listener of some topics and return the function that removes it."""
        added = (frozenset(topics), listener)
        with self._lock:
            self._listeners = (*self._listeners, added)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not added)

        return unsubscribe


def _nothing() -> None:
    """Take the place of an `unsubscribe` that was called; the function itself would keep its listener in a cycle."""


class Subscription:
    """The messages of some topics that one reader has not taken yet.

    Messages of one topic become one, with the newest data; of "resource", those of one URI, and a message about any of
    them becomes one for each. So a reader that never comes holds no more memory than the number of things it asked for.
    Spec: BASE-155 to BASE-172

    :param uris: the resources whose "resource" messages are wanted.
    """

    def __init__(self, bus: Bus, topics: Collection[str], uris: Collection[str] = ()) -> None:
        self._uris = frozenset(uris)
        self._changed = threading.Condition()  # guards _pending and _closed
        self._pending: dict[tuple[str, str | None], Data] = {}
        self._closed = False
        self._unsubscribe = bus.subscribe({*topics, "resource"} if uris else topics, self._on_message)

    def _on_message(self, topic: str, data: Data) -> None:
        if topic == "resource":
            uris = self._uris if data is None else (data,) if isinstance(data, str) and data in self._uris else ()
            news: dict[tuple[str, str | None], Data] = {(topic, uri): uri for uri in uris}
        else:
            news = {(topic, None): data}
        if news:
            with self._changed:
                self._pending.update(news)
                self._changed.notify()

    def take(self, timeout_s: float) -> list[tuple[str, Data]] | None:
        """Wait for messages `(topic, data)`; an empty list after `timeout_s` seconds without one, None once closed."""
        with self._changed:
            if not self._pending and not self._closed:
                self._changed.wait(timeout_s)
            if self._closed:
                return None
            pending, self._pending = self._pending, {}
            return [(topic, data) for (topic, _), data in pending.items()]

    def close(self) -> None:
        """Stop listening and wake a waiting `take`; calling it twice is fine."""
        unsubscribe, self._unsubscribe = self._unsubscribe, _nothing
        unsubscribe()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
