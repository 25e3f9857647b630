"""Calls over the last minutes: how many there were, how many failed, and how long they took."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any, Optional

Message = dict[str, Any]

SLOT_S = 5
SLOTS = 60


class Series:
    """The number, the failures and the latencies of calls in each of the last slots of a few seconds.

    Latencies are counted in buckets that are a tenth wider each, so that a quantile is known to a few per cent.
    """

    _STEP = math.log(1.1)

    def __init__(self) -> None:
        # For each slot its number since 1970, the calls, the failures, and how many calls fell into which bucket.
        self._slots: deque[list[Any]] = deque(maxlen=SLOTS)

    def add(self, ended: float, ms: float, failed: bool) -> None:
        """Count a call."""
        number = int(ended // SLOT_S)
        if not self._slots or self._slots[-1][0] < number:
            self._slots.append([number, 0, 0, {}])
        slot = self._slots[-1]
        slot[1] += 1
        slot[2] += failed
        bucket = int(math.log(ms if ms > 0.01 else 0.01) / self._STEP)
        slot[3][bucket] = slot[3].get(bucket, 0) + 1

    def points(self, now: float) -> Message:
        """Return `slotS`, and of the last slots, the newest last, `[calls, failures, median, 95th percentile]`.

        The latencies are in milliseconds, None where there was no call.
        """
        last = int(now // SLOT_S)
        slots = {slot[0]: slot for slot in self._slots}
        empty: list[Any] = [0, 0, 0, {}]
        found = [slots.get(number, empty) for number in range(last - SLOTS + 1, last + 1)]
        return {"slotS": SLOT_S, "slots": [[n, failed, *self._quantiles(b, 0.5, 0.95)] for _, n, failed, b in found]}

    def summary(self, now: float) -> Message:
        """Return `calls`, `failures`, `p50`, `p95` and `p99` over all slots that are kept."""
        buckets: dict[int, int] = {}
        calls = failures = 0
        for number, count, failed, of_slot in self._slots:
            if number > now // SLOT_S - SLOTS:
                calls, failures = calls + count, failures + failed
                for bucket, each in of_slot.items():
                    buckets[bucket] = buckets.get(bucket, 0) + each
        p50, p95, p99 = self._quantiles(buckets, 0.5, 0.95, 0.99)
        return {"calls": calls, "failures": failures, "p50": p50, "p95": p95, "p99": p99}

    def _quantiles(self, buckets: dict[int, int], *shares: float) -> list[Optional[float]]:
        total, found = sum(buckets.values()), []
        for share in shares:
            left = share * total
            for bucket in sorted(buckets):
                left -= buckets[bucket]
                if left <= 0:
                    found.append(round(math.exp((bucket + 0.5) * self._STEP), 3))
                    break
        return [*found, *[None] * (len(shares) - len(found))]


def series_of(calls: Iterable[tuple[float, float, bool]]) -> Series:
    """Return the series of some calls, each the time at which it ended, its milliseconds and whether it failed."""
    series = Series()
    for call in sorted(calls):
        series.add(*call)
    return series
