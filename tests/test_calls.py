"""What a gateway notes of its calls: the recent ones, counters, latencies, metrics, log lines and trace context."""

from __future__ import annotations

import builtins
import json
import re
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Context, Server
from minimcp.auth import Keys
from minimcp.monitoring.calls import Calls
from minimcp.monitoring.metrics import Metrics
from minimcp.monitoring.propagation import trace_headers, trace_id, traced
from minimcp.protocol.errors import InternalError, McpError
from tests.gateway_double import SNAPSHOT
from tests.helpers import Clock, Legacy, http_headers, modern

KEY = "key-of-ann-0123456789"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def counted(**options: Any) -> tuple[Server, Calls]:
    calls = Calls(**options)
    server = Server("s", around_request=calls)

    @server.tool
    def work(text: str = "", code: int = 0) -> str:
        if code:
            raise McpError("no", code=code)
        if text == "fail":
            raise ValueError("x")
        return text

    server.tool(lambda: "x", "mine", roles=["admin"])
    server.resource("note://{id}")(lambda id: id)
    server.prompt(lambda: "hi", "hello")
    for entry in server.engine.registry.tools.values():
        entry.origin = "alpha"
    return server, calls


def call(server: Server, name: str = "work", **arguments: Any) -> Any:
    return server.handle(modern("tools/call", name=name, arguments=arguments))


def test_each_way_to_end_has_its_word() -> None:
    server, calls = counted()
    call(server)
    call(server, text="fail")
    call(server, code=-31000)
    call(server, name="mine")
    call(server, name="nobody")
    server.handle(modern("resources/read", uri="note://1"))
    server.handle(modern("prompts/get", name="hello"))
    server.handle(modern("no/such"))
    server.handle({"jsonrpc": "2.0", "id": 1, "method": 5})
    found = [(each.method, each.name, each.server, each.outcome, each.failed) for each in reversed(calls.recent())]
    assert found == [
        ("tools/call", "work", "alpha", "ok", False),
        ("tools/call", "work", "alpha", "tool error", True),
        ("tools/call", "work", "alpha", "error -31000", True),
        ("tools/call", "mine", "alpha", "denied", False),
        ("tools/call", "nobody", "", "error -32602", False),
        ("resources/read", "note://1", "", "ok", False),
        ("prompts/get", "hello", "", "ok", False),
        ("no/such", "", "", "error -32601", False),
        ("", "", "", "error -32600", False),
    ]
    assert all(0 <= each.ms < 60_000 and each.principal is None for each in calls.recent())
    assert calls.running == 0


def test_a_call_without_a_credential_is_denied_and_one_with_it_has_its_caller() -> None:
    calls = Calls()
    server = Server("s", auth=Keys({"ann": KEY}), around_request=calls)
    message = modern("tools/list")
    for key in ("no-such-key-0123456789", KEY):
        Client(server.wsgi).post("/mcp", json=message, headers=http_headers(message, **{"X-API-Key": key}))
    # Whoever has no credential cannot push the calls of others out.
    assert [(each.outcome, each.principal) for each in calls.recent()] == [("error -32601", ("", "ann"))]
    assert dict(calls.counts())["", "other", "", "denied"] == 1


def test_a_cancelled_call_is_cancelled() -> None:
    calls = Calls()
    server = Server("s", around_request=calls)

    @server.tool
    def wait(ctx: Context) -> str:
        running.set()
        ctx.cancelled.wait(10)
        ctx.check()
        return "never"

    running = threading.Event()
    pending = server.engine.call(modern("tools/call", name="wait"))
    thread = threading.Thread(target=pending.run)
    thread.start()
    assert running.wait(10) and calls.running == 1
    pending.cancel()
    thread.join(10)
    assert [each.outcome for each in calls.recent()] == ["cancelled"] and calls.running == 0


def test_what_another_hook_raises_is_the_outcome_and_no_failure_of_the_server() -> None:
    calls = Calls()
    server, _ = counted()

    @contextmanager
    def hook(outcome: Any) -> Any:
        with calls(outcome):
            raise InternalError("too many")
            yield

    server.engine.around_request = hook
    assert call(server)["error"]["code"] == -32603
    assert [(each.server, each.outcome, each.failed) for each in calls.recent()] == [("alpha", "error -32603", False)]
    assert calls.failing("alpha") == 0


def test_only_the_last_are_kept_and_pings_are_counted_alone() -> None:
    server, calls = counted(keep=3)
    session = Legacy(server)
    for number in range(5):
        call(server, text=str(number))
        session.result("ping")
    assert [each.method for each in calls.recent()] == ["tools/call"] * 3
    assert dict(calls.counts())["", "ping", "", "ok"] == 5


