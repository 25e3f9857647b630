"""The client benchmark takes its figures; how large they are is no matter of a test."""

from __future__ import annotations

import sys

from tests.benchmarks import callers, client
from tests.benchmarks.contenders import CHECKOUT
from tests.benchmarks.figures import Results


def test_the_client_benchmark_measures_our_client():
    env = {"PYTHONPATH": str(CHECKOUT)}
    ours = callers.Caller("minimcp", "minimcp", [sys.executable, str(callers.CLIENTS / "minimcp_client.py")], env)
    served = callers.server("minimcp", sys.executable, env)
    results = Results()
    client.measure(results, [ours], [served], list(client.FIGURES), calls=8, turns=1)
    taken = {figure.name: results.get(figure.name, "minimcp") for figure in client.FIGURES}
    assert results.reasons == {}
    assert {name for name, value in taken.items() if value is None} == {"calls-http-sdk", "calls-stdio-sdk"}
    assert taken["huge-http"] == 2
