"""Calls that are started, read a little and dropped, which must stop nobody else and end by themselves.

The collector runs finalizers on any thread, from Python 3.12 on between any two of its instructions: what it runs must
take no lock and send nothing.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest

from minimcp import CallCancelled, Client, Timeout
from minimcp.client import running
from minimcp.client.transports.memory import MemoryTransport
from tests.embedded import embedded, wait_until
from tests.hostile.dropping import server
from tests.played import INITIALIZED, Scripted
from tests.transports import ROOT

# Of Python 3.12 and 3.13 a few seconds show most of what a minute shows.
STRESS_S = os.environ.get("MINIMCP_STRESS_S", "3")
SERVED = [sys.executable, "-m", "tests.hostile.dropping", "serve"]


def stress(target: str) -> None:
    program = [sys.executable, "-m", "tests.hostile.dropping", target, STRESS_S]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=float(STRESS_S) + 150)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def at_work() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "minimcp-call"]


def test_dropped_calls_stop_no_other_thread_over_stdio():
    stress("stdio")


def test_dropped_calls_stop_no_other_thread_over_http():
    with embedded(server.wsgi) as served:
        stress(f"{served.url}/mcp")


@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize("transport", ["stdio", "http", "memory"])
def test_a_dropped_call_is_given_up_and_leaves_no_thread(transport, mode):
    with embedded(server.wsgi) as served:
        target = {"stdio": SERVED, "http": f"{served.url}/mcp", "memory": server}[transport]
        with Client(target, mode=mode) as client:
            for _ in client.start_tool("count"):
                break
            wait_until(lambda: not at_work())
            assert client.call_tool("add", a=1, b=2).data == {"sum": 3}


@pytest.mark.parametrize("held", ["pending", "http", "inbox", "connection"])
def test_the_collector_may_find_a_call_while_any_lock_of_the_client_is_held(held):
    """Everything is on one thread, which would wait for itself."""
    done = threading.Event()

    def drop() -> None:
        call = client.start_tool("count")
        next(call)
        call.itself = call
        conn = client._connect()
        transport = conn.transport
        lock = {
            "pending": lambda: transport._pending._lock,
            "http": lambda: transport._open().lock,
            "inbox": lambda: conn.inbox._lock,
            "connection": lambda: conn._opening,
        }[held]()
        with lock:
            del call
            gc.collect()
        done.set()

    with embedded(server.wsgi) as served, Client(f"{served.url}/mcp" if held == "http" else server) as client:
        threading.Thread(target=drop, daemon=True).start()
        assert done.wait(30), f"the thread waits for its own lock ({held})"
        wait_until(lambda: not at_work())
        assert client.call_tool("add", a=1, b=2).data == {"sum": 3}


def counting(params, say):
    token = params["_meta"]["progressToken"]
    for number in range(5):
        say(
            {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": token, "progress": number},
            }
        )
    counting.go.wait(60)
    return {"content": []}


@pytest.fixture
def scripted():
    counting.go = threading.Event()
    yield Scripted(tools_call=counting)
    counting.go.set()


def test_a_dropped_call_is_cancelled_on_the_wire_once(scripted):
    with Client(scripted) as client:
        call = client.start_tool("x")
        next(call)
        del call
        cancelled = scripted.wait_for("notifications/cancelled")
        assert cancelled["params"]["requestId"] == scripted.wait_for("tools/call")["id"]
        wait_until(lambda: not at_work())
        assert len(scripted.all("notifications/cancelled")) == 1


def test_leaving_its_context_has_told_the_server(scripted, monkeypatch):
    # It tells in vain for no longer than that.
    monkeypatch.setattr(running, "HANG_UP_S", 60.0)
    with Client(scripted) as client:
        with client.start_tool("x") as call:
            for _ in call:
                break
        assert len(scripted.all("notifications/cancelled")) == 1
        with pytest.raises(CallCancelled):
            call.result()


def test_a_call_starts_before_anybody_asks_for_its_result(scripted):
    with Client(scripted) as client:
        call = client.start_tool("x")
        scripted.wait_for("tools/call")
        counting.go.set()
        assert call.result() == {"content": []}


def test_a_call_that_is_held_goes_on_though_nobody_reads_it(scripted):
    with Client(scripted) as client:
        call = client.start_tool("x")
        scripted.wait_for("tools/call")
        assert call._thread.join(1.5) is None and call._thread.is_alive()
        counting.go.set()
        assert call.result() == {"content": []}


def test_a_flood_of_progress_that_nobody_reads_is_bounded():
    def flood(params, say):
        token = params["_meta"]["progressToken"]
        for number in range(5000):
            progress = {"progressToken": token, "progress": number}
            say({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
        return {"content": []}

    with Client(Scripted(tools_call=flood)) as client:
        call = client.start_tool("x")
        call._thread.join(60)
        assert 0 < len(list(call)) <= 1000
        assert call.result() == {"content": []}


def test_a_task_of_a_dropped_call_is_cancelled():
    task = {"resultType": "task", "taskId": "t-1", "status": "working", "pollIntervalMs": 60_000}
    server = Scripted(tools_call=lambda params, say: task, tasks_cancel=lambda params, say: {})
    with Client(server, tasks=True) as client:
        call = client.start_tool("x")
        # One that is dropped before there is a task cancels the request.
        assert call._work.known.wait(20)
        del call
        assert server.wait_for("tasks/cancel")["params"]["taskId"] == "t-1"


def test_a_call_that_is_dropped_while_it_opens_the_connection_is_given_up():
    greeted, done = threading.Event(), threading.Event()

    def greet(params, say):
        greeted.wait(60)
        return INITIALIZED

    server = Scripted(initialize=greet, tools_call=lambda params, say: done.wait(60) and {"content": []})
    client = Client(server, mode="legacy")
    call = client.start_tool("x")
    server.wait_for("initialize")
    del call
    greeted.set()
    wait_until(lambda: not at_work())
    client.close()
    done.set()


def test_a_timeout_of_an_auth_ends_a_started_call_at_once(scripted):
    """It is not taken for the moment at which the call's thread looks whether it is held."""
    with Client(scripted) as client:
        transport, tries = client._connect().transport, []

        def start(*request):
            exchange = MemoryTransport.start(transport, *request)

            def receive(timeout_s):
                tries.append(timeout_s)
                raise Timeout("no token came in time")

            exchange.receive = receive
            return exchange

        transport.start = start
        with pytest.raises(Timeout):
            client.start_tool("x").result()
        assert len(tries) == 1