def test_names_from_outside_do_not_multiply_the_counters(monkeypatch: Any) -> None:
    monkeypatch.setattr("minimcp.monitoring.calls._MOST_NAMES", 2)
    server, calls = counted()
    for number in range(50):
        call(server, name=f"made-up-{number}")
        server.handle(modern(f"made/up{number}"))
        server.handle(modern("resources/read", uri=f"note://{number}"))
        call(server, code=-31000 - number)
    for name in ("b", "c", "d"):
        server.tool(lambda: "x", name)
        call(server, name=name)
    call(server)
    assert dict(calls.counts()) == {
        ("", "tools/call", "other", "error -32602"): 50,
        ("", "other", "", "error -32601"): 50,
        ("", "resources/read", "", "ok"): 50,
        ("alpha", "tools/call", "work", "error other"): 50,
        ("alpha", "tools/call", "work", "ok"): 1,
        ("", "tools/call", "b", "ok"): 1,
        ("", "tools/call", "other", "ok"): 2,
    }


def test_long_names_are_cut() -> None:
    server, calls = counted()
    call(server, name="x" * 100_000)
    server.handle(modern("y" * 100_000))
    assert [len(each.name) + len(each.method) for each in calls.recent()] == [200, 213]


def test_failures_in_a_row_are_counted_until_one_call_is_well_or_a_minute_has_passed() -> None:
    clock = Clock(1_800_000_000.0)
    server, calls = counted(clock=clock)
    for _ in range(3):
        call(server, code=-32603)
    call(server, code=-32602)
    assert calls.failing("alpha") == 3
    clock.now += 61
    assert calls.failing("alpha") == 0
    call(server, code=-32603)
    call(server, text="fail")
    assert calls.failing("alpha") == 0


def test_latencies_fall_into_fixed_buckets() -> None:
    server, calls = counted()
    for _ in range(3):
        call(server)
    [(key, found)] = calls.latencies()
    assert key == ("alpha", "tools/call") and len(found) == 17
    assert sum(found[:-1]) == 3 and 0 < found[-1] < 60


def test_the_last_minutes_are_known_slot_by_slot() -> None:
    from minimcp.monitoring.series import Series

    series = Series()
    for ms in (1.0, 2.0, 3.0, 100.0):
        series.add(1000.0, ms, ms == 100.0)
    series.add(1007.0, 50.0, False)
    points = series.points(1009.0)
    assert points["slotS"] == 5 and len(points["slots"]) == 60
    assert points["slots"][-1] == [1, 0, pytest.approx(50, rel=0.1), pytest.approx(50, rel=0.1)]
    assert points["slots"][-2] == [4, 1, pytest.approx(2, rel=0.1), pytest.approx(100, rel=0.1)]
    assert points["slots"][0] == [0, 0, None, None]
    assert series.summary(1009.0) == {
        "calls": 5,
        "failures": 1,
        "p50": pytest.approx(3, rel=0.1),
        "p95": pytest.approx(100, rel=0.1),
        "p99": pytest.approx(100, rel=0.1),
    }
    assert series.summary(1400.0) == {"calls": 0, "failures": 0, "p50": None, "p95": None, "p99": None}
    assert series.points(1400.0)["slots"] == [[0, 0, None, None]] * 60


# Lines


def test_a_line_has_names_and_ids_and_never_arguments(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    server, _ = counted(log=str(file))
    server.handle(
        modern("tools/call", "id-7", name="work", arguments={"text": "a s3cret"}, meta={"traceparent": PARENT})
    )
    server.handle(modern("resources/read", 8, uri="note://1?token=a-s3cret-too"))
    first, second = map(json.loads, file.read_text().splitlines())
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("time"))
    assert first.pop("ms") >= 0
    assert first == {
        "principal": None,
        "via": None,
        "method": "tools/call",
        "name": "work",
        "server": "alpha",
        "outcome": "ok",
        "id": "id-7",
        "trace": "0af7651916cd43dd8448eb211c80319c",
    }
    assert second["name"] == "note://1?token=[redacted]" and second["trace"] is None
    assert "s3cret" not in file.read_text()


def test_lines_go_to_standard_error_too(capsys: Any) -> None:
    server, _ = counted(log="stderr")
    call(server, name="bad\u202e\nname")
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.isascii() and json.loads(line)["name"] == "bad\u202e\nname"


def test_a_log_that_cannot_be_written_ends_no_call(caplog: Any) -> None:
    def full(line: Any) -> None:
        raise OSError("the disk is full")

    server, calls = counted(log=full)
    for _ in range(10):
        assert call(server, text="x")["result"]["content"][0]["text"] == "x"
    assert caplog.text.count("the disk is full") == 3
    assert len(calls.recent()) == 10


# Trace context


