"""Notes of the calls of a gateway: the recent ones, counters, latencies, and one structured line for each."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

from ..engines.trace import Redaction, Trace, timestamp, writer
from ..protocol import spec
from ..protocol.errors import Cancelled
from ..protocol.redaction import NAMES
from .propagation import trace_id, traced
from .series import Series

if TYPE_CHECKING:
    from ..server.hooks import Outcome

log = logging.getLogger("minimcp")

Message = dict[str, Any]

# The upper bounds of the buckets of latencies, in seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OTHER = "other"
# Series of one name, beyond which all further names are one: what servers list may change without end.
_MOST_NAMES = 2000
_LONGEST_NAME = 200
_MOST_COMPLAINTS = 3
# Errors that say more of the caller or its message than of the server.
_CALLERS_OWN = frozenset({spec.INVALID_PARAMS, spec.INVALID_REQUEST, spec.METHOD_NOT_FOUND, spec.HEADER_MISMATCH})
_CALLERS_OWN |= {spec.MISSING_CAPABILITY, spec.UNSUPPORTED_VERSION, spec.PARSE_ERROR, spec.RESOURCE_NOT_FOUND}
_CALLERS_OWN |= {spec.URL_ELICITATION_REQUIRED}
_KNOWN = frozenset({"ok", "tool error", "cancelled", "denied"}) | {f"error {code}" for code in _CALLERS_OWN}
_KNOWN |= {f"error {spec.INTERNAL_ERROR}"}


class Record(NamedTuple):
    """One call that has ended.

    :ivar time: when it ended, in seconds since 1970.
    :ivar principal: the `key` of the caller, its issuer and its id, or None.
    :ivar server: the server behind the gateway that it was for, "" for none.
    :ivar outcome: "ok", "tool error", "error CODE", "cancelled" or "denied".
    :ivar failed: whether that is a failure of the server or the tool, and not of the caller.
    """

    time: float
    principal: Optional[tuple[str, str]]
    method: str
    name: str
    server: str
    outcome: str
    failed: bool
    ms: float


class Calls:
    """Notes every request, refused ones too: `Server(around_request=Calls())`; other hooks belong inside of it.

    It also makes the trace context of an HTTP request that of its message, see `traced`.

    :param log: takes one JSON line a request: "stderr" or True, the path of a file, a file object or a function that
        gets it as a dict. A line has `time`, `principal`, `via`, `method`, `name`, `server`, `outcome`, `ms`, the
        `id` of the request and the `trace` id, and never arguments or results.
    :param keep: how many calls `recent` has.
    :param clock: returns the seconds since 1970.
    """

    def __init__(self, log: Union[Trace, None] = None, keep: int = 200, clock: Callable[[], float] = time.time) -> None:
        self._write = writer(True if log == "stderr" else log) if log else None
        self._redaction = Redaction(NAMES)
        self._clock = clock
        self._complaints = 0
        self._lock = threading.Lock()  # guards everything below
        self._recent: deque[Record] = deque(maxlen=keep)
        self._series = Series()
        self._running = 0
        # By server, method, name and outcome; by server and method the calls in each bucket and the sum of seconds.
        self._counts: dict[tuple[str, str, str, str], int] = {}
        self._latencies: dict[tuple[str, str], list[float]] = {}
        self._names: set[tuple[str, str]] = set()
        # For each server whose last call failed: how many in a row, and when the last of them was.
        self._failing: dict[str, tuple[int, float]] = {}

    def __call__(self, outcome: Outcome) -> AbstractContextManager[Any]:
        """Stand around one request."""
        return _Noting(self, outcome)

    def begin(self, outcome: Outcome) -> None:
        """Take note that a request has begun."""
        if outcome.ctx is not None:
            traced(outcome.ctx)
        with self._lock:
            self._running += 1

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """Take note of how a request has ended.

        :param error: the exception of a hook inside of this one, which takes the reply's place.
        """
        ctx, now = outcome.ctx, self._clock()
        entry = ctx._entry if ctx is not None else None
        server = getattr(entry, "origin", "") if entry is not None else ""
        ended, failed = _ended(outcome, error)
        duration_s = outcome.duration_s or time.monotonic() - outcome._started
        name = outcome.name or ""
        if len(name) > _LONGEST_NAME:
            name = name[:_LONGEST_NAME] + "..."
        method = outcome.method if outcome.method is not None else ""
        known = ctx._row.handler is not None if ctx is not None else method in spec.METHODS
        label = method if known else OTHER
        streams = ctx is not None and ctx._row.streams
        named = label in ("tools/call", "prompts/get")
        principal = None if outcome.principal is None else outcome.principal.key
        unwell = failed or ended == "tool error"
        record = Record(now, principal, method[:_LONGEST_NAME], name, server, ended, unwell, duration_s * 1000)
        with self._lock:
            self._running -= 1
            if method != "ping" and not (ctx is None and ended == "denied"):
                # Whoever has no credential cannot push the calls of others out.
                self._recent.append(record)
            shown = self._bounded(server, name) if entry is not None and named else OTHER if named else ""
            # A server may send any code.
            key = (server, label, shown, ended if ended in _KNOWN else f"error {OTHER}")
            self._counts[key] = self._counts.get(key, 0) + 1
            if not streams:
                self._measure((server, label), duration_s)
            if ctx is not None and ctx._row.may_ask:
                self._series.add(now, record.ms, unwell)
            if server and failed:
                self._failing[server] = (self._failing.get(server, (0, 0.0))[0] + 1, now)
            elif server and ended in ("ok", "tool error"):
                self._failing.pop(server, None)
        if self._write is not None:
            self._log(record, outcome)

    def _bounded(self, server: str, name: str) -> str:
        """Return a name as a label; there are no more than `_MOST_NAMES`."""
        if (server, name) in self._names:
            return name
        if len(self._names) >= _MOST_NAMES:
            return OTHER
        self._names.add((server, name))
        return name

    def _measure(self, key: tuple[str, str], duration_s: float) -> None:
        found = self._latencies.get(key)
        if found is None:
            found = self._latencies[key] = [0.0] * (len(BOUNDS_S) + 2)
        found[bisect_left(BOUNDS_S, duration_s)] += 1
        found[-1] += duration_s

    def _log(self, record: Record, outcome: Outcome) -> None:
        ctx, principal = outcome.ctx, outcome.principal
        line: Message = {
            "time": timestamp(record.time) + "+00:00",
            "principal": None if principal is None else principal.id,
            "via": None if principal is None else principal.via,
            "method": record.method or None,
            # A URI may have a secret in its query.
            "name": self._redaction.value(record.name) if "?" in record.name else record.name or None,
            "server": record.server or None,
            "outcome": record.outcome,
            "ms": round(record.ms, 3),
            "id": None if ctx is None else ctx.request_id,
            "trace": None if ctx is None else trace_id(ctx.meta.get("traceparent")),
        }
        try:
            assert self._write is not None
            self._write(line)
        except Exception as problem:
            # The call itself is well; a full disk must not end all calls.
            self._complaints += 1
            if self._complaints <= _MOST_COMPLAINTS:
                log.warning("a call could not be logged: %r", problem)

    # Read by the status page and the metrics

    @property
    def running(self) -> int:
        """The number of requests in progress."""
        return self._running

    def recent(self) -> list[Record]:
        """Return the last calls, the newest first, without `ping` and what had no credential."""
        with self._lock:
            return list(reversed(self._recent))

    def counts(self) -> list[tuple[tuple[str, str, str, str], int]]:
        """Return how many requests there were by server, method, name and outcome; all of them have few values."""
        with self._lock:
            return list(self._counts.items())

    def latencies(self) -> list[tuple[tuple[str, str], list[float]]]:
        """Return by server and method how many requests fell into each bucket of `BOUNDS_S`, and last their seconds."""
        with self._lock:
            return [(key, list(found)) for key, found in self._latencies.items()]

    def failing(self, server: str) -> int:
        """Return how many calls to a server have failed since one last went well; 0 when that was a minute ago."""
        count, last = self._failing.get(server, (0, 0.0))
        return count if self._clock() - last < 60 else 0

    def series(self) -> tuple[Message, Message]:
        """Return the points and the summary of the last minutes, see `Series`."""
        now = self._clock()
        with self._lock:
            return self._series.points(now), self._series.summary(now)


class _Noting:
    """The context manager around one request."""

    __slots__ = ("_calls", "_outcome")

    def __init__(self, calls: Calls, outcome: Outcome) -> None:
        self._calls = calls
        self._outcome = outcome

    def __enter__(self) -> None:
        self._calls.begin(self._outcome)

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        self._calls.end(self._outcome, error)


def _ended(outcome: Outcome, error: BaseException | None) -> tuple[str, bool]:
    """Return the outcome in one word or two, and whether it says that the server does not work."""
    reply, http = outcome.reply, outcome.http
    if error is not None:
        # Of another hook: whatever it is, the server has not failed.
        code, http = getattr(error, "code", spec.INTERNAL_ERROR), getattr(error, "http", None)
    elif reply is not None and "error" in reply:
        code = reply["error"].get("code")
    elif reply is not None:
        result = reply.get("result")
        return ("tool error" if isinstance(result, dict) and result.get("isError") is True else "ok"), False
    if (reply is None and error is None) or isinstance(error, Cancelled):
        return "cancelled", False
    status = 0 if http is None else http[0]
    if status in (401, 403) or (outcome.ctx is not None and outcome.ctx._denied):
        return "denied", False
    return f"error {code}", error is None and code not in _CALLERS_OWN and status != 429
