"""The change bus: who is told when a list or a resource changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

Listener = Callable[[str, "str | None"], None]


class BusLike(Protocol):
    """What a replacement for the in-process bus has to offer, for instance one that spans processes."""

    def publish(self, kind: str, uri: str | None = None) -> None: ...

    def subscribe(self, listener: Listener) -> Callable[[], None]: ...


class Bus:
    """Tells listeners in this process; a listener must return quickly and never block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _listeners, which is replaced and never changed
        self._listeners: tuple[Listener, ...] = ()

    def publish(self, kind: str, uri: str | None = None) -> None:
        """Announce that "tools", "prompts" or "resources" changed, or that the "resource" at `uri` did."""
        for listener in self._listeners:
            listener(kind, uri)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener `f(kind, uri)` and return the function that removes it."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return unsubscribe


def _nothing() -> None:
    """Stands in for what has been called; the function itself would keep its subscription in a cycle."""


class Subscription:
    """The changes one listener has not been given yet.

    Repeated changes of one thing are one entry, so a reader that never comes holds no more memory than
    the number of things it asked for. Spec: BASE-155 to BASE-172
    """

    def __init__(self, bus: BusLike, kinds: set[str], uris: set[str]) -> None:
        self._kinds = kinds
        self._uris = uris
        self._changed = threading.Condition()  # guards _pending and _closed
        self._pending: dict[tuple[str, str | None], None] = {}
        self._closed = False
        self._unsubscribe = bus.subscribe(self._on_change)

    def _on_change(self, kind: str, uri: str | None) -> None:
        if kind in self._kinds or (uri is not None and uri in self._uris):
            with self._changed:
                self._pending[(kind, uri)] = None
                self._changed.notify()

    def take(self, timeout_s: float) -> list[tuple[str, str | None]] | None:
        """Wait for changes; an empty list after `timeout_s` seconds without one, None once closed."""
        with self._changed:
            if not self._pending and not self._closed:
                self._changed.wait(timeout_s)
            if self._closed:
                return None
            pending, self._pending = list(self._pending), {}
            return pending

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