@pytest.mark.parametrize(
    "parent, found",
    [
        (PARENT, "0af7651916cd43dd8448eb211c80319c"),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", "0af7651916cd43dd8448eb211c80319c"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", None),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", None),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", None),
        (PARENT + "\n", None),
        ("01" + PARENT[2:] + "-" + "x" * 300, None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_a_traceparent_is_held_to_its_form(parent: Any, found: Any) -> None:
    assert trace_id(parent) == found


@pytest.mark.parametrize(
    "state, kept",
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        ("a=1 , \tb@c=x y", True),
        ("a=1,,b=2,", True),
        ("", False),
        (",", False),
        ("a=1,a=2", False),
        ("A=1", False),
        ("a=", False),
        ("a=b=c", False),
        ("a=\u00fc", False),
        (",".join(f"k{number}=v" for number in range(32)), True),
        (",".join(f"k{number}=v" for number in range(33)), False),
    ],
)
def test_a_tracestate_is_held_to_its_form(state: str, kept: bool) -> None:
    assert ("tracestate" in trace_headers({"traceparent": PARENT, "tracestate": state})) is kept
    assert "tracestate" not in trace_headers({"traceparent": "x", "tracestate": state})


@pytest.mark.parametrize(
    "baggage, kept",
    [
        ("userId=alice,serverNode=DF%2028;hidden;ttl=5, isProduction=false", True),
        ("key = value ; p = 1", True),
        ("key=", True),
        ("", False),
        ("novalue", False),
        ("k=v,,k=v", False),
        ("k=a b", False),
        ('k="v"', False),
        ("k=v;", False),
        ("k=" + "v" * 9000, False),
    ],
)
def test_baggage_is_held_to_its_form(baggage: str, kept: bool) -> None:
    assert (trace_headers({"baggage": baggage}) == {"baggage": baggage}) is kept


def seen(headers: dict[str, str], meta: Any = None) -> Any:
    """The `_meta` as a handler sees it, and as the message had it."""
    server, _ = counted()
    found: list[Any] = []

    @server.tool
    def look(ctx: Context) -> str:
        found.append(({k: v for k, v in ctx.meta.items() if ":" not in k and "/" not in k}, ctx.params["_meta"]))
        return "x"

    message = modern("tools/call", name="look", meta=meta)
    answer = Client(server.wsgi).post("/mcp", json=message, headers={**http_headers(message), **headers})
    assert answer.status_code == 200
    assert found[0][1] == message["params"]["_meta"]
    return found[0][0]


def test_the_context_of_the_headers_is_that_of_the_message() -> None:
    headers = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}
    assert seen(headers) == headers
    assert seen({"traceparent": "bad", "tracestate": "a=1", "baggage": "bad"}) == {}
    assert seen({"traceparent": PARENT, "tracestate": "BAD"}) == {"traceparent": PARENT}
    assert seen({"baggage": "k=v"}) == {"baggage": "k=v"}
    own = {"traceparent": PARENT.replace("c8031", "c8032")}
    # Neither is mixed with the other.
    assert seen(headers, own) == {**own, "baggage": "k=v"}
    assert seen(headers, {"tracestate": "o=1"}) == {"tracestate": "o=1", "baggage": "k=v"}
    assert seen(headers, {"baggage": "own=1"}) == {**headers, "baggage": "own=1"}


def test_without_a_request_nothing_is_looked_for() -> None:
    server, _ = counted()
    pending = server.engine.call(modern("tools/list"))
    before = pending.ctx.meta
    traced(pending.ctx)
    assert pending.ctx.meta is before


# Metrics


def test_metrics_are_what_prometheus_reads() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    server, calls = counted()
    call(server)
    call(server, text="fail")
    kind, text = Metrics(calls, lambda: SNAPSHOT).text()
    assert kind.startswith("text/plain; version=")
    found: dict[Any, float] = {}
    for family in parser.text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def value(name: str, /, **labels: str) -> float:
        return found["minimcp_gateway_" + name, tuple(sorted(labels.items()))]

    of = {"server": "alpha", "method": "tools/call"}
    assert value("requests_total", **of, name="work", outcome="ok") == 1
    assert value("requests_total", **of, name="work", outcome="tool error") == 1
    assert value("request_duration_seconds_count", **of) == 2
    assert value("request_duration_seconds_bucket", **of, le="+Inf") == 2
    assert value("request_duration_seconds_bucket", **of, le="60.0") == 2
    assert value("requests_in_progress") == 0
    assert value("server_state", server="files", state="down") == 1
    assert value("server_state", server="files", state="up") == 0
    assert value("replica_state", server="sum", replica="sum/2", state="open") == 1
    assert value("replica_in_flight", server="sum", replica="sum/1") == 3
    assert value("replica_failures_total", server="sum", replica="sum/2") == 7
    assert value("sessions") == 4 and value("parked_calls") == 1


def test_metrics_without_their_package_say_what_to_install(monkeypatch: Any) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'minimcp-sync\[gateway\]"):
        Metrics(Calls(), dict)


def test_the_package_is_loaded_by_metrics_alone() -> None:
    import subprocess

    code = "import sys, minimcp.monitoring.calls, minimcp.monitoring.metrics; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
