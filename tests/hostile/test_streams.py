"""T098 to T107: what flows out of a call, and clients that stop reading or leave."""

from __future__ import annotations

import json
import re
import threading
import time
import tracemalloc
from typing import Any

import pytest

from minimcp import Context, Server
from minimcp.transports.outbox import Outbox
from tests.helpers import http_headers, modern
from tests.hostile.support import LEGACY, Gate, Http, attacked, called, clean, message_of, read_reply

TOKEN = {"progressToken": "mine"}
TEXTS = {
    "newline": "a\nb",
    "return": "a\rb\r\nc",
    "blank lines": "\n\n\n",
    "data lines": "data: x\n\nid: 7\nevent: end\n\n: comment\n\ndata: {}",
    "separators": "a\u2028b\u2029c\u0085d\x0b\x0c\x1c\x1d\x1ee",
    "nul": "a\0b",
    "long": "0123456789" * 30_000,
    "emoji": "\U0001f600\ufeff\uffff",
    "control": "\x1b[31m\x7f",
}


@pytest.mark.parametrize("name", TEXTS, ids=lambda name: f"T098-{name}")
def test_text_arrives_exactly_on_a_stream_and_as_json(http: Http, name: str) -> None:
    text = TEXTS[name]
    streamed = http.tool("tell", meta=TOKEN, text=text)
    progress, final = streamed.events
    assert progress["params"]["message"] == text
    assert final["result"]["content"] == [{"type": "text", "text": text}]
    assert streamed.body.count(b"data: ") - text.count("data: ") * 2 == 2
    assert http.tool("echo", text=text).message["result"]["content"] == [{"type": "text", "text": text}]


def test_nothing_follows_the_final_response_T099(http: Http) -> None:
    message = modern("tools/call", 4, meta=TOKEN, name="steps", arguments={"count": 3})
    data = json.dumps(message).encode()
    with http.connect() as connection:
        connection.sendall(http.head("POST", http_headers(message), len(data)) + data)
        reply = read_reply(connection)
        assert reply.events[-1]["id"] == 4
        assert reply.body.endswith(b"}\n\n")
        # The connection is still in step: its next answer is the next request's.
        again = http.send_on(connection, modern("tools/list", 5), http_headers(modern("tools/list")))
        assert again.message["id"] == 5


def test_clients_that_vanish_are_noticed_and_their_calls_told_T100(http: Http, gate: Gate) -> None:
    before = threading.active_count()
    message = modern("tools/call", name="hold", arguments={})
    data = json.dumps(message).encode()
    connections = []
    for number in range(20):
        connection = http.connect()
        headers = http_headers(message, Accept="application/json") if number % 2 else http_headers(message)
        connection.sendall(http.head("POST", headers, len(data)) + data)
        connections.append(connection)
    for _ in connections:
        assert gate.entered.acquire(timeout=10)
    for connection in connections:
        connection.close()
    http.alive()
    for _ in connections:
        assert gate.told.acquire(timeout=20), "a handler was not told that its client had gone"
    _falls_to(before)


def test_clients_that_vanish_from_a_stream_are_noticed_T100(http: Http, gate: Gate) -> None:
    before = threading.active_count()
    opened = [http.open(modern("tools/call", meta=TOKEN, name="flood", arguments={})) for _ in range(5)]
    for response in opened:
        assert gate.entered.acquire(timeout=10)
        assert response.event()["method"] == "notifications/progress"
        response.close()
    for _ in opened:
        assert gate.told.acquire(timeout=10), "a handler was not told that its client had gone"
    _falls_to(before)


def test_a_client_that_stops_reading_is_given_up_and_others_do_not_notice_T101(http: Http, gate: Gate) -> None:
    before = threading.active_count()
    response = http.open(modern("tools/call", meta=TOKEN, name="flood", arguments={}))
    with response:
        assert gate.entered.acquire(timeout=10)
        http.alive()
        assert gate.told.acquire(timeout=15), "the handler of a client that does not read goes on"
        http.alive()
    _falls_to(before)


