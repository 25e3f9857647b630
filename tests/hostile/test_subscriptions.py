"""T108 to T116: listen streams, their filters, and readers that do not read."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from typing import Any

import pytest

from minimcp import Principal, Server
from tests.helpers import modern
from tests.hostile.support import Gate, Http, attacked, handshake

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
ALL = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}


def listen(id: Any = 1, notifications: Any = None) -> dict[str, Any]:
    return modern("subscriptions/listen", id, notifications=ALL if notifications is None else notifications)


@pytest.mark.parametrize("accept", ["application/json", "application/*"], ids=lambda accept: f"T108-{accept}")
def test_listen_needs_a_client_that_takes_streams(http: Http, accept: str) -> None:
    reply = http.call(listen(), Accept=accept)
    assert reply.status == 406


@pytest.mark.parametrize("id", [7, "7", "\u00fc\u4e16", 2**53 + 1, "", 0, -1], ids=lambda id: "T109-" + json.dumps(id))
def test_the_first_message_is_the_acknowledgement_under_the_same_id(http: Http, id: Any) -> None:
    response = http.open(listen(id))
    with response:
        first = response.event()
    assert first["method"] == "notifications/subscriptions/acknowledged"
    found = first["params"]["_meta"][SUBSCRIPTION]
    assert (found, type(found)) == (id, type(id))
    assert first["params"]["notifications"] == ALL


@pytest.mark.parametrize(
    "notifications",
    [
        "all",
        [],
        ["toolsListChanged"],
        5,
        {"toolsListChanged": "yes"},
        {"toolsListChanged": 1},
        {"toolsListChanged": {}},
        {"resourceSubscriptions": "config://app"},
        {"resourceSubscriptions": [1]},
        {"resourceSubscriptions": [None]},
        {"resourceSubscriptions": ["not a uri"]},
        {"resourceSubscriptions": {"uri": "config://app"}},
        {"resourceSubscriptions": [f"note://{number}" for number in range(5000)]},
    ],
    ids=lambda value: "T110-" + json.dumps(value)[:40],
)
def test_a_filter_of_the_wrong_shape_is_refused(http: Http, notifications: Any) -> None:
    reply = http.call(listen(5, notifications))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32602, 5)


def test_a_missing_filter_is_refused_T110(http: Http) -> None:
    reply = http.call(modern("subscriptions/listen", 5))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32602, 5)


def test_unknown_keys_are_left_out_and_never_sent_T110(host: Any, gate: Gate) -> None:
    server = attacked(gate, limits={"keepalive_s": 0.2})
    http = host(server)
    asked = {"promptsListChanged": True, "toolsListChanged": False, "tasksListChanged": True, "x": {"y": 1}}
    response = http.open(listen(5, asked))
    with response:
        assert response.event()["params"]["notifications"] == {"promptsListChanged": True}
        for kind in ("tools", "resources", "prompts"):
            server.changed(kind)
        server.updated("config://app")
        assert response.event()["method"] == "notifications/prompts/list_changed"


def test_an_empty_filter_is_acknowledged_and_ended_T110(http: Http) -> None:
    response = http.open(listen(5, {}))
    with response:
        assert response.event()["params"]["notifications"] == {}
        assert response.event()["method"] == "notifications/cancelled"
        assert response.event()["result"]["resultType"] == "complete"
        assert response.event() is None


def test_beyond_the_cap_a_listen_is_acknowledged_empty_and_ended_T111(host: Any, gate: Gate) -> None:
    http = host(attacked(gate, limits={"keepalive_s": 0.1, "streams": 2}))
    opened = [http.open(listen(number)) for number in range(2)]
    try:
        assert [response.event()["params"]["notifications"] for response in opened] == [ALL, ALL]
        events = http.call(listen(3)).events
        assert events[0]["params"]["notifications"] == {}
        assert events[-1] == {**events[-1], "id": 3}
        assert "result" in events[-1]
    finally:
        for response in opened:
            response.close()
    _until(lambda: http.call(listen(4, {"toolsListChanged": False})).status == 200)


def test_listeners_dropped_at_once_leave_nothing_behind_T112(host: Any, gate: Gate) -> None:
    server = attacked(gate, limits={"keepalive_s": 0.2})
    http = host(server)
    http.alive()
    threads, files, listeners = threading.active_count(), _files(), len(server.engine.bus._listeners)
    opened = [http.open(listen(number)) for number in range(100)]
    for response in opened:
        assert response.event()["method"] == "notifications/subscriptions/acknowledged"
    assert len(server.engine.bus._listeners) == listeners + 100
    for response in opened:
        response.close()
    del opened, response
    gc.collect()
    _until(lambda: len(server.engine.bus._listeners) == listeners and not server.engine._streams)
    _until(lambda: threading.active_count() <= threads and _files() <= files)


def test_a_subscriber_that_never_reads_holds_nobody_up_T113(host: Any, gate: Gate) -> None:
    server = attacked(gate, limits={"keepalive_s": 0.2})
    # The eager one reads only when all is said, and must not be given up until then.
    http = host(server, send_s=120)
    wanted = {"resourceSubscriptions": [f"note://{number}" for number in range(500)]}
    lazy = http.open(listen("lazy", wanted))
    eager = http.open(listen("eager", wanted))
    with lazy, eager:
        assert eager.event()["method"] == "notifications/subscriptions/acknowledged"
        seen: set[str] = set()
        began = time.monotonic()
        for number in range(10_000):
            server.updated(f"note://{number % 500}")
        assert time.monotonic() - began < 60
        server.updated("note://499")
        while len(seen) < 500:
            seen.add(eager.event()["params"]["uri"])
        http.alive()
        # What waits for the one that never reads is at most one entry for each thing it asked for.
        assert all(len(listener._pending) <= 500 for listener in server.engine._streams)


def test_an_old_session_that_never_reads_holds_nobody_up_T113(host: Any, gate: Gate) -> None:
    server = attacked(gate, limits={"keepalive_s": 0.2})
    http = host(server)
    id = http.initialize()
    subscribe = {"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": "config://app"}}
    assert http.legacy(id, subscribe).status == 200
    response = http.open(None, "GET", **{"Accept": "text/event-stream", "Mcp-Session-Id": id})
    stream = http.open(None, "GET", "/sse", Accept="text/event-stream")
    with response, stream:
        assert stream.readline() == b"event: endpoint\n"
        path = stream.readline()[6:].strip().decode()
        for message in (handshake("2024-11-05"), {"jsonrpc": "2.0", "method": "notifications/initialized"}):
            assert http.send(message, {"Content-Type": "application/json"}, path=path).status == 202
        assert stream.event()["result"]["protocolVersion"] == "2024-11-05"
        began = time.monotonic()
        for _ in range(3000):
            server.updated("config://app")
            server.changed("tools")
        assert time.monotonic() - began < 60
        assert response.event()["method"].startswith("notifications/")


def test_a_change_right_after_the_acknowledgement_is_delivered_T114(host: Any, gate: Gate) -> None:
    server = attacked(gate)
    http = host(server)
    for number in range(20):
        response = http.open(listen(number, {"toolsListChanged": True}))
        with response:
            assert response.event()["method"] == "notifications/subscriptions/acknowledged"
            server.tool(lambda: "new", f"new-{number}")
            assert response.event() == {
                "jsonrpc": "2.0",
                "method": "notifications/tools/list_changed",
                "params": {"_meta": {SUBSCRIPTION: number}},
            }
            names = [tool["name"] for tool in http.call(modern("tools/list")).message["result"]["tools"]]
            assert f"new-{number}" in names


def test_at_shutdown_each_listen_gets_its_result_T115(host: Any, gate: Gate) -> None:
    server = attacked(gate)
    http = host(server)
    opened = [http.open(listen(f"l{number}")) for number in range(10)]
    began = time.monotonic()
    for response in opened:
        assert response.event()["method"] == "notifications/subscriptions/acknowledged"
    server.close()
    for number, response in enumerate(opened):
        with response:
            ended = response.event()
            assert ended["method"] == "notifications/cancelled"
            assert ended["params"]["requestId"] == f"l{number}"
            final = response.event()
            assert (final["id"], final["result"]["resultType"]) == (f"l{number}", "complete")
            assert final["result"]["_meta"][SUBSCRIPTION] == f"l{number}"
            assert response.event() is None
    assert time.monotonic() - began < 20


def test_a_resource_one_may_not_read_looks_like_none_T116(host: Any) -> None:
    server = Server(
        "secrets", "1", auth=[lambda request: request.header("X-User"), "public"], limits={"keepalive_s": 0.2}
    )

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.resource("open://all")
    def everybody() -> str:
        return "open"

    @server.resource("secret://ann", allow=lambda ctx: ctx.principal == Principal("ann"))
    def anns() -> str:
        return "hidden"

    http = host(server)
    asked = {"resourceSubscriptions": ["secret://ann", "open://all", "secret://nothing"]}
    response = http.open(listen(1, asked), **{"X-User": "bob"})
    with response:
        assert response.event()["params"]["notifications"] == {"resourceSubscriptions": ["open://all"]}
        server.updated("secret://ann")
        server.updated("secret://nothing")
        server.updated("open://all")
        assert response.event()["params"]["uri"] == "open://all"
    response = http.open(listen(1, asked), **{"X-User": "ann"})
    with response:
        acknowledged = response.event()["params"]["notifications"]
        assert acknowledged == {"resourceSubscriptions": ["secret://ann", "open://all"]}
    hidden = http.call(modern("resources/read", uri="secret://ann"), X_User="bob").message["error"]
    unknown = http.call(modern("resources/read", uri="secret://nix"), X_User="bob").message["error"]
    assert (hidden["code"], hidden["message"]) == (-32602, "Resource not found")
    assert (unknown["code"], unknown["message"]) == (-32602, "Resource not found")


def _files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def _until(happened: Any, bound_s: float = 30) -> None:
    """Wait for something, and fail after a bound."""
    pause, until = threading.Event(), time.monotonic() + bound_s
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        pause.wait(0.02)
