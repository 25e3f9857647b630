"""The benchmarks take their figures; how large these are is no matter of a test."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks import callers, client, gateway_figures, gateways, killing, kills, scale, task_figures, tasks
from tests.benchmarks.contenders import CHECKOUT
from tests.benchmarks.figures import Results
from tests.processes import Redis


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


def test_the_gateway_benchmark_measures_our_gateway():
    ours = gateways.Gateway("minimcp", "minimcp gateway", gateways.minimal)
    taken = gateway_figures.Taken()
    gateway_figures.calls(taken, [ours], "stdio", seconds=0.1, rounds=1)
    gateway_figures.lists(taken, [ours], seconds=0.1)
    gateway_figures.killed(taken, [ours._replace(doors=("stdio",))], seconds=1.5)
    assert taken.reasons == {}
    for name in ("direct", "minimcp"):
        assert all(taken.get("stdio", name, clients, "rate") for clients in gateway_figures.CLIENTS)
    killed = taken.alone["killed-stdio", "minimcp"]
    assert killed["duplicates"] == killed["unexecuted"] == 0 and killed["recovery_ms"] is not None
    assert taken.alone["lists-p50", "minimcp"] > 0


def test_the_tasks_benchmark_measures_our_tasks(capsys):
    ours = [sys.executable, str(task_figures.PEERS / "minimcp_tasks_peer.py")]
    contender = task_figures.Contender("sqlite", "minimcp, SQLite file", ours, "file")
    taken = task_figures.Taken()
    task_figures.throughput(taken, contender, 0.2, told=3, pauses_ms=[0, 3])
    task_figures.creation(taken, contender, 0.3)
    task_figures.memory(taken, contender, 40)
    assert taken.reasons == {}
    figures = ("minute-1", "minute-8", "cpu-8", "told-p50", "create-p99", "poll-p99", "made", "tasks", "last")
    assert all(taken.get(figure, "sqlite") for figure in figures)
    tasks.show(taken, [contender], tasks.PARTS)
    assert "SQLite file: creation p99" in capsys.readouterr().out


def test_the_benchmark_of_several_processes_measures_calls_and_answers(capsys):
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    with Redis() as redis:
        taken = scale.Taken()
        scale.calls(taken, 2, "", 1, warm_s=1)
        scale.answers(taken, redis.url, 5)
    assert all(taken.rate(era, 2, False) and taken.cpu(era, 2, False) for era in scale.ERAS)
    assert [len(found) for found in taken.answers.values()] == [5, 5]
    scale.show(taken)
    assert "through another worker adds" in capsys.readouterr().out


def test_the_kill_matrix_kills_and_counts(tmp_path):
    outcome = killing.Cell("workers", "worker", tmp_path, seed=1).run(0)
    assert outcome.kills == 1 and 0 < outcome.told <= outcome.made
    assert outcome.completed + outcome.interrupted == outcome.made
    assert outcome.lost == outcome.twice == outcome.wrong == 0
    # How soon is a matter of a machine that does nothing else.
    assert outcome.slowest < 10 * kills.MOST_HEARTBEATS
    assert kills.problems(outcome._replace(slowest=1.5)) == []
    bad = outcome._replace(lost=1, twice=2, wrong=3, slowest=2.5)
    assert [text.split()[0] for text in kills.problems(bad)] == ["1", "2", "3", "a"]
    assert kills.row("workers", "worker", bad)[-4:] == ["1", "2", "3", "2.50"]
