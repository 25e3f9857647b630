"""Counts of the requests of callers against limits: in the memory of one process, or in Redis for several."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

log = logging.getLogger("minimcp")

_STORAGE_TIMEOUT_S = 0.5
_STORAGE_REST_S = 5.0  # after a failure, in which it is not asked
_LOG_EVERY_S = 60.0
_SLICES = 1000  # of a window whose limit is larger than this
_MOST_CALLERS = 100_000  # whom memory holds for one limit


class Limit(NamedTuple):
    """So many requests in so many seconds.

    :ivar text: as it is written in a configuration.
    :ivar item: of the `limits` package.
    """

    amount: int
    window_s: float
    text: str
    item: Any


class Count(NamedTuple):
    """A limit, and what is counted against it: the rule that it is of, and the caller."""

    limit: Limit
    rule: str
    caller: str


# The limit that refuses a request, and for how long.
Refusal = tuple[Limit, float]


class Memory:
    """Counts of this process, in windows that move; at most so many callers for each limit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._windows: dict[tuple[str, str], _Windows] = {}

    def take(self, wanted: Sequence[Count]) -> Refusal | None:
        """Count a request against all limits, or against none and return that which refuses it for longest."""
        with self._lock:
            now = self._clock()
            found, refusal = [], None
            for limit, rule, caller in wanted:
                windows = self._windows.get((rule, limit.text))
                if windows is None:
                    windows = self._windows[rule, limit.text] = _Windows(limit)
                wait_s = windows.wait_s(caller, now)
                if wait_s > 0 and (refusal is None or wait_s > refusal[1]):
                    refusal = limit, wait_s
                found.append((windows, caller))
            if refusal is None:
                for windows, caller in found:
                    windows.add(caller, now)
            return refusal


class _Windows:
    """The windows of all callers for one limit, in the order of their newest requests.

    Of each caller it keeps the times of the requests in the window, each with a number, and the sum of these.
    """

    def __init__(self, limit: Limit) -> None:
        self._amount = limit.amount
        self._window_s = limit.window_s
        self._slice_s = limit.window_s / _SLICES if limit.amount > _SLICES else 0.0
        self._callers: OrderedDict[str, tuple[deque[list[float]], list[float]]] = OrderedDict()

    def wait_s(self, caller: str, now: float) -> float:
        """Return the time until the caller may make another request; not above 0 when it may now."""
        found = self._callers.get(caller)
        if found is None:
            return 0.0
        times, total = found
        while times and times[0][0] + self._window_s <= now:
            total[0] -= times.popleft()[1]
        return 0.0 if total[0] < self._amount else times[0][0] + self._window_s - now

    def add(self, caller: str, now: float) -> None:
        """Count a request."""
        if self._slice_s:
            # Of many, those of a slice are kept as if all had come at its end.
            now = (now // self._slice_s + 1) * self._slice_s
        found = self._callers.get(caller)
        if found is None:
            found = self._callers[caller] = deque(), [0]
        times, total = found
        total[0] += 1
        if times and times[-1][0] == now:
            times[-1][1] += 1
        else:
            times.append([now, 1])
            self._callers.move_to_end(caller)
        for _ in range(2):
            # More may go than come, so that who is not seen any more is not kept.
            oldest, (others, _) = next(iter(self._callers.items()))
            still = bool(others) and others[-1][0] + self._window_s > now
            if oldest == caller or (still and len(self._callers) <= _MOST_CALLERS):
                return
            del self._callers[oldest]


class Redis:
    """Counts in Redis, which several processes share; requests pass while it fails, since it must not stop them all.

    :raises ValueError: for a URL of something else.
    :raises ImportError: without its packages.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        if not url.startswith(("redis", "valkey")) or "://" not in url:
            # Not shown, since it may have a password.
            raise ValueError("The URL of the Redis for rate limits is not one such as 'redis://localhost:6379'")
        try:
            import redis  # noqa: F401  # limits itself has another error for its absence
            from limits.storage import storage_from_string
            from limits.strategies import MovingWindowRateLimiter
        except ImportError:
            raise ImportError(
                "Rate limits in Redis need the packages limits and redis: pip install 'minimcp-sync[gateway]'"
            ) from None
        # Short ones: every call waits for it.
        options: dict[str, Any] = {"socket_timeout": _STORAGE_TIMEOUT_S, "socket_connect_timeout": _STORAGE_TIMEOUT_S}
        self._limiter = MovingWindowRateLimiter(storage_from_string(url, **options))
        self._clock = clock
        # No lock guards these two: who comes at the same moment asks, or logs, once more.
        self._rests_until = self._logged = float("-inf")

    def take(self, wanted: Sequence[Count]) -> Refusal | None:
        """Count a request against all limits, or return one that refuses it; shorter ones have counted it then."""
        if self._clock() < self._rests_until:
            return None
        try:
            # The shortest first: one that refuses has counted nothing, and the others are not asked.
            for each in sorted(wanted, key=lambda each: each.limit.window_s):
                place = ("minimcp", each.rule, each.caller)
                if not self._limiter.hit(each.limit.item, *place):
                    reset = self._limiter.get_window_stats(each.limit.item, *place).reset_time
                    return each.limit, min(max(reset - time.time(), 0.001), each.limit.window_s)
        except Exception as problem:
            now = self._clock()
            self._rests_until = now + _STORAGE_REST_S
            if now - self._logged >= _LOG_EVERY_S:
                self._logged = now
                log.error("rate limits are not kept, since their storage fails: %s", type(problem).__name__)
        return None
