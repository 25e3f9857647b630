"""A 2025-11-25 call that closes its own stream, and the client that comes back for the rest."""

from __future__ import annotations

import json
import threading

from minimcp import Context, Server
from tests.helpers import BOTH, exchange, serving

HEADERS = {"Content-Type": "application/json", "Accept": BOTH}


def open_session(url: str) -> dict[str, str]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "poller", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    with exchange(url, message, HEADERS) as response:
        assert response.status == 200
        return {**HEADERS, "Mcp-Session-Id": response.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-11-25"}


def call(name: str) -> dict:
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name}}


def test_a_call_that_closes_its_stream_before_it_said_anything_is_primed_and_answered_on_the_next_stream() -> None:
    server, came_back = Server("polled"), threading.Event()

    @server.tool
    def leave(ctx: Context) -> str:
        ctx.close_stream(retry_ms=20)
        assert came_back.wait(20)
        return "welcome back"

    with serving(server.wsgi) as url:
        headers = open_session(url + "/mcp")
        with exchange(url + "/mcp", call("leave"), headers) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            # Read to its end, though the call still runs.
            assert response.read() == b"id: 1-0\nretry: 500\ndata: \n\nretry: 20\n\n"
        came_back.set()
        with exchange(url + "/mcp", None, {**headers, "Last-Event-ID": "1-0"}, "GET") as response:
            assert response.status == 200
            data = [line[6:] for line in response.read().splitlines() if line.startswith(b"data: {")]
    assert [json.loads(line) for line in data] == [
        {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "welcome back"}]}}
    ]


def test_a_call_that_closes_nothing_and_says_nothing_is_answered_in_json() -> None:
    server = Server("polled")

    @server.tool
    def stay(ctx: Context) -> str:
        return "still here"

    with serving(server.wsgi) as url:
        headers = open_session(url + "/mcp")
        with exchange(url + "/mcp", call("stay"), headers) as response:
            assert response.headers["Content-Type"] == "application/json"
            assert json.loads(response.read())["result"]["content"] == [{"type": "text", "text": "still here"}]
