"""Replicas of a server: the health of each, and the choice among them."""

from __future__ import annotations

import itertools
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, Optional, Protocol, TypeVar

from ..engines.errors import ConnectionLost
from ..engines.fork import PerProcess
from .failures import UpstreamUnavailable as UpstreamUnavailable
from .failures import is_failure as is_failure
from .failures import may_have_run as may_have_run
from .failures import may_repeat as may_repeat
from .failures import verdict
from .pacing import Prober as Prober
from .pacing import Slots as Slots

log = logging.getLogger("minimcp")

Message = dict[str, Any]
# A level and a text for the log, which are written once no lock is held.
Said = Optional[tuple[int, str]]

CONSECUTIVE = 5  # failures in a row that open a breaker
WINDOW_S, FEWEST, RATE = 60.0, 20, 0.5  # or this share of at least so many calls in this time
FAILED_PROBES = 3  # probes in a row that do, when no call succeeds in between
FIRST_S, MOST_S, JITTER = 5.0, 300.0, 0.2  # the back-off, which doubles from one to the other
HEALTHY_S = 60.0  # each such time without a breaker's opening takes one doubling back
TRIAL_S = 60.0  # a trial that takes longer is not waited for
_SLICE_S = WINDOW_S / 6
_MOST_LEVEL = 6

# Guards every Health, since a choice looks at several of them.
_lock = PerProcess(threading.Lock)
_order = itertools.count(1)


class HasHealth(Protocol):
    """A replica as `choose` sees it."""

    @property
    def health(self) -> Health:
        """Return its health."""


R = TypeVar("R", bound=HasHealth)


class ReplicaCall(Generic[R]):
    """One call that a replica has, from `choose` to `end`; as a context manager it judges by the exception.

    :ivar replica: the replica that was chosen.
    :ivar trial: whether it is the one call that shows whether an ejected replica is back.
    """

    __slots__ = ("_ended", "_generation", "_since", "replica", "trial")

    def __init__(self, replica: R, trial: bool, generation: int, since: float) -> None:
        self.replica = replica
        self.trial = trial
        self._generation = generation
        self._since = since
        self._ended = False

    def end(self, ok: bool | None, error: object = None) -> None:
        """End the call; only the first end counts.

        :param ok: whether the replica has answered, None when the end says nothing about it, as a cancellation does.
        :param error: what went wrong, for the status page.
        """
        self.replica.health._end(self, ok, error)

    def alive(self) -> None:
        """Take note that a message came for the call: the replica is at work on it, however long that takes."""
        if self.trial:
            self.replica.health._alive(self)

    def __enter__(self) -> ReplicaCall[R]:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.end(verdict(error), error)