def test_what_a_client_leaves_unread_is_bounded_in_bytes_T101() -> None:
    outbox = Outbox()
    message = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 10**6}}
    sent = threading.Semaphore(0)

    def send() -> None:
        for _ in range(50):
            outbox.send(message)
            sent.release()

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(4):
        assert sent.acquire(timeout=20)
    assert not sent.acquire(timeout=0.3) or not sent.acquire(timeout=0.3)
    outbox.offer(message)
    events, _ = outbox.take(0, 0)
    assert 4 * 1024 * 1024 < sum(len(data) for _, data in events) < 6 * 1024 * 1024
    for _ in range(4):
        assert sent.acquire(timeout=20), "the reader has made room, and the sender does not go on"
    outbox.finish()
    sender.join(10)
    assert not sender.is_alive()
    log = Outbox(number=1, limit=1000)
    ticket = log.attach()
    for _ in range(50):
        log.send(message)
    events, _ = log.take(0, 0, ticket)
    assert sum(len(data) for _, data in events) < 5 * 1024 * 1024
    assert events[-1][0] == 50


def test_a_silent_call_becomes_a_stream_with_comments_T102(host: Any, gate: Gate) -> None:
    http = host(attacked(gate, limits={"keepalive_s": 0.1, "silence_s": 0.2}))
    response = http.open(modern("tools/call", name="hold", arguments={}))
    with response:
        assert gate.entered.acquire(timeout=20)
        assert response.headers["Content-Type"] == "text/event-stream"
        assert [response.readline() for _ in range(4)] == [b":\n", b"\n", b":\n", b"\n"]
    assert gate.told.acquire(timeout=20)


def test_a_silent_legacy_call_becomes_a_stream_with_comments_and_survives_its_client_T102(
    host: Any, gate: Gate
) -> None:
    """Before 2026-07-28 a disconnect does not cancel a call (BASE-128): the client comes back for the answer."""
    http = host(attacked(gate, limits={"keepalive_s": 0.1, "silence_s": 0.2}))
    headers = {**LEGACY, "Mcp-Session-Id": http.initialize()}
    response = http.open(called("hold", id=7), **headers)
    with response:
        assert gate.entered.acquire(timeout=20)
        lines = [response.readline() for _ in range(6)]
    assert lines[:4] == [b"id: 1-0\n", b"retry: 500\n", b"data: \n", b"\n"]
    assert lines[4:] == [b":\n", b"\n"]
    assert not gate.told.acquire(timeout=0.3)
    response = http.open(None, "GET", **{**headers, "Last-Event-ID": "1-0"})
    with response:
        http.legacy(
            headers["Mcp-Session-Id"],
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}},
        )
        assert gate.told.acquire(timeout=20)
        assert response.event() is None


@pytest.mark.parametrize("era", ["modern", "listen", "legacy", "get"], ids=lambda era: f"T103-{era}")
def test_the_headers_of_a_stream(http: Http, era: str) -> None:
    session = {**LEGACY, "Mcp-Session-Id": http.initialize()}
    tell = called("tell", text="x")
    tell["params"]["_meta"] = TOKEN
    opened = {
        "modern": lambda: http.open(modern("tools/call", meta=TOKEN, name="tell", arguments={"text": "x"})),
        "listen": lambda: http.open(modern("subscriptions/listen", notifications={"toolsListChanged": True})),
        "legacy": lambda: http.open(tell, **session),
        "get": lambda: http.open(None, "GET", **session),
    }
    response = opened[era]()
    with response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert "no-cache" in response.headers["Cache-Control"]
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Content-Length"] is None


FAILED = ["value", "memory", "recursion", "tool", "object", "cycle", "huge", "keys"]


@pytest.mark.parametrize("how", FAILED, ids=lambda how: f"T104-{how}")
def test_a_handler_that_raises_or_returns_nonsense_is_an_error_under_its_id(http: Http, how: str) -> None:
    for reply in (http.tool("fail", "x7", how=how), http.tool("fail_late", "x7", meta=TOKEN, how=how)):
        assert reply.status == 200
        assert reply.last["id"] == "x7"
        if "result" in reply.last:
            assert reply.last["result"]["isError"] is True
        else:
            assert reply.last["error"]["code"] == -32603
        assert b"secret text" not in reply.body
        assert (b"say this" in reply.body) == (how == "tool")


def test_a_handler_that_exits_is_an_internal_error_and_the_server_stays_T104(http: Http) -> None:
    for reply in (http.tool("fail", 8, how="exit"), http.tool("fail_late", 8, meta=TOKEN, how="exit")):
        assert reply.last["id"] == 8
        assert reply.last["error"]["code"] == -32603
    session = http.initialize()
    assert http.legacy(session, called("fail", how="exit")).message["error"]["code"] == -32603
    assert http.legacy(session, called("fail_late", how="exit")).last["error"]["code"] == -32603


