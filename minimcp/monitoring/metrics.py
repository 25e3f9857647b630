"""The metrics of a gateway as Prometheus reads them, through the package `prometheus-client`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from .calls import BOUNDS_S

if TYPE_CHECKING:
    from .calls import Calls

Message = dict[str, Any]

_STATES = ("up", "starting", "down", "disabled")
_BREAKER = ("closed", "half-open", "open")
_PREFIX = "minimcp_gateway_"


class Metrics:
    """Writes what there is to know of a gateway at the moment of a scrape.

    :param snapshot: returns the state of the gateway, see `Gateway.snapshot`.
    :raises ImportError: when the package is not installed.
    """

    def __init__(self, calls: Calls, snapshot: Callable[[], Message]) -> None:
        try:
            import prometheus_client
            import prometheus_client.core
        except ImportError:
            raise ImportError("Metrics need prometheus-client: pip install 'minimcp-sync[gateway]'") from None
        self._calls = calls
        self._snapshot = snapshot
        self._client: Any = prometheus_client
        self._core: Any = prometheus_client.core
        self._registry: Any = prometheus_client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)

    def text(self) -> tuple[str, bytes]:
        """Return the media type and the text of all metrics."""
        return self._client.CONTENT_TYPE_LATEST, self._client.generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics; the package calls this."""
        yield from self._of_calls()
        yield from self._of_servers(self._snapshot())

    def _of_calls(self) -> Iterator[Any]:
        core, calls = self._core, self._calls
        requests = core.CounterMetricFamily(
            f"{_PREFIX}requests", "Requests that have ended.", labels=("server", "method", "name", "outcome")
        )
        for labels, count in calls.counts():
            requests.add_metric(labels, count)
        yield requests
        durations = core.HistogramMetricFamily(
            f"{_PREFIX}request_duration_seconds", "Time from a request to its reply.", labels=("server", "method")
        )
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        for series, found in calls.latencies():
            durations.add_metric(series, list(zip(bounds, accumulate(found[:-1]))), found[-1])
        yield durations
        yield core.GaugeMetricFamily(f"{_PREFIX}requests_in_progress", "Requests in progress.", calls.running)

    def _of_servers(self, snapshot: Message) -> Iterator[Any]:
        core = self._core
        yield core.GaugeMetricFamily(f"{_PREFIX}uptime_seconds", "Time since the start.", snapshot["uptimeS"])
        yield core.GaugeMetricFamily(f"{_PREFIX}sessions", "Sessions of clients.", snapshot["sessions"])
        yield core.GaugeMetricFamily(f"{_PREFIX}parked_calls", "Calls that wait for an answer.", snapshot["parked"])

        def gauge(name: str, text: str, *labels: str) -> Any:
            return core.GaugeMetricFamily(_PREFIX + name, text, labels=labels)

        state = gauge("server_state", "1 for the state that a server is in.", "server", "state")
        stale = gauge("server_stale", "Whether a last-known list is served.", "server")
        sessions = gauge("server_sessions", "Sessions with a server.", "server")
        breaker = gauge("replica_state", "1 for the state of a replica's breaker.", "server", "replica", "state")
        flying = gauge("replica_in_flight", "Calls in progress.", "server", "replica")
        ejected = gauge("replica_ejected_seconds", "Time until it is tried again.", "server", "replica")
        calls = core.CounterMetricFamily(f"{_PREFIX}replica_calls", "Calls to it.", labels=("server", "replica"))
        failures = core.CounterMetricFamily(f"{_PREFIX}replica_failures", "Failed ones.", labels=("server", "replica"))
        for server in snapshot["servers"]:
            name = server["name"]
            for each in _STATES:
                state.add_metric((name, each), server["state"] == each)
            stale.add_metric((name,), bool(server.get("stale")))
            sessions.add_metric((name,), server.get("sessions") or 0)
            for replica in server["replicas"]:
                labels = (name, replica["name"])
                for each in _BREAKER:
                    breaker.add_metric((*labels, each), replica["state"] == each)
                flying.add_metric(labels, replica["inFlight"])
                ejected.add_metric(labels, replica.get("ejectedForS") or 0)
                calls.add_metric(labels, replica["calls"])
                failures.add_metric(labels, replica["failures"])
        yield from (state, stale, sessions, breaker, flying, ejected, calls, failures)
