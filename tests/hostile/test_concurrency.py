"""T223 to T229: many clients at once, and what changes under their hands.

T227 is about a client; its half on this side is here: one pipe that many threads write to.
T228 runs for two seconds, or for as many as MINIMCP_SOAK_S says.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from minimcp import Server
from tests.helpers import http_headers, modern
from tests.hostile.child import Child
from tests.hostile.support import LEGACY, Gate, Http, attacked, called


@pytest.fixture(params=[None, 1e-6], ids=["", "T229-switching"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """The case as it is, and once more with threads that change places a million times a second."""
    before = sys.getswitchinterval()
    if request.param:
        sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


def everyone(count: int, work: Any) -> list[Any]:
    """Run `work(number)` on as many threads, which start together; their failures are raised."""
    ready = threading.Barrier(count)

    def one(number: int) -> Any:
        ready.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return [each.result(300) for each in [pool.submit(one, number) for number in range(count)]]


@pytest.mark.usefixtures("switching")
def test_64_clients_with_one_id_each_have_their_own_answers_T223(http: Http) -> None:
    def client(number: int) -> list[str]:
        found = []
        with http.connect() as connection:
            for turn in range(6):
                message = modern("tools/call", 1, name="add", arguments={"a": number * 1000, "b": turn})
                reply = http.send_on(connection, message, http_headers(message))
                assert (reply.status, reply.message["id"]) == (200, 1)
                found.append(reply.message["result"]["content"][0]["text"])
        return found

    answers = everyone(64, client)
    assert answers == [[str(number * 1000 + turn) for turn in range(6)] for number in range(64)]


@pytest.mark.usefixtures("switching")
def test_one_id_many_times_in_flight_in_one_session_crosses_nothing_T224(http: Http) -> None:
    id = http.initialize()

    def client(number: int) -> Any:
        message = called("tell", id=1, text=f"text {number}")
        message["params"]["_meta"] = {"progressToken": number}
        return http.legacy(id, message).events

    for number, (progress, final) in enumerate(everyone(16, client)):
        assert progress["params"] == {"progressToken": number, "progress": 1, "total": 1, "message": f"text {number}"}
        assert final["result"]["content"][0]["text"] == f"text {number}"


@pytest.mark.usefixtures("switching")
def test_progress_of_concurrent_calls_goes_to_its_caller_T224(http: Http) -> None:
    def client(number: int) -> Any:
        return http.tool("tell", 1, meta={"progressToken": "same"}, text=f"text {number}").events

    for number, (progress, final) in enumerate(everyone(16, client)):
        assert progress["params"]["message"] == f"text {number}"
        assert final["result"]["content"][0]["text"] == f"text {number}"


@pytest.mark.parametrize("slow", ["hold", "linger"], ids=["T225-context", "T225-plain"])
def test_a_fast_call_does_not_wait_for_slow_ones(host: Any, slow: str) -> None:
    gate = Gate()
    http = host(attacked(gate, limits={"keepalive_s": 0.2}))
    message = modern("tools/call", name=slow, arguments={})
    data = json.dumps(message).encode()
    request = http.head("POST", http_headers(message), len(data)) + data
    opened = []
    for _ in range(8):
        connection = http.connect()
        connection.sendall(request)
        opened.append(connection)
    for _ in opened:
        assert gate.entered.acquire(timeout=10)
    began = time.monotonic()
    http.alive()
    assert time.monotonic() - began < 30
    gate.go.set()
    for connection in opened:
        connection.close()


@pytest.mark.usefixtures("switching")
def test_tools_come_and_go_while_everyone_lists_and_calls_T226(host: Any) -> None:
    server = Server("changing", "1")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.resource("fixed://one")
    def one() -> str:
        return "one"

    @server.prompt
    def greet() -> str:
        return "hello"

    http = host(server)
    over = threading.Event()
    changes = 0

    def change() -> None:
        nonlocal changes
        while not over.is_set() or changes < 20:
            for number in range(5):
                server.tool(lambda: "x", f"tool-{number}")
                server.resource(f"res://{number}", name="r")(lambda: "x")
                server.resource(f"tpl{number}://{{x}}", name="t")(lambda x: x)
                server.prompt(lambda: "x", f"prompt-{number}")
            for number in range(5):
                assert server.remove_tool(f"tool-{number}")
                assert server.remove_resource(f"res://{number}")
                assert server.remove_resource(f"tpl{number}://{{x}}")
                assert server.remove_prompt(f"prompt-{number}")
            changes += 1

    def client(number: int) -> None:
        for turn in range(4):
            for method, key in (
                ("tools/list", "tools"),
                ("resources/list", "resources"),
                ("resources/templates/list", "resourceTemplates"),
                ("prompts/list", "prompts"),
            ):
                reply = http.call(modern(method, turn))
                assert reply.status == 200
                names = [
                    str(item.get("uri") or item.get("uriTemplate") or item["name"])
                    for item in reply.message["result"][key]
                ]
                assert len(names) == len(set(names))
                # A list is what was registered at one moment: the fixed first, then a run without a gap.
                rest = [name for name in names if name not in ("add", "fixed://one", "greet")]
                digits = [int("".join(filter(str.isdigit, name))) for name in rest]
                assert digits == list(range(digits[0], digits[-1] + 1)) if digits else True
            assert http.tool("add", turn, a=number, b=turn).message["result"]["content"][0]["text"] == str(
                number + turn
            )
            gone = http.tool("tool-3", turn)
            assert gone.status == 200 or gone.code == -32602

    changer = threading.Thread(target=change)
    with http.open(modern("subscriptions/listen", "l", notifications={"toolsListChanged": True})) as listening:
        assert listening.event()["method"] == "notifications/subscriptions/acknowledged"
        changer.start()
        try:
            everyone(32, client)
        finally:
            over.set()
            changer.join(120)
        assert not changer.is_alive()
        assert listening.event()["method"] == "notifications/tools/list_changed"
    names = [tool["name"] for tool in http.call(modern("tools/list")).message["result"]["tools"]]
    assert names == ["add"]


def test_many_threads_on_one_pipe_have_every_answer_once_T227() -> None:
    with Child() as child:
        lock = threading.Lock()

        def writer(number: int) -> None:
            for turn in range(20):
                message = modern("tools/call", number * 100 + turn, name="add", arguments={"a": number, "b": turn})
                with lock:
                    child.send(message)

        with ThreadPoolExecutor(1) as pool:
            wrote = pool.submit(everyone, 50, writer)
            answers = [child.next() for _ in range(1000)]
            wrote.result(120)
        assert len({answer["id"] for answer in answers}) == 1000
        for answer in answers:
            assert answer["result"]["content"][0]["text"] == str(answer["id"] // 100 + answer["id"] % 100)
        child.alive()
        assert child.end() == 0


def test_a_while_of_mixed_load_leaves_nothing_behind_T228(host: Any) -> None:
    seconds = float(os.environ.get("MINIMCP_SOAK_S", "2"))
    server = attacked(Gate(), limits={"keepalive_s": 0.2, "sessions": 50})
    http = host(server)
    http.alive()
    gc.collect()
    threads, files = threading.active_count(), _files()
    until = time.monotonic() + seconds
    slow: list[list[float]] = [[] for _ in range(8)]

    def client(number: int) -> int:
        calls = 0
        while calls == 0 or time.monotonic() < until:
            began = time.monotonic()
            assert http.tool("add", a=calls, b=1).message["result"]["content"][0]["text"] == str(calls + 1)
            slow[number].append(time.monotonic() - began)
            http.tool("steps", meta={"progressToken": 1}, count=20)
            http.tool("fail", how="value")
            http.legacy(http.initialize(), called("tell", text="x"))
            with http.open(modern("subscriptions/listen", notifications={"toolsListChanged": True})) as listening:
                listening.event()
            http.send(b"{", LEGACY)
            calls += 1
        return calls

    assert sum(everyone(8, client)) >= 8
    pause, patience = threading.Event(), time.monotonic() + 30
    while threading.active_count() > threads or _files() > files or server.engine._streams:
        assert time.monotonic() < patience, f"{threading.active_count() - threads} threads, {_files() - files} files"
        pause.wait(0.05)
    if seconds >= 30:
        first = statistics.quantiles([each for one in slow for each in one[: len(one) // 12]], n=100)[98]
        last = statistics.quantiles([each for one in slow for each in one[-len(one) // 12 :]], n=100)[98]
        assert last < 3 * first


def _files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