@pytest.mark.parametrize("legacy", [False, True], ids=["T105-modern", "T105-legacy"])
def test_progress_rises_belongs_to_its_caller_and_precedes_the_result(http: Http, legacy: bool) -> None:
    if legacy:
        message = called("steps", count=200)
        message["params"]["_meta"] = TOKEN
        events = http.legacy(http.initialize(), message).events
    else:
        events = http.tool("steps", meta=TOKEN, count=200).events
    *progress, final = events
    assert final["result"]["content"][0]["text"] == "done"
    assert {event["method"] for event in progress} == {"notifications/progress"}
    assert {event["params"]["progressToken"] for event in progress} == {"mine"}
    assert [event["params"]["progress"] for event in progress] == list(range(1, 201))


def test_progress_that_was_not_asked_for_is_not_sent_T105(http: Http) -> None:
    reply = http.tool("steps", count=200)
    assert reply.header("Content-Type") == "application/json"


@pytest.mark.parametrize("how", ["nan", "nan text", "raw nan"], ids=lambda how: f"T106-{how}")
def test_a_result_that_is_not_a_number_is_an_error(http: Http, how: str) -> None:
    for reply in (http.tool("fail", 3, how=how), http.tool("fail_late", 3, meta=TOKEN, how=how)):
        assert reply.last["id"] == 3
        assert b"NaN" not in reply.body
        assert b"Infinity" not in reply.body
        if "result" in reply.last:
            assert reply.last["result"]["isError"] is True
        else:
            assert reply.last["error"]["code"] == -32603


@pytest.mark.parametrize("how", ["surrogate", "surrogate name"], ids=lambda how: f"T106-{how}")
def test_a_lone_surrogate_is_written_as_an_escape(http: Http, how: str) -> None:
    expected = "a\ud800z" if how == "surrogate" else '{"\udfff":1}'
    for reply in (http.tool("fail", 3, how=how), http.tool("fail_late", 3, meta=TOKEN, how=how)):
        assert reply.last["result"]["content"][0]["text"] == expected


def test_a_notification_that_is_not_json_fails_its_handler_and_is_not_sent_T106(host: Any) -> None:
    server = Server("odd", "1")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    def odd(ctx: Context) -> str:
        ctx.progress(1)
        ctx.progress(float("inf"))
        return "not reached"

    http = host(server)
    progress, final = http.tool("odd", 5, meta=TOKEN).events
    assert progress["params"] == {"progressToken": "mine", "progress": 1}
    assert (final["id"], final["result"]["isError"]) == (5, True)


@pytest.mark.parametrize("streamed", [False, True], ids=["T107-json", "T107-stream"])
def test_a_large_result_arrives_whole_in_bounded_memory(host: Any, streamed: bool) -> None:
    size = 20_000_000
    server = Server("large", "1")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    def large(ctx: Context) -> str:
        ctx.progress(1)
        return "x" * size

    http = host(server)
    tracemalloc.start()
    try:
        response = http.open(modern("tools/call", meta=TOKEN if streamed else None, name="large", arguments={}))
        received, ending = 0, b""
        with response:
            while chunk := response.read(1 << 16):
                received += len(chunk)
                ending = (ending + chunk)[-400:]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < received < size + 2000
    assert re.search(rb"x+\"", ending)
    assert peak < 5 * size


def test_a_reply_that_is_sent_together_with_what_came_before_it_is_held_once_T107() -> None:
    outbox, size = Outbox(), 5_000_000
    outbox.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
    outbox.finish({"jsonrpc": "2.0", "id": 1, "result": {"text": "x" * size}})
    tracemalloc.start()
    try:
        batches = outbox.batches(0, 1.0)
        piece = next(batches)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < len(piece) < held < 1.5 * size and list(batches) == []


def test_what_a_stream_carries_is_what_a_client_reads_line_by_line_T098(http: Http) -> None:
    """An event is one data line, so that no reader needs to join or to guess."""
    response = http.open(modern("tools/call", meta=TOKEN, name="steps", arguments={"count": 5}))
    with response:
        lines = clean(response.read()).split(b"\n")
    assert all(line == b"" or line == b":" or line.startswith(b"data: {") for line in lines)
    assert [message_of(line[6:]).get("id") for line in lines if line.startswith(b"data")] == [None] * 5 + [1]


def _falls_to(count: int) -> None:
    """Wait until there are no more threads than before, and fail after a bound."""
    pause, until = threading.Event(), time.monotonic() + 30
    while threading.active_count() > count:
        assert time.monotonic() < until, f"{threading.active_count()} threads, {count} before"
        pause.wait(0.02)
