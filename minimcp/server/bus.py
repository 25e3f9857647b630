"""The bus: publishes changes by topic, to listeners in this process or, with another `Bus`, in others.

Topics are "tools", "prompts" and "resources" (that list changed), "resource" (the one whose URI is the data changed),
and free ones such as "tasks/<id>".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, Protocol

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

    Messages of one topic become one, with the newest data; of "resource", those of one URI. So a reader that never
    comes holds no more memory than the number of things it asked for. Spec: BASE-155 to BASE-172

    :param uris: the resources whose "resource" messages are wanted.
    """

    def __init__(self, bus: Bus, topics: Collection[str], uris: Collection[str] = ()) -> None:
        self._uris = frozenset(uris)
        self._changed = threading.Condition()  # guards _pending and _closed
        self._pending: dict[tuple[str, str | None], Data] = {}
        self._closed = False
        self._unsubscribe = bus.subscribe({*topics, "resource"} if uris else topics, self._on_message)

    def _on_message(self, topic: str, data: Data) -> None:
        if topic == "resource" and not (isinstance(data, str) and data in self._uris):
            return
        with self._changed:
            self._pending[(topic, data if topic == "resource" else None)] = data
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