class Health:
    """The health of one replica: a circuit breaker over its calls and probes, which ejects it for a growing time.

    The breaker is "closed" while calls go through; "open" for the back-off after it has tripped; then "half-open",
    until one trial call has shown whether to close it.

    :param name: the name of the replica, for the log.
    :param chance: returns a number from 0 to 1, for the jitter.
    :ivar in_flight: the calls that it has now.
    :ivar calls: all calls that it has had.
    :ivar failures: how many of them failed.
    :ivar error: the failure that came last, None once a call has succeeded.
    :ivar different: how its tools differ from those of the other replicas, None when they do not.
    :ivar disabled: whether it gets no calls.
    :ivar draining: whether it gets no new ones, while those that it has may end.
    """

    def __init__(
        self, name: str = "", clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self.name = name
        self.in_flight = self.calls = self.failures = 0
        self.error: Optional[str] = None
        self.different: Optional[str] = None
        self.disabled = self.draining = False
        self._clock = clock
        self._chance = chance
        self._last = 0  # the place of its last call among those of all replicas
        self._closed = True
        self._since = clock()  # when it closed
        self._generation = 0  # counts openings and closings; the end of an older call says nothing new
        self._consecutive = 0
        self._lost = -math.inf  # when a connection broke that counted
        self._slices: deque[list[int]] = deque()  # of the window: number, calls, failures
        self._level = 0
        self._until = self._tried = self._moment_s = 0.0
        self._trial: ReplicaCall[Any] | None = None
        self._failed_probes = 0
        self._probed_down = False  # whether the newest probe failed
        self._opened_by_probes = False

    @property
    def health(self) -> Health:
        """Return itself, so that `choose` takes it for a replica."""
        return self

    @property
    def state(self) -> str:
        """The state of its breaker: "closed", "open" or "half-open"."""
        if self._closed:
            return "closed"
        return "half-open" if self._trial is not None or self._clock() >= self._until else "open"

    @property
    def ejected_for_s(self) -> float:
        """The time until it gets its next trial in the ordinary way; 0.0 when it is not ejected."""
        return 0.0 if self._closed else max(0.0, self._until - self._clock())

    @property
    def usable(self) -> bool:
        """Whether it may be chosen, healthy or not."""
        return self.different is None and not self.disabled and not self.draining

    def snapshot(self) -> Message:
        """Return what a status page shows of it."""
        with _lock():
            return {
                "state": self.state,
                "inFlight": self.in_flight,
                "calls": self.calls,
                "failures": self.failures,
                "ejectedForS": round(self.ejected_for_s, 1),
                "error": self.error,
                "different": self.different,
            }

    def begin(self) -> ReplicaCall[Health]:
        """Begin a call that no other replica could have, whatever its state, such as one of a session that it keeps."""
        with _lock():
            return self._begin(self, False)

    def probed(self, ok: bool, error: object = None) -> None:
        """Take the outcome of a probe.

        Calls count for more: a success closes a breaker only if probes opened it. What calls have opened it leaves to
        a trial call, which need not wait any longer if the probe before had failed.
        """
        with _lock():
            said = self._probed(ok, error)
        _say(said)

    # Under the lock

    def _begin(self, replica: R, trial: bool) -> ReplicaCall[R]:
        turn = ReplicaCall(replica, trial, self._generation, self._clock())
        if trial:
            self._trial = turn
        self.in_flight += 1
        self.calls += 1
        self._last = next(_order)
        return turn

    def _may_try(self, now: float) -> bool:
        """Say whether a trial is due."""
        return not self._closed and now >= self._until and not self._is_trying(now)

    def _is_trying(self, now: float) -> bool:
        return self._trial is not None and now - self._trial._since < TRIAL_S

    def _ready_at(self, now: float) -> float:
        """Return when a trial may begin where there is no other replica that works."""
        if self._is_trying(now):
            return now + self._moment_s
        return min(self._until, self._tried + self._moment_s)

    def _count(self, now: float, failed: bool) -> None:
        slices, number = self._slices, int(now // _SLICE_S)
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
            while slices[0][0] <= number - 6:
                slices.popleft()
        slices[-1][1] += 1
        slices[-1][2] += failed

    def _is_failing(self) -> bool:
        if self._consecutive >= CONSECUTIVE:
            return True
        calls = sum(each[1] for each in self._slices)
        return calls >= FEWEST and sum(each[2] for each in self._slices) >= RATE * calls

    def _open(self, now: float, by_probes: bool = False) -> tuple[int, str]:
        if self._closed:
            self._level = max(0, self._level - int((now - self._since) / HEALTHY_S))
            self._opened_by_probes = by_probes
        for_s = min(MOST_S, FIRST_S * 2**self._level) * (1 + JITTER * (2 * self._chance() - 1))
        self._level = min(_MOST_LEVEL, self._level + 1)
        self._closed, self._trial = False, None
        self._generation += 1
        self._until, self._tried, self._moment_s = now + for_s, now, min(for_s / 5, 10.0)
        return logging.WARNING, f"{self.name} gets no calls for {for_s:.1f} s: {self.error}"

    def _close(self, now: float) -> tuple[int, str]:
        self._closed, self._trial, self._since = True, None, now
        self._generation += 1
        self._consecutive = self._failed_probes = 0
        self._slices.clear()
        self.error = None
        return logging.INFO, f"{self.name} gets calls again"

    def _probed(self, ok: bool, error: object) -> Said:
        now = self._clock()
        was_down, self._probed_down = self._probed_down, not ok
        if ok:
            self._failed_probes = 0
            if not self._closed:
                if self._opened_by_probes:
                    return self._close(now)
                if was_down:
                    self._until = min(self._until, now)
            return None
        self.error = _text(error)
        self._failed_probes += 1
        if self._closed:
            return self._open(now, True) if self._failed_probes >= FAILED_PROBES else None
        return self._open(now) if self._may_try(now) else None

    # Of a ReplicaCall

    def _end(self, turn: ReplicaCall[Any], ok: bool | None, error: object) -> None:
        with _lock():
            said = self._ended(turn, ok, error)
        _say(said)

    def _ended(self, turn: ReplicaCall[Any], ok: bool | None, error: object) -> Said:
        if turn._ended:
            return None
        turn._ended = True
        self.in_flight -= 1
        now = self._clock()
        if ok is False:
            self.failures += 1
        tried = self._trial is turn
        if tried:
            self._trial = None
        if ok is None or turn._generation != self._generation:
            return None
        if ok:
            self._failed_probes = 0
            if not self._closed:
                return self._close(now)
            self._consecutive = 0
            self.error = None
            self._count(now, False)
            return None
        self.error = _text(error)
        if self._closed:
            if isinstance(error, ConnectionLost):
                # The calls that were in flight when a connection broke have failed once, all together.
                if turn._since < self._lost:
                    return None
                self._lost = now
            self._consecutive += 1
            self._count(now, True)
            return self._open(now) if self._is_failing() else None
        self._opened_by_probes = False
        if tried and now >= self._until:
            return self._open(now)
        self._tried = now
        return None

    def _alive(self, turn: ReplicaCall[Any]) -> None:
        said = None
        with _lock():
            if self._trial is turn:
                said = self._close(self._clock())
        _say(said)


def _text(error: object) -> str:
    """Return the error as it is shown: a server may have written it, so that it is no more than one line."""
    found = "it failed" if error is None else str(error).strip() or type(error).__name__
    return "".join(each if each.isprintable() else " " for each in found[:300])


def _say(said: Said) -> None:
    if said is not None:
        log.log(*said)


def choose(
    replicas: Sequence[R], exclude: Collection[R] = (), fail_fast: bool = False, server: str = ""
) -> ReplicaCall[R]:
    """Choose the replica for a call and begin the call on it.

    Among those that work it is the one with the least calls in flight, and of equals the one whose last call is the
    longest ago. One whose back-off is over gets one call as a trial. When all are ejected, all are tried.

    :param exclude: the replicas that this call has failed on.
    :param fail_fast: when all are ejected, send no more than one trial at a time and refuse the other calls at once.
    :raises UpstreamUnavailable: when there is none, or none that is worth the try now.
    """
    with _lock():
        usable = [each for each in replicas if each.health.usable]
        left = [each for each in usable if each not in exclude] if exclude else usable
        closed = [each for each in left if each.health._closed]
        ejected = len(left) - len(closed)
        if ejected and not (exclude and closed):
            # A call that has failed already is no trial where there is a replica that works.
            due = [each for each in left if each.health._may_try(each.health._clock())]
            if due:
                found = min(due, key=_due)
                return found.health._begin(found, True)
        if closed:
            found = closed[0] if len(closed) == 1 else min(closed, key=_burden)
            return found.health._begin(found, False)
        if not left:
            why = "has no other replica" if usable else "has no replica that may be used"
            raise UpstreamUnavailable(server, why, FIRST_S)
        waits = {id(each): _wait_s(each) for each in left}
        ready = [each for each in left if waits[id(each)] <= 0]
        if ready:
            found = min(ready, key=_due)
            return found.health._begin(found, True)
        if fail_fast or any(each.health._closed for each in usable):
            raise UpstreamUnavailable(server, "does not answer", max(0.1, min(waits.values())))
        found = min(left, key=_burden)
        return found.health._begin(found, False)


def _burden(replica: HasHealth) -> tuple[int, int]:
    health = replica.health
    return health.in_flight, health._last


def _due(replica: HasHealth) -> tuple[float, int]:
    health = replica.health
    return health._until, health._last


def _wait_s(replica: HasHealth) -> float:
    now = replica.health._clock()
    return replica.health._ready_at(now) - now
