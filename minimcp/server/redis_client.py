"""Clients of Redis, their failures, and the messages that could not be sent while it was gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

# The topic whose messages say that there were others, which could not be sent.
MISSED = "*"
_MOST_UNSENT = 1000


class LinkSettings(NamedTuple):
    """The address of Redis, what all names in it begin with, the longest time for one step, and the longest message."""

    url: str
    prefix: str
    timeout_s: float
    most_bytes: int


# The beginnings of a URL of Redis.
SCHEMES = ("redis://", "rediss://", "unix://")


def check(url: str, name: str) -> None:
    """Check that a URL is one of Redis, and that there is a client for it.

    :param name: the class that needs it.
    :raises ImportError: without the package `redis`.
    :raises ValueError: for a URL that is not one of Redis.
    """
    try:
        import redis  # noqa: F401
    except ImportError as problem:
        raise ImportError(f"{name} needs the package redis: pip install 'minimcp-sync[redis]'") from problem
    if not isinstance(url, str) or not url.startswith(SCHEMES):
        # It may hold a password.
        raise ValueError(f"The URL of a {name} begins with redis://, rediss:// or unix://")


def connect(settings: LinkSettings, retries: int, connections: int) -> Any:
    """Make a client of Redis with a few connections, which are made on first use."""
    from redis import BlockingConnectionPool, Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), retries),
        # Before its version 6 the client tries again only after errors that are named.
        "retry_on_error": list(_disconnections()),
        "protocol": 2,
    }
    if settings.url.startswith("unix:"):
        del options["socket_connect_timeout"], options["socket_keepalive"]
    pool = BlockingConnectionPool.from_url(
        settings.url, max_connections=connections, timeout=settings.timeout_s, **options
    )
    return Redis(connection_pool=pool)


def errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that a client raises when Redis cannot be reached, or refuses."""
    from redis.exceptions import RedisError

    return RedisError, OSError


def is_disconnection(problem: Exception) -> bool:
    """Say whether the connection itself has failed."""
    return isinstance(problem, (*_disconnections(), OSError))


def _disconnections() -> tuple[type[Exception], ...]:
    from redis.exceptions import ConnectionError as Disconnected
    from redis.exceptions import TimeoutError as TooLate

    return Disconnected, TooLate


class Unsent:
    """Messages that could not be sent, in order, those alike as one; too many become one about all topics.

    :param most_bytes: what they may hold together.
    :param missed: the message that takes their place.
    """

    def __init__(self, most_bytes: int, missed: bytes) -> None:
        self._most_bytes = most_bytes
        self._missed = missed
        self._lock = threading.Lock()  # guards everything below
        self._messages: dict[tuple[str, bytes], None] = {}
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._messages)

    def add(self, topic: str, raw: bytes) -> None:
        """Keep a message."""
        with self._lock:
            if (topic, raw) not in self._messages:
                self._messages[topic, raw] = None
                self._bytes += len(raw)
            if len(self._messages) > _MOST_UNSENT or self._bytes > self._most_bytes:
                self._messages, self._bytes = {(MISSED, self._missed): None}, len(self._missed)

    def send(self, publish: Callable[[str, bytes], object]) -> None:
        """Send them all; those that cannot be sent are kept, and what `publish` raised is raised."""
        with self._lock:
            messages, self._messages, self._bytes = list(self._messages), {}, 0
        done = 0
        try:
            for topic, raw in messages:
                publish(topic, raw)
                done += 1
        finally:
            for topic, raw in messages[done:]:
                self.add(topic, raw)
